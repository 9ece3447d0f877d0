"""No text reaches across a boundary: namespaces, tenants, limits, tags, ids and patterns stay apart.

The texts are of two kinds: made of what a store could take for its own separators, and twins that a
collation, a normal form or a padded comparison would take for one another.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any
from uuid import uuid4

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.cache import CacheManager, escape
from eventperf.queues import Limit, QueueError, QueueManager, looking
from eventperf.scaling import (
    AutoScaler,
    CallableMetrics,
    LearnedState,
    SimulatedTarget,
    SqlDecisionLog,
    SqlState,
    TargetTracking,
)
from eventperf.testing.queues.search import found as found_jobs
from eventperf.testing.queues.tools import Station

pytestmark = pytest.mark.integration

TWINS = (
    "a", "A", "ä", "a\u0308", "á", "ß", "ss", "ſ", "s", "S", "İ", "i", "ı", "I",
    "ﬁ", "fi", "K", "K", "k", "Ω", "Ω",
    "x" * 62 + "a", "x" * 62 + "b", "x" * 199, "x" * 198, "1", "01", "1.0", "１", "null", "NULL",
    "🎫", "🎟", "%41", "%",
)  # fmt: skip
ODD = (
    "a:b", "a:", ":a", "a|b", "a|", "*", "a*", "?", "[a]", "\\", "\\*", "{a}", "{", "a,b", "a b", "a ", " a",
    "..", "../a",
    "a/b", "1:a", "t:a", ":t:a", "1:1:a", "http:", "%3A", "a%00", "'", '"', "`", "--", "a;", "$1",
    ":p", "%s", "_", "__",
)  # fmt: skip
RAW = (
    "\x00",
    "\x00a",
    "a\x00",
    "\x01",
    "\x02",
    "a\x02",
    "\x1e",
    "a\x1fb",
    "\n",
    "a\nb",
    "\r",
    "\u2028",
    "\ud800",
    "\x7f",
)
"""What only cache keys may hold; queues refuse it."""
NAMES = tuple(dict.fromkeys(TWINS + ODD))


def allowed(make: Any, names: tuple[str, ...] = NAMES) -> list[str]:
    """Return the names that are not refused at the edge."""
    fine = []
    for name in names:
        try:
            make(name)
        except ConfigurationError:
            continue
        fine.append(name)
    return fine


# --- queues ---------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "redis", "sqlite", "postgres", "mariadb"])
def store(request: pytest.FixtureRequest, tmp_path: Any) -> Iterator[str]:
    if request.param in ("memory", "sqlite"):
        yield "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/q.db"
    else:
        yield request.getfixturevalue(f"{request.param}_url")


def _manager(store: str, **options: Any) -> QueueManager:
    made = QueueManager(store, namespace=options.pop("namespace", f"n{uuid4().hex[:8]}"), **options)
    if not store.startswith(("memory", "redis")):
        made.backend.create_schema()  # type: ignore[attr-defined]
    return made


def test_ids_tags_and_types_name_one_job_each(store: str) -> None:
    probe = QueueManager("memory://")
    names = allowed(lambda name: probe.enqueue("t", 1, id=name, tags=[name]))
    assert len(names) > 45
    with _manager(store) as queues:
        queues.enqueue_many([_spec(name) for name in names])
        found = {job.id: job for job in found_jobs(queues, 1000)}
        assert set(found) == set(names)
        for name in names[:: 1 if store.startswith("memory") else 9]:
            job = queues.job_info(name)
            assert (job.id, job.type, job.tags) == (name, name, (name,))
            assert [j.id for j in found_jobs(queues, tag=name)] == [name]
            assert [j.id for j in found_jobs(queues, type=name)] == [name]
        assert queues.cancel(names[0])
        assert len([j for j in found_jobs(queues, 1000) if j.state == "waiting"]) == len(names) - 1


def _spec(name: str) -> Any:
    from eventperf.queues import JobSpec

    return JobSpec(type=name, data=1, id=name, tags=[name])


def test_unique_keys_and_tenants_hold_nobody_else_back(store: str) -> None:
    probe = QueueManager("memory://")
    names = allowed(lambda name: probe.enqueue("t", 1, unique_key=name, fairness_key=name))
    assert len(names) > 60
    with _manager(store, limits=[Limit(per_key=True, concurrency=1)]) as queues:
        for name in names:
            queues.enqueue("t", 1, unique_key=name, fairness_key=name)
            queues.enqueue("t", 2, fairness_key=name)
        station = Station(queues, "t")
        keys = [lease.record.key for lease in station.take()]
        assert sorted(keys) == sorted(names), "one job each, and of each"


def test_namespaces_of_one_store_do_not_see_each_other(store: str) -> None:
    if store == "memory://":
        pytest.skip("each manager has a memory of its own")
    names = allowed(lambda name: QueueManager("memory://", namespace=name))[::8]
    made = [_manager(store, namespace=name) for name in names]
    try:
        for number, queues in enumerate(made):
            queues.enqueue("t", number, id=str(number))
        for number, queues in enumerate(made):
            assert [job.id for job in found_jobs(queues)] == [str(number)], names[number]
        made[0].purge("normal")
        assert [len(found_jobs(queues, state="waiting")) for queues in made] == [0] + [1] * (len(made) - 1)
    finally:
        for queues in made:
            queues.close()


def test_a_cursor_that_somebody_made_is_refused_or_a_place(
    store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It comes back from a browser, and its mark is no secret."""
    with _manager(store) as queues:
        queues.enqueue_many([_spec(name) for name in "abcde"])
        marked: list[Any] = []
        mark = looking._mark
        monkeypatch.setattr(looking, "_mark", lambda *given: (marked.append(given), mark(*given))[1])
        assert queues.jobs(limit=2).cursor
        query, backend, text = marked[0]
        good = json.loads(text)
        odd = (None, "x", -1, 1e999, [], {}, True, 10**400, "\ud800", [1], "\x1f")
        places = [[], [1], good * 9, {"a": 1}, None, "x", 7]
        places += [[*good[:n], one, *good[n + 1 :]] for n in range(len(good)) for one in odd]
        raw = [json.dumps(place).encode() for place in places]
        for one in (*raw, b"[" * 100_000, b"{", b"\xff", b"[%s]" % (b"9" * 5000)):
            made = base64.urlsafe_b64encode(mark(query, backend, one) + one).decode().rstrip("=")
            with suppress(QueueError, ConfigurationError):  # a database refuses some, by its own name
                assert len(queues.jobs(limit=2, cursor=made).jobs) <= 2


