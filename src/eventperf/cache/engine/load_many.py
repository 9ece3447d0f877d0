"""Get-or-load for many keys: one look per node, one lease call per node, one loader call for all misses."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from eventperf._core.flights import ABANDONED, ERROR, VALUE, Flight
from eventperf.cache.errors import SerializationError, StoreUnavailable
from eventperf.cache.keys import Space
from eventperf.cache.options import CacheOptions
from eventperf.cache.policy import l1_life, lifetime, result_ttl
from eventperf.cache.stats import Loaded, LoadFailed
from eventperf.cache.transactions import DIRTY, inside
from eventperf.cache.values.single_use import refuse_single_use

from .effects import Load, MayWait, Steps, Wait, call
from .load_one import Job, get_or_load
from .look import look, not_kept, outer_of, pack, tag_versions, tell
from .state import Core


@dataclass(slots=True)
class Batch:
    """What to load in bulk, and how to keep it."""

    space: Space
    names: Mapping[str, str]
    loader: Callable[[list[str]], Any]
    ttl_s: float
    tags: Sequence[str]
    options: CacheOptions


def load_only(core: Core, loader: Callable[[], Any]) -> Steps[Any]:
    """Call a loader and remember nothing (the cache is switched off)."""
    core.counts.loads += 1
    return (yield Load(loader, ()))


def get_or_load_many(core: Core, batch: Batch, missing: list[str]) -> Steps[dict[str, Any]]:
    """Return the values of local keys that process memory did not have."""
    mine, others = core.flights.join_many(missing, [batch.space.inner + tag for tag in batch.tags])
    out: dict[str, Any] = {}
    try:
        out.update((yield from _lead(core, batch, mine)) if mine else {})
    except Exception as error:
        _land_all(core, mine, ERROR, error)
        raise
    except BaseException:
        _land_all(core, mine, ABANDONED, None)
        raise
    for key, flight in mine.items():
        if key in out:
            core.flights.land(flight, VALUE, out[key])
        else:
            core.flights.land(flight, ABANDONED)  # the loader had nothing: whoever waits asks for itself
    for key, flight in others.items():
        found, value = yield from _join(core, batch, key, flight)
        if found:
            out[key] = value
    return out


def _land_all(core: Core, flights: dict[str, Flight], state: str, outcome: Any) -> None:
    for flight in flights.values():
        core.flights.land(flight, state, outcome)


def _join(core: Core, batch: Batch, key: str, flight: Flight) -> Steps[tuple[bool, Any]]:
    """Wait for somebody else's load of one key; load it alone when that load gave nothing."""
    if (yield MayWait(flight)):
        yield Wait(core.flights, flight, None)
        if flight.state != ABANDONED:
            return True, flight.result()
    return (yield from _alone(core, batch, key))


class _NothingLoaded(Exception):
    """The bulk loader left this key out."""


def _alone(core: Core, batch: Batch, key: str) -> Steps[tuple[bool, Any]]:
    name = batch.names[key]
    options = batch.options

    def pick(loaded: Mapping[str, Any]) -> Any:
        if name not in loaded:
            raise _NothingLoaded(name)
        return loaded[name]

    def load() -> Any:
        loaded = batch.loader([name])
        return _later(loaded, pick) if hasattr(loaded, "__await__") else pick(loaded)

    try:
        job = Job(batch.space, key, load, batch.ttl_s, batch.tags, options)
        return True, (yield from get_or_load(core, job))
    except _NothingLoaded:
        return False, None


async def _later(loaded: Any, pick: Callable[[Mapping[str, Any]], Any]) -> Any:
    return pick(await loaded)


def _load(core: Core, batch: Batch, keys: list[str], flights: dict[str, Flight]) -> Steps[dict[str, Any]]:
    names = [batch.names[key] for key in keys]
    core.counts.loads += 1
    started = time.perf_counter()
    try:
        loaded = yield Load(lambda: batch.loader(names), tuple(flights.values()))
    except Exception as error:
        core.counts.load_errors += 1
        if core.hooks.active:
            core.hooks.emit(LoadFailed(",".join(names[:3]), error, False))
        raise
    taken = time.perf_counter() - started
    core.load_s += taken
    if core.hooks.active:
        core.hooks.emit(Loaded(",".join(names[:3]), taken))
    out = {key: loaded[batch.names[key]] for key in keys if batch.names[key] in loaded}
    for key, value in out.items():
        refuse_single_use(batch.names[key], value)
    if DIRTY and batch.options.guard_transactions and inside():
        for flight in flights.values():  # the loader itself has written, or flushed what waited to be
            flight.fenced = True
    return out


