"""``eventperf cache journal`` and ``cache follow``: the change journal of a database, and its reader."""

from __future__ import annotations

import argparse
from typing import Any

from eventperf._core.errors import ConfigurationError

from .ending import ending
from .output import emit_json, say


def configure(verbs: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add both."""
    text = "tables and triggers that tell caches what any program commits; a dry run unless --apply"
    journal = verbs.add_parser("journal", help=text, description=text)
    journal.add_argument("url", help="SQLAlchemy URL of the database; who owns the tables")
    journal.add_argument(
        "--table", action="append", default=[], metavar="TABLE", help="only this (repeatable)"
    )
    journal.add_argument("--tables", nargs="+", default=[], metavar="TABLE", help="only these")
    journal.add_argument("--exclude", action="append", default=[], metavar="TABLE", help="not this")
    journal.add_argument(
        "--notify",
        action=argparse.BooleanOptionalAction,
        help="PostgreSQL: wake readers at each commit (default: unless two-phase commits are possible)",
    )
    journal.add_argument("--drop", action="store_true", help="remove the journal and its triggers")
    journal.add_argument(
        "--role", metavar="NAME", help="print the grants of a role that reads it, and only that"
    )
    journal.add_argument("--apply", "--yes", action="store_true", help="really change the database")
    journal.add_argument("--json", action="store_true", help="print JSON")

    text = "read the change journal and invalidate what follows the changed tables, until it is stopped"
    follow = verbs.add_parser("follow", help=text, description=text)
    follow.add_argument("url", help="SQLAlchemy URL of the database")
    follow.add_argument("--cache", required=True, metavar="URL", help="redis://host:6379/0 of the cache")
    follow.add_argument(
        "--namespace", action="append", default=[], help="a namespace of the cache (repeatable; default: app)"
    )
    follow.add_argument("--name", help="under which the reader's place is kept")
    follow.add_argument("--poll", default="250ms", help="longest pause between two looks (default 250ms)")
    follow.add_argument("--once", action="store_true", help="read what is there, and end")


def journal(args: argparse.Namespace) -> int:
    """Show, make or remove the journal."""
    from eventperf.cache.journal import making

    if args.role:
        for statement in making.grants(args.url, args.role):
            say(f"{statement};")
        return 0
    tables = [*args.table, *args.tables]
    if args.drop:
        if tables or args.exclude:
            raise ConfigurationError("--drop", "--table or --exclude", "the whole journal: leave them out")
        plan = making.drop_plan(args.url)
    else:
        plan = making.plan(args.url, tables, exclude=args.exclude, notify=args.notify)
    if args.apply:
        making.apply(args.url, plan, lambda line: None if args.json else say(f"done: {line}"))
    if args.json:
        emit_json(_facts(plan, args.apply))
        return 0
    if not args.apply:
        say(plan.to_sql())
    for note in plan.notes:
        say(f"note: {note}")
    if plan.left_out:
        say(f"left out: {', '.join(plan.left_out)}")
    if not args.apply:
        say("Nothing was changed; add --apply to run these statements.")
    elif not args.drop:
        say("Start a reader: eventperf cache follow URL --cache REDIS_URL, or Journal(cache, URL).start()")
    return 0


def _facts(plan: Any, applied: bool) -> dict[str, object]:
    return {
        "applied": applied,
        "steps": [{"about": step.about, "statements": step.statements} for step in plan.steps],
        "tables": [table.full_name for table in plan.tables],
        "left_out": plan.left_out,
        "notes": plan.notes,
    }


def follow(args: argparse.Namespace) -> int:
    """Read the journal until SIGTERM or Ctrl-C."""
    from eventperf.cache import CacheManager, Journal, RedisStore

    store = RedisStore(args.cache, timeout=5)
    spaces = list(dict.fromkeys(args.namespace or ["app"]))
    caches = [CacheManager(store, namespace=space, l1=None, coherence="bus") for space in spaces]
    caches[0].ping()
    reader = Journal(caches, args.url, name=args.name, poll=args.poll)
    try:
        if args.once:
            say(f"{reader.once()} changes")
            return 0
        reader.once()  # what cannot work at all is said and ends it
        with ending(reader.stop):
            say(f"following as {reader.name}")
            reader.run()
    finally:
        reader.close()
        for cache in caches:
            cache.close()
    return 0
