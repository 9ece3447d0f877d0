from __future__ import annotations

import asyncio
import os
import threading
import traceback
from concurrent import futures
from concurrent.futures import ThreadPoolExecutor

import pytest

from eventperf._core.flights import ABANDONED, ERROR, OPEN, VALUE, Flights
from faults import wait_until


@pytest.fixture
def flights():
    return Flights()


def test_first_leads_and_the_rest_join_until_it_lands(flights):
    flight, leads = flights.join("k")
    assert leads
    assert flights.join("k") == (flight, False)
    flights.land(flight, VALUE, 42)
    assert flight.result() == 42
    assert len(flights) == 0
    assert flights.join("k")[1], "after landing the next caller leads anew"


def test_threads_and_tasks_of_two_loops_share_one_flight(flights):
    flight, _ = flights.join("k")
    parked = threading.Barrier(4, timeout=10)

    async def task() -> object:
        parked.wait()
        assert await flights.await_(flight, 10)
        return flight.result()

    def thread() -> object:
        parked.wait()
        assert flights.wait(flight, 10)
        return flight.result()

    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(asyncio.run, task()), pool.submit(asyncio.run, task()), pool.submit(thread)]
        parked.wait()
        flights.land(flight, VALUE, "v")
        assert [f.result(10) for f in waiting] == ["v"] * 3


def test_an_error_reaches_everyone_and_poisons_nothing(flights):
    flight, _ = flights.join("k")
    flights.land(flight, ERROR, LookupError("no row"))
    for _ in range(2):
        with pytest.raises(LookupError, match="no row"):
            flight.result()
    assert flights.join("k")[1]


def test_an_abandoned_flight_hands_over_to_a_waiter(flights):
    flight, _ = flights.join("k")

    async def waiter() -> bool:
        joined, leads = flights.join("k")
        assert not leads
        assert await flights.await_(joined, 10)
        assert joined.state == ABANDONED
        return flights.join("k")[1]

    async def main() -> list[bool]:
        waiting = [asyncio.create_task(waiter()) for _ in range(3)]
        await asyncio.sleep(0)
        flights.land(flight, ABANDONED)
        return await asyncio.gather(*waiting)

    assert sorted(asyncio.run(main())) == [False, False, True]


def test_cancelling_a_waiter_harms_nobody(flights):
    flight, _ = flights.join("k")

    async def main() -> object:
        dropped = asyncio.create_task(flights.await_(flight))
        kept = asyncio.create_task(flights.await_(flight))
        await asyncio.sleep(0)
        dropped.cancel()
        with pytest.raises(asyncio.CancelledError):
            await dropped
        flights.land(flight, VALUE, 1)
        return await asyncio.wait_for(kept, 10)

    assert asyncio.run(main()) is True


def test_waiting_gives_up_in_time_and_leaves_the_flight_alone(flights):
    flight, _ = flights.join("k")
    assert not flights.wait(flight, 0.01)
    assert not asyncio.run(flights.await_(flight, 0.01))
    flights.land(flight, VALUE, 1)
    assert flights.wait(flight)
    assert asyncio.run(flights.await_(flight))


def test_nobody_waits_for_a_load_on_its_own_stack(flights):
    flight, _ = flights.join("k")
    assert not flights.may_wait(flight, blocking=True)
    with flights.leading(flight):
        assert not flights.may_wait(flight, blocking=False)
    assert flights.may_wait(flight, blocking=False)


def test_children_of_the_leading_task_do_not_wait_for_it(flights):
    async def main() -> tuple[bool, bool]:
        flight, _ = flights.join("k")

        async def ask() -> bool:
            return flights.may_wait(flight, blocking=False)

        stranger = asyncio.create_task(ask())
        with flights.leading(flight):
            child = asyncio.create_task(ask())
        return await child, await stranger

    assert asyncio.run(main()) == (False, True)


def test_a_circle_over_two_keys_is_refused(flights):
    a, _ = flights.join("a")
    ready = threading.Event()
    answers: list[bool] = []

    def other() -> None:
        b, _ = flights.join("b")
        with flights.leading(b):
            answers.append(flights.may_wait(a, blocking=True))  # b waits for a
            ready.set()
            flights.wait(a, 10)
        flights.land(b, VALUE, 1)

    thread = threading.Thread(target=other)
    thread.start()
    assert ready.wait(10)
    b, leads = flights.join("b")
    assert not leads
    with flights.leading(a):
        assert not flights.may_wait(b, blocking=True), "a would wait for b, which waits for a"
    flights.land(a, VALUE, 1)
    thread.join(10)
    assert answers == [True]
    wait_until(lambda: len(flights) == 0)


def test_invalidation_fences_the_load_and_sends_later_callers_to_a_new_one(flights):
    flight, _ = flights.join("k")
    other, _ = flights.join("other")
    flights.fence("k")
    flights.fence_tags(("t",))
    assert flight.fenced
    assert not other.fenced
    assert other.fenced_tags == {"t"}
    anew, leads = flights.join("k")
    assert leads
    flights.land(flight, VALUE, "old")
    assert flights.join("k") == (anew, False), "landing the fenced load must not end the new one"
    flights.fence_where(lambda key: key == "other")
    assert other.fenced
    assert not anew.fenced


def test_many_keys_are_joined_at_once(flights):
    led, _ = flights.join("a")
    mine, others = flights.join_many(["a", "b", "c"])
    assert set(mine) == {"b", "c"}
    assert others == {"a": led}