def _lead(core: Core, batch: Batch, mine: dict[str, Flight]) -> Steps[dict[str, Any]]:
    keys = list(mine)
    if core.store is None:
        return (yield from _lead_here(core, batch, keys, mine))
    core.ensure_channel()
    looks = yield from look(core, batch.space, keys, batch.options)
    out = {key: seen.found.value for key, seen in looks.items() if seen.found and seen.found.soft_s > 0}
    core.counts.l2_hits += len(out)
    rest = [key for key in keys if key not in out]
    core.counts.misses += len(rest)
    if not rest:
        return out
    outers = {key: outer_of(batch.space, key) for key in rest}
    force = {outers[key] for key in rest if looks[key].present}
    token = core.salt()
    lease = float(batch.options.lease)  # type: ignore[arg-type]
    try:
        grants = yield call("acquire_many", list(outers.values()), token, lease_s=lease, force=force)
    except StoreUnavailable:
        return out | (yield from _load(core, batch, rest, mine))
    state = {key: grant for key, grant in zip(rest, grants, strict=True)}
    ours = [key for key in rest if state[key].state in ("granted", "settling")]
    if ours:
        leased = [key for key in ours if state[key].state == "granted"]
        out |= yield from _load_leased(core, batch, ours, leased, mine, token)
    for key in rest:
        if key not in ours:
            # Another process is at it: become an ordinary caller of that key, after our own are stored.
            core.flights.land(mine[key], ABANDONED)
            found, value = yield from _alone(core, batch, key)
            if found:
                out[key] = value
    return out


def _lead_here(core: Core, batch: Batch, keys: list[str], mine: dict[str, Flight]) -> Steps[dict[str, Any]]:
    out = {}
    for key in keys:
        entry = core.peek(key) if batch.options.use_l1 else None
        if entry is not None and entry.key is not None and core.now() < entry.soft:
            out[key] = entry.value
    rest = [key for key in keys if key not in out]
    core.counts.misses += len(rest)
    loaded = (yield from _load(core, batch, rest, mine)) if rest else {}
    inner = [batch.space.inner + tag for tag in batch.tags]
    for key, value in loaded.items():
        life = _life(core, batch, value)
        if life is not None and batch.options.use_l1 and not core.is_settling([key]):
            core.counts.stores += 1
            core.hold(key, value, *life, inner, 0.0, mine[key])
    return out | loaded


def _life(core: Core, batch: Batch, value: Any) -> tuple[float, float] | None:
    ttl = result_ttl(batch.options, batch.ttl_s, value)
    if ttl is None:
        return None
    return lifetime(batch.options, ttl, core.random.random() if batch.options.jitter_ratio else 0.0)


def _load_leased(
    core: Core, batch: Batch, ours: list[str], leased: list[str], mine: dict[str, Flight], token: str
) -> Steps[dict[str, Any]]:
    space = batch.space
    kept = False
    try:
        versions: dict[str, str] = {}
        if batch.tags:
            try:
                versions = yield from tag_versions(core, space, batch.tags, create=True, life_s=batch.ttl_s)
            except StoreUnavailable:
                leased = []
        loaded = yield from _load(core, batch, ours, mine)
        yield from _store(core, batch, {k: loaded[k] for k in leased if k in loaded}, mine, token, versions)
        kept = len(loaded) >= len(leased)
        return loaded
    except GeneratorExit:
        kept = True
        raise
    finally:
        if not kept:
            try:
                yield call("release_many", token, [outer_of(space, key) for key in leased])
            except StoreUnavailable:
                pass  # the leases end by themselves


def _store(
    core: Core,
    batch: Batch,
    loaded: dict[str, Any],
    mine: dict[str, Flight],
    token: str,
    versions: dict[str, str],
) -> Steps[None]:
    lives = {key: life for key, value in loaded.items() if (life := _life(core, batch, value)) is not None}
    items: list[tuple[str, tuple[str, bytes, float]]] = []
    refused: list[str] = []
    for key, (soft, hard) in lives.items():
        if mine[key].fenced:
            core.counts.refused += 1
            continue
        try:
            blob = pack(core, loaded[key], soft, hard, batch.options, tags=versions)
        except SerializationError as error:
            not_kept(core, batch.names[key], error)
            refused.append(outer_of(batch.space, key))
            continue
        items.append((key, (outer_of(batch.space, key), blob, hard)))
    if refused:
        try:
            yield call("release_many", token, refused)
        except StoreUnavailable:
            pass  # the leases end by themselves
        for outer in refused:
            core.wake(outer)
    if not items:
        return
    tickets = {key: core.open_ticket(key) for key, _ in items}
    try:
        kept = yield call("store_many", token, [item for _, item in items])
        inner = [batch.space.inner + tag for tag in batch.tags]
        for (key, item), good in zip(items, kept, strict=True):
            core.counts.stores += bool(good)
            core.counts.refused += not good
            core.wake(item[0])
            if not good:
                yield call("publish", item[0].encode())  # no longer ours: whoever waits for us must know
            if good and batch.options.use_l1 and not mine[key].fenced:
                soft, hard = l1_life(batch.options, *lives[key], True)
                core.hold(key, loaded[key], soft, hard, inner, 0.0, tickets[key])
        yield from tell(core, [item[0] for _, item in items])
    except StoreUnavailable:
        return
    finally:
        for key, ticket in tickets.items():
            core.shut_ticket(key, ticket)
