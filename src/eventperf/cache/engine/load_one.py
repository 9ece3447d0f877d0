"""Get-or-load: one load per key among threads, tasks and processes, as steps.

:func:`get_or_load` joins or leads a flight; the leader looks at the second tier, takes the lease, loads and
keeps. What happens to a loaded value is in :mod:`.keep`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from eventperf._core.errors import ConfigurationError
from eventperf._core.flights import ABANDONED, ERROR, VALUE, Flight
from eventperf.cache.errors import LoadTimeout, NotCacheable, SerializationError, StoreUnavailable
from eventperf.cache.policy import (
    is_early,
    is_fresh,
    is_kept,
    l1_life,
    longest_life,
    may_serve_stale,
    may_stand_in,
    old_is_of_use,
)
from eventperf.cache.values.single_use import refuse_single_use

from .background import spawn
from .counting import Counted
from .effects import Steps, ask, load, may_wait, wait
from .job import Job
from .keep import keep_here, keep_loaded, life_of, not_kept
from .look import Found, Look, look, tag_versions
from .state import Core
from .tier import Tier

UNSURE = "with follows='auto' the tables of all it reads must be known: name them, follows=[...]"
PATIENT_LEASES = 6
"""So many leases long a load in the background keeps its lease when nobody waits for it."""


def get_or_load(core: Core, job: Job) -> Steps[Any]:
    """Return the value of the job's key; load it if nobody has it and nobody else is loading it."""
    if job.refresh:
        core.flights.fence(job.local)  # a load under way began before we were asked
    elif job.options.use_l1:
        _old_here(core, job)
    timeout = job.options.in_seconds.hard_timeout
    give_up = None if timeout is None else core.now() + timeout
    began_after_us = False
    while True:
        flight, leads = core.flights.join(job.local, job.inner_tags())
        if leads:
            job.flight = flight
            done, value = yield from _take_the_lead(core, job, flight, give_up)
            if done:
                return value
        else:
            yield from _old_elsewhere(core, job, flight)
            if job.stale is not None and _may_do(job, job.stale):
                return _serve_stale(core, job.stale)
            if not (yield from may_wait(core.flights, flight)):
                return (yield from _load(core, job, ()))  # waiting for ourselves would never end
        landed = yield from wait(core.flights, flight, _patience(core, job, give_up))
        if landed:
            if flight.state == ERROR and job.stale is not None and _may_do(job, job.stale):
                return _serve_stale(core, job.stale)  # it failed before we had looked away
            if flight.state != ABANDONED and (leads or began_after_us or not flight.is_outdated):
                return flight.result()
            began_after_us = flight.is_outdated
        elif job.stale is not None:
            return _serve_stale(core, job.stale)
        elif give_up is not None and core.now() >= give_up:
            raise LoadTimeout(job.key, timeout or 0.0)


def _old_here(core: Core, job: Job) -> None:
    """Note the old value that process memory still has."""
    entry = core.peek(job.local)
    if entry is not None and entry.key is not None:
        now = core.now()
        if is_kept(entry.hard, now):
            job.stale = Found(entry.value, entry.soft - now, entry.hard - now, {}, 0.0)


def _old_elsewhere(core: Core, job: Job, flight: Flight) -> Steps[None]:
    """Note the old value that the second tier has: ours ended as the refresh took its lease.

    It is read anew for each caller, since another process may have invalidated it meanwhile.
    """
    if not flight.is_refresh or job.stale is not None or job.refresh or core.tier is None:
        return
    if old_is_of_use(job.options):
        found = (yield from look_for(core, core.tier, job)).found
        if found is not None and flight.fenced_tags.isdisjoint(job.inner(found.tags)):
            job.stale = found


def _serve_stale(core: Core, stale: Found) -> Any:
    core.counts.stale += not stale.is_fresh
    return stale.value


def _take_the_lead(core: Core, job: Job, flight: Flight, give_up: float | None) -> Steps[tuple[bool, Any]]:
    """Lead ``flight``: here, or in the background while the caller waits for it (then: not done yet)."""
    options = job.options
    if core.tier is not None and job.stale is None and not job.refresh and old_is_of_use(options):
        yield from _find_old(core, core.tier, job, flight)
        flight.is_refresh = job.stale is not None
        if job.stale is not None and may_serve_stale(job.stale.soft_s, options):
            yield from _refresh_behind(core, job, flight)
            return True, _serve_stale(core, job.stale)
    stale = job.stale
    in_background = give_up is not None or (
        stale is not None and (options.soft_timeout is not None or may_serve_stale(stale.soft_s, options))
    )
    if not in_background:
        return True, (yield from _lead(core, job, flight))
    patience = 0.0 if stale is not None or give_up is None else max(0.001, give_up - core.now())
    if not (yield from spawn(core.background, _lead(core, job, flight, True), flight, patience)):
        core.flights.land(flight, ABANDONED)  # no place: somebody else may lead, another time
        if stale is not None:
            return True, _serve_stale(core, stale)
        raise LoadTimeout(job.key, options.in_seconds.hard_timeout or 0.0)
    return False, None


