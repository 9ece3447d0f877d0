"""The job store suite: attempts, searches, changes of waiting jobs, and minutes."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.queues import (
    Exponential,
    JobInfo,
    JobNotFound,
    JobNotWaiting,
    JobSpec,
    JobState,
    Metrics,
    QueueManager,
    UnknownQueue,
    Unsupported,
)
from eventperf.queues.attempts import KEPT

from .tools import Make, Report, Station, StoreTests, balanced, until

_log = logging.getLogger("a.handler")


def _needs(make: Make, capability: str, ask: Callable[[QueueManager], object]) -> None:
    with make() as queues:
        if capability not in queues.backend.capabilities:
            with pytest.raises(Unsupported, match=capability):
                ask(queues)
            pytest.skip("asking for it is refused, as it must")


def found(queues: QueueManager, page: int = 50, **filters: Any) -> list[JobInfo]:
    """Return what all pages of a search show."""
    jobs: list[JobInfo] = []
    cursor = None
    for _ in range(1000):
        answer = queues.jobs(limit=page, cursor=cursor, **filters)
        assert len(answer.jobs) <= page
        jobs += answer.jobs
        if (cursor := answer.cursor) is None:
            return jobs
    raise AssertionError("the pages do not end")


def _ids(jobs: list[JobInfo]) -> list[str]:
    return [job.id for job in jobs]


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


class SearchTests(StoreTests):
    """Finding jobs by state, queue, type, tag and text, page by page."""

    @pytest.fixture
    def filled(self, make: Make) -> Any:
        _needs(make, "search", lambda queues: queues.jobs())
        with make() as queues:
            yield queues, self._fill(queues)

    def _fill(self, queues: QueueManager) -> dict[str, tuple[str, str, str, tuple[str, ...]]]:
        """Put jobs into all states; return for each id its state, queue, type and tags."""
        facts: dict[str, tuple[str, str, str, tuple[str, ...]]] = {}
        words: tuple[tuple[str, ...], ...] = ((), ("red",), ("blue", "red"))
        station = Station(queues, "a", "b")

        def put(state: str, queue: str, type: str, tags: tuple[str, ...], **options: Any) -> str:
            data = {"n": len(facts), "word": f"needle{len(facts)}x"}
            job = queues.enqueue(type, data, queue=queue, tags=tags, **options)
            facts[job.id] = state, queue, type, tags
            return job.id

        ends: dict[str, Any] = {
            "completed": "done",
            "failed": "dead",
            "cancelled": "cancelled",
            "active": None,
        }
        for state, kind in ends.items():
            for queue in ("normal", "high"):
                for type in ("a", "b"):
                    for tags in words:
                        put(state, queue, type, tags)
            for lease in station.take():
                if kind is not None:
                    assert station.end(lease, kind, error=None if kind == "done" else f"{state} because")
        for queue in ("normal", "high"):
            for type in ("a", "b", "strange"):
                for n, tags in enumerate(words):
                    put("waiting", queue, type, tags, priority=n)
                    put("delayed", queue, type, tags, delay=100 + n)
        return facts

    def test_each_filter_finds_exactly_what_fits_in_pages_of_any_size(self, filled: Any) -> None:
        queues, facts = filled
        for state in (None, *JobState):
            for queue in (None, "normal", "low"):
                for type in (None, "b", "strange"):
                    for tag in (None, "red", "blue", "green"):
                        want = {
                            job_id
                            for job_id, (state_, queue_, type_, tags) in facts.items()
                            if (state is None or state_ == state.value)
                            and (queue is None or queue_ == queue)
                            and (type is None or type_ == type)
                            and (tag is None or tag in tags)
                        }
                        page = 7 if type or tag else 50
                        got = _ids(found(queues, page, state=state, queue=queue, type=type, tag=tag))
                        assert sorted(got) == sorted(want), (state, queue, type, tag)

    def test_pages_are_the_parts_of_the_whole(self, filled: Any) -> None:
        queues, _ = filled
        for filters in ({}, {"tag": "red"}, {"type": "a"}, {"state": "waiting"}, {"state": "failed"}):
            whole = _ids(found(queues, 1000, **filters))
            assert _ids(found(queues, 1, **filters)) == _ids(found(queues, 4, **filters)) == whole
            assert len(whole) == len(set(whole))

    def test_shown_jobs_carry_their_tags_and_state(self, filled: Any) -> None:
        queues, facts = filled
        for job in found(queues):
            state, queue, type, tags = facts[job.id]
            assert (job.state.value, job.queue, job.type, tuple(job.tags)) == (state, queue, type, tags)
            assert job.attempts == ()
        assert queues.job_info(next(i for i in facts if facts[i][3])).tags

    def test_order_is_that_of_what_comes_next(self, make: Make) -> None:
        _needs(make, "search", lambda queues: queues.jobs())
        with make() as queues:
            specs = [JobSpec(type="t", queue="low", priority=n % 3) for n in range(12)]
            queues.enqueue_many(specs)
            listed = _ids(found(queues, 5, state="waiting", queue="low"))
            assert Station(queues, "t").ids() == listed
            late = [queues.enqueue("t", delay=d).id for d in (300, 100, 200)]
            assert _ids(found(queues, 1, state="delayed")) == [late[1], late[2], late[0]]

    def test_text_is_found_in_id_error_and_payload(self, filled: Any) -> None:
        queues, facts = filled
        ids = list(facts)
        for n in (0, len(ids) // 2, len(ids) - 1):
            assert _ids(found(queues, text=f"needle{n}x")) == [ids[n]]
            assert ids[n] in _ids(found(queues, text=ids[n][1:-1]))
        dead = {i for i in ids if facts[i][0] == "failed"}
        assert set(_ids(found(queues, text="failed because"))) == dead
        assert found(queues, text="failed % because") == found(queues, text="FAILED_because") == []
        red = {i for i in dead if "red" in facts[i][3]}
        assert set(_ids(found(queues, text="failed because", tag="red", type="a"))) == {
            i for i in red if facts[i][2] == "a"
        }

    def test_one_call_looks_at_a_bounded_number_of_jobs(self, make: Make) -> None:
        _needs(make, "search", lambda queues: queues.jobs())
        with make() as queues:
            queues.enqueue_many("many", range(2500))
            rare = queues.enqueue("rare", {"k": "unheard of"})
            first = queues.jobs(type="rare")
            assert (first.jobs, first.cursor is None) == ([], False)
            assert _ids(queues.jobs(type="rare", cursor=first.cursor).jobs) == [rare.id]
            assert _ids(found(queues, text="unheard of", state="waiting")) == [rare.id]
            assert len(found(queues, 1000)) == 2501

    def test_tag_is_forgotten_with_its_job(self, make: Make) -> None:
        _needs(make, "search", lambda queues: queues.enqueue("t", tags=["x"]))
        with make() as queues:
            station = Station(queues, "t")
            for end in ("dead", "done"):
                queues.enqueue_many("t", range(3), tags=("x",))
                for lease in station.take():
                    assert station.end(lease, end)
            assert len(found(queues, tag="x")) == 6
            assert queues.purge("normal", "failed") == 3
            assert len(found(queues, tag="x")) == 3
            assert len(found(queues, tag="x", state="completed")) == 3

    def test_what_cannot_be_asked_is_refused(self, filled: Any) -> None:
        queues, _ = filled
        cursor = queues.jobs(limit=1).cursor
        for wrong in ({"cursor": "nonsense"}, {"cursor": ""}, {"cursor": 5}, {"cursor": cursor[:-2] + "zz"},
                      {"cursor": cursor, "type": "a"}, {"cursor": cursor, "tag": "red"}, {"state": "lost"},
                      {"limit": 0}, {"limit": 100_000}, {"text": ""}, {"text": "\ud800"}, {"type": "a|b"},
                      {"tag": "{"}):  # fmt: skip
            with pytest.raises(ConfigurationError):
                queues.jobs(**wrong)
        with pytest.raises(UnknownQueue):
            queues.jobs(queue="none")
        for tags in ("word", ["a", 5], ["a|b"], [f"t{n}" for n in range(11)], [""]):
            with pytest.raises(ConfigurationError, match="tags"):
                queues.enqueue("t", tags=tags)

    def test_asynchronous_search_is_the_same(self, filled: Any) -> None:
        queues, _ = filled

        async def look() -> list[JobInfo]:
            page = await queues.ajobs(limit=10, tag="red")
            again = await queues.ajobs(limit=10, tag="red", cursor=page.cursor)
            await queues.aclose()
            return [*page.jobs, *again.jobs]

        assert _ids(asyncio.run(look())) == _ids(found(queues, tag="red"))[:20]


class UpdateTests(StoreTests):
    """Changing jobs that have not begun."""

    @pytest.fixture
    def changing(self, make: Make) -> Any:
        _needs(make, "update", lambda queues: queues.update("x", priority=1))
        with make() as queues:
            queues.declare("report", Report, version=3)
            yield queues

    def test_priority_and_queue_move_a_job(self, changing: QueueManager) -> None:
        first, second, third = changing.enqueue_many("t", [1, 2, 3], fairness_key="k", tags=["x"])
        changing.update(third.id, priority=9)
        changing.update(first.id, queue="low")
        info = first.info()
        assert (info.queue, info.key, list(info.tags), info.state) == ("low", "k", ["x"], JobState.WAITING)
        assert balanced(changing.status())
        assert Station(changing, "t").ids() == [third.id, second.id, first.id]
        assert balanced(changing.status())

    def test_time_of_a_job_can_be_put_off_and_drawn_near(self, changing: QueueManager) -> None:
        waits, late = changing.enqueue("t"), changing.enqueue("t", delay=500)
        changing.update(waits.id, delay=400)
        due = waits.info().due_at
        assert waits.info().state is JobState.DELAYED
        assert due is not None
        assert 390 < due - waits.info().created_at < 420
        changing.update(late.id, delay=0)
        station = Station(changing, "t")
        assert station.ids() == [late.id]
        changing.update(waits.id, at=time.time() - 5)
        assert station.ids() == [waits.id]
        assert balanced(changing.status())

    def test_delayed_job_keeps_its_time_in_another_queue(self, changing: QueueManager) -> None:
        job = changing.enqueue("t", delay=500, headers={"a": "b"})
        due = job.info().due_at
        changing.update(job.id, queue="high", priority=7)
        info = job.info()
        assert info.due_at == pytest.approx(due, abs=0.01)
        assert (info.state, info.queue, info.priority) == (JobState.DELAYED, "high", 7)
        assert dict(info.headers) == {"a": "b"}
        assert balanced(changing.status())

    def test_data_is_checked_and_replaced(self, changing: QueueManager) -> None:
        job = changing.enqueue("report", Report(1))
        with pytest.raises(ConfigurationError):
            changing.update(job.id, data={"event_id": "no number"})
        changing.update(job.id, data=Report(2, "two"), priority=8)
        lease = Station(changing, "report").take()[0]
        assert changing.codec.decode(lease.record.payload, Report) == Report(2, "two")
        assert (lease.record.version, lease.record.priority) == (3, 8)

    def test_unique_key_and_deadline_stay(self, changing: QueueManager) -> None:
        job = changing.enqueue("t", unique_key="one", deadline=300)
        changing.update(job.id, priority=9, queue="high", data=5, delay=0)
        assert changing.enqueue("t", unique_key="one").id == job.id
        lease = Station(changing, "t").take()[0]
        assert lease.record.deadline_at == pytest.approx(job.info().created_at + 300, abs=1)
        assert changing.enqueue("t", unique_key="one").id != job.id

    def test_job_that_waits_for_others_takes_all_but_a_time(self, changing: QueueManager) -> None:
        if "flows" not in changing.backend.capabilities:
            pytest.skip("it has no flows")
        parent = changing.enqueue("t")
        child = changing.enqueue("t", after=[parent])
        with pytest.raises(ConfigurationError, match="waits for others"):
            changing.update(child.id, delay=5)
        changing.update(child.id, queue="high", data="new")
        station = Station(changing, "t")
        assert station.drain() == [parent.id, child.id]
        assert child.info().queue == "high"
        assert balanced(changing.status())

    def test_job_of_an_unknown_type_can_be_moved(self, changing: QueueManager) -> None:
        job, station = changing.enqueue("strange"), Station(changing, "t")
        assert station.take() == []
        changing.update(job.id, queue="high", priority=2)
        assert Station(changing, "strange").ids() == [job.id]
        assert balanced(changing.status())

    def test_job_that_runs_or_has_ended_is_left_alone(self, changing: QueueManager) -> None:
        station = Station(changing, "t")
        for end in ("done", "dead", "cancelled", None):
            job = changing.enqueue("t", "old")
            lease = station.take()[0]
            if end is not None:
                assert station.end(lease, end)
            before = job.info()
            with pytest.raises(JobNotWaiting):
                changing.update(job.id, priority=9, data="new")
            assert job.info() == before
        with pytest.raises(JobNotFound):
            changing.update("nobody", priority=1)
        with pytest.raises(JobNotFound):
            changing.update("nobody", data=1)

    def test_change_that_cannot_be_changes_nothing(self, changing: QueueManager) -> None:
        job = changing.enqueue("t")
        for wrong in ({}, {"priority": -1}, {"priority": 5000}, {"queue": "none"}, {"delay": -1},
                      {"delay": 1, "at": 5}, {"at": "mon"}, {"data": object(), "priority": 3}):  # fmt: skip
            with pytest.raises(ConfigurationError):
                changing.update(job.id, **wrong)
        info = job.info()
        assert (info.state, info.priority) == (JobState.WAITING, 3)

    def test_asynchronous_change_is_the_same(self, changing: QueueManager) -> None:
        async def change() -> JobInfo:
            job = await changing.aenqueue("t", 1)
            await changing.aupdate(job.id, data="two", queue="high")
            info = await job.ainfo()
            await changing.aclose()
            return info

        info = asyncio.run(change())
        assert info.queue == "high"
        assert changing.codec.decode(info.payload or b"") == "two"


class MetricTests(StoreTests):
    """Minutes by queue and type."""

    @pytest.fixture
    def measured(self, make: Make) -> Any:
        _needs(make, "metrics", lambda queues: queues.metrics())
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


class OutcomeTests(StoreTests):
    """Jobs that wait for an end of one kind."""

    @pytest.fixture
    def flowing(self, make: Make) -> Any:
        _needs(make, "flows", lambda queues: queues.enqueue("t", after=["x"]))
        with make() as queues:
            yield queues

    @pytest.mark.parametrize("end", ["done", "dead", "cancelled"])
    @pytest.mark.parametrize("after_when", ["success", "failure", "any"])
    @pytest.mark.parametrize("late", [False, True])
    def test_one_parent(self, flowing: QueueManager, end: str, after_when: str, late: bool) -> None:
        """What becomes of a child, put in before or after its parent has ended."""
        parent, station = flowing.enqueue("t"), Station(flowing, "t")
        lease = station.take()[0]
        if late:
            assert station.end(lease, end)
        child = flowing.enqueue("t", after=[parent], after_when=after_when)
        if not late:
            assert child.info().state is JobState.DELAYED
            assert station.end(lease, end)
        if after_when == "any" or (after_when, end) in {("success", "done"), ("failure", "dead")}:
            want = JobState.WAITING
        else:
            want = JobState.DELAYED if (after_when, end) == ("success", "dead") else JobState.CANCELLED
        assert child.info().state is want
        assert balanced(flowing.status())

    def test_one_failure_of_many_is_enough(self, flowing: QueueManager) -> None:
        parents, station = flowing.enqueue_many("t", range(3)), Station(flowing, "t")
        alarm = flowing.enqueue("t", after=parents, after_when="failure")
        calm = flowing.enqueue("t", after=parents[:2], after_when="failure")
        later = flowing.enqueue("t", after=[calm], after_when="any")
        never = flowing.enqueue("t", after=[calm])
        never_again = flowing.enqueue("t", after=[later, calm], after_when="failure")
        for lease, end in zip(station.take(), ("done", "cancelled", "dead"), strict=True):
            assert alarm.info().state is JobState.DELAYED
            assert station.end(lease, end)
        assert (alarm.info().state, calm.info().state) == (JobState.WAITING, JobState.CANCELLED)
        assert "failed" in (calm.info().error or "")
        assert (later.info().state, never.info().state) == (JobState.WAITING, JobState.CANCELLED)
        assert sorted(station.drain()) == sorted([alarm.id, later.id])
        assert never_again.info().state is JobState.CANCELLED
        assert balanced(flowing.status())
