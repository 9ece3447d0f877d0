"""``eventperf db``: advise, apply, revert, grants, slow, health, lint."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from eventperf._core.errors import ConfigurationError
from eventperf.contrib._advice import advise, workload_of, write

from .output import Progress, emit_json, say, table


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the commands of this room."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _advise_and_change(commands)
    _look(commands)


def _advise_and_change(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    advised = commands.add_parser("advise", help="indexes, drops and rewrites; changes nothing")
    _source(advised)
    advised.add_argument("--html", metavar="FILE", help="write one self-contained page")
    advised.add_argument("--sql", metavar="FILE", help="write a script to apply by hand")
    advised.add_argument("--plan", metavar="FILE", help="write a plan file for `eventperf db apply`")
    advised.add_argument("--migration", choices=("django", "alembic"), help="print a migration")
    advised.add_argument("--budget", default="30s", help="time for the search (default 30s)")
    advised.add_argument("--unproved", action="store_true", help="show indexes that no planner has proved")
    advised.add_argument("--include", action="append", default=[], metavar="TABLE", help="only this")
    advised.add_argument("--exclude", action="append", default=[], metavar="TABLE", help="not this")
    advised.add_argument("--max-bytes", type=int, metavar="N", help="bytes of all new indexes together")

    apply = commands.add_parser("apply", help="create the indexes of a plan file; a dry run unless --yes")
    apply.add_argument("url")
    apply.add_argument("plan")
    apply.add_argument("--yes", action="store_true", help="really change the database")
    apply.add_argument("--no-verify", action="store_true", help="keep indexes without measuring")
    apply.add_argument("--workload", metavar="FILE", help="statements with values, to measure with")
    apply.add_argument("--ddl", metavar="URL", help="privileged, direct connection for the changes")
    apply.add_argument("--json", action="store_true")

    revert = commands.add_parser("revert", help="drop indexes that apply made; a dry run unless --yes")
    revert.add_argument("url")
    revert.add_argument("report", nargs="?", help="what `apply --json` printed; all of ours when not given")
    revert.add_argument("--yes", action="store_true", help="really change the database")
    revert.add_argument("--ddl", metavar="URL", help="privileged, direct connection for the changes")
    revert.add_argument("--json", action="store_true")

    grants = commands.add_parser("grants", help="statements that make a role for advice alone")
    grants.add_argument("url")
    grants.add_argument("--role", default="eventperf", help="its name (default eventperf)")


def _look(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    slow = commands.add_parser("slow", help="statements that cost most: calls x time")
    _source(slow)
    slow.add_argument("--limit", type=int, default=50)
    slow.add_argument("--show-values", action="store_true", help="do not redact literals")

    health = commands.add_parser("health", help="tables and indexes: what could go, is missing, is large")
    health.add_argument("url", help="SQLAlchemy URL of the database")
    health.add_argument("--html", metavar="FILE", help="write one self-contained page")
    health.add_argument("--strict", action="store_true", help="exit with 1 when something was found")
    health.add_argument("--json", action="store_true")

    lint = commands.add_parser("lint", help="patterns that no index can serve, for CI: 1 on new findings")
    lint.add_argument("target", nargs="+", help="SQL files, or module:metadata of SQLAlchemy models")
    lint.add_argument("--dialect", choices=("sqlite", "postgres", "mysql"), default="sqlite")
    lint.add_argument("--baseline", metavar="FILE", help="findings that are known; only new ones fail")
    lint.add_argument("--write-baseline", metavar="FILE", help="write today's findings as the baseline")
    lint.add_argument("--json", action="store_true")


def _source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("url", help="SQLAlchemy URL of the database")
    parser.add_argument("--workload", metavar="FILE", help="SQL file, saved workload, or slow log")
    parser.add_argument("--since", default="24h", help="how far back, where times are known (default 24h)")
    parser.add_argument("--what-if", metavar="URL", help="database where hypothetical objects may be made")
    parser.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Run one command; 0 done, 1 findings or failures."""
    actions = {
        "advise": _advise,
        "apply": _apply,
        "revert": _revert,
        "grants": _grants,
        "slow": _slow,
        "health": _health,
        "lint": _lint,
    }
    return actions[args.action](args)


def _advise(args: argparse.Namespace) -> int:
    from eventperf.dbopt import DatabaseOptimizer, Limits

    progress = Progress(quiet=args.json)
    limits = Limits(max_index_bytes=args.max_bytes, include=args.include, exclude=args.exclude)
    with DatabaseOptimizer(args.url, what_if=args.what_if, limits=limits) as optimizer:
        workload = workload_of(optimizer, args.workload, args.since)
        advice = advise(
            optimizer, workload, budget=args.budget, unproved=args.unproved, progress=progress.say
        )
    for file, text in ((args.html, advice.to_html), (args.sql, advice.to_sql)):
        if file:
            write(file, text())
    if args.plan:
        advice.save(args.plan)
    if args.json:
        emit_json(advice.to_dict())
    elif args.migration:
        if advice.indexes:
            sys.stdout.write(advice.to_migration(args.migration))
        else:
            say("nothing to advise: no migration is written", error=True)
    else:
        say(advice)
    return 0


