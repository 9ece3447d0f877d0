"""What a worker and its callers say and do while their store does not answer."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from eventperf.queues import QueueManager, StoreUnavailable, waiting
from eventperf.queues.job import JobRecord, Lease
from eventperf.queues.protocols import Renewed, WorkerCard
from eventperf.queues.working.acks import Acks
from eventperf.queues.working.contact import CLAIMING, RENEWING, REPORTING, Contact
from eventperf.queues.working.heartbeat import Heartbeat, _Turn
from eventperf.queues.working.texts import is_wordy
from faults import wait_until

LOST, BACK = "lost its store", "has its store again"


def test_outage_is_said_once_and_its_end_once(caplog: pytest.LogCaptureFixture) -> None:
    changes: list[bool] = []
    contact = Contact("w", changes.append)
    for _ in range(3):
        for what in (REPORTING, RENEWING, REPORTING, CLAIMING):
            contact.refused(what, StoreUnavailable("out of memory"))
        for what in (CLAIMING, REPORTING, CLAIMING):
            contact.taken(what)
        assert contact.is_lost, "one of them is still refused"
        contact.taken(RENEWING)
        assert not contact.is_lost
    assert changes == [False, True] * 3
    said = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert [(LOST in text, BACK in text) for text in said] == [(True, False), (False, True)] * 3


class Silent:
    """A backend whose calls would end by themselves, long after the caller's patience."""

    name = "Redis"
    answer_s = 3600.0


def test_caller_is_not_made_to_wait_for_the_time_outs_of_the_store(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK_S", 0.02)
    frozen = threading.Event()
    try:
        with pytest.raises(StoreUnavailable, match="has not answered"):
            waiting.within(Silent(), 0.0, lambda: frozen.wait(60))  # type: ignore[arg-type]
    finally:
        frozen.set()
    assert waiting.within(Silent(), 30.0, lambda: 7) == 7  # type: ignore[arg-type]
    with pytest.raises(TimeoutError, match="its own"):
        waiting.within(Silent(), 30.0, lambda: _raise(TimeoutError("its own")))  # type: ignore[arg-type]


def _raise(error: Exception) -> None:
    raise error


def test_task_is_not_made_to_wait_for_them_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "LOOK_S", 0.02)

    class Face:
        async def fetch(self, ids: Any) -> Any:
            await asyncio.Event().wait()

    class Frozen(Silent):
        def aio(self) -> Face:
            return Face()

    with pytest.raises(StoreUnavailable, match="has not answered"):
        asyncio.run(waiting.ended(Frozen(), "a", 0.0))  # type: ignore[arg-type]


def test_stall_of_the_store_is_not_blamed_on_handlers(caplog: pytest.LogCaptureFixture) -> None:
    asked, go_on, calls = threading.Event(), threading.Event(), []

    class Slow:
        def renew(self, worker: str, held: Any, /) -> Renewed:
            calls.append(worker)
            if len(calls) == 1:
                asked.set()
                assert go_on.wait(60)
            return Renewed(lost=["gone"])

    card = WorkerCard(id="w", types=frozenset("t"), room_by_queue={"normal": 1}, slots=1, lease_s=0.3)
    heart = Heartbeat(
        Slow(),  # type: ignore[arg-type]
        card,
        {"gone": 1},
        poll_s=1.0,
        on_wake=lambda: None,
        on_renewed=lambda answer, sent: None,
        contact=Contact("w", lambda up: None),
    )
    heart.start()
    try:
        assert asked.wait(30)
        threading.Event().wait(0.6)  # well over half a lease beyond the next renewal
        go_on.set()
        wait_until(lambda: "stood still" in caplog.text, 30)
    finally:
        go_on.set()
        heart.close()
        heart.join(30)
    (said,) = [r.getMessage() for r in caplog.records if "stood still" in r.getMessage()][:1]
    assert "its store answered late" in said
    assert "lost meanwhile: gone" in said


def test_computing_is_what_holds_the_interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr("time.process_time", lambda: now[0])
    turn = _Turn()
    now[0] = 7.0
    assert "a call in a handler" in turn.why(7.5, 7.4), "the answer was there, nobody could read it"
    now[0] = 0.1
    assert "no handler's fault" in turn.why(7.5, 7.4)


@pytest.mark.parametrize("is_new", [False, True])
def test_outcome_goes_out_under_the_lease_its_job_has_by_now(is_new: bool) -> None:
    """A worker is handed a job whose end it is reporting: its lease had ended, or it runs anew."""
    sent: list[int] = []
    settled: list[int] = []
    again: list[int] = []
    asked = asyncio.Event()

    class Store:
        async def finish(self, outcomes: Any) -> list[bool]:
            sent.append(outcomes[0].token)
            asked.set()
            await asyncio.sleep(0)
            return [is_new or outcomes[0].token == 2]

    async def main() -> None:
        from eventperf.queues.protocols import Outcome

        refused: list[Lease] = []
        store: Any = Store()
        settle, anew = (lambda lease: settled.append(lease.token)), (lambda lease: again.append(lease.token))
        acks = Acks(store, refused.append, settle, Contact("w", print), anew)
        acks.start()
        record = JobRecord(id="a", type="t", queue="normal", priority=3, payload=b"", created_at=0.0)
        acks.add(Lease(record, 1, 1), Outcome("a", 1), None)
        await asked.wait()
        assert acks.adopt(Lease(record, 2, 1)), "while the first report is under way"
        await acks.flushed()
        await acks.close()
        assert not refused

    asyncio.run(main())
    assert (sent, settled, again) == (([1], [1], [2]) if is_new else ([1, 2], [2], []))


def test_book_in_an_error_does_not_go_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with QueueManager("memory://") as queues:

        @queues.job("wordy", attempts=1)
        async def wordy(ctx: Any, data: None) -> None:
            try:
                raise KeyError("y" * 1_000_000)
            except KeyError as error:
                raise ValueError("x" * 1_000_000) from error

        job = wordy.enqueue(None)
        queues.worker().run(burst=True)
        assert job.info().error is not None
    assert "failed for good" in caplog.text
    assert len(caplog.text) < 50_000
    circle = ValueError("a")
    circle.__context__ = KeyError("b")
    circle.__context__.__context__ = circle
    assert not is_wordy(circle)
