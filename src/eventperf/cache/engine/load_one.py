"""Get-or-load: one load per key among threads, tasks and processes, as steps."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from eventperf._core.errors import ConfigurationError
from eventperf._core.flights import ABANDONED, ERROR, OPEN, VALUE, Flight
from eventperf.cache.errors import LoadTimeout, SerializationError, StoreUnavailable
from eventperf.cache.keys import Space
from eventperf.cache.options import CacheOptions
from eventperf.cache.policy import early_by, l1_life, lifetime, result_ttl
from eventperf.cache.stats import Loaded, LoadFailed
from eventperf.cache.transactions import DIRTY, inside
from eventperf.cache.values.single_use import refuse_single_use

from .effects import Load, MayWait, Spawn, Steps, Wait, call
from .look import Found, Look, look, not_kept, outer_of, pack, tag_versions, tell
from .state import Core

CALM_S = 0.1
TagsOf = Callable[[Any], Sequence[str]]


class Job:
    """One get-or-load: what to load, how to keep it, and where it stands."""

    __slots__ = ("began", "flight", "has_loaded", "is_private", "key", "loaded", "loader", "local", "options",
                 "outer", "refresh", "seen", "space", "stale", "tags", "ttl_s")  # fmt: skip

    def __init__(
        self,
        space: Space,
        local: str,
        loader: Callable[[], Any],
        ttl_s: float,
        tags: Sequence[str] | TagsOf,
        options: CacheOptions,
        refresh: bool = False,
    ) -> None:
        self.refresh: bool = refresh
        self.space: Space = space
        self.local: str = local
        self.loader: Callable[[], Any] = loader
        self.ttl_s: float = ttl_s
        self.tags: Sequence[str] | TagsOf = tags
        self.options: CacheOptions = options
        self.outer: str = outer_of(space, local)
        self.key: str = local[len(space.inner) :]
        self.stale: Found | None = None
        self.seen: Look | None = None
        self.flight: Flight | None = None
        self.began: float = 0.0
        self.loaded: Any = None
        self.has_loaded: bool = False
        self.is_private: bool = False

    def inner_tags(self) -> list[str] | None:
        """Return the tags as process memory knows them; ``None`` while only the result can tell."""
        return None if callable(self.tags) else [self.space.inner + tag for tag in self.tags]


def get_or_load(core: Core, job: Job) -> Steps[Any]:
    """Return the value of the job's key; load it if nobody has it and nobody else is loading it."""
    options = job.options
    entry = core.peek(job.local) if options.use_l1 and not job.refresh else None
    if job.refresh:
        core.flights.fence(job.local)  # a load under way began before we were asked
    if entry is not None and entry.key is not None:
        left = entry.hard - core.now()
        if left > 0:
            job.stale = Found(entry.value, entry.soft - core.now(), left, {}, 0.0)
    give_up = None if options.hard_timeout is None else core.now() + float(options.hard_timeout)  # type: ignore[arg-type]
    while True:
        flight, leads = core.flights.join(job.local, job.inner_tags())
        if leads:
            job.flight = flight
            if _looks_first(core, job):
                yield from _find_old(core, job, flight)
                if job.stale is not None and _swr_left(job):
                    return (yield from _refresh_behind(core, job, flight))
            if not _in_background(job):
                return (yield from _lead(core, job, flight))
            yield Spawn(_lead(core, job, flight), flight)
        elif job.stale is not None and _may_serve_stale(core, job):
            core.counts.stale += 1
            return job.stale.value
        elif not (yield MayWait(flight)):
            return (yield from _load(core, job, ()))  # waiting for ourselves would never end
        landed = yield Wait(core.flights, flight, _patience(core, job, give_up))
        if landed:
            if flight.state != ABANDONED:
                return flight.result()
        elif job.stale is not None:
            core.counts.stale += 1
            return job.stale.value
        elif give_up is not None and core.now() >= give_up:
            raise LoadTimeout(job.key, float(options.hard_timeout or 0))  # type: ignore[arg-type]


