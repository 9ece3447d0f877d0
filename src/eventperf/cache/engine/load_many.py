"""Get-or-load for many keys: one look per node, one lease call per node, one loader call for all misses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from eventperf._core.flights import ABANDONED, ERROR, VALUE, Flight
from eventperf.cache.checks import check_loaded
from eventperf.cache.errors import SerializationError, StoreUnavailable
from eventperf.cache.policy import is_fresh, l1_life, longest_life, tag_changed_since, tag_settles
from eventperf.cache.protocols import Grant
from eventperf.cache.values.single_use import refuse_single_use

from .counting import Counted
from .effects import Steps, ask, load, may_wait, wait
from .fences import Guard
from .job import Batch, Job
from .keep import life_of, near, not_kept, settle_up, take_back_fenced
from .load_one import get_or_load, give_back
from .look import Found, look, outer_of, tag_versions
from .state import Core
from .tier import Tier
from .write import pack


def load_only(core: Core, loader: Callable[[], Any]) -> Steps[Any]:
    """Call a loader and remember nothing (the cache is switched off)."""
    core.counts.loads += 1
    return (yield from load(core.flights, loader, ()))


def get_or_load_many(core: Core, batch: Batch, missing: list[str]) -> Steps[dict[str, Any]]:
    """Return the values of local keys that process memory did not have."""
    mine, others = core.flights.join_many(missing, batch.inner_tags)
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
        if key in out and not batch.is_private:
            core.flights.land(flight, VALUE, out[key])
        else:
            core.flights.land(flight, ABANDONED)  # nothing for others: whoever waits asks for itself
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
    if (yield from may_wait(core.flights, flight)):
        yield from wait(core.flights, flight, None)
        if flight.state != ABANDONED and not flight.is_outdated:
            return True, flight.result()
    return (yield from _alone(core, batch, key))


class _NothingLoaded(Exception):
    """The bulk loader left this key out."""


def _alone(core: Core, batch: Batch, key: str) -> Steps[tuple[bool, Any]]:
    name = batch.names[key]
    options = batch.options

    def pick(made: object) -> Any:
        loaded = check_loaded(made)
        if name not in loaded:
            raise _NothingLoaded(name)
        return loaded[name]

    def load_it() -> Any:
        loaded = batch.loader([name])
        return _later(loaded, pick) if hasattr(loaded, "__await__") else pick(loaded)

    try:
        job = Job(batch.space, key, load_it, batch.ttl_s, batch.tags, options)
        return True, (yield from get_or_load(core, job))
    except _NothingLoaded:
        return False, None


async def _later(loaded: Any, pick: Callable[[object], Any]) -> Any:
    return pick(await loaded)


def _load(core: Core, batch: Batch, keys: list[str], flights: dict[str, Flight]) -> Steps[dict[str, Any]]:
    names = [batch.names[key] for key in keys]
    with Counted(core, ",".join(names[:3]), lambda: False):
        made = yield from load(core.flights, lambda: batch.loader(names), tuple(flights.values()), batch.said)
        loaded = check_loaded(made)
    out = {key: loaded[batch.names[key]] for key in keys if batch.names[key] in loaded}
    for key, value in out.items():
        refuse_single_use(batch.names[key], value)
    if batch.options.guard_transactions and batch.said.is_private:
        batch.is_private = True
        for flight in flights.values():
            flight.fenced = True
    return out


def _lead(core: Core, batch: Batch, mine: dict[str, Flight]) -> Steps[dict[str, Any]]:
    keys = list(mine)
    tier = core.tier
    if tier is None:
        return (yield from _lead_here(core, batch, keys, mine))
    core.ensure_channel()
    looks = yield from look(core, tier, batch.space, keys, batch.options, batch.tags)
    inner = batch.space.inner
    out = {}
    for key, seen in looks.items():
        found = seen.found
        if found is None or not found.is_fresh:
            continue
        # Invalidated while we looked: who joined us since must not get it.
        if mine[key].fenced_tags.isdisjoint([inner + tag for tag in found.tags]):
            out[key] = found.value
    core.counts.l2_hits += len(out)
    rest = [key for key in keys if key not in out]
    core.counts.misses += len(rest)
    if not rest:
        return out
    outers = {key: outer_of(batch.space, key) for key in rest}
    force = {outers[key] for key in rest if looks[key].present}
    token = core.salt()
    lease_s, sent_s = batch.options.in_seconds.lease, core.clocks.own()
    try:
        grants = yield from ask(tier.acquire_many, list(outers.values()), token, lease_s=lease_s, force=force)
    except StoreUnavailable:
        return out | (yield from _load_alone(core, batch, rest, mine))
    states = dict(zip(rest, grants, strict=True))
    ours = [key for key in rest if states[key].state in ("granted", "settling")]
    if ours:
        leased = {key: grant for key in ours if (grant := states[key]).state == "granted"}
        for grant in [*leased.values()][:1]:
            core.clocks.heard(grant.wait_s, sent_s)
        out |= yield from _load_leased(core, tier, batch, ours, leased, mine, token)
    for key in rest:
        if states[key].state not in ("granted", "settling"):
            # Another process is at it: become an ordinary caller of that key, after our own are stored.
            core.flights.land(mine[key], ABANDONED)
            found_one, value = yield from _alone(core, batch, key)
            if found_one:
                out[key] = value
    return out


def _lead_here(core: Core, batch: Batch, keys: list[str], mine: dict[str, Flight]) -> Steps[dict[str, Any]]:
    """Process memory only."""
    out = {}
    now = core.now()
    for key in keys:
        entry = core.peek(key) if batch.options.use_l1 else None
        if entry is not None and entry.key is not None and is_fresh(entry.soft, now):
            out[key] = entry.value
    rest = [key for key in keys if key not in out]
    core.counts.misses += len(rest)
    loaded = (yield from _load(core, batch, rest, mine)) if rest else {}
    _keep_here(core, batch, loaded, mine, second_tier=False)
    return out | loaded


def _load_alone(core: Core, batch: Batch, keys: list[str], mine: dict[str, Flight]) -> Steps[dict[str, Any]]:
    """The second tier is away: nothing is stored there, and here only while that is safe."""
    loaded = yield from _load(core, batch, keys, mine)
    if core.coherence == "ttl":
        _keep_here(core, batch, loaded, mine, second_tier=True)
    return loaded


def _keep_here(
    core: Core, batch: Batch, loaded: dict[str, Any], mine: dict[str, Flight], *, second_tier: bool
) -> None:
    if not batch.options.use_l1:
        return
    inner = list(dict.fromkeys([*batch.inner_tags, *(batch.space.inner + tag for tag in batch.said.tags)]))
    for key, value in loaded.items():
        life = life_of(core, batch.options, batch.ttl_s, value)
        if life is not None and not core.fences.is_settling(key, inner):
            core.counts.stores += not second_tier
            life = l1_life(batch.options, *life, second_tier)
            core.hold(key, value, *life, inner, 0.0, Guard(flight=mine[key]))


def _load_leased(
    core: Core,
    tier: Tier,
    batch: Batch,
    ours: list[str],
    leased: dict[str, Grant],
    mine: dict[str, Flight],
    token: str,
) -> Steps[dict[str, Any]]:
    space = batch.space
    outers = [outer_of(space, key) for key in leased]
    assert core.keeper is not None
    if outers:
        lease_s = batch.options.in_seconds.lease
        first = mine[next(iter(leased))]
        core.keeper.keep(tier.renew_many, outers, token, lease_s, lambda: not first.is_orphan)
    kept: set[str] = set()
    try:
        versions: dict[str, str] = {}
        if batch.tags:
            life_s = longest_life(batch.options, batch.ttl_s)
            try:
                versions = yield from tag_versions(core, tier, space, batch.tags, create_for_s=life_s)
            except StoreUnavailable:
                pass  # stored without versions it could not be compared: _store refuses
        loaded = yield from _load(core, batch, ours, mine)
        if late := [tag for tag in batch.said.tags if tag not in batch.tags]:
            versions = yield from _late_versions(core, tier, batch, late, leased, versions)
        kept = yield from _store(core, tier, batch, loaded, leased, mine, token, versions)
        return loaded
    except GeneratorExit:
        kept = set(leased)
        raise
    finally:
        core.keeper.drop(token)
        if left := [outer for outer, key in zip(outers, leased, strict=True) if key not in kept]:
            yield from give_back(core, tier, token, left)


def _late_versions(
    core: Core, tier: Tier, batch: Batch, late: list[str], leased: dict[str, Grant], versions: dict[str, str]
) -> Steps[dict[str, str]]:
    """Take on the tags that the loader has said; no versions at all when one was invalidated meanwhile."""
    since = min((grant.wait_s for grant in leased.values()), default=0.0)
    batch.tags = [*batch.tags, *late]
    try:
        life_s = longest_life(batch.options, batch.ttl_s)
        found = yield from tag_versions(core, tier, batch.space, late, create_for_s=life_s)
    except StoreUnavailable:
        return {}
    return {} if any(tag_changed_since(v, since) for v in found.values()) else versions | found


def _store(
    core: Core,
    tier: Tier,
    batch: Batch,
    loaded: dict[str, Any],
    leased: dict[str, Grant],
    mine: dict[str, Flight],
    token: str,
    versions: dict[str, str],
) -> Steps[set[str]]:
    """Keep what was loaded in both tiers; return the keys whose lease has been dealt with."""
    inner = batch.inner_tags
    if len(versions) < len(batch.tags):
        core.counts.refused += len(leased)
        for key in leased:
            mine[key].is_outdated = True
        return set()
    found: dict[str, Found] = {}
    for key in leased:
        life = life_of(core, batch.options, batch.ttl_s, loaded[key]) if key in loaded else None
        if life is not None:
            server_s = leased[key].wait_s
            settles = core.fences.is_settling(key, inner) or any(
                tag_settles(version, server_s) for version in versions.values()
            )
            if settles or not Guard(flight=mine[key]).holds(inner):
                core.counts.refused += 1
                mine[key].is_outdated = True
                continue
            found[key] = Found(loaded[key], *life, versions, 0.0)
    if not found:
        return set()
    outers = {key: outer_of(batch.space, key) for key in found}
    items = []
    for key, one in list(found.items()):
        try:
            blob = pack(core, outers[key], one.value, one.soft_s, one.hard_s, batch.options, tags=versions)
            items.append((outers[key], blob, one.hard_s))
        except SerializationError as error:
            not_kept(core, batch.names[key], error)
            del found[key]
    if not found:
        return set()
    tickets = core.fences.open(found)
    try:
        good = yield from ask(tier.store_many, token, items)
        outcomes = dict(zip(found, good, strict=True))
        for key, kept in outcomes.items():
            mine[key].is_outdated = not kept
        yield from settle_up(core, tier, [(outers[key], kept) for key, kept in outcomes.items()])
        yield from take_back_fenced(core, tier, [outers[key] for key in found if mine[key].fenced])
        values = {key: (one, Guard(tickets[key], mine[key])) for key, one in found.items() if outcomes[key]}
        yield from near(core, tier, batch.space, values, batch.options)
    except StoreUnavailable:
        pass  # counted by the breaker; leases that still stand end by themselves
    finally:
        core.fences.shut(tickets)
    return set(found)