# --- cache ----------------------------------------------------------------------------------------


@pytest.fixture(params=["memory", "redis"])
def place(request: pytest.FixtureRequest) -> str | None:
    return None if request.param == "memory" else request.getfixturevalue("redis_url")


def _cache(place: str | None, namespace: str) -> CacheManager:
    return (
        CacheManager(namespace=namespace)
        if place is None
        else CacheManager(place, namespace=namespace, l1=None)
    )


def test_keys_tags_patterns_and_counters_name_themselves(place: str | None) -> None:
    keys = list(dict.fromkeys(NAMES + RAW))
    with _cache(place, uuid4().hex) as cache:
        cache.set_many({key: number for number, key in enumerate(keys)})
        assert cache.get_many(keys) == {key: number for number, key in enumerate(keys)}
        for number, key in enumerate(keys):
            assert cache.counter(key).incr() == 1
            cache.set(f"tagged:{number}", number, tags=[key])
        assert cache.get_many(keys) == {key: number for number, key in enumerate(keys)}, (
            "counters are no entries"
        )
        for number in range(0, len(keys), 4):
            cache.invalidate_tags(keys[number])
            gone = [n for n in range(len(keys)) if cache.get(f"tagged:{n}") is None]
            assert gone == list(range(0, number + 1, 4)), keys[number]
        for number in range(0, len(keys), 4):
            cache.invalidate_pattern(escape(keys[number]))
            gone = [n for n, key in enumerate(keys) if cache.get(key) is None]
            assert gone == list(range(0, number + 1, 4)), keys[number]


def test_namespaces_of_the_cache_do_not_reach_each_other(place: str | None) -> None:
    names = list(dict.fromkeys((*NAMES[::3], *RAW)))
    made = {}
    for name in names:
        try:
            made[name] = _cache(place, name)
        except ConfigurationError:
            continue
    assert len(made) > 20
    try:
        for name, cache in made.items():
            cache.set("k", repr(name))
            cache.counter("n").incr(7)
        for name, cache in made.items():
            assert cache.get("k") == repr(name)
            assert cache.counter("n").incr() == 8
            for other in made:
                for attack in (f"\x00{other}:k", f"{other}:1:k", f"../{other}:1:k", f"{other}\x00k"):
                    assert cache.get(attack) is None
        first, *others = made.values()
        first.invalidate_pattern("*")
        assert first.get("k") is None
        assert [cache.get("k") for cache in others] == list(map(repr, made))[1:]
    finally:
        for cache in made.values():
            cache.close()


# --- scaling --------------------------------------------------------------------------------------


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def database(request: pytest.FixtureRequest, tmp_path: Any) -> str:
    return (
        f"sqlite:///{tmp_path}/s.db"
        if request.param == "sqlite"
        else request.getfixturevalue(f"{request.param}_url")
    )


def test_decisions_and_learned_state_of_a_target_are_its_own(database: str) -> None:
    table = f"d{uuid4().hex[:8]}"
    names = list(dict.fromkeys((*NAMES, *RAW, "y" * 400, "y" * 401)))
    with SqlDecisionLog(database, table=table) as log:
        made = {name: _scaler(log, name).tick() for name in names}
        assert len(log.find(limit=1000)) == len(names)
        for name, decision in made.items():
            assert log.find(target=name) == [decision], ascii(name)
            assert log.recall(name) == decision, ascii(name)
    with closing(SqlState(database, table=f"s{table}")) as rows:
        state = LearnedState(rows)
        some = names[::5]
        for name in some:
            state.keep(made[name])
        state.freeze(some[0])
        for name in some:
            kept = state.recall(name)
            assert kept is not None
            assert kept.target == name
        assert [name for name in names if state.is_frozen(name)] == some[:1]


def _scaler(log: SqlDecisionLog, name: str) -> AutoScaler:
    rps = CallableMetrics(rps=lambda: 350.0)
    return AutoScaler(SimulatedTarget(2, name=name), rps, TargetTracking(rps=50), max_replicas=9, log=log)