def _find_old(core: Core, tier: Tier, job: Job, flight: Flight) -> Steps[None]:
    """See whether the second tier has an old value that this process has not."""
    core.ensure_channel()
    try:
        job.seen = yield from look_for(core, tier, job)
    except BaseException:
        core.flights.land(flight, ABANDONED)
        raise
    found = job.seen.found
    if found is not None and not found.is_fresh:
        job.stale = found


def look_for(core: Core, tier: Tier, job: Job) -> Steps[Look]:
    """Look at the second tier for the job's key."""
    tags = () if callable(job.tags) else job.tags
    return (yield from look(core, tier, job.space, [job.local], job.options, tags))[job.local]


def _refresh_behind(core: Core, job: Job, flight: Flight) -> Steps[None]:
    """Hand the old value to everyone who waits; the refresh has a flight of its own."""
    assert job.stale is not None
    core.flights.land(flight, VALUE, job.stale.value)
    flight, leads = core.flights.join(job.local, job.inner_tags())
    if leads:
        job.flight = flight
        flight.is_refresh = True
        if not (yield from spawn(core.background, _lead(core, job, flight, True), flight)):
            core.flights.land(flight, ABANDONED)


def _patience(core: Core, job: Job, give_up: float | None) -> float | None:
    if job.stale is not None:
        if may_serve_stale(job.stale.soft_s, job.options):
            return 0.0
        if job.options.soft_timeout is not None:
            return job.options.in_seconds.soft_timeout
    return None if give_up is None else max(0.0, give_up - core.now())


# -- leading ---------------------------------------------------------------------------------------------


def _lead(core: Core, job: Job, flight: Flight, in_background: bool = False) -> Steps[Any]:
    try:
        if core.tier is None:
            value = yield from _load_here(core, job, flight)
        else:
            value = yield from _load_shared(core, core.tier, job, flight, in_background)
    except Exception as error:
        if not (job.has_loaded and isinstance(error, (SerializationError, ConfigurationError))):
            core.flights.land(flight, ERROR, error)
            raise
        value = job.loaded  # cannot be kept, which is no reason to lose it
        not_kept(core, job.key, error)
    except BaseException:
        core.flights.land(flight, ABANDONED)
        raise
    core.flights.land(flight, ABANDONED if job.is_private else VALUE, value)
    return value


def _load(core: Core, job: Job, flights: tuple[Flight, ...]) -> Steps[Any]:
    """Call the loader and count; the host is told."""
    with Counted(core, job.key, lambda: job.stands_in):
        value = yield from load(core.flights, job.loader, flights, job.said)
    refuse_single_use(job.key, value)
    job.loaded, job.has_loaded = value, True
    if job.said.is_unsure:
        not_kept(core, job.key, NotCacheable(type(value).__name__, job.key, UNSURE))
        for flight in flights:
            flight.fenced = True
    if job.options.guard_transactions and job.said.is_private:
        job.is_private = True
        for flight in flights:
            flight.fenced = True
    return value


def _stand_in(core: Core, job: Job) -> Found | None:
    """Return the old value that may stand in for a failed load."""
    stale = job.stale
    if stale is None or job.has_loaded or not may_stand_in(stale.soft_s, job.options):
        return None
    core.counts.stale += 1
    return stale


def _load_here(core: Core, job: Job, flight: Flight) -> Steps[Any]:
    """Process memory only."""
    entry = core.peek(job.local)
    if entry is not None and entry.key is not None and not job.refresh and is_fresh(entry.soft, core.now()):
        return entry.value  # the load we would have waited for landed between the look and the join
    core.counts.misses += 1
    before = time.perf_counter()
    try:
        value = yield from _load(core, job, (flight,))
    except Exception:
        if (old := _stand_in(core, job)) is not None:
            return old.value
        raise
    life = life_of(core, job.options, job.ttl_s, value)
    if life is not None and job.options.use_l1:
        keep_here(core, job, flight, value, life, time.perf_counter() - before)
    return value


