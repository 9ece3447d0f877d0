"""``eventperf cache``: look into a cache on Redis, invalidate by key, tag or pattern, follow a database."""

from __future__ import annotations

import argparse
import heapq
import time
from collections.abc import Iterator
from typing import Any

from eventperf._core.durations import show
from eventperf._core.errors import ConfigurationError

from . import cache_journal
from .cache_ping import ping
from .output import emit_json, facts, table

SCAN_COUNT = 500
HEAD_BYTES = 70_000  # tags take 65,535 at most


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands."""
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, text in (
        ("ping", "what works on the server (tracking, scripts, scan ...), and what does not"),
        ("stats", "entries, bytes and lives in a namespace"),
        ("get", "one entry: value, life, tags"),
        ("invalidate", "drop entries by key, tag or pattern"),
        ("hot", "the most read keys (exact with an LFU maxmemory-policy)"),
        ("big", "the largest keys"),
    ):
        verb = verbs.add_parser(name, help=text, description=text)
        verb.add_argument("url", help="redis://host:6379/0 or redis+cluster://h1:7000,h2:7001")
        verb.add_argument("--namespace", default="app", help="the cache's namespace (default: app)")
        verb.add_argument("--json", action="store_true", help="print JSON")
        if name == "get":
            verb.add_argument("key")
        elif name == "invalidate":
            verb.add_argument("--key", action="append", default=[], help="a key (repeatable)")
            verb.add_argument("--tag", action="append", default=[], help="a tag (repeatable)")
            verb.add_argument("--pattern", action="append", default=[], help="a glob (repeatable)")
            verb.add_argument("--dry-run", action="store_true", help="only count what would go")
        elif name not in ("stats", "ping"):
            verb.add_argument("--limit", type=int, default=20, help="how many (default: 20)")
    cache_journal.configure(verbs)


def run(args: argparse.Namespace) -> int:
    """Run a subcommand; 0 when it did what was asked, 1 when there was nothing."""
    from eventperf.cache import CacheManager, RedisStore

    if args.verb in ("journal", "follow"):
        return cache_journal.journal(args) if args.verb == "journal" else cache_journal.follow(args)
    # On the bus: processes that are told by the server hear it twice, the others hear it at all.
    store = RedisStore(args.url, timeout=5)
    with CacheManager(store, namespace=args.namespace, l1=None, coherence="bus") as cache:
        cache.ping()
        verbs = {
            "ping": ping,
            "stats": _stats,
            "get": _get,
            "invalidate": _invalidate,
            "hot": _hot,
            "big": _big,
        }
        return verbs[args.verb](cache, args)


def _prefix(cache: Any) -> str:
    from eventperf.cache.keys import Space

    return Space(cache.namespace).outer


def _outer(cache: Any, key: str) -> str:
    from eventperf.cache.keys import fit

    return _prefix(cache) + fit(key)


def _scan(cache: Any, *asks: tuple[str, ...]) -> Iterator[tuple[str, list[Any]]]:
    """Walk the namespace on every master, with the replies of ``asks`` (``KEY`` stands for the key)."""
    from eventperf.cache import escape

    prefix = _prefix(cache)
    for node in cache.store.links.masters():
        cursor: Any = 0
        while True:
            cursor, keys = node.execute_command(
                "SCAN", cursor, "MATCH", escape(prefix) + "*", "COUNT", SCAN_COUNT
            )
            pipe = node.pipeline(transaction=False)
            for key in keys:
                for ask in asks:
                    pipe.execute_command(*[key if part == "KEY" else part for part in ask])
            replies = pipe.execute(raise_on_error=False) if keys and asks else []
            for i, key in enumerate(keys):
                name = key.decode("utf-8", "replace").removeprefix(prefix)
                yield name, replies[i * len(asks) : (i + 1) * len(asks)]
            if int(cursor) == 0:
                break


def _stats(cache: Any, args: argparse.Namespace) -> int:
    entries = size = forever = 0
    soonest: int | None = None
    for _, (used, left) in _scan(cache, ("MEMORY", "USAGE", "KEY", "SAMPLES", "0"), ("PTTL", "KEY")):
        entries += 1
        size += used if isinstance(used, int) else 0
        if left == -1:
            forever += 1
        elif isinstance(left, int) and left >= 0:
            soonest = left if soonest is None else min(soonest, left)
    figures: dict[str, object] = {
        "namespace": cache.namespace,
        "entries": entries,
        "bytes": size,
        "without_end": forever,
        "next_end_s": None if soonest is None else soonest / 1000,
        **_servers(cache),
    }
    emit_json(figures) if args.json else facts(f"cache at {cache.store.url}", figures)
    return 0


def _servers(cache: Any) -> dict[str, object]:
    """Return what the masters say of themselves, added up; other users of theirs are in it."""
    sums = dict.fromkeys(
        ("keyspace_hits", "keyspace_misses", "evicted_keys", "used_memory", "tracking_clients"), 0
    )
    policies: set[str] = set()
    for node in cache.store.links.masters():
        info = {**node.info("stats"), **node.info("memory"), **node.info("clients")}
        for name in sums:
            sums[name] += int(info.get(name, 0))
        policies.add(str(info.get("maxmemory_policy", "unknown")))
    asked = sums["keyspace_hits"] + sums["keyspace_misses"]
    return {
        "server_bytes": sums["used_memory"],
        "server_hit_ratio": round(sums["keyspace_hits"] / asked, 4) if asked else None,
        "server_evicted_keys": sums["evicted_keys"],
        "server_eviction": ", ".join(sorted(policies)),
        "tracking_clients": sums["tracking_clients"],
    }


def _get(cache: Any, args: argparse.Namespace) -> int:
    from eventperf.cache.values.envelope import kind, unseal

    blob = cache.store.get(_outer(cache, args.key))
    what = {b"V": "value", b"L": "being loaded", b"T": "settling", b"": "foreign bytes"}
    found: dict[str, object] = {"key": args.key, "state": "absent" if blob is None else what[kind(blob)]}
    sealed = unseal(blob) if blob is not None else None
    if sealed is not None:
        found["value"] = repr(cache.get(args.key, "(cannot be read here)"))
        found["fresh_for"] = show(sealed.soft - time.time())
        found["kept_for"] = show(sealed.hard - time.time())
        found["load_took"] = show(sealed.load_s)
        found["bytes"] = len(sealed.payload)
        found["tags"] = ", ".join(sealed.tags) or "none"
    emit_json(found) if args.json else facts(f"cache at {cache.store.url}", found)
    return 0 if sealed is not None else 1


def _invalidate(cache: Any, args: argparse.Namespace) -> int:
    if not (args.key or args.tag or args.pattern):
        raise ConfigurationError("invalidate", "nothing", "--key, --tag or --pattern")
    rows: list[tuple[str, str, int]] = []
    for key in args.key:
        there = cache.store.get(_outer(cache, key)) is not None
        rows.append(("key", key, int(there) if args.dry_run else cache.invalidate(key)))
    for tag, count in _tagged(cache, args.tag).items():
        rows.append(("tag", tag, count))
        if not args.dry_run:
            cache.invalidate_tags(tag)
    rows += [("pattern", p, cache.invalidate_pattern(p, dry_run=args.dry_run)) for p in args.pattern]
    if args.json:
        found = [{"kind": kind, "what": what, "entries": count} for kind, what, count in rows]
        emit_json({"dry_run": args.dry_run, "invalidated": found})
    else:
        table(["kind", "what", "would go" if args.dry_run else "gone"], rows)
    return 0


def _tagged(cache: Any, tags: list[str]) -> dict[str, int]:
    """Count the entries that carry each tag and are still good, by a walk over the namespace."""
    from eventperf.cache.keys import Space
    from eventperf.cache.values.envelope import unseal

    counts = dict.fromkeys(tags, 0)
    if tags:
        prefix = Space(cache.namespace).tag_prefix
        records = cache.store.get_many([prefix + tag for tag in counts])
        now = {tag: record.decode() for tag, record in zip(counts, records, strict=True) if record}
        for _, (blob,) in _scan(cache, ("GETRANGE", "KEY", "0", str(HEAD_BYTES))):  # not the value itself
            sealed = unseal(blob) if isinstance(blob, bytes) else None
            for tag in now:
                counts[tag] += sealed is not None and sealed.tags.get(tag) == now[tag]
    return counts


def _hot(cache: Any, args: argparse.Namespace) -> int:
    rated = [
        (freq if isinstance(freq, int) else -1, -(idle if isinstance(idle, int) else 1 << 40), name)
        for name, (freq, idle) in _scan(cache, ("OBJECT", "FREQ", "KEY"), ("OBJECT", "IDLETIME", "KEY"))
    ]
    rows = [
        {"key": name, "frequency": freq if freq >= 0 else None, "idle_s": -idle if freq < 0 else None}
        for freq, idle, name in heapq.nlargest(args.limit, rated)
    ]
    return _print(rows, args)


def _big(cache: Any, args: argparse.Namespace) -> int:
    sized = (
        (used if isinstance(used, int) else 0, name)
        for name, (used,) in _scan(cache, ("MEMORY", "USAGE", "KEY", "SAMPLES", "0"))
    )
    rows = [{"key": name, "bytes": used} for used, name in heapq.nlargest(args.limit, sized)]
    return _print(rows, args)


def _print(rows: list[dict[str, Any]], args: argparse.Namespace) -> int:
    if args.json:
        emit_json(rows)
    elif rows:
        table(list(rows[0]), [list(row.values()) for row in rows])
    else:
        print("no entries")
    return 0 if rows else 1
