"""``eventperf demo``: the main job on this machine, before and after, with an independent check."""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING

from eventperf._core.errors import ConfigurationError, EventPerfError
from eventperf._core.extras import require
from eventperf._core.files import write
from eventperf._core.logs import logger
from eventperf._core.trust import warn_unchecked
from eventperf.cli.output import Progress, emit_json

if TYPE_CHECKING:
    from sqlalchemy import Engine

    from .stages import Job, Outcome
    from .window import Window


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the demo's options."""
    parser.add_argument("--report", metavar="FILE.html", help="write one self-contained page with plots")
    parser.add_argument(
        "--database", metavar="URL", help="run on this empty database instead of SQLite (SQLAlchemy URL)"
    )
    parser.add_argument(
        "--redis", metavar="URL", help="keep cache and queue in this Redis: redis://host:6379/0"
    )
    parser.add_argument(
        "--chaos", action="store_true",
        help="run the last stage again while a worker and a Redis of the demo's own are killed",
    )  # fmt: skip
    parser.add_argument("--seed", type=int, default=7, help="makes data and arrivals reproducible (7)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="share of 300 events and 300,000 participants (1.0)"
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="how long each stage's arrivals last (4)")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument(
        "--console", type=int, nargs="?", const=8020, metavar="PORT",
        help="serve the console over the run on this machine (8020), and go on until Ctrl-C",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Run the demo; 1 when the independent check found anything wrong."""
    if not 0.001 <= args.scale <= 10:
        raise ConfigurationError("--scale", args.scale, "a number from 0.001 to 10")
    if not 0.5 <= args.seconds <= 600:
        raise ConfigurationError("--seconds", args.seconds, "seconds from 0.5 to 600")
    report = Path(args.report) if args.report else None
    if report is not None and not report.resolve().parent.is_dir():
        raise ConfigurationError("--report", args.report, "a file in a folder that exists")
    require("sqlalchemy", extra="dbopt", needed_by="eventperf demo")
    require("sqlglot", extra="dbopt", needed_by="eventperf demo")
    from .chaos import check_available
    from .dataset import metadata
    from .stages import Job, Settings

    settings = Settings(
        scale=args.scale, seconds=args.seconds, seed=args.seed, redis=args.redis, database=args.database,
        chaos=args.chaos,
    )  # fmt: skip
    if args.chaos:
        require("redis", extra="cache", needed_by="eventperf demo --chaos")
        check_available()
    if args.redis:
        _check_redis(args.redis)
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="eventperf-demo-"))
        window = None if args.console is None else stack.enter_context(closing(_window(args.console)))
        engine = _engine(args.database, folder)
        stack.callback(engine.dispose)
        stack.callback(metadata.drop_all, engine)
        job = Job(engine, settings, Progress(quiet=args.json), window)
        outcome = job.run()
        _tell(args, outcome, report)
        if window is not None:
            _linger(job, window)
    return 0 if outcome.is_clean else 1


def _window(port: int) -> Window:
    """Serve the console, and say where."""
    from .window import Window

    window = Window(port)
    print(f"console: {window.url}", file=sys.stderr, flush=True)
    return window


def _linger(job: Job, window: Window) -> None:
    """Let visitors come until somebody has seen enough."""
    print(f"console: {window.url} is served until Ctrl-C; visitors come on", file=sys.stderr, flush=True)
    try:
        job.linger(threading.Event())
    except KeyboardInterrupt:
        print(file=sys.stderr)


def _tell(args: argparse.Namespace, outcome: Outcome, report: Path | None) -> None:
    from .stages import as_dict

    if args.json:
        emit_json(as_dict(outcome))
    else:
        from .tables import show

        show(outcome)
    if report is not None:
        from .report import report_page

        write(report, report_page(outcome))
        if not args.json:
            print(f"Report: {report}")


def _check_redis(url: str) -> None:
    from eventperf.cache import CacheManager

    with CacheManager(url, namespace="eventperf-demo") as cache:
        cache.ping()


def _engine(url: str | None, folder: str) -> Engine:
    from sqlalchemy import create_engine, inspect
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

    if url is None:
        return create_engine(f"sqlite:///{folder}/platform.db", pool_size=16)
    allowed = (
        "a SQLAlchemy URL: sqlite:///file, postgresql+psycopg://user@host/db or mysql+pymysql://user@host/db"
    )
    try:
        parsed = make_url(url)
        shown = parsed.render_as_string(hide_password=True)
        warn_unchecked(parsed, logger("eventperf.demo"))
        engine = create_engine(parsed, pool_size=16)
    except (ArgumentError, NoSuchModuleError) as error:
        given = shown if isinstance(error, NoSuchModuleError) else "a text that is no URL"
        raise ConfigurationError("--database", given, allowed) from error
    except ModuleNotFoundError as error:
        extra = "mysql" if parsed.drivername.startswith(("mysql", "mariadb")) else "postgres"
        require(error.name or "", extra=extra, needed_by=f"--database {parsed.drivername}")
        raise
    try:
        tables = inspect(engine).get_table_names()
    except DBAPIError as error:
        reason = str(error.orig).strip().splitlines()[0] if error.orig else "no connection"
        raise DemoDatabaseUnavailable(
            f"--database {shown}: {reason}. Start the server or correct the URL."
        ) from error
    if tables:  # never somebody's data, not even in tables of the demo's names
        engine.dispose()
        has = f"{shown}, which has {len(tables)} tables"
        raise ConfigurationError(
            "--database", has, "an empty database; the demo drops its own tables when it ends"
        )
    return engine


class DemoDatabaseUnavailable(EventPerfError):
    """The demo's database does not answer."""
