"""Partitions: where jobs live and which of them a worker asks next. No server."""

from __future__ import annotations

import math
from binascii import crc_hqx
from collections import Counter
from functools import lru_cache
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventperf._core.errors import ConfigurationError
from eventperf.queues import JobSpec, Limit, QueueManager
from eventperf.queues.backends.partitions.hints import Hints
from eventperf.queues.backends.partitions.routing import MAX_PARTITIONS, Routing, home, marked
from eventperf.queues.job import JobRecord, NewJob
from eventperf.queues.producing.spec import new_ids

TEXTS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=20)
HOMES = st.integers(0, 2**18 - 1)


@lru_cache
def _queues(partitions: int = 8) -> QueueManager:
    return QueueManager("redis://127.0.0.1:1", partitions=partitions)


@lru_cache
def _counting(partitions: int) -> QueueManager:
    limits = [Limit(per_key=True, concurrency=1)]
    return QueueManager("redis://127.0.0.1:1", partitions=partitions, limits=limits)


@given(TEXTS, HOMES, HOMES)
def test_a_mark_is_read_back_and_replaced_by_another(job_id: str, first: int, second: int) -> None:
    once = marked(job_id, first)
    assert home(once) == first
    assert home(marked(once, second)) == second
    assert len(marked(once, second)) == len(once)


@given(TEXTS.filter(lambda t: not {*t} & {"[", "]", "~"}), TEXTS.filter(lambda t: not {*t} & {"[", "]", "~"}))
def test_what_shares_a_part_in_brackets_shares_its_home(tag: str, rest: str) -> None:
    assert home(f"[{tag}]{rest}") == home(f"{rest}[{tag}]") == home(tag)


@given(TEXTS, HOMES)
def test_what_names_another_job_in_brackets_lives_beside_it(job_id: str, at: int) -> None:
    parent = marked("abc", at)
    assert home(f"[{parent}]{job_id.replace('~', '').replace('[', '')}") == at


def test_ids_of_the_library_and_of_callers_spread_evenly() -> None:
    for ids in (new_ids(16_000, Random(1).getrandbits), [f"order-{n}" for n in range(16_000)]):
        found = Counter(Routing("n", 16).of(one) for one in ids)
        assert len(found) == 16
        assert max(found.values()) < 1.2 * 1000
        assert min(found.values()) > 0.8 * 1000