def _looks_first(core: Core, job: Job) -> bool:
    """Tell whether the second tier may have an old value that this process has not."""
    options = job.options
    old_is_of_use = options.soft_timeout is not None or float(options.stale_while_revalidate) > 0  # type: ignore[arg-type]
    return old_is_of_use and core.store is not None and job.stale is None and not job.refresh


def _find_old(core: Core, job: Job, flight: Flight) -> Steps[None]:
    core.ensure_channel()
    try:
        job.seen = (yield from look(core, job.space, [job.local], job.options))[job.local]
    except BaseException:
        core.flights.land(flight, ABANDONED)
        raise
    found = job.seen.found
    if found is not None and found.soft_s <= 0:
        job.stale = found


def _refresh_behind(core: Core, job: Job, flight: Flight) -> Steps[Any]:
    """Hand the old value to everyone who waits; the refresh has a flight of its own."""
    assert job.stale is not None
    core.flights.land(flight, VALUE, job.stale.value)
    flight, leads = core.flights.join(job.local, job.inner_tags())
    if leads:
        job.flight = flight
        yield Spawn(_lead(core, job, flight), flight)
    core.counts.stale += 1
    return job.stale.value


def _in_background(job: Job) -> bool:
    options = job.options
    if options.hard_timeout is not None:
        return True
    return job.stale is not None and (options.soft_timeout is not None or _swr_left(job))


def _swr_left(job: Job) -> bool:
    """Tell whether the stale value at hand is still within stale-while-revalidate."""
    assert job.stale is not None
    swr = float(job.options.stale_while_revalidate)  # type: ignore[arg-type]
    return swr > 0 and job.stale.soft_s > -swr


def _may_serve_stale(core: Core, job: Job) -> bool:
    return _swr_left(job)


def _patience(core: Core, job: Job, give_up: float | None) -> float | None:
    if job.stale is not None:
        if _swr_left(job):
            return 0.0
        if job.options.soft_timeout is not None:
            return float(job.options.soft_timeout)  # type: ignore[arg-type]
    return None if give_up is None else max(0.0, give_up - core.now())


def _lead(core: Core, job: Job, flight: Flight) -> Steps[Any]:
    try:
        if core.store is None:
            value = yield from _load_here(core, job, flight)
        else:
            value = yield from _load_shared(core, job, flight)
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
    """Call the loader and count; a stale value within grace stands in for a failure."""
    started = time.perf_counter()
    job.began = core.wall()
    core.counts.loads += 1
    try:
        value = yield Load(job.loader, flights)
    except Exception as error:
        core.counts.load_errors += 1
        stands_in = job.stale is not None and job.stale.soft_s > -float(job.options.grace)  # type: ignore[arg-type]
        if core.hooks.active:
            core.hooks.emit(LoadFailed(job.key, error, stands_in))
        raise
    taken = time.perf_counter() - started
    core.load_s += taken
    if core.hooks.active:
        core.hooks.emit(Loaded(job.key, taken))
    refuse_single_use(job.key, value)
    job.loaded, job.has_loaded = value, True
    if DIRTY and job.options.guard_transactions and inside():
        job.is_private = True  # the loader itself has written, or flushed what waited to be
        for flight in flights:
            flight.fenced = True
    return value


def _stand_in(core: Core, job: Job) -> Found | None:
    """Return the old value that may stand in for a failed load."""
    stale = job.stale
    grace = float(job.options.grace)  # type: ignore[arg-type]
    if stale is None or grace <= 0 or stale.soft_s <= -grace or job.has_loaded:
        return None
    core.counts.stale += 1
    return stale


def _tags(job: Job, value: Any) -> list[str]:
    return list(job.tags(value)) if callable(job.tags) else list(job.tags)


def _life(core: Core, job: Job, value: Any) -> tuple[float, float] | None:
    ttl = result_ttl(job.options, job.ttl_s, value)
    if ttl is None:
        return None
    return lifetime(job.options, ttl, core.random.random() if job.options.jitter_ratio else 0.0)


