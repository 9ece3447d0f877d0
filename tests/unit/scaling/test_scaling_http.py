"""Servers that drip, lie or send too much: an answer in time or a failed reading, whoever asks."""

from __future__ import annotations

import itertools
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventperf.errors import ConfigurationError
from eventperf.scaling import Alert, PrometheusMetrics, WebhookAlerts
from eventperf.scaling.backends.kubernetes import KubernetesApi
from eventperf.scaling.backends.kubernetes.errors import KubernetesApiError, KubernetesUnavailable

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


@contextmanager
def serving(answer: Callable[[], Iterator[bytes]]) -> Iterator[tuple[str, list[bytes]]]:
    """Send the chunks of ``answer`` to whoever connects; the requests are kept."""
    asked: list[bytes] = []
    stop = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)

        def talk(connection: socket.socket) -> None:
            with connection:
                try:
                    while not stop.is_set():
                        request = connection.recv(65536)
                        if not request:
                            return
                        asked.append(request)
                        for chunk in answer():
                            connection.sendall(chunk)
                            if stop.is_set():
                                return
                except OSError:
                    return

        def listen() -> None:
            while not stop.is_set():
                try:
                    connection = listener.accept()[0]
                except TimeoutError:
                    continue
                connection.settimeout(30)
                threads.append(threading.Thread(target=talk, args=(connection,), daemon=True))
                threads[-1].start()

        threads = [threading.Thread(target=listen, daemon=True)]
        threads[0].start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}", asked
        finally:
            stop.set()
            threads[0].join(5)


def dripping(begin: bytes, drop: bytes) -> Callable[[], Iterator[bytes]]:
    def answer() -> Iterator[bytes]:
        yield begin
        for _ in itertools.count():
            time.sleep(0.05)
            yield drop

    return answer


