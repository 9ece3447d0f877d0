"""``eventperf queue``: run workers, watch the queues, mend the dead letter."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import logging
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from eventperf._core.errors import ConfigurationError
from eventperf._core.urls import redact

from . import queue_jobs
from .addresses import ATTRIBUTE, address
from .output import emit_json, table

if TYPE_CHECKING:
    from eventperf.queues import QueueManager

_APP = (
    "a module and its QueueManager, such as myapp.jobs:queues, a URL such as redis://host:6379/0, "
    "or env:NAME or file:PATH with one"
)


Command = Callable[[str, str], argparse.ArgumentParser]
"""Adds a command by its name and one line about it."""


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the commands of this room."""
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.add_argument("app", help=_APP)
        added.add_argument("--namespace", default="default", help="with a URL: the manager's namespace")
        return added

    _work(command)
    _look(command)
    queue_jobs.configure(command)
    _act(command)
    _keep(command)


def _work(command: Command) -> None:
    worker = command("worker", "run a worker until SIGTERM or Ctrl-C")
    worker.add_argument("--queues", help="comma-separated; all by default")
    worker.add_argument("--concurrency", type=int, help="slots in all; by default each queue has its own")
    worker.add_argument(
        "--lease", default="15s", help="time without a sign of life after which jobs run again"
    )
    worker.add_argument("--grace", default="30s", help="time a stop waits for running jobs")
    worker.add_argument(
        "--burst", action="store_true", help="stop when nothing can run now, and say what waits"
    )
    worker.add_argument("--max-jobs", type=int, help="retire after so many jobs")
    worker.add_argument("--max-memory-mb", type=float, help="retire when the process is larger (MiB)")
    worker.add_argument("--max-age", help="retire after this time, such as 1d")
    worker.add_argument("--code-version", help="of your code, such as a commit, for `queue workers` to show")
    worker.add_argument(
        "--processes", type=int, help="keep this many worker processes running; SIGHUP renews them"
    )
    worker.add_argument(
        "--health", metavar="[HOST:]PORT", help="answer probes: GET /healthz and /readyz, 200 or 503"
    )
    worker.add_argument("--tethered", action="store_true", help=argparse.SUPPRESS)  # a supervisor's child
    worker.add_argument(
        "--reload",
        action="store_true",
        help="start again when a Python file below here changes (development)",
    )


def _look(command: Command) -> None:
    status = command("status", "show exact counts of every queue")
    status.add_argument("--watch", action="store_true", help="again and again until Ctrl-C")
    status.add_argument("--interval", type=float, default=1.0, help="seconds between two looks")
    status.add_argument("--json", action="store_true")
    dead = command("dead", "list the dead letter of a queue, or of all, newest first")
    dead.add_argument("queue", nargs="?")
    dead.add_argument("--limit", type=int, default=50)
    dead.add_argument("--json", action="store_true")
    info = command("info", "show all that is known of a job")
    info.add_argument("id")
    info.add_argument("--json", action="store_true")
    listed = command("list", "list the jobs of a queue in one state, next to run or newest first")
    listed.add_argument("queue")
    listed.add_argument("--state", default="waiting", help="waiting, delayed, active, completed or failed")
    listed.add_argument("--limit", type=int, default=50)
    listed.add_argument("--offset", type=int, default=0)
    listed.add_argument("--json", action="store_true")
    ping = command("ping", "exit 0 when the store answers (and enough workers live), else 1: for probes")
    ping.add_argument("--workers", type=int, default=0, help="live workers that must be there")


def _act(command: Command) -> None:
    for name, text in (
        ("cancel", "cancel jobs: at once those that wait, by asking their workers those that run"),
        ("retry", "put dead jobs back with fresh attempts"),
    ):
        command(name, text).add_argument("id", nargs="+")
    replay = command("replay", "put dead jobs back with fresh attempts, all of the queue when no id is given")
    replay.add_argument("queue")
    replay.add_argument("id", nargs="*")
    for name, text in (
        ("pause", "stop handing out jobs of a queue"),
        ("resume", "hand out jobs of a queue again"),
    ):
        command(name, text).add_argument("queue")
    purge = command("purge", "forget all jobs of a queue in one state")
    purge.add_argument("queue")
    purge.add_argument("--state", default="waiting", help="waiting, delayed, failed or completed")


def _keep(command: Command) -> None:
    schema = command("schema", "make or upgrade the tables of the SQL job store")
    schema.add_argument("--check", action="store_true", help="change nothing; exit 1 when not up to date")
    schema.add_argument("--sql", action="store_true", help="only print the statements")
    schema.add_argument("--since", type=int, default=0, help="with --sql: the version that is there")
    relay = command("relay", "carry jobs from a database's outbox to the store until SIGTERM or Ctrl-C")
    relay.add_argument("--database", required=True, help="URL of the database with the outbox")
    relay.add_argument("--create", action="store_true", help="make the outbox table first")
    relay.add_argument("--burst", action="store_true", help="stop when the outbox is empty")