def _load_here(core: Core, job: Job, flight: Flight) -> Steps[Any]:
    """Process memory only."""
    entry = core.peek(job.local)
    if entry is not None and entry.key is not None and core.now() < entry.soft and not job.refresh:
        return entry.value  # the load we would have waited for landed between the look and the join
    core.counts.misses += 1
    before = time.perf_counter()
    try:
        value = yield from _load(core, job, (flight,))
    except Exception:
        if (old := _stand_in(core, job)) is not None:
            return old.value
        raise
    life = _life(core, job, value)
    tags = [job.space.inner + tag for tag in _tags(job, value)]
    if life is not None and job.options.use_l1 and not _unsettled(core, job, tags):
        load_s = time.perf_counter() - before
        soft = (
            life[0] - early_by(load_s, job.options.early_beta, core.draw())
            if job.options.early_beta
            else life[0]
        )
        core.counts.stores += 1
        core.hold(job.local, value, soft, life[1], tags, load_s, flight)
        if flight.fenced:
            core.counts.refused += 1
    return value


def _unsettled(core: Core, job: Job, inner_tags: Sequence[str]) -> bool:
    return core.is_settling([job.local, *(f"\x00tag:{tag}" for tag in inner_tags)])


def _load_shared(core: Core, job: Job, flight: Flight) -> Steps[Any]:
    """With a second tier: look there, ask for the lease, load, store while the lease stands."""
    core.ensure_channel()
    token = core.salt()
    first = True
    while True:
        seen, job.seen = job.seen, None
        if seen is None:
            seen = (yield from look(core, job.space, [job.local], job.options))[job.local]
        if seen.found is not None:
            fresh = seen.found.soft_s > 0 and not (job.refresh and first)
            if fresh and not _draws_early(core, job, seen.found):
                core.counts.l2_hits += 1
                return seen.found.value
            job.stale = None if job.refresh else seen.found
        if first:
            core.counts.misses += 1
        first = False
        if seen.lost:
            return (yield from _load_alone(core, job, flight))
        waker, _ = core.wakes.join(job.outer)
        lease = float(job.options.lease)  # type: ignore[arg-type]
        force = {job.outer} if seen.present else set()
        try:
            grant = (yield call("acquire_many", [job.outer], token, lease_s=lease, force=force))[0]
        except StoreUnavailable:
            return (yield from _load_alone(core, job, flight))
        if grant.state == "granted":
            return (yield from _load_leased(core, job, flight, token, grant.wait_s))
        if grant.state == "settling":
            return (yield from _load_alone(core, job, flight))
        if grant.state == "held":
            if job.stale is not None and (job.stale.soft_s > 0 or _swr_left(job)):
                core.counts.stale += job.stale.soft_s <= 0
                return job.stale.value
            yield from _wait_for_other(core, job, waker, grant.wait_s)


def _draws_early(core: Core, job: Job, found: Found) -> bool:
    beta = job.options.early_beta
    return bool(beta) and found.soft_s <= early_by(found.load_s, beta, core.draw())


def _wait_for_other(core: Core, job: Job, waker: Flight, left_s: float) -> Steps[None]:
    """Sleep until the leader in another process has stored, or its lease is over.

    The leader says when it is done. Writes under the key that the server tells of are at first the lease
    itself and the marks of those who wait for it; after ``CALM_S`` they mean that something happened to it.
    """
    channel, outer = core.channel, job.outer
    hears = channel is not None and channel.hears
    left = max(0.001, left_s + 0.005) if hears else min(0.02, max(0.001, left_s))
    try:
        core.pushed.discard(outer)
        landed = yield Wait(core.wakes, waker, min(left, CALM_S))
        core.eager.add(outer)
        if not landed and left > CALM_S and outer not in core.pushed:
            yield Wait(core.wakes, waker, left - CALM_S)
    finally:
        core.eager.discard(outer)
        core.pushed.discard(outer)
    if waker.state == OPEN:
        core.wakes.land(waker, VALUE)