DRIPS = {
    "nothing but line ends": dripping(b"", b"\r\n"),
    "a status line without end": dripping(b"HTTP/1.1 200 ", b"O"),
    "headers without end": dripping(HEAD, b"X-A: b\r\n"),
    "a body without end": dripping(HEAD + b"Content-Length: 100000\r\n\r\n", b" "),
    "chunks without end": dripping(HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\n \r\n"),
}


@pytest.mark.parametrize("drip", DRIPS)
def test_a_dripping_answer_is_a_failed_reading_or_request_everywhere(drip: str) -> None:
    with serving(DRIPS[drip]) as (url, _):
        source = PrometheusMetrics(url, "up", timeout=0.3)
        sample = source.read()["rps"]
        source.close()
        assert sample.value is None
        assert sample.error
        with KubernetesApi.at(url, timeout=0.3) as api, pytest.raises(KubernetesUnavailable):
            api.request("PATCH", "/apis", body={})
        hook = WebhookAlerts(url, timeout=0.3)
        status, _ = hook._post(b"{}")
        assert status in (0, 200)  # its body is not needed


def test_a_watch_may_be_silent_longer_than_an_answer_may_take_and_the_next_request_has_its_own_time() -> None:
    def answer() -> Iterator[bytes]:
        yield HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
        for _ in range(3):
            time.sleep(0.4)
            yield b'a\r\n{"a": 12}\n\r\n'
        yield b"0\r\n\r\n"

    with serving(answer) as (url, _), KubernetesApi.at(url, timeout=0.3) as api:
        assert list(api.stream("/watch", query={}, timeout_s=5.0)) == [{"a": 12}] * 3


def test_a_connection_is_used_again_with_its_whole_time() -> None:
    body = b'{"status":"success","data":{"resultType":"scalar","result":[%d,"42"]}}'

    def answer() -> Iterator[bytes]:
        found = body % time.time()
        time.sleep(0.25)
        yield HEAD + b"Content-Length: %d\r\n\r\n" % len(found) + found

    with serving(answer) as (url, asked):
        source = PrometheusMetrics(url, "up", timeout=2)
        assert [source.read()["rps"].value for _ in range(4)] == [42.0] * 4
        source.close()
        assert b"timeout=2s" in asked[0]


@pytest.mark.parametrize(
    ("timeout", "said"),
    [(3, "3s"), (2.5, "2500ms"), ("1500ms", "1500ms"), (0.0004, "1ms"), ("1h", "3600s")],
)
def test_every_duration_reaches_prometheus_in_whole_units(timeout: Any, said: str) -> None:
    from eventperf._core.durations import seconds
    from eventperf.scaling.backends.prometheus import _spelled

    assert _spelled(seconds(timeout, name="timeout")) == said


JSON_TEXT = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
SHAPES = st.fixed_dictionaries(
    {},
    optional={
        "status": st.sampled_from(["success", "error"]) | JSON_TEXT,
        "warnings": st.lists(st.text(max_size=9)) | JSON_TEXT,
        "error": JSON_TEXT,
        "data": JSON_TEXT
        | st.fixed_dictionaries(
            {},
            optional={
                "resultType": st.sampled_from(["vector", "scalar", "matrix"]) | JSON_TEXT,
                "result": st.lists(st.fixed_dictionaries({}, optional={"value": JSON_TEXT}), max_size=2)
                | JSON_TEXT,
            },
        ),
    },
)


def test_an_answer_of_any_shape_is_a_failed_reading_or_failed_request_never_another_exception() -> None:
    body = b""

    def answer() -> Iterator[bytes]:
        yield HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body

    with serving(answer) as (url, _), KubernetesApi.at(url) as api:
        source = PrometheusMetrics(url, "up")

        @given(shape=SHAPES | JSON_TEXT)
        @settings(max_examples=150, deadline=None)
        def try_one(shape: Any) -> None:
            nonlocal body
            body = json.dumps(shape).encode()
            sample = source.read()["rps"]
            assert (sample.value is None) == bool(sample.error)

        try_one()
        for text in (b"[" * 200_000, b"{" * 9, b"\xff\xfe", b"", b"[]", b"7", b'"text"'):
            body = text
            assert source.read()["rps"].error
            try:
                api.request("GET", "/")
            except KubernetesApiError:
                continue
        source.close()


def test_an_answer_without_end_is_refused_by_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eventperf.scaling.backends.kubernetes.api._ANSWER_MAX", 1 << 16)
    monkeypatch.setattr("eventperf.scaling.backends.prometheus._ANSWER_MAX", 1 << 16)
    with serving(dripping(HEAD + b"Connection: close\r\n\r\n" + b" " * (1 << 20), b" ")) as (url, _):
        assert "more than" in str(PrometheusMetrics(url, "up").read()["rps"].error)
        with KubernetesApi.at(url) as api, pytest.raises(KubernetesUnavailable, match="more than"):
            api.request("GET", "/")


REMARK = 'PromQL info: metric might not be a counter, name does not end in _total: "hits" (1:10)'


@pytest.mark.parametrize(
    ("remarks", "value"),
    [
        ({"warnings": [REMARK]}, 42.0),
        ({"infos": [REMARK]}, 42.0),
        ({"warnings": [REMARK, "fetching from store 10.1.1.7: connection refused"]}, None),
        ({"warnings": ["partial response"], "infos": [REMARK]}, None),
    ],
)
def test_remarks_on_a_query_are_no_faults_of_its_result(remarks: dict[str, Any], value: float | None) -> None:
    def answer() -> Iterator[bytes]:
        data = {"resultType": "vector", "result": [{"metric": {}, "value": [time.time(), "42"]}]}
        body = json.dumps({"status": "success", "data": data, **remarks}).encode()
        yield HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body

    with serving(answer) as (url, _):
        source = PrometheusMetrics(url, "sum(rate(hits[1m]))")
        assert source.read()["rps"].value == value
        source.close()


SECRET = "S3cr3tPw"


@pytest.mark.parametrize("end", ["\n", "\r\n", " \n\n", "\t"])
def test_a_token_from_a_file_loses_its_line_end(end: str) -> None:
    def answer() -> Iterator[bytes]:
        yield HEAD + b"Content-Length: 2\r\n\r\n{}"

    with serving(answer) as (url, asked):
        with KubernetesApi.at(url, token=SECRET + end) as api:
            api.request("GET", "/")
        source = PrometheusMetrics(url, "up", headers={"Authorization": f"Bearer {SECRET}{end}"})
        source.read()
        source.close()
        hook = WebhookAlerts(url, headers={"Authorization": f"Bearer {SECRET}{end}"})
        hook(Alert(kind="blind", target="web", text="why", at=0.0))
        assert hook.close()
        assert b"".join(asked).lower().count(f"authorization: bearer {SECRET}\r\n".lower().encode()) == 3


@pytest.mark.parametrize("middle", ["\n", "\r\nX-Admin: 1\r\n", "\0", "\x7f", "\u2028"])
def test_a_token_that_no_header_can_hold_is_refused_without_being_shown(middle: str) -> None:
    token = f"{SECRET}{middle}{SECRET}"
    for make in (
        lambda: KubernetesApi.at("http://127.0.0.1:9", token=token),
        lambda: PrometheusMetrics("http://127.0.0.1:9", "up", headers={"Authorization": token}),
        lambda: WebhookAlerts("http://127.0.0.1:9", headers={"Authorization": token}),
    ):
        with pytest.raises(ConfigurationError) as caught:
            make()
        assert SECRET not in f"{caught.value} {caught.value!r}"