def run(args: argparse.Namespace) -> int:
    """Run one command."""
    if args.command == "worker" and args.reload:
        return _reload(args)
    shown = queue_jobs
    commands = {"worker": _worker, "status": _status, "replay": _replay, "ping": _ping, "schema": _schema}
    commands |= {"relay": _relay, "cancel": _each, "retry": _each}
    commands |= {"dead": shown.dead, "info": shown.info, "list": shown.listed, "jobs": shown.jobs}
    commands |= {"update": shown.update, "metrics": shown.metrics, "workers": shown.workers}
    with load(args.app, args.namespace) as queues:
        return commands.get(args.command, _control)(queues, args)


def load(app: str, namespace: str = "default") -> QueueManager:
    """Return the manager ``app`` names: ``module:attribute``, or one built from a URL.

    Raises:
        ConfigurationError: No such module, no such attribute, or something else than a QueueManager.
    """
    from eventperf.queues import QueueManager

    app = address(app, "app", attributes=False)
    if "://" in app:
        return QueueManager(app, namespace=namespace)
    if not ATTRIBUTE.fullmatch(app):  # perhaps a URL whose // was forgotten, and its password not
        raise ConfigurationError("app", redact(app), _APP)
    module, _, name = app.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and module.startswith(error.name):
            raise ConfigurationError(
                "app", app, f"an importable module (no module {error.name!r})"
            ) from error
        raise
    for part in name.split("."):
        found = getattr(found, part, None)
    if not isinstance(found, QueueManager):
        raise ConfigurationError("app", app, f"{name} in {module} being a QueueManager")
    return found


def _worker(queues: QueueManager, args: argparse.Namespace) -> int:
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    chosen = args.queues.split(",") if args.queues else None
    worker = queues.worker(
        chosen,
        args.concurrency,
        lease=args.lease,
        grace=args.grace,
        max_jobs=args.max_jobs,
        max_memory_mb=args.max_memory_mb,
        max_age=args.max_age,
        version=args.code_version,
    )
    if "://" in (app := address(args.app, "app", attributes=False)):
        allowed = "the module that has the jobs, such as myapp.jobs:queues: a URL brings no handlers"
        raise ConfigurationError("app", redact(app), allowed)
    if args.processes is not None:
        return _supervised(args)
    from eventperf.queues.working.closing import leave_soon

    print(f"worker {worker.id}: {', '.join(chosen or queues.queues)}", flush=True)
    with contextlib.ExitStack() as stack:
        if args.tethered:
            from eventperf.queues.working.tether import Tether

            Tether(worker).start()
        if args.health:
            from eventperf.queues.working.health import HealthServer, Pulse

            pulse = Pulse(worker)
            stack.enter_context(HealthServer(args.health, lambda: [pulse.report()]))
        worker.run(burst=args.burst, wait_for_store=not args.burst)
    if args.tethered:  # this process is for nothing else
        leave_soon(worker.abandon)
    return 0


def _supervised(args: argparse.Namespace) -> int:
    from eventperf._core.durations import seconds
    from eventperf.queues.working.supervisor import Supervisor

    command = [sys.executable, "-m", "eventperf", "queue", "worker", "--tethered", args.app]
    names = (
        "namespace", "queues", "concurrency", "lease", "grace", "max_jobs", "max_memory_mb", "max_age",
        "code_version",
    )  # fmt: skip
    given = {name: value for name in names if (value := getattr(args, name)) is not None}
    command += [f"--{name.replace('_', '-')}={value}" for name, value in given.items()]
    if args.burst:
        command.append("--burst")
    grace_s = seconds(args.grace, name="grace", zero=True)
    supervisor = Supervisor(command, args.processes, grace_s=grace_s, burst=args.burst, health=args.health)
    print(f"{args.processes} worker processes", flush=True)
    return supervisor.run()


def _schema(queues: QueueManager, args: argparse.Namespace) -> int:
    from eventperf.queues import SchemaMissing
    from eventperf.queues.backends.sql import SqlBackend

    if not isinstance(queues.backend, SqlBackend):
        raise ConfigurationError("app", args.app, "queues in an SQL database: this store needs no tables")
    backend = queues.backend
    if args.sql:
        print(backend.schema_ddl(args.since), end="")
        return 0
    found = backend.schema_version() if args.check else backend.create_schema()
    known = backend.schema_known
    if found == known:
        print(f"{backend.name}: the tables are there, of version {known}")
        return 0
    if found > known:
        raise SchemaMissing(found, known)
    verb = "have to be" if args.check else "were"
    way = f"brought from version {found} to {known}" if found else f"made, of version {known}"
    print(f"{backend.name}: the tables {verb} {way}")
    for version, why in backend.schema_steps(found):
        print(f"  {version}: {why}")
    return int(args.check)


