"""What probes are told, whenever the worker's loop answers; and a heart that has stopped for good."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from eventperf.queues.protocols import Renewed, WorkerCard, WorkerFacts
from eventperf.queues.working import health
from eventperf.queues.working.contact import RENEWING, Contact
from eventperf.queues.working.heartbeat import Heartbeat


class Loop:
    """Stands for a worker: its loop answers at once, when told to, or never."""

    def __init__(self) -> None:
        self.facts = WorkerFacts(worker="w", slots=2)
        self.runs = True
        self.answers = True
        self.asked: list[Callable[[WorkerFacts], object]] = []

    def ask(self, tell: Callable[[WorkerFacts], object]) -> bool:
        if not self.runs:
            return False
        self.asked.append(tell)
        if self.answers:
            self.answer()
        return True

    def answer(self) -> None:
        while self.asked:
            self.asked.pop(0)(self.facts)


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Loop:
    monkeypatch.setattr(health, "_ANSWER_S", 0.0)
    return Loop()


def test_each_report_is_new_though_the_loop_answers_before_ask_returns(loop: Loop) -> None:
    pulse = health.Pulse(loop)  # type: ignore[arg-type]
    assert pulse.report().is_ready
    loop.facts = WorkerFacts(worker="w", slots=2, running=2, stopping="stopped")
    report = pulse.report()
    assert (report.is_ready, report.running) == (False, 2)
    loop.facts = WorkerFacts(worker="w", slots=2, running=2, hung=2)
    assert not pulse.report().is_live


def test_silence_counts_from_the_first_question(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(health.time, "monotonic", lambda: now[0])
    pulse = health.Pulse(loop)  # type: ignore[arg-type]
    loop.answers = False
    assert pulse.report().is_live
    now[0] += health.PATIENCE_S / 2
    assert pulse.report().is_live
    now[0] += health.PATIENCE_S / 2
    assert not pulse.report().is_live
    loop.answer()
    loop.answers = True
    assert pulse.report().is_live


def test_run_that_ended_unasked_is_no_silence(loop: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(health.time, "monotonic", lambda: now[0])
    pulse = health.Pulse(loop)  # type: ignore[arg-type]
    loop.answers = False
    pulse.report()
    loop.runs = False
    now[0] += 10 * health.PATIENCE_S
    report = pulse.report()
    assert (report.is_live, report.is_ready) == (True, False)
    loop.runs = loop.answers = True
    assert pulse.report().is_ready, "the next run is asked afresh"


class SlowStore:
    """Only what a heartbeat without wake-ups calls."""

    def __init__(self) -> None:
        self.log: list[str] = []
        self.begun, self.go = threading.Event(), threading.Event()

    def renew(self, worker: str, held: Any, /) -> Renewed:
        self.log.append("renewal begins")
        self.begun.set()
        self.go.wait(30)
        self.log.append("renewal ends")
        return Renewed()


def test_no_renewal_lands_after_close() -> None:
    store = SlowStore()
    card = WorkerCard(id="w", types=frozenset(("x",)), room_by_queue={"normal": 1}, slots=1, lease_s=0.03)
    heart = Heartbeat(
        store,  # type: ignore[arg-type]
        card,
        {},
        poll_s=1.0,
        on_wake=lambda: None,
        on_renewed=lambda answer, asked: None,
        contact=Contact("w", lambda up: None),
    )
    heart.start()
    assert store.begun.wait(30)
    threading.Timer(0.2, store.go.set).start()
    heart.close()
    store.log.append("closed")
    heart.join(30)
    assert store.log == ["renewal begins", "renewal ends", "closed"]


def test_a_worker_without_a_job_renews_once_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be a thousand idle workers; what is known of one lasts for three leases."""
    now, renewed, held = [0.0], list[float](), dict[str, int]()
    monkeypatch.setattr("eventperf.queues.working.heartbeat.time.monotonic", lambda: now[0])

    class Store:
        def renew(self, worker: str, held: Any, /) -> Renewed:
            renewed.append(now[0])
            return Renewed()

    card = WorkerCard(id="w", types=frozenset(("x",)), room_by_queue={"normal": 1}, slots=1, lease_s=15.0)
    contact = Contact("w", lambda up: None)
    heart = Heartbeat(
        Store(),  # type: ignore[arg-type]
        card,
        held,
        poll_s=1.0,
        on_wake=lambda: None,
        on_renewed=lambda answer, asked: None,
        contact=contact,
    )

    def turns(first: int, last: int) -> list[float]:
        renewed.clear()
        for now[0] in range(first, last, 5):
            heart._beat()
        return renewed

    assert turns(0, 60) == [0, 15, 30, 45]
    held["a"] = 1
    assert turns(60, 75) == [60, 65, 70]
    held.clear()
    contact.refused(RENEWING, OSError("away"))
    assert turns(75, 90) == [75], "what is refused is asked for again at the next turn, job or no job"