def test_a_new_flight_has_nothing_yet(flights):
    flight, _ = flights.join("k")
    assert (flight.key, flight.state, flight.outcome, flight.said) == ("k", OPEN, None, ())
    assert (flight.fenced, flight.fenced_tags, flight.is_awaited) == (False, set(), False)
    assert (flight.is_outdated, flight.is_refresh) == (False, False)
    assert "k" in flights
    assert "other" not in flights


@pytest.mark.parametrize(
    ("fenced", "said", "asked", "joins"),
    [
        ((), ("t",), ("t",), True),
        ((), (), None, True),
        (("t",), (), ("u",), True),
        (("t",), (), (), True),
        (("t",), (), ("u", "t"), False),
        (("t",), (), None, False),
        (("t",), ("x",), ("u",), False),
    ],
    ids=["no fence", "no fence, unknown", "other tags", "no tags", "its tag", "tags unknown", "tags said"],
)
def test_a_load_older_than_the_fence_of_a_tag_it_may_have_is_not_joined(flights, fenced, said, asked, joins):
    flight, _ = flights.join("k")
    flight.said = said
    flights.fence_tags(fenced)
    found, leads = flights.join("k", asked)
    assert (found is flight, leads, flight.fenced) == (joins, not joins, not joins)
    assert flights.join("k", asked) == (found, False)


def test_many_keys_are_joined_under_their_tags(flights):
    old, _ = flights.join("a")
    flights.fence_tags(("t",))
    assert flights.join_many(["a"], ("u",)) == ({}, {"a": old})
    mine, others = flights.join_many(["a"], ("t",))
    assert (set(mine), others) == ({"a"}, {})
    assert mine["a"] is not old


def test_fencing_what_nobody_loads_is_nothing(flights):
    flight, _ = flights.join("k")
    flights.fence("nobody", "k")
    assert flight.fenced
    flights.fence_where(lambda key: True)
    assert len(flights) == 0


def test_an_error_told_often_does_not_pile_up_frames(flights):
    flight, _ = flights.join("k")
    try:
        raise LookupError("no row")
    except LookupError as error:
        flights.land(flight, ERROR, error)
    depths = []
    for _ in range(3):
        with pytest.raises(LookupError) as caught:
            flight.result()
        depths.append(len(traceback.extract_tb(caught.value.__traceback__)))
        assert caught.traceback[-1].name == "test_an_error_told_often_does_not_pile_up_frames", (
            "where it arose"
        )
    assert len(set(depths)) == 1


def test_a_value_that_is_an_exception_is_returned_and_not_raised(flights):
    flight, _ = flights.join("k")
    value = LookupError("kept as data")
    flights.land(flight, VALUE, value)
    assert flight.result() is value


@pytest.mark.parametrize("timeout_s", [None, 1e15])
def test_without_a_limit_it_waits_until_the_end(flights, timeout_s):
    flight, _ = flights.join("k")
    with ThreadPoolExecutor(2) as pool:
        blocked = pool.submit(flights.wait, flight, timeout_s)
        suspended = pool.submit(asyncio.run, flights.await_(flight, timeout_s))
        wait_until(lambda: len(flight._wakers) == 2)
        done, _ = futures.wait([blocked, suspended], timeout=1.1 if timeout_s is None else 0.05)
        assert not done
        assert flight.is_awaited
        flights.land(flight, VALUE, 1)
        assert (blocked.result(10), suspended.result(10)) == (True, True)
    assert not flight.is_awaited


def test_who_gave_up_is_not_kept(flights):
    flight, _ = flights.join("k")
    flights.wait(flight, 0.001)
    assert not flight.is_awaited
    asyncio.run(flights.await_(flight, 0.001))
    assert not flight.is_awaited

    async def cancelled() -> None:
        task = asyncio.create_task(flights.await_(flight))
        await asyncio.sleep(0)
        assert flight.is_awaited
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(cancelled())
    assert not flight.is_awaited


def test_a_landed_flight_wakes_who_waits_in_time_with_others_giving_up(flights):
    flight, _ = flights.join("k")
    with ThreadPoolExecutor(1) as pool:
        kept = pool.submit(flights.wait, flight, 10)
        wait_until(lambda: flight.is_awaited)
        assert not flights.wait(flight, 0.01)
        assert flight.is_awaited, "giving up takes nobody else away"
        flights.land(flight, VALUE, 1)
        assert kept.result(10)


def test_a_load_handed_over_belongs_to_the_thread_that_goes_on_with_it(flights):
    with ThreadPoolExecutor(1) as pool:
        flight, _ = flights.join("k")
        assert pool.submit(flights.may_wait, flight, blocking=True).result(10)
        pool.submit(flights.moved, flight).result(10)
        assert flights.may_wait(flight, blocking=True)
        assert not pool.submit(flights.may_wait, flight, blocking=True).result(10)


@pytest.mark.parametrize("wait", ["blocking", "suspended"])
def test_who_gave_up_waiting_may_be_waited_for(flights, wait):
    a, _ = flights.join("a")
    b, _ = flights.join("b")
    with flights.leading(a):
        assert flights.may_wait(b, blocking=False)
        if wait == "blocking":
            assert not flights.wait(b, 0.001)
        else:
            assert not asyncio.run(flights.await_(b, 0.001))
    with flights.leading(b):
        assert flights.may_wait(a, blocking=False), "a waits for b no more"
    flights.wait(b, 0.001)  # leads nothing: nothing to note


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_starts_with_an_empty_table(flights):
    flights.join("k")
    held = flights._mu  # a thread of the parent may hold the lock at the moment of the fork
    with held:
        pid = os.fork()
        if pid == 0:
            os._exit(0 if flights.join("k")[1] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not flights.join("k")[1]
