"""Hostile names in what goes to other programs and to people who look on: metrics, pages, the log.

Each output is read back by a parser of its own; it holds the names as they were, or written out.
"""

from __future__ import annotations

import io
import logging
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import Phase, example, given, settings

import eventperf
from console_asks import assert_harmless, everything, get
from eventperf._core.logs import Lines, hush, logger
from eventperf._core.texts import one_line
from eventperf.cache import CacheManager
from eventperf.cli.main import main
from eventperf.contrib.console import Console
from eventperf.contrib.logging import LoggingSink
from eventperf.queues import QueueManager
from eventperf.queues.events import JobEvent
from eventperf.scaling import AutoScaler, CallableMetrics, SimulatedTarget, TargetTracking
from eventperf.scaling.alerts.episodes import LogAlerts
from eventperf.scaling.model import Alert, ScalingDecision
from eventperf.scaling.serving.board import Board
from eventperf.scaling.serving.pages import respond
from hostile import NAMES

FEW = settings(max_examples=20, deadline=None, phases=[Phase.explicit, Phase.generate])


@dataclass(frozen=True, slots=True)
class Seen:
    queue: str
    type: str
    namespace: str
    target: str
    wait_s: float = 0.5


@dataclass(frozen=True, slots=True)
class Stats:
    name: str
    hits: int = 3


class Reads:
    def __init__(self, *names: str) -> None:
        self.names = names

    def stats(self) -> Stats:
        return Stats(self.names[0])

    def status(self) -> list[Stats]:
        return [Stats(name) for name in self.names]


@FEW
@given(name=NAMES, other=NAMES)
def test_metrics_are_read_back_as_the_names_they_were_made_of(name: str, other: str) -> None:
    prom = pytest.importorskip("prometheus_client")
    from prometheus_client.openmetrics.exposition import generate_latest as as_openmetrics
    from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
    from prometheus_client.parser import text_string_to_metric_families as read

    from eventperf.contrib.prometheus import PrometheusSink, StatsCollector

    registry = prom.CollectorRegistry()
    StatsCollector(caches={name: Reads(name)}, queues=Reads(name, f"{other}2"), registry=registry)
    PrometheusSink(registry)(Seen(queue=name, type=other, namespace=name, target=other))
    shown = one_line(name), one_line(other)
    for made, parse in ((prom.generate_latest, read), (as_openmetrics, read_openmetrics)):
        samples = [s for family in parse(made(registry).decode()) for s in family.samples]
        labels = [s.labels for s in samples if s.name == "eventperf_events_total"]
        assert [(x["queue"], x["type"], x["namespace"], x["target"]) for x in labels] == [2 * shown]
        assert [s.labels for s in samples if s.name == "eventperf_cache_hits"] == [{"cache": shown[0]}]
        queues = [s.labels["queue"] for s in samples if s.name == "eventperf_queue_hits"]
        assert queues == [shown[0], f"{shown[1]}2"]
        assert {s.name.partition("_")[0] for s in samples} == {"eventperf"}


@FEW
@given(name=NAMES)
@example(name="*/")
def test_the_metrics_of_scale_serve_are_read_back(name: str) -> None:
    pytest.importorskip("prometheus_client")
    from prometheus_client.parser import text_string_to_metric_families as read

    scaler = _scaler(name)
    board = Board([name])
    board.put(scaler.tick())
    status, _, text = respond(board, "GET", "/metrics")
    assert status == 200
    samples = [s for family in read(text.encode().decode()) for s in family.samples]
    shown = name.encode("utf-8", "replace").decode()
    namespace, _, rest = shown.partition("/")
    assert {(s.labels["namespace"], s.labels["target"]) for s in samples} == {(namespace, rest or shown)}


def _scaler(name: str) -> AutoScaler:
    metrics = CallableMetrics(rps=lambda: 100.0)
    return AutoScaler(SimulatedTarget(2, name=name), metrics, TargetTracking(rps=50), max_replicas=9)


def _pages(name: str, text: str) -> list[Any]:
    cache, queues = CacheManager(), QueueManager("memory://")
    cache.set(name, text)
    whole = text.encode("utf-8", "replace").decode()  # half a character is refused
    queues.enqueue("t", {"a": whole}, id="one", headers={"h": whole})
    scaler = _scaler(name)
    scaler.tick()
    console = Console(queues=queues, cache=cache, scaler=scaler, may=everything)
    asks: list[tuple[str, dict[str, str]]] = [
        ("/", {}), ("/queues", {}), ("/queues", {"job": "one"}), ("/queues", {"tag": text, "type": name}),
        ("/cache", {}),
        ("/cache", {"key": name, "in": cache.namespace}), ("/scaling", {}), (f"/{name}", {"x": text}),
    ]  # fmt: skip
    return [assert_harmless(get(console, path, **query)) for path, query in asks]


