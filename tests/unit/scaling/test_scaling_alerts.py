"""Alerts: told once, in few requests, by threads of their own; secrets stay secret."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from typing import Any

import pytest

from eventperf.errors import ConfigurationError
from eventperf.scaling import (
    Alert,
    AutoScaler,
    CallableMetrics,
    LogAlerts,
    SimulatedTarget,
    SlackAlerts,
    TargetTracking,
    WebhookAlerts,
)
from eventperf.scaling.alerts.episodes import Courier
from eventperf.scaling.alerts.webhook import Outbox
from eventperf.testing.clock import FakeClock


def alert(kind: str = "blind", target: str = "web", *, recovered: bool = False, text: str = "why") -> Alert:
    return Alert(kind=kind, target=target, text=text, at=0.0, recovered=recovered)


def eventually(holds: Callable[[], object], within_s: float = 20.0) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


# -- what is told, and when -------------------------------------------------------------------------------


def test_what_comes_together_goes_together_and_then_there_is_a_pause() -> None:
    box = Outbox(quiet_s=300, every_s=2)
    box.add(alert(target="a"))
    box.add(alert(target="b"))
    assert [a.target for a in box.due(0.0)] == ["a", "b"]
    box.add(alert(target="c"))
    assert box.due(1.9) == []
    assert box.next_at() == 2.0
    assert [a.target for a in box.due(2.0)] == ["c"]


def test_an_alert_that_comes_and_goes_is_told_once_while_it_is_quiet() -> None:
    box = Outbox(quiet_s=300, every_s=1)
    told = []
    for tick in range(100):  # on and off every 15 s, on at the end of each quiet time
        box.add(alert(recovered=tick % 2 == 1))
        told += [(tick * 15.0, a.recovered) for a in box.due(tick * 15.0)]
    assert told[0] == (0.0, False)
    times = [at for at, _ in told]
    assert all(later - sooner >= 300 for sooner, later in pairwise(times))
    assert all(one[1] != other[1] for one, other in pairwise(told))


def test_the_state_at_the_end_of_the_quiet_time_is_what_is_told() -> None:
    box = Outbox(quiet_s=300, every_s=1)
    box.add(alert())
    assert len(box.due(0.0)) == 1
    box.add(alert(recovered=True))
    assert box.due(10.0) == []
    assert box.next_at() == 300.0
    assert [a.recovered for a in box.due(300.0)] == [True]


def test_a_recovery_nobody_heard_the_beginning_of_is_not_told() -> None:
    box = Outbox(quiet_s=300, every_s=1)
    box.add(alert())
    box.add(alert(recovered=True))
    assert box.due(0.0) == []


def test_memory_is_bounded_and_told_keys_are_forgotten() -> None:
    box = Outbox(quiet_s=1, every_s=0)
    for number in range(10_500):
        box.add(alert(target=str(number)))
    assert box.dropped == 500
    while box.due(0.0):
        pass
    for number in range(10_000):
        box.add(alert(target=str(number), recovered=True))
    for second in range(2, 40):
        box.due(float(second))
    assert len(box._told) < 2000


# -- sinks never hold a tick up ---------------------------------------------------------------------------


def _blind_scaler(*sinks: Callable[[Alert], object]) -> AutoScaler:
    metrics = CallableMetrics(rps=lambda: None)
    return AutoScaler(
        SimulatedTarget(2), metrics, TargetTracking(rps=1), max_replicas=4, alerts=sinks, clock=FakeClock()
    )


def test_a_stuck_sink_does_not_hold_the_ticks_nor_the_other_sinks() -> None:
    release, told = threading.Event(), []

    def stuck(alert: Alert) -> None:
        release.wait(60)

    began = time.monotonic()
    for _ in range(50):
        _blind_scaler(stuck, told.append).tick()
    took = time.monotonic() - began
    release.set()
    assert took < 20  # fifty sinks waited for would be minutes
    eventually(lambda: len(told) == 50)


def test_a_quick_sink_has_been_told_when_the_tick_ends_in_order() -> None:
    told: list[str] = []
    for number in range(20):
        Courier(lambda a: told.append(a.text)).carry(alert(text=str(number)))
    eventually(lambda: len(told) == 20)
    courier = Courier(lambda a: told.append(a.text))
    told.clear()
    for number in range(200):
        courier.carry(alert(text=str(number)))
    eventually(lambda: len(told) == 200)
    assert told == [str(number) for number in range(200)]


def test_a_sink_that_is_stuck_for_ever_fills_no_memory(caplog: pytest.LogCaptureFixture) -> None:
    release = threading.Event()

    class Pager:
        token = "s3cret"

        def __call__(self, alert: Alert) -> None:
            release.wait(60)

        def __repr__(self) -> str:
            return f"Pager({self.token})"

    courier = Courier(Pager())
    for _ in range(1200):
        courier.carry(alert())
    release.set()
    assert 190 <= courier.dropped <= 200
    assert "alerts dropped" in caplog.text
    assert "s3cret" not in caplog.text


def test_the_log_sink(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ops"):
        LogAlerts("ops")(alert())
        LogAlerts("ops")(alert(recovered=True))
    said = [(r.levelname, r.getMessage()) for r in caplog.records if r.name == "ops"]
    assert said == [("WARNING", "web alert: blind: why"), ("INFO", "web recovered: blind: why")]


# -- the wire ---------------------------------------------------------------------------------------------


class Receiver(ThreadingHTTPServer):
    """A webhook's other end: keeps what came, answers from a script, then 200."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.got: list[tuple[str, dict[str, str], Any]] = []
        self.script: list[tuple[int, dict[str, str]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/services/T0/s3cret"


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.got.append((self.path, dict(self.headers), body))
        status, headers = self.server.script.pop(0) if self.server.script else (200, {})
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    server = Receiver()
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def test_alerts_of_a_tick_arrive_as_json(receiver: Receiver) -> None:
    with WebhookAlerts(receiver.url, headers={"Authorization": "Bearer t0ken"}) as sink:
        _blind_scaler(sink).tick()
        eventually(lambda: receiver.got)
    (path, headers, body) = receiver.got[0]
    assert path == "/services/T0/s3cret"
    assert headers["Authorization"] == "Bearer t0ken"
    (told,) = body["alerts"]
    assert (told["kind"], told["target"], told["recovered"]) == ("blind", "simulated", False)
    assert sink.sent == 1


def test_five_thousand_alerts_are_a_few_requests(receiver: Receiver) -> None:
    with WebhookAlerts(receiver.url, every="10ms") as sink:
        for number in range(5000):
            sink(alert(target=f"web-{number}"))
        assert sink.close(60)
    assert sink.sent == 5000
    assert sum(len(body["alerts"]) for _, _, body in receiver.got) == 5000
    assert len(receiver.got) < 500


def test_slack_reads_text_without_mentions(receiver: Receiver) -> None:
    with SlackAlerts(receiver.url, every="1s") as sink:
        for number in range(30):
            sink(alert(target=f"web-{number:02}", text="<!channel> & co"))
        assert sink.close(60)
    texts = [body["text"] for _, _, body in receiver.got]
    assert all(set(body) == {"text"} for _, _, body in receiver.got)
    assert any("web-00* blind: &lt;!channel&gt; &amp; co" in text for text in texts)
    named = sum(text.count(":warning:") for text in texts)
    more = sum(int(text.rpartition("... and ")[2].split()[0]) for text in texts if "... and " in text)
    assert named + more == 30


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_refused_request_is_sent_again(receiver: Receiver, status: int) -> None:
    receiver.script = [(status, {"Retry-After": "0.05"})]
    with WebhookAlerts(receiver.url) as sink:
        sink(alert())
        eventually(lambda: sink.sent == 1)
    assert len(receiver.got) == 2
    assert sink.failed == 0


def test_a_refusal_or_a_redirect_is_final_and_says_nothing_of_the_secret(
    receiver: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    receiver.script = [(404, {}), (302, {"Location": receiver.url + "/elsewhere"})]
    with WebhookAlerts(receiver.url, headers={"X-Token": "t0ken"}, every="10ms") as sink:
        sink(alert(target="a"))
        eventually(lambda: sink.failed == 1)
        sink(alert(target="b"))
        eventually(lambda: sink.failed == 2)
    assert len(receiver.got) == 2
    assert "were lost: status 404" in caplog.text
    assert "s3cret" not in caplog.text + repr(sink)
    assert "t0ken" not in caplog.text + repr(sink)


def test_nobody_listening_is_logged_without_the_address(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        sink = WebhookAlerts("http://127.0.0.1:9/s3cret", timeout=1)
        sink(alert())
        eventually(lambda: "no answer" in caplog.text)
        assert sink.close(30)
    assert sink.failed == 1
    assert "s3cret" not in caplog.text


def test_a_closed_sink_takes_nothing(receiver: Receiver) -> None:
    sink = WebhookAlerts(receiver.url)
    assert sink.close()
    sink(alert())
    assert sink.close()
    assert receiver.got == []


@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("url", lambda: WebhookAlerts("file:///etc/passwd")),
        ("url", lambda: WebhookAlerts("https://user:s3cret@hooks.example.com/")),
        ("url", lambda: SlackAlerts("hooks.example.com/s3cret")),
        ("timeout", lambda: WebhookAlerts("https://hooks.example.com", timeout=0)),
        ("every", lambda: WebhookAlerts("https://hooks.example.com", every="soon")),
    ],
)
def test_bad_alert_arguments_are_named_and_secrets_are_not(argument: str, make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.argument == argument
    assert "s3cret" not in str(caught.value)
