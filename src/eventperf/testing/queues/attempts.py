"""What is kept of each run, of minutes, and of how jobs that wait for others go on."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.queues import (
    Exponential,
    Metrics,
    QueueManager,
)
from eventperf.queues.attempts import KEPT

from .tools import Make, Station, StoreTests, needs, until, whole

_log = logging.getLogger("a.handler")


class AttemptTests(StoreTests):
    """What is kept of each run."""

    @pytest.fixture
    def keeping(self, make: Make) -> Any:
        with make() as queues:
            if "attempts" not in queues.backend.capabilities:
                assert queues.enqueue("t").info().attempts == ()
                pytest.skip("it keeps none, and shows none")
            yield queues

    def test_every_run_is_shown_with_where_it_ran_and_how_it_ended(self, keeping: QueueManager) -> None:
        job, station = keeping.enqueue("t"), Station(keeping, "t")
        assert job.info().attempts == ()
        lease = station.take()[0]
        said = {
            "error": "ValueError: \x1e\x1f half",
            "traceback": 'File "a.py"\nValueError: é',
            "log_tail": "x\ny",
        }
        assert station.end(lease, "retry", run_s=0.25, **said)
        assert [a.outcome for a in job.info().attempts] == ["retried"]
        assert station.end(station.take()[0], "done", run_s=1.5, result=b"j1")
        first, second = job.info().attempts
        assert (first.number, first.outcome, first.worker, first.seconds) == (1, "retried", station.id, 0.25)
        assert (first.traceback, first.log_tail) == (said["traceback"], said["log_tail"])
        assert "half" in (first.error or "")
        assert abs(first.started_at - job.info().created_at) < 30
        assert (second.number, second.outcome, second.worker) == (2, "completed", station.id)
        assert second.error is second.traceback is second.log_tail is None
        assert keeping.result(job.id) == 1

    def test_only_the_last_runs_are_kept(self, keeping: QueueManager) -> None:
        job, station = keeping.enqueue("t", attempts=100), Station(keeping, "t")
        for n in range(KEPT + 5):
            assert station.end(station.take()[0], "retry", error=f"e{n}")
        assert [a.error for a in job.info().attempts] == [f"e{n}" for n in range(5, KEPT + 5)]
        assert station.end(station.take()[0], "dead", error="last")
        info = job.info()
        assert (info.error, info.attempts[-1].error, len(info.attempts)) == ("last", "last", KEPT)
        assert info.attempts[-1].number == KEPT + 6

    def test_dead_job_that_is_put_back_still_shows_what_happened(self, keeping: QueueManager) -> None:
        job, station = keeping.enqueue("t"), Station(keeping, "t")
        assert station.end(station.take()[0], "dead", error="boom", traceback="trace")
        assert [(a.outcome, a.traceback) for a in job.info().attempts] == [("failed", "trace")]
        assert keeping.dead("normal")[0].attempts == (), "listings leave them out"
        assert keeping.retry(job.id)
        assert [a.outcome for a in job.info().attempts] == ["failed"]
        assert station.end(station.take()[0])
        assert [a.outcome for a in job.info().attempts] == ["failed", "completed"]

    def test_death_of_a_worker_is_an_attempt_too(self, keeping: QueueManager) -> None:
        job, dying = keeping.enqueue("t"), Station(keeping, "t", lease_s=0.2)
        assert dying.take()
        other = Station(keeping, "t")
        lease = until(lambda: other.take())[0]
        assert [(a.outcome, a.worker) for a in job.info().attempts] == [("crashed", dying.id)]
        assert other.end(lease)
        assert [(a.outcome, a.worker) for a in job.info().attempts][1] == ("completed", other.id)

    def test_job_cancelled_while_it_ran_shows_that_run(self, keeping: QueueManager) -> None:
        job, station = keeping.enqueue("t"), Station(keeping, "t")
        lease = station.take()[0]
        assert job.cancel()
        assert station.end(lease, "cancelled", error="cancelled while running")
        assert [a.outcome for a in job.info().attempts] == ["cancelled"]

    def test_job_handed_back_unrun_has_no_attempt(self, keeping: QueueManager) -> None:
        job, station = keeping.enqueue("t"), Station(keeping, "t")
        assert station.end(station.take()[0], "release")
        assert job.info().attempts == ()

    @pytest.mark.parametrize("kind", ["thread", "task"])
    def test_worker_hands_in_traceback_and_log_lines(self, keeping: QueueManager, kind: str) -> None:
        with keeping as queues:

            def trip(data: str) -> None:
                _log.warning("about to trip over %s", data)
                raise ValueError(data)

            options: dict[str, Any] = {"attempts": 2, "backoff": Exponential("0.01s")}
            if kind == "thread":

                @queues.job("t", **options)
                def handler(ctx: Any, data: str) -> None:
                    trip(data)
            else:

                @queues.job("t", **options)
                async def ahandler(ctx: Any, data: str) -> None:
                    trip(data)

            job, other = queues.enqueue("t", "a step"), queues.enqueue("t", "a stair")
            deadline = time.monotonic() + 15
            while not (job.info().is_finished and other.info().is_finished):
                assert time.monotonic() < deadline
                queues.worker().run(burst=True)
            attempts = job.info().attempts
            assert [a.outcome for a in attempts] == ["retried", "failed"]
            for attempt in attempts:
                assert "in trip" in (attempt.traceback or "")
                assert (attempt.traceback or "").endswith("ValueError: a step")
                assert "working" not in (attempt.traceback or ""), "the worker's own frames say nothing"
                assert (attempt.log_tail or "").endswith("about to trip over a step")
                assert "stair" not in (attempt.log_tail or "")


class MetricTests(StoreTests):
    """Minutes by queue and type."""

    @pytest.fixture
    def measured(self, make: Make) -> Any:
        needs(make, "metrics", lambda queues: queues.metrics())
        with make() as queues:
            yield queues

    def test_runs_are_counted_by_queue_type_and_end(self, measured: QueueManager) -> None:
        assert measured.metrics().intervals == []
        station = Station(measured, "a", "b")
        for queue, type, end, times in (
            ("normal", "a", "done", 3), ("normal", "b", "dead", 2), ("high", "a", "retry", 1),
            ("high", "a", "cancelled", 1),
        ):  # fmt: skip
            measured.enqueue_many(type, range(times), queue=queue)
            for lease in station.take():
                assert station.end(lease, end, run_s=0.2, delay_s=500.0)
        station.store.leave(station.id)
        by = measured.metrics().by("queue", "type")
        counts = {k: (m.completed, m.failed, m.retried, m.cancelled) for k, m in by.items()}
        assert counts == {
            ("normal", "a"): (3, 0, 0, 0),
            ("normal", "b"): (0, 2, 0, 0),
            ("high", "a"): (0, 0, 1, 1),
        }
        total = measured.metrics("1h", "1h").by()[()]
        assert (total.run.count, total.wait.count) == (7, 7)
        assert total.run.percentile(99) == pytest.approx(0.2, rel=0.1)

    def test_runs_that_ended_with_their_worker_are_counted_by_the_minute(
        self, measured: QueueManager
    ) -> None:
        job = measured.enqueue("t")
        dead, live = Station(measured, "t"), Station(measured, "t", lease_s=30)
        assert dead.ids() == [job.id]
        (lease,) = until(live.take)
        assert live.end(lease, run_s=0.1)
        live.store.leave(live.id)
        (one,) = measured.metrics("1h", "1h").intervals
        assert (one.crashed, one.completed, one.failed, one.retried) == (1, 1, 0, 0)
        assert (one.run.count, one.wait.count) == (1, 0), "how long it ran nobody knows"

    def test_wait_is_from_when_a_job_could_run(self, measured: QueueManager) -> None:
        job = measured.enqueue("t", delay=0.4)
        station = Station(measured, "t")
        lease = until(lambda: station.take())[0]
        assert station.end(lease, run_s=3.0)
        station.store.leave(station.id)
        wait = measured.metrics().by()[()].wait
        assert wait.count == 1
        waited = wait.percentile(50)
        assert waited is not None
        assert waited < 0.39, "the delay is no wait"
        assert job.info().is_finished

    def test_steps_are_whole_minutes_within_the_span(self, measured: QueueManager) -> None:
        station = Station(measured, "t")
        measured.enqueue("t")
        assert station.end(station.take()[0])
        station.store.leave(station.id)
        for since, step in (("1h", "1m"), ("1d", "1h"), ("5m", "90s")):
            metrics = measured.metrics(since, step)
            (one,) = metrics.intervals
            assert metrics.since <= one.at <= metrics.until
            assert metrics.step_s % 60 == 0
            assert (one.at - metrics.since) % metrics.step_s == 0
        for wrong in ({"since": "2d"}, {"since": "soon"}, {"step": 0}):
            with pytest.raises(ConfigurationError):
                measured.metrics(**wrong)

    @whole
    def test_many_series_share_one(self, measured: QueueManager) -> None:
        station = Station(measured, *(f"t{n}" for n in range(260)))
        for n in range(260):
            measured.enqueue(f"t{n}")
        for lease in station.take():
            assert station.end(lease, run_s=0.001)
        station.store.leave(station.id)
        by = measured.metrics().by("type")
        assert len(by) <= 201
        assert sum(one.completed for one in by.values()) == 260
        assert by["(others)",].completed >= 59

    def test_asynchronous_metrics_are_the_same(self, measured: QueueManager) -> None:
        async def ask() -> Metrics:
            metrics = await measured.ametrics()
            await measured.aclose()
            return metrics

        station = Station(measured, "t")
        measured.enqueue("t")
        assert station.end(station.take()[0])
        station.store.leave(station.id)
        assert asyncio.run(ask()).by()[()].completed == 1
