"""The job store suite: what may stand before a job, what hangs beside it, what is said when it fails."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
import time
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.queues import Exponential, JobSpec, JobState, Limit, QueueManager

from .tools import LEASE_S, Make, Station, StoreTests, balanced, run_until, until, whole

_AHEAD = 1500


class AheadTests(StoreTests):
    """No class of jobs holds up another, whatever keeps it back."""

    def test_jobs_that_may_not_run_now_hold_up_none_that_may(self, make: Make) -> None:
        limits = [Limit(type="limited", rate=1, per="1h"), Limit(type="capped", concurrency=1)]
        with make() as queues:
            limited = "limits" in queues.backend.capabilities
        with make(limits=limits if limited else []) as queues:
            station = Station(queues, "limited", "capped", "free", lease_s=30)
            queues.enqueue_many("unknown", [None] * _AHEAD)
            if limited:
                queues.enqueue_many("limited", [None] * _AHEAD)
                queues.enqueue_many("capped", [None] * _AHEAD)
            mine = queues.enqueue_many("free", [None] * 3)
            taken: list[Any] = []
            for _ in range(8):
                taken += station.take(5)
            found = [lease.record.type for lease in taken]
            assert {lease.record.id for lease in taken if lease.record.type == "free"} == {j.id for j in mine}
            assert (found.count("limited"), found.count("capped")) == ((1, 1) if limited else (0, 0))
            newcomer = queues.enqueue("free")
            assert newcomer.id in station.ids(5), "one that comes later passes them at once"
            assert balanced(queues.status())

    def test_cancelled_chain_of_any_length_is_counted(self, queues: QueueManager) -> None:
        if "flows" not in queues.backend.capabilities:
            pytest.skip("chains are refused, as they must")
        first = queues.enqueue("t", delay=60)
        names = [f"[{first.id}]c-{n}" for n in range(1199)]
        specs = [JobSpec(type="t", id=name, after=[last]) for last, name in pairwise([first.id, *names])]
        jobs = [first, *queues.enqueue_many(specs)]
        assert first.cancel()
        assert sum(s.cancelled for s in queues.status()) == len(jobs)
        assert jobs[-1].info().state is JobState.CANCELLED
        assert balanced(queues.status())

    def test_dead_job_that_is_put_back_obeys_its_unique_key(self, queues: QueueManager) -> None:
        dead = queues.enqueue("t", unique_key="k")
        station = Station(queues, "t", lease_s=30)
        assert station.end(station.take()[0], "dead", error="x")
        newer = queues.enqueue("t", unique_key="k")
        assert newer.id != dead.id
        assert not queues.retry(dead.id)
        assert queues.replay("normal") == 0
        assert station.end(station.take()[0])
        assert queues.retry(dead.id), "once nobody holds the key"
        assert queues.enqueue("t", unique_key="k").duplicate, "it holds the key again"

    def test_any_number_of_ids_may_be_put_back_at_once(self, queues: QueueManager) -> None:
        first, second = queues.enqueue_many("t", [1, 2])
        station = Station(queues, "t", lease_s=30)
        for lease in station.take():
            assert station.end(lease, "dead", error="x")
        ids = [first.id, *(f"unknown-{n}" for n in range(2_500)), second.id]
        assert queues.replay("normal", []) == queues.replay("normal", ids, limit=0) == 0
        assert queues.replay("normal", ids, limit=1) == 1
        assert queues.replay("normal", ids) == 1
        assert balanced(queues.status())

    @pytest.mark.parametrize("seed", range(3))
    def test_of_one_key_at_most_one_job_is_open_whatever_happened(
        self, queues: QueueManager, seed: int
    ) -> None:
        """``unique_for="running"`` through ends, retries, cancels and replays of every kind, in any order."""
        random, station = Random(seed), Station(queues, "t", lease_s=30)
        ids, leases = set[str](), list[Any]()

        def enqueue() -> None:
            delay = random.choice([None, 0.001])
            ids.add(queues.enqueue("t", unique_key="k", unique_for="running", delay=delay).id)

        def end() -> None:
            if leases:
                station.end(leases.pop(), random.choice(["done", "dead", "dead", "retry", "release"]))

        def replay() -> None:
            dead = [info.id for info in queues.dead("normal")]
            chosen = random.choice([None, dead, dead[:1]])
            if chosen != []:
                queues.replay("normal", chosen)
            if dead:
                queues.retry(random.choice(dead))

        steps = [enqueue, enqueue, lambda: leases.extend(station.take()), end, end, replay]
        for _ in range(25):
            random.choice(steps)()
            assert sum(not queues.job_info(one).is_finished for one in ids) <= 1
        assert balanced(queues.status())


class HangingTests(StoreTests):
    """Threads that nobody can stop, and workers of one name."""

    def test_hung_handler_is_named_with_its_stack(
        self, queues: QueueManager, caplog: pytest.LogCaptureFixture
    ) -> None:
        go_on = threading.Event()

        @queues.job("hang", timeout=0.2, attempts=1)
        def hang(ctx: Any, data: None) -> None:
            go_on.wait(30)

        job = hang.enqueue(None)
        with caplog.at_level(logging.WARNING, "eventperf.queues"):
            try:
                run_until(queues, lambda: "time-out" in caplog.text, grace=0.2)
            finally:
                go_on.set()
        said = [r.getMessage() for r in caplog.records if "over its time-out" in r.getMessage()]
        assert len(said) == 1, "once"
        assert job.id in said[0]
        assert "go_on.wait" in said[0], "where it hangs"
        until(lambda: job.info().is_finished)
        assert job.info().state is JobState.FAILED

    def test_handler_that_blocks_the_loop_is_named_with_its_stack(
        self, queues: QueueManager, caplog: pytest.LogCaptureFixture
    ) -> None:
        go_on = threading.Event()

        @queues.job("blocks", timeout=0.1)
        async def blocks(ctx: Any, data: None) -> None:
            go_on.wait(30)

        def is_told() -> bool:
            if "stood still" in caplog.text:
                go_on.set()
            return go_on.is_set() and job.info().is_finished

        job = blocks.enqueue(None)
        with caplog.at_level(logging.WARNING, "eventperf.queues"):
            run_until(queues, is_told)
        said = [r.getMessage() for r in caplog.records if "stood still" in r.getMessage()]
        assert len(said) == 1, "once"
        assert job.id in said[0]
        assert "go_on.wait" in said[0], "where it blocks"

    def test_job_whose_thread_runs_on_after_a_stop_starts_nowhere_else(self, queues: QueueManager) -> None:
        go_on, running = threading.Event(), threading.Event()

        @queues.job("stubborn")
        def stubborn(ctx: Any, data: None) -> None:
            running.set()
            go_on.wait(30)

        job = stubborn.enqueue(None)
        worker = queues.worker(concurrency=2, lease=3.0, grace=0.1)
        thread = threading.Thread(target=worker.run)
        thread.start()
        try:
            assert running.wait(10)
            worker.stop()
            thread.join(10)
            assert not thread.is_alive(), "the worker ends in its grace, whatever the handler does"
            other = Station(queues, "stubborn", lease_s=30)
            end = time.monotonic() + 4.5
            while time.monotonic() < end:
                assert other.take() == [], "its first run goes on"
                time.sleep(0.05)
        finally:
            go_on.set()
        (lease,) = until(other.take)
        assert lease.crashes == 0, "handed back, not taken for dead"
        assert other.end(lease)
        assert job.info().state is JobState.COMPLETED

    def test_lease_lost_by_a_worker_that_lives_is_no_crash(
        self, queues: QueueManager, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if "sqlalchemy" in sys.modules:  # there it is the living worker itself that gives it back, later
            monkeypatch.setattr("eventperf.queues.backends.sql.leases._ANSWERED_WITHIN_S", 0.0)
        lost, kept = queues.enqueue("t"), queues.enqueue("t")
        busy, other = Station(queues, "t"), Station(queues, "t", lease_s=30)
        leases = {lease.record.id: lease for lease in busy.take()}

        def taken() -> list[Any]:
            assert busy.store.renew(busy.id, [(kept.id, leases[kept.id].token)]).lost == []
            time.sleep(0.05)
            return other.take()

        (lease,) = until(taken)
        assert (lease.record.id, lease.crashes) == (lost.id, 0)
        rows = queues.status()
        assert (sum(s.lapsed for s in rows), sum(s.stalled for s in rows)) == (1, 0)
        assert not busy.end(leases[lost.id]), "too late"
        assert other.end(lease)
        assert busy.end(leases[kept.id])
        assert balanced(queues.status())

    def test_two_workers_of_one_name_are_two(self, queues: QueueManager) -> None:
        running = 0
        most: list[int] = []

        @queues.job("slow")
        async def slow(ctx: Any, data: int) -> None:
            nonlocal running
            running += 1
            most.append(running)
            await asyncio.sleep(0.4)
            running -= 1

        workers = [queues.worker(concurrency=1, name="same", lease=LEASE_S) for _ in range(2)]
        assert workers[0].id != workers[1].id
        first = threading.Thread(target=workers[0].run)
        first.start()
        job = slow.enqueue(1)
        until(lambda: running)
        second = threading.Thread(target=workers[1].run)
        second.start()
        try:
            until(lambda: job.info().is_finished)
        finally:
            for worker, thread in zip(workers, (first, second), strict=True):
                worker.stop()
                thread.join(10)
        assert most == [1], "the second did not take over what the first runs"
        assert job.info().attempt == 1


class SayingTests(StoreTests):
    """What an operator learns without asking, and what is refused in words."""

    def test_each_failure_is_logged_and_the_last_with_its_traceback(
        self, queues: QueueManager, caplog: pytest.LogCaptureFixture
    ) -> None:
        @queues.job("bad", attempts=2, backoff=Exponential(0.01, jitter=0))
        async def bad(ctx: Any, data: None) -> None:
            raise ValueError("no luck")

        job = bad.enqueue(None)
        with caplog.at_level(logging.WARNING, "eventperf.queues"):
            run_until(queues, lambda: job.info().is_finished)
        told = [r for r in caplog.records if job.id in r.getMessage()]
        assert [r.levelno for r in told] == [logging.WARNING, logging.ERROR]
        for record in told:
            assert "bad" in record.getMessage()
            assert record.exc_info
            assert isinstance(record.exc_info[1], ValueError), "what error trackers take"
            assert record.exc_info[1].__context__ is None, "with nothing of the worker's own in its traceback"

    @whole
    def test_dead_letter_says_what_it_drops(
        self, queues: QueueManager, caplog: pytest.LogCaptureFixture
    ) -> None:
        @queues.job("bad", attempts=1)
        async def bad(ctx: Any, data: int) -> None:
            raise ValueError(data)

        jobs = queues.enqueue_many("bad", range(60))
        with caplog.at_level(logging.WARNING, "eventperf.queues"):
            run_until(queues, lambda: sum(s.failed for s in queues.status()) == len(jobs))
        assert len(queues.dead("normal", limit=100)) == 50
        assert any("keep_failed=None" in r.getMessage() for r in caplog.records)
        assert sum(s.trimmed for s in queues.status()) == 10

    def test_a_step_that_cannot_be_recorded_has_no_effect(self, queues: QueueManager) -> None:
        wrong: list[Any] = ["\udc80", "a\0b", "", "x" * 501, None, 5]
        effects, refused = list[str](), list[str]()

        @queues.job("pay")
        async def pay(ctx: Any, data: None) -> None:
            for step in wrong:
                try:
                    async with ctx.once(step):
                        effects.append("paid")
                except ConfigurationError as error:
                    refused.append(error.argument)

        @queues.job("pay there")
        def pay_there(ctx: Any, data: None) -> None:
            for step in wrong:
                try:
                    with ctx.once(step):
                        effects.append("paid")
                except ConfigurationError as error:
                    refused.append(error.argument)

        jobs = [queues.enqueue("pay"), queues.enqueue("pay there")]
        run_until(queues, lambda: all(job.info().is_finished for job in jobs))
        assert (effects, refused) == ([], ["step"] * 12)

    def test_the_largest_of_everything_comes_back_as_it_was(self, queues: QueueManager) -> None:
        """What is not refused is kept: headers, names, keys and tags at their bounds, with odd characters."""
        names = ["é" * 200, "\U0001f600" * 200, "z" * 200]
        headers = {"odd": "a\0b\nc\x1f\x1e|{}\x7f\U0001f600"}
        size = sum(len(text.encode()) for pair in headers.items() for text in pair)
        headers["large"] = "é" * ((16_384 - size - len("large")) // 2)
        found: list[Any] = []

        @queues.job("large")
        async def large(ctx: Any, data: Any) -> None:
            found.append((ctx.job_id, dict(ctx.headers), ctx.fairness_key))

        options: dict[str, Any] = {"id": names[0], "headers": headers}
        known = queues.backend.capabilities
        options |= {"fairness_key": "\U0001f600" * 500} if "fairness" in known else {}
        options |= (
            {"unique_key": "é" * 500} if known >= {"unique", "whole"} else {}
        )  # else they are in two places
        options |= {"tags": [*names, *"abcdefg"]} if "search" in known else {}
        job = queues.enqueue("large", **options)
        info = job.info()
        assert (job.id, dict(info.headers)) == (names[0], headers)
        if known >= {"unique", "whole"}:
            assert queues.enqueue("large", unique_key="é" * 500).duplicate
        if "search" in known:
            assert [one.id for one in queues.jobs(tag=names[1]).jobs] == [job.id]
        run_until(queues, lambda: job.info().is_finished)
        assert found == [(names[0], headers, options.get("fairness_key", ""))]

    def test_slips_are_refused_in_words(self, queues: QueueManager) -> None:
        with pytest.raises(ConfigurationError, match=r"\['critical'\]"):
            queues.worker("critical")
        if "flows" in queues.backend.capabilities:
            with pytest.raises(ConfigurationError, match="list of jobs"):
                queues.enqueue("t", after="x")

        async def inside() -> None:
            with pytest.raises(ConfigurationError, match="arun"):
                queues.worker().run()

        asyncio.run(inside())

    def test_bursts_leave_nothing_in_the_process(self, queues: QueueManager) -> None:
        @queues.job("t")
        def t(ctx: Any, data: None) -> None: ...

        def once() -> int:
            t.enqueue(None)
            queues.worker().run(burst=True)
            return threading.active_count()

        before = max(once() for _ in range(3))
        until(lambda: threading.active_count() <= before)
        for _ in range(12):
            once()
        until(lambda: threading.active_count() < before + 6)  # a pool may fill up; none is left by each run
