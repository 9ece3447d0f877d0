"""Never two leaders inside one lease: candidates with their own clocks, random pauses and partitions."""

from __future__ import annotations

import random
import threading
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventperf._core.errors import BackendUnavailable, ConfigurationError
from eventperf.scaling.leader import Election, LeaderChanged, LeaderElector
from eventperf.scaling.protocols import Lease, LeaseConflict
from eventperf.testing import FakeClock

LEASE_S, DEADLINE_S, RETRY_S = 15.0, 10.0, 1.0


class Register:
    """The one record, with compare-and-set."""

    def __init__(self) -> None:
        self.lease: Lease | None = None
        self.writes = 0

    def read(self) -> Lease | None:
        return self.lease

    def write(self, lease: Lease, /) -> Lease:
        if (self.lease.version if self.lease else "") != lease.version:
            raise LeaseConflict(lease.holder)
        self.writes += 1
        self.lease = replace(lease, version=str(self.writes))
        return self.lease


@dataclass
class Candidate:
    """One election driven step by step in world time, with a clock that starts anywhere and drifts."""

    election: Election
    offset: float
    drift: float
    alive: bool = True
    cut_until: float = 0.0
    due: float = 0.0
    ops: object = None
    pending: object = None
    answer: object = None
    led: list[tuple[float, str]] = field(default_factory=list)

    def clock(self, world: float) -> float:
        return self.offset + world * self.drift


class World:
    """Advances candidates in random order; every request may be slow, lost, or answered too late."""

    def __init__(self, seed: int, candidates: int = 3) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.register = Register()
        self.candidates = [
            Candidate(
                Election(f"c{n}", lease_s=LEASE_S, renew_deadline_s=DEADLINE_S),
                offset=self.random.uniform(-1e6, 1e6),
                drift=self.random.uniform(0.95, 1.05),
            )
            for n in range(candidates)
        ]
        self.lead_times: list[tuple[float, str]] = []
        self.two_leaders = 0

    def run(self, events: int) -> None:
        for _ in range(events):
            who = min((c for c in self.candidates if c.alive), key=lambda c: c.due)
            self.now = max(self.now, who.due)
            self._step(who)
            self._check()

    def _step(self, who: Candidate) -> None:
        """One half of a request: sending it, or taking its answer; a pause may come in between."""
        if who.ops is None:
            who.ops = who.election.attempt(lambda: who.clock(self.now))
            self._resume(who, lambda: next(who.ops))  # type: ignore[call-overload]
            return
        answer, who.answer = who.answer, None
        if isinstance(answer, Exception):
            self._resume(who, lambda: who.ops.throw(answer))  # type: ignore[attr-defined]
        else:
            self._resume(who, lambda: who.ops.send(answer))  # type: ignore[attr-defined]

    def _resume(self, who: Candidate, advance: object) -> None:
        try:
            op = advance()  # type: ignore[operator]
        except (StopIteration, LeaseConflict, BackendUnavailable):
            who.ops = None
            pause = (
                RETRY_S if self.random.random() < 0.9 else self.random.uniform(1, 60)
            )  # a long stop of the process
            who.due = self.now + pause
            return
        who.answer = self._serve(who, op)
        slow = self.random.random() < 0.1
        who.due = self.now + (self.random.uniform(0.1, 40.0) if slow else self.random.uniform(0.001, 0.05))

    def _serve(self, who: Candidate, op: object) -> object:
        if self.now < who.cut_until:
            return BackendUnavailable("partition")
        if self.random.random() < 0.05:
            who.cut_until = self.now + self.random.uniform(1, 60)
        lost = self.random.random()
        if lost < 0.05:
            return BackendUnavailable("refused")
        try:
            result = self.register.write(op) if isinstance(op, Lease) else self.register.read()
        except LeaseConflict as error:
            return error
        return BackendUnavailable("timed out, but it was done") if lost < 0.12 else result

    def _check(self) -> None:
        leading = [c.election.identity for c in self.candidates if c.election.leads(c.clock(self.now))]
        self.two_leaders += len(leading) > 1
        if leading:
            self.lead_times.append((self.now, leading[0]))


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_three_candidates_never_lead_at_once(seed: int) -> None:
    world = World(seed)
    world.run(1_000)
    assert world.two_leaders == 0
    assert world.lead_times, "nobody ever led: the test would prove nothing"


def test_a_thousand_pauses_and_partitions_with_many_changes_of_leader() -> None:
    changes = 0
    for seed in range(10):
        world = World(seed)
        world.run(3_000)
        assert world.two_leaders == 0
        names = [name for _, name in world.lead_times]
        changes += sum(a != b for a, b in pairwise(names))
    assert changes > 50


def test_a_follower_that_takes_over_at_the_leaders_deadline_would_be_caught() -> None:
    """The checker can fail: a rule that waits too short is seen as two leaders."""

    class Hasty(Election):
        @property
        def expires_at(self) -> float:
            return super().expires_at - 10.0

    caught = 0
    for seed in range(10):
        world = World(seed)
        for candidate in world.candidates:
            candidate.election = Hasty(
                candidate.election.identity, lease_s=LEASE_S, renew_deadline_s=DEADLINE_S
            )
        world.run(3_000)
        caught += world.two_leaders
    assert caught > 0