def _load_shared(core: Core, tier: Tier, job: Job, flight: Flight, in_background: bool) -> Steps[Any]:
    """With a second tier: look there, ask for the lease, load, store while the lease stands."""
    core.ensure_channel()
    token = core.salt()
    first = True
    while True:
        seen, job.seen = job.seen, None
        if seen is None:
            seen = yield from look_for(core, tier, job)
        found = seen.found
        if found is not None and not flight.fenced_tags.isdisjoint(job.inner(found.tags)):
            found = None  # invalidated while we looked: who joined us since must not get it
        if found is not None:
            fresh = found.is_fresh and not (job.refresh and first)
            if fresh and not is_early(found.soft_s, found.load_s, job.options, core.draw()):
                core.counts.l2_hits += 1
                return found.value
            job.stale = None if job.refresh else found
        core.counts.misses += first
        first = False
        if seen.lost:
            return (yield from _load_alone(core, job, flight))
        force = {job.outer} if seen.present else set()
        waker = core.wakes.expect(job.outer)
        sent_s = core.clocks.own()
        try:
            grants = yield from ask(
                tier.acquire_many, [job.outer], token, lease_s=job.options.in_seconds.lease, force=force
            )
            grant = grants[0]
            if grant.state == "held":
                if job.stale is not None and _may_do(job, job.stale):
                    return _serve_stale(core, job.stale)
                wait_s = yield from _trusted(tier, job, grant.wait_s)
                hears = core.bus is not None and core.bus.connected
                left = max(0.001, wait_s + 0.005) if hears else min(0.02, max(0.001, wait_s))
                yield from core.wakes.park(waker, left)
        except StoreUnavailable:
            return (yield from _load_alone(core, job, flight))
        finally:
            core.wakes.done(waker)
        if grant.state == "granted":
            core.clocks.heard(grant.wait_s, sent_s)
            return (yield from _load_leased(core, tier, job, flight, token, grant.wait_s, in_background))
        if grant.state == "settling":
            return (yield from _load_alone(core, job, flight, keep=False))


def _trusted(tier: Tier, job: Job, wait_s: float) -> Steps[float]:
    """Return how long the lease of another process is waited for: never longer than one of our own."""
    lease_s = job.options.in_seconds.lease
    if wait_s <= lease_s + 0.001:  # leases are whole milliseconds
        return wait_s
    if tier.shorten is not None:
        yield from ask(tier.shorten, job.outer, lease_s=lease_s)
    return lease_s


def _may_do(job: Job, stale: Found) -> bool:
    """Tell whether the value at hand will do while another process loads."""
    return stale.is_fresh or may_serve_stale(stale.soft_s, job.options)


def _load_alone(core: Core, job: Job, flight: Flight, *, keep: bool = True) -> Steps[Any]:
    """Load without the second tier: nothing is stored there, and here only while that is safe."""
    try:
        value = yield from _load(core, job, (flight,))
    except Exception:
        if (old := _stand_in(core, job)) is not None:
            return old.value
        raise
    life = life_of(core, job.options, job.ttl_s, value)
    if keep and life is not None and job.options.use_l1 and core.coherence == "ttl":
        keep_here(core, job, flight, value, l1_life(job.options, *life, True), 0.0, counts=False)
    return value


def _load_leased(
    core: Core, tier: Tier, job: Job, flight: Flight, token: str, server_s: float, in_background: bool
) -> Steps[Any]:
    assert core.keeper is not None
    lease_s, is_wanted = job.options.in_seconds.lease, _wanted(core, job, flight, in_background)
    core.keeper.keep(tier.renew_many, [job.outer], token, lease_s, is_wanted)
    done = False
    try:
        # Versions of the tags that are known before the load: an invalidation during it makes them old.
        versions: dict[str, str] = {}
        if not callable(job.tags) and job.tags:
            life_s = longest_life(job.options, job.ttl_s)
            try:
                versions = yield from tag_versions(core, tier, job.space, job.tags, create_for_s=life_s)
            except StoreUnavailable:
                pass  # stored without versions it could not be compared: keep_loaded refuses
        before = time.perf_counter()
        value = yield from _load(core, job, (flight,))
        load_s = time.perf_counter() - before
        done = yield from keep_loaded(core, tier, job, flight, token, value, versions, load_s, server_s)
        return value
    except Exception:
        if (old := _stand_in(core, job)) is not None:
            return old.value
        raise
    except GeneratorExit:
        done = True  # thrown away with its loop: nothing more can be said from here
        raise
    finally:
        core.keeper.drop(token)
        if not done:
            yield from give_back(core, tier, token, [job.outer])


def _wanted(core: Core, job: Job, flight: Flight, in_background: bool) -> Callable[[], bool]:
    """Return what tells whether the lease of a load is still to be renewed.

    A caller who loads for itself waits. Behind a caller, a load is wanted while somebody waits for it, and
    otherwise for as long as it is of use before somebody has to: a few leases, or the rest of the old value.
    """
    if not in_background:
        return lambda: not flight.is_orphan
    old_s = job.stale.hard_s if job.stale is not None else 0.0
    until = core.now() + max(PATIENT_LEASES * job.options.in_seconds.lease, old_s)
    return lambda: not flight.is_orphan and (flight.is_awaited or core.now() < until)


def give_back(core: Core, tier: Tier, token: str, outers: list[str]) -> Steps[None]:
    """Let the next caller try at once."""
    try:
        yield from ask(tier.release_many, token, outers)
    except StoreUnavailable:
        pass  # counted by the breaker; the leases end by themselves
    for outer in outers:
        core.wakes.wake(outer)