def _relay(queues: QueueManager, args: argparse.Namespace) -> int:
    from eventperf.queues.outbox import Relay, create_table

    from .ending import ending

    if args.create:
        create_table(args.database)
    with Relay(queues, args.database) as relay, ending(relay.stop):
        print(f"{relay.run(burst=args.burst)} jobs relayed", flush=True)
    return 0


def _reload(args: argparse.Namespace) -> int:
    from .autoreload import Reloader

    command = [sys.executable, "-m", "eventperf", "queue", "worker", args.app, "--namespace", args.namespace]
    command += ["--lease", args.lease, "--grace", "1s"]
    if args.queues:
        command += ["--queues", args.queues]
    if args.concurrency is not None:
        command += ["--concurrency", str(args.concurrency)]
    return Reloader(command, Path.cwd()).run()


def _status(queues: QueueManager, args: argparse.Namespace) -> int:
    if args.interval <= 0:
        raise ConfigurationError("--interval", args.interval, "a positive number of seconds")
    while True:
        rows = queues.status()
        if args.json:
            emit_json([asdict(row) for row in rows])
        else:
            if args.watch and sys.stdout.isatty():
                print("\x1b[H\x1b[2J", end="")
            _show(rows)
        if not args.watch:
            return 0
        try:
            time.sleep(args.interval)
        except KeyboardInterrupt:
            return 0


def _show(rows: Any) -> None:
    counts = {
        "waiting": "waiting", "delayed": "delayed", "active": "active", "completed": "completed",
        "failed": "failed", "dead": "dead", "trimmed": "trimmed", "stalled": "crashes", "workers": "workers",
    }  # fmt: skip
    lines = []
    for row in rows:
        name = row.name + (" (paused)" if row.paused else "")
        rates = (f"{row.oldest_wait_s:.1f}", f"{row.arrival_rate:.1f}", f"{row.service_rate:.1f}")
        lines.append((name, *(getattr(row, field) for field in counts), *rates))
    table(("queue", *counts.values(), "oldest s", "in/s", "out/s"), lines)


def _each(queues: QueueManager, args: argparse.Namespace) -> int:
    from eventperf.queues import JobNotFound

    done, failed = (
        ("cancelled", "is not there or has ended")
        if args.command == "cancel"
        else (
            "is back in line",
            "is not in the dead letter, or a newer job holds its unique_key",
        )
    )
    act, bad = queues.cancel if args.command == "cancel" else queues.retry, 0
    for job_id in args.id:
        try:
            good = act(job_id)
        except JobNotFound:
            good = False
        bad += not good
        print(f"{job_id} {done if good else failed}")
    return int(bool(bad))


def _replay(queues: QueueManager, args: argparse.Namespace) -> int:
    if not args.id:
        print(f"{queues.replay(args.queue)} jobs of {args.queue} are back in line")
        return 0
    bad = 0
    for job_id in args.id:
        good = queues.replay(args.queue, [job_id]) == 1
        bad += not good
        print(f"{job_id} {'is back in line' if good else _why_not(queues, args.queue, job_id)}")
    return int(bool(bad))


def _why_not(queues: QueueManager, queue: str, job_id: str) -> str:
    """Return why a job was not put back."""
    from eventperf.queues import JobNotFound, JobState

    try:
        info = queues.job_info(job_id)
    except JobNotFound:
        return "is not known: never enqueued, or no longer kept"
    if info.queue != queue:
        return f"is of the queue {info.queue}"
    if info.state is JobState.FAILED:
        return "stays in the dead letter: a newer job holds its unique_key"
    return f"is not in the dead letter: it is {info.state.value}"


def _control(queues: QueueManager, args: argparse.Namespace) -> int:
    if args.command == "purge":
        print(f"{queues.purge(args.queue, args.state)} {args.state} jobs of {args.queue} forgotten")
    elif args.command == "pause":
        queues.pause(args.queue)
        print(f"{args.queue} is paused; running jobs go on")
    else:
        queues.resume(args.queue)
        print(f"{args.queue} hands out jobs again")
    return 0


def _ping(queues: QueueManager, args: argparse.Namespace) -> int:
    began = time.perf_counter()
    workers = queues.backlog().workers
    took_ms = (time.perf_counter() - began) * 1000
    print(f"{queues.backend.name} answers in {took_ms:.1f} ms, {workers} workers live")
    return 0 if workers >= args.workers else 1