def _load_alone(core: Core, job: Job, flight: Flight) -> Steps[Any]:
    """Load without the second tier: nothing is stored there, and here only while that is safe."""
    try:
        value = yield from _load(core, job, (flight,))
    except Exception:
        if (old := _stand_in(core, job)) is not None:
            return old.value
        raise
    life = _life(core, job, value)
    tags = [job.space.inner + tag for tag in _tags(job, value)]
    if (
        life is not None
        and job.options.use_l1
        and core.coherence == "ttl"
        and not _unsettled(core, job, tags)
    ):
        soft, hard = l1_life(job.options, life[0], life[1], True)
        core.hold(job.local, value, soft, hard, tags, 0.0, flight)
    return value


def _load_leased(core: Core, job: Job, flight: Flight, token: str, server_s: float) -> Steps[Any]:
    core.keeper.keep(job.outer, token, float(job.options.lease))  # type: ignore[arg-type]
    done = False
    try:
        # Versions of the tags that are known before the load: an invalidation during it makes them old.
        versions: dict[str, str] = {}
        if not callable(job.tags) and job.tags:
            try:
                versions = yield from tag_versions(
                    core, job.space, job.tags, create=True, life_s=_longest(job)
                )
            except StoreUnavailable:
                pass  # stored without versions it could not be compared: _store refuses
        before = time.perf_counter()
        value = yield from _load(core, job, (flight,))
        load_s = time.perf_counter() - before
        done = yield from _store(core, job, flight, token, value, versions, load_s, server_s)
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
            yield from _give_back(core, job.outer, token)


def _give_back(core: Core, outer: str, token: str) -> Steps[None]:
    try:
        yield call("release_many", token, [outer])
    except StoreUnavailable:
        pass  # counted by the breaker; the lease ends by itself
    core.wake(outer)


def _longest(job: Job) -> float:
    return job.ttl_s + float(job.options.grace) + float(job.options.stale_while_revalidate)  # type: ignore[arg-type]


def _store(
    core: Core,
    job: Job,
    flight: Flight,
    token: str,
    value: Any,
    versions: dict[str, str],
    load_s: float,
    server_s: float,
) -> Steps[bool]:
    """Keep a loaded value in both tiers, if nothing was invalidated meanwhile; tell whether it was kept."""
    life = _life(core, job, value)
    tags = _tags(job, value)
    if life is None:
        return False
    soft, hard = life
    if flight.fenced or _unsettled(core, job, [job.space.inner + tag for tag in tags]):
        core.counts.refused += 1
        return False
    core_ticket = core.open_ticket(job.local)
    try:
        missing = [tag for tag in tags if tag not in versions]
        if missing:
            if not callable(job.tags):
                return False
            late = yield from tag_versions(core, job.space, missing, create=True, life_s=hard)
            if any(_bumped_since(version, server_s) for version in late.values()):
                core.counts.refused += 1
                return False
            versions = {**versions, **late}
        blob = pack(core, value, soft, hard, job.options, load_s=load_s, tags={t: versions[t] for t in tags})
        if flight.fenced:
            core.counts.refused += 1
            return False
        kept = (yield call("store_many", token, [(job.outer, blob, hard)]))[0]
        if not kept:
            core.counts.refused += 1
            # The lease is no longer ours: there is nothing to give back, but whoever waits for us must know.
            yield call("publish", job.outer.encode())
            return True
        core.counts.stores += 1
        core.wake(job.outer)
        yield from tell(core, [job.outer])
        if job.options.use_l1 and not flight.fenced:
            early = early_by(load_s, job.options.early_beta, core.draw()) if job.options.early_beta else 0.0
            soft, hard = l1_life(job.options, soft - early, hard, True)
            if flight.fenced_tags.isdisjoint(job.space.inner + tag for tag in tags):
                inner = [job.space.inner + tag for tag in tags]
                core.hold(job.local, value, soft, hard, inner, load_s, core_ticket)
        return True
    except StoreUnavailable:
        return True
    finally:
        core.shut_ticket(job.local, core_ticket)


def _bumped_since(version: str, server_s: float) -> bool:
    """Tell whether a tag was invalidated at or after the server's time of our lease."""
    if version[:1] != "i":
        return False
    try:
        return int(version[1:14]) / 1000 >= math.floor(server_s * 1000) / 1000
    except ValueError:
        return True