@pytest.mark.parametrize("count", [2, 3, 16, 100, MAX_PARTITIONS])
def test_hash_slots_of_partitions_are_spread_over_all(count: int) -> None:
    slots = [crc_hqx(f"eventperf:{space}".encode(), 0) % 16_384 for space in Routing("app", count).spaces()]
    assert slots == sorted(slots)
    for masters in range(1, 9):
        held = Counter(slot * masters // 16_384 for slot in slots)
        assert max(held.values()) <= math.ceil(count / masters) + 1
        if count % masters == 0:
            assert {*held.values()} == {count // masters}


JOBS = st.fixed_dictionaries(
    {},
    optional={
        "unique_key": st.sampled_from(["u1", "u2", "[acme]u"]),
        "fairness_key": st.sampled_from(["acme", "other"]),
        "id": st.sampled_from(["mine", "[acme]-1", "yours"]),
        "after": st.lists(st.sampled_from(["p1", "p2", marked("p3", home("acme"))]), min_size=1, max_size=2),
    },
)


@settings(max_examples=50)
@given(st.lists(JOBS, min_size=1, max_size=6), st.sampled_from([2, 3, 8, 40]), st.booleans())
def test_what_must_live_together_does_or_is_refused(
    wishes: list[dict[str, Any]], count: int, limited: bool
) -> None:
    """Unique keys, counted keys, given ids and parents: each in one partition, whatever else a job has."""
    queues = _counting(count) if limited else _queues(count)
    routing: Routing = queues.backend.routing  # type: ignore[attr-defined]
    for wish in wishes:
        must = [wish[name] for name in ("unique_key", "id") if name in wish] + wish.get("after", [])
        must += [wish["fairness_key"]] if limited and "fairness_key" in wish else []
        if len({home(text) for text in must}) > 1:
            with pytest.raises(ConfigurationError, match="square brackets"):
                queues.prepare([queues.spec("t", None, wish)])
            continue
        (job,) = queues.prepare([queues.spec("t", None, wish)])
        assert {routing.of(job.record.id)} >= {home(text) % count for text in must}
        assert job.record.id == wish.get("id", job.record.id)
        if not must and "fairness_key" in wish:
            assert routing.of(job.record.id) == home(wish["fairness_key"]) % count


@settings(max_examples=30)
@given(st.integers(2, 12), st.sampled_from([2, 3, 8, 40]), st.booleans())
def test_chains_and_batches_live_in_one_partition(size: int, count: int, chain: bool) -> None:
    queues = _queues(count)
    specs = [JobSpec(type="t", fairness_key=f"k{n}" if n % 2 else None) for n in range(size)]
    jobs = queues._prepare_chain(specs) if chain else queues._prepare_batch(specs, JobSpec(type="t"), "any")
    routing: Routing = queues.backend.routing  # type: ignore[attr-defined]
    assert len({routing.of(job.record.id) for job in jobs}) == 1
    assert len({job.record.id for job in jobs}) == len(jobs)
    for before, job in pairwise(jobs):
        assert not chain or job.record.flow == {"after": [before.record.id], "when": "success"}


def test_a_follower_lives_beside_the_job_that_asked_for_it_or_is_refused() -> None:
    queues = _queues()
    follow = queues.engine().follow
    assert home(follow("t", None, {}, "parent-9").record.id) == home("parent-9")
    with pytest.raises(ConfigurationError, match="square brackets"):
        follow("t", None, {"unique_key": "k"}, "parent-9")
    assert home(follow("t", None, {"unique_key": "[parent-9]k"}, "parent-9").record.id) == home("parent-9")


def test_refusals_name_what_is_wrong_and_change_nothing() -> None:
    for wrong in (0, -1, 1.5, True, "4", None, MAX_PARTITIONS + 1):
        with pytest.raises(ConfigurationError, match="partitions"):
            QueueManager("redis://127.0.0.1:1", partitions=wrong)  # type: ignore[arg-type]
    for url in ("memory://", "sqlite:///x.db", "arq+redis://127.0.0.1:1"):
        with pytest.raises(ConfigurationError, match="Redis alone"):
            QueueManager(url, partitions=2)
    with pytest.raises(ConfigurationError, match="1 with a Backend"):
        QueueManager(_queues().backend, partitions=2)
    for limit in (Limit(queue="low", rate=1), Limit(type="t", concurrency=1)):
        with pytest.raises(ConfigurationError, match="per_key=True"):
            QueueManager("redis://127.0.0.1:1", partitions=8, limits=[Limit(per_key=True, rate=1), limit])
    routing = Routing("n", 4)
    jobs = [NewJob(JobRecord(id=f"i{n}", type="t", queue="q", priority=1, payload=b"")) for n in range(2)]
    jobs[0].record.key, jobs[1].record.unique_key, jobs[1].named = "k", "u", True
    with pytest.raises(ConfigurationError):
        routing.place(jobs)
    assert [job.record.id for job in jobs] == ["i0", "i1"]


# -- hints -----------------------------------------------------------------------------------------


def _ask(hints: Hints, now: float, room: dict[str, int] | None = None) -> list[int]:
    """Return the partitions that one claim which finds nothing asks, telling what they answer."""
    asked: set[int] = set()
    order = []
    while choice := hints.next(now, room or {"q": 1}, asked):
        n, heard = choice
        asked.add(n)
        order.append(n)
        hints.answered(n, heard, now, full=False, room=room or {"q": 1}, next_in_s=None)
    return order


def test_all_are_asked_once_at_first_and_one_by_turns_when_nothing_is_heard() -> None:
    hints = Hints(8, lease_s=8.0, first=3)
    assert _ask(hints, 0.0) == [3, 4, 5, 6, 7, 0, 1, 2]
    seen = [_ask(hints, float(now)) for now in range(1, 9)]
    assert all(len(order) == 1 for order in seen), "what an idle claim costs does not depend on their number"
    assert {order[0] for order in seen} == set(range(8)), "each within a lease"
    assert _ask(hints, 8.1) == [], "and none more often"


def test_what_was_said_during_a_claim_is_not_lost_with_its_answer() -> None:
    hints = Hints(4, lease_s=60.0, first=0)
    _ask(hints, 0.0)
    hints.hear(2)
    n, heard = hints.next(0.0, {"q": 1}, set()) or (-1, -1)
    hints.hear(2)
    hints.answered(n, heard, 0.0, full=False, room={"q": 1}, next_in_s=None)
    assert _ask(hints, 0.0) == [2]


def test_a_partition_with_more_is_asked_again_after_the_others() -> None:
    hints = Hints(3, lease_s=60.0, first=0)
    for turn in (0, 1, 2, 0, 1):
        n, heard = hints.next(0.0, {"q": 1}, set()) or (-1, -1)
        assert n == turn
        hints.answered(n, heard, 0.0, full=True, room={"q": 1}, next_in_s=None)


def test_what_falls_due_is_asked_then_and_what_had_no_room_when_there_is_some() -> None:
    hints = Hints(2, lease_s=60.0, first=0)
    _ask(hints, 0.0, {"a": 0, "b": 1})
    hints._look_at = math.inf
    assert _ask(hints, 1.0, {"a": 0, "b": 1}) == []
    assert _ask(hints, 1.0, {"a": 1, "b": 0}) == [0, 1]
    hints.hear(1)
    n, heard = hints.next(2.0, {"q": 1}, set()) or (-1, -1)
    hints.answered(n, heard, 2.0, full=False, room={"q": 1}, next_in_s=5.0)
    assert hints.next_in_s(2.0) <= 5.0
    assert _ask(hints, 6.9) == []
    assert _ask(hints, 7.0) == [1]


def test_one_that_does_not_answer_is_left_alone_for_a_while() -> None:
    hints = Hints(2, lease_s=60.0, first=0)
    _ask(hints, 0.0)
    assert hints.lost(0, 0.0)
    assert not hints.lost(0, 0.0), "said once"
    hints.hear(1)
    assert _ask(hints, 0.0) == [1]
    assert not hints.all_lost()
    assert _ask(hints, 10.0) == [0]
    hints.lost(0, 10.0)
    hints.lost(1, 10.0)
    assert hints.all_lost()