def _apply(args: argparse.Namespace) -> int:
    from eventperf.dbopt import Advice, DatabaseOptimizer

    progress = Progress(quiet=args.json)
    advice = Advice.load(args.plan)
    with DatabaseOptimizer(args.url, ddl=args.ddl) as optimizer:
        workload = workload_of(optimizer, args.workload, "24h") if args.workload else None
        report = optimizer.apply(
            advice, dry_run=not args.yes, verify=not args.no_verify, workload=workload, progress=progress.say
        )
    if args.json:
        emit_json(report.to_dict())
    else:
        say(report)
        if report.dry_run:
            print("Nothing was changed; add --yes to apply.")
    return 1 if report.failed or not report.is_complete else 0


def _revert(args: argparse.Namespace) -> int:
    from eventperf.dbopt import ApplyReport, DatabaseOptimizer

    done = ApplyReport.load(args.report) if args.report else None
    progress = Progress(quiet=args.json)
    with DatabaseOptimizer(args.url, ddl=args.ddl) as optimizer:
        report = optimizer.revert(done, dry_run=not args.yes, progress=progress.say)
    if args.json:
        emit_json(report.to_dict())
    else:
        print(report)
        if report.dry_run:
            print("Nothing was changed; add --yes to drop them.")
    return 1 if report.failed else 0


def _grants(args: argparse.Namespace) -> int:
    from eventperf.dbopt import DatabaseOptimizer

    with DatabaseOptimizer(args.url) as optimizer:
        statements = optimizer.grants(args.role)
    for statement in statements:
        print(f"{statement};")
    if not statements:
        print("-- SQLite has no roles: a file that may only be read is enough for advice")
    return 0


def _slow(args: argparse.Namespace) -> int:
    from eventperf.dbopt import DatabaseOptimizer

    if args.limit < 1:
        raise ConfigurationError("--limit", args.limit, "a whole number of at least 1")
    with DatabaseOptimizer(args.url, what_if=args.what_if) as optimizer:
        workload = workload_of(optimizer, args.workload, args.since)
    found = workload.slow_queries(args.limit, redact=not args.show_values)
    if args.json:
        emit_json({"since": workload.since, "queries": [q.to_dict() for q in found]})
        return 0
    rows = [
        [q.calls, _s(q.total_s), _s(q.mean_s), _s(q.lock_s), q.rows_sent, q.rows_examined, q.sample[:100]]
        for q in found
    ]
    columns = ["calls", "total s", "mean s", "lock s", "rows sent", "rows examined", "statement"]
    table(columns, rows, title=workload.since)
    return 0


def _s(value: float | None) -> str | None:
    return None if value is None else f"{value:.4g}"


def _health(args: argparse.Namespace) -> int:
    from eventperf.dbopt import DatabaseOptimizer

    with DatabaseOptimizer(args.url) as optimizer:
        report = optimizer.health()
    if args.html:
        write(args.html, report.to_html())
    if args.json:
        emit_json(report.to_dict())
    else:
        say(report)
    return 1 if args.strict and not report.is_healthy else 0


def _lint(args: argparse.Namespace) -> int:
    from eventperf.dbopt import lint_metadata
    from eventperf.dbopt.lint.statements import lint_file, read_baseline

    found, looked_at = [], 0
    for target in args.target:
        if ":" in target and not Path(target).exists():
            found += lint_metadata(_imported(target), args.dialect)
        else:
            mine, count = lint_file(target, args.dialect)
            looked_at += count
            found += mine
    if args.write_baseline:
        write(args.write_baseline, "".join(f"{f.key}\n" for f in found))
        return 0
    known = read_baseline(args.baseline) if args.baseline else frozenset()
    fresh = [f for f in found if f.key not in known]
    if args.json:
        emit_json([f.to_dict() for f in fresh])
    elif fresh:
        table(["rule", "where", "why"], [[f.rule, f.statement[:80], f.message] for f in fresh])
    else:
        print(f"{looked_at} statements, no new findings")
    return 1 if fresh else 0


def _imported(target: str) -> Any:
    """Return what ``package.module:name.name`` names, from here or from what is installed."""
    module, _, names = target.partition(":")
    if "" not in sys.path:
        sys.path.insert(0, "")
    try:
        found = importlib.import_module(module)
        for name in names.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError("target", target, f"a SQL file, or module:metadata ({error})") from error
    return found