def _elector(store: object, clock: FakeClock, name: str, **options: object) -> LeaderElector:
    return LeaderElector(store, identity=name, clock=clock, random=random.Random(1), **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("silent_after_s", [0.0, 1.0, 3.0])
def test_takeover_within_the_lease_and_one_retry(silent_after_s: float) -> None:
    clock, store = FakeClock(), Register()
    first, second = _elector(store, clock, "a"), _elector(store, clock, "b")
    first.step()
    clock.advance(silent_after_s)
    second.step()
    died_at = clock.monotonic()
    while True:
        wait_s = second.step()
        if second.is_leader:
            break
        clock.advance(wait_s)
    assert clock.monotonic() - died_at <= LEASE_S + RETRY_S
    assert not first.is_leader


def test_release_lets_the_next_one_in_at_its_next_look() -> None:
    clock, store = FakeClock(), Register()
    first, second = _elector(store, clock, "a"), _elector(store, clock, "b")
    first.step()
    wait_s = second.step()
    first.release()
    assert not first.is_leader
    clock.advance(wait_s)
    second.step()
    assert second.is_leader
    assert wait_s <= 1.0
    assert store.lease is not None
    assert store.lease.transitions == 1


def test_wall_clock_steps_change_nothing() -> None:
    clock, store = FakeClock(), Register()
    first, second = _elector(store, clock, "a"), _elector(store, clock, "b")
    first.step()
    for step in (+86_400, -7 * 86_400):
        clock.step_wall(step)
        second.step()
        assert first.is_leader
        assert not second.is_leader


def test_refused_connections_are_retried_and_leadership_ends_at_its_deadline() -> None:
    class Flaky(Register):
        away = True

        def read(self) -> Lease | None:
            if self.away:
                raise BackendUnavailable("connection refused")
            return super().read()

        def write(self, lease: Lease, /) -> Lease:
            if self.away:
                raise BackendUnavailable("connection refused")
            return super().write(lease)

    clock, store = FakeClock(), Flaky()
    elector = _elector(store, clock, "a")
    told: list[LeaderChanged] = []
    elector.hooks.subscribe(told.append, LeaderChanged)
    clock.advance(elector.step())
    assert isinstance(elector.last_error, BackendUnavailable)
    store.away = False
    elector.step()
    assert elector.is_leader
    store.away = True
    started = clock.monotonic()
    while elector.is_leader:
        clock.advance(elector.step())
    assert clock.monotonic() - started <= DEADLINE_S + RETRY_S
    elector.step()
    store.away = False
    elector.step()
    assert [t.is_leader for t in told] == [True, False, True]


def test_a_write_that_was_done_but_not_answered_is_found_again() -> None:
    class Deaf(Register):
        deaf = 1

        def write(self, lease: Lease, /) -> Lease:
            done = super().write(lease)
            if self.deaf:
                self.deaf -= 1
                raise BackendUnavailable("timed out")
            return done

    clock, store = FakeClock(), Deaf()
    elector = _elector(store, clock, "a")
    elector.step()
    assert not elector.is_leader
    elector.step()
    assert elector.is_leader
    assert store.lease is not None
    assert store.lease.transitions == 0


def test_closing_stops_the_thread_and_releases() -> None:
    store = Register()
    with LeaderElector(store, identity="a") as elector:
        seen = threading.Event()
        elector.hooks.subscribe(lambda _: seen.set(), LeaderChanged)
        assert elector.is_leader or seen.wait(10)
        assert elector.is_leader
    assert not elector.is_leader
    assert store.lease is not None
    assert store.lease.holder == ""


async def _lead_and_leave(store: Register) -> bool:
    import asyncio

    elector = LeaderElector(store, identity="a")
    task = asyncio.create_task(elector.arun())
    while not elector.is_leader:
        await asyncio.sleep(0.01)
    task.cancel()
    try:
        await task
    except asyncio.CancelledError:
        pass
    return elector.is_leader


def test_a_cancelled_task_releases() -> None:
    import asyncio

    store = Register()
    assert asyncio.run(_lead_and_leave(store)) is False
    assert store.lease is not None
    assert store.lease.holder == ""


@pytest.mark.parametrize("options", [{"renew_deadline": 15}, {"lease": 0}, {"renew_every": 11}])
def test_times_that_cannot_be_safe_are_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError):
        LeaderElector(Register(), **options)  # type: ignore[arg-type]


def test_a_store_with_a_bug_does_not_end_the_election() -> None:
    class Broken(Register):
        broken = True

        def read(self) -> Lease | None:
            if self.broken:
                raise KeyError("metadata")
            return super().read()

    store = Broken()
    elector = _elector(store, FakeClock(), "a")
    elector.step()
    assert isinstance(elector.last_error, KeyError)
    store.broken = False
    elector.step()
    assert elector.is_leader