PLAIN = _pages("name", "text")


@settings(max_examples=4, deadline=None, phases=[Phase.explicit, Phase.generate])
@given(name=NAMES, text=NAMES)
def test_pages_of_the_console_have_the_same_elements_whatever_the_names(name: str, text: str) -> None:
    for page, plain in zip(_pages(name, text), PLAIN, strict=True):
        assert {tag for tag, _ in page.tags} == {tag for tag, _ in plain.tags}
        for tag, attributes in page.tags:
            assert set(attributes) <= {a for t, given_ in plain.tags if t == tag for a in given_}
            link = attributes.get("href") or attributes.get("action") or ""
            assert link.startswith(("/ops", "#", "?", "")), link
            assert not re.match(r"(?i)\s*(javascript|data|//)", link)
        assert not re.search("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]", page.text)


def _logged(act: Any, name: str = "eventperf.names") -> list[str]:
    out = io.StringIO()
    handler = logging.StreamHandler(out)
    handler.terminator = "\0"
    log = logging.getLogger(name)
    log.addHandler(handler)
    before = log.level
    log.setLevel(logging.DEBUG)
    try:
        act()
    finally:
        log.removeHandler(handler)
        log.setLevel(before)
    return out.getvalue().split("\0")[:-1]


@FEW
@given(name=NAMES)
def test_a_line_of_any_logger_of_ours_is_one_line(name: str) -> None:
    log = logger("eventperf.names")
    lines = _logged(lambda: log.warning("%s of %r at %d: %s", name, name, 7, ValueError(name)))
    assert lines == [f"{one_line(name)} of {name!r} at 7: {one_line(name)}"]
    (lines,) = _logged(lambda: log.warning("here:\n%s", Lines(f"{name}\nsecond")))
    assert all(line.isprintable() for line in lines.split("\n"))
    assert lines.split("\n")[-1] == "second"


@FEW
@given(name=NAMES)
def test_what_the_library_itself_logs_of_hostile_names_is_one_line_each(name: str) -> None:
    alert = Alert(at=1.0, target=name, kind="k", text=name)
    for line in _logged(lambda: LogAlerts("eventperf.names")(alert)):
        assert line.isprintable()
    sink = LoggingSink(logging.getLogger("eventperf.names"), private=True)
    for line in _logged(
        lambda: sink(JobEvent(kind="failed", job_id=name, type=name, queue=name, error=name))
    ):
        assert line.isprintable()
    decision = ScalingDecision(at=1.0, target=name, before=1, wanted=2, after=2, reason=name)
    told = replace(decision, blind={name: name}, warnings={"w": name}, error=name).explain()
    assert told.replace("\n", "").isprintable()
    assert told.count("\n") == (3 if name else 2)


def test_every_logger_of_the_library_shows_names_as_data() -> None:
    """Its own log lines go through one door; what is left is the application's, or a demonstration."""
    root = Path(eventperf.__file__).parent
    others = ("_core/logs.py", "testing/", "cli/demo/", "contrib/logging.py", "scaling/alerts/episodes.py")
    others += ("queues/working/logs.py",)
    for file in sorted(root.rglob("*.py")):
        if not str(file.relative_to(root)).startswith(others):
            assert "getLogger(" not in file.read_text(encoding="utf-8"), file


def test_a_library_is_hushed_once() -> None:
    name = "a-library-of-its-own"
    hush(name)
    hush(name)
    assert len(logging.getLogger(name).filters) == 1


def test_a_traceback_that_would_steer_a_terminal_is_shown_as_text() -> None:
    def fail(text: str) -> None:
        try:
            raise ValueError(text)
        except ValueError:
            logger("eventperf.names").exception("failed")

    (line,) = _logged(lambda: fail("\x1b]0;pwn\x07 \u202e"))
    assert "\x1b" not in line
    assert r"ValueError: \x1b]0;pwn\x07 \u202e" in line
    (line,) = _logged(lambda: fail("harmless"))
    assert line.endswith("ValueError: harmless")


COMMANDS = (
    ["queue", "status"],
    ["queue", "ping"],
    ["doctor", "--cache"],
    ["cache", "stats"],
    ["db", "health"],
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
@pytest.mark.parametrize("url", ["u:PWSECRET@h", "redis:/u:PWSECRET@h", "rediz://u:PWSECRET@h"])
def test_an_address_that_is_none_shows_no_password(
    command: list[str], url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*command, url]) != 0
    out = capsys.readouterr()
    assert "PWSECRET" not in out.out + out.err
