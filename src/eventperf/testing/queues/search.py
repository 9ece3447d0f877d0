"""Finding jobs by what they are."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.queues import (
    JobInfo,
    JobSpec,
    JobState,
    QueueManager,
    UnknownQueue,
)

from .tools import Make, Station, StoreTests, needs, whole


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


class SearchTests(StoreTests):
    """Finding jobs by state, queue, type, tag and text, page by page."""

    @pytest.fixture
    def filled(self, make: Make) -> Any:
        needs(make, "search", lambda queues: queues.jobs())
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

    @whole
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

    @whole
    def test_order_is_that_of_what_comes_next(self, make: Make) -> None:
        needs(make, "search", lambda queues: queues.jobs())
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

    @whole
    def test_one_call_looks_at_a_bounded_number_of_jobs(self, make: Make) -> None:
        needs(make, "search", lambda queues: queues.jobs())
        with make() as queues:
            queues.enqueue_many("many", range(2500))
            rare = queues.enqueue("rare", {"k": "unheard of"})
            first = queues.jobs(type="rare")
            assert (first.jobs, first.cursor is None) == ([], False)
            assert _ids(queues.jobs(type="rare", cursor=first.cursor).jobs) == [rare.id]
            assert _ids(found(queues, text="unheard of", state="waiting")) == [rare.id]
            assert len(found(queues, 1000)) == 2501

    def test_tag_is_forgotten_with_its_job(self, make: Make) -> None:
        needs(make, "search", lambda queues: queues.enqueue("t", tags=["x"]))
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

    @whole
    def test_asynchronous_search_is_the_same(self, filled: Any) -> None:
        queues, _ = filled

        async def look() -> list[JobInfo]:
            page = await queues.ajobs(limit=10, tag="red")
            again = await queues.ajobs(limit=10, tag="red", cursor=page.cursor)
            await queues.aclose()
            return [*page.jobs, *again.jobs]

        assert _ids(asyncio.run(look())) == _ids(found(queues, tag="red"))[:20]
