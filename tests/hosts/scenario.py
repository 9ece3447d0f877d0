"""What eventperf has to do inside an application that nobody here wrote; each host gives its pages and tools.

Nothing here knows a framework. A step that fails raises: the run ends with the host's traceback.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

from eventperf.cache import CacheManager
from eventperf.contrib.prometheus import PrometheusSink, StatsCollector
from eventperf.dbopt import ApplyReport, DatabaseOptimizer, NPlusOne, Workload
from eventperf.queues import QueueManager

THRESHOLD = 5
_MASKS = (
    re.compile(r"csrfmiddlewaretoken[^>]*>|nonce[=-][\"']?[\w+/=-]+|[?&]_=\w+"),
    re.compile(r"\d\d:\d\d:\d\d(\.\d+)?|\d{8}T\d{6}Z?|\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?"),
    re.compile(r"\b[0-9a-f]{32,64}\b|id=\"[\w-]{6,}\""),
)


class Host(Protocol):
    """What an application has to offer."""

    name: str
    queue_url: str
    """Where its side jobs are kept: its own database, or Redis behind an outbox."""

    def pages(self) -> dict[str, Callable[[], str]]:
        """Return what makes each page."""

    def ours(self) -> AbstractContextManager[object]:
        """Put eventperf's cache in the place of the host's own."""

    def recording(self) -> AbstractContextManager[Any]:
        """Record; yields something with ``workload()`` and ``n_plus_one()``."""

    def counting(self) -> AbstractContextManager[Counter[str]]:
        """Count statements without any of our code."""

    def engine(self) -> Any:
        """Return what a user would hand to ``DatabaseOptimizer``."""

    def migrate(self, advice: Any) -> Callable[[], None]:
        """Write the advice as a migration of the host's tool and run it; returns what takes it back."""

    def drift(self, advice: Any) -> str:
        """Return what the host's tool says after the migration; raises where it would undo an index."""

    def enqueue(self, queues: QueueManager, data: int, *, commit: bool) -> Any:
        """Write a row of the host's own and enqueue a job ``side`` in one transaction, and end it."""

    def deliver(self, queues: QueueManager) -> None:
        """Bring committed jobs to the store; nothing to do where they are kept in the host's own database."""


def masked(page: str) -> str:
    """Return a page without what differs at each look."""
    for mask in _MASKS:
        page = mask.sub("*", page)
    return page


def ordered(value: Any) -> Any:
    """Return data of an API with its lists sorted: many come from queries without an ORDER BY."""
    if isinstance(value, dict):
        return {k: ordered(v) for k, v in sorted(value.items())}
    if isinstance(value, list):
        return sorted((ordered(v) for v in value), key=lambda v: json.dumps(v, sort_keys=True))
    return value


def step(text: str) -> None:
    print(f"[{time.strftime('%H:%M:%S')}] {text}", flush=True)


def same_pages(host: Host) -> None:
    """The pages are the same with eventperf's cache as with the host's own, cold and warm."""
    pages = host.pages()
    theirs = {name: masked(page()) for name, page in pages.items()}
    again = {name: masked(page()) for name, page in pages.items()}
    steady = [name for name in pages if theirs[name] == again[name]]
    with host.ours():
        for when in ("cold", "warm"):
            mine = {name: masked(page()) for name, page in host.pages().items()}
            differ = [name for name in steady if mine[name] != theirs[name]]
            assert not differ, f"{when}: {differ}"
    failed = [name for name, text in theirs.items() if not text.startswith(("200", "201"))]
    assert not failed, {name: theirs[name][:300] for name in failed}
    assert len(steady) >= 12, f"only {len(steady)} of {len(pages)} pages can be compared"
    step(f"{len(steady)} of {len(pages)} pages are the same with both caches, cold and warm")


def record(host: Host) -> tuple[Workload, list[NPlusOne]]:
    """Every loop that is told was sent as often, and no loop of many statements is missed."""
    most: Counter[str] = Counter()
    seen: list[Counter[str]] = []
    with host.recording() as recorder:
        for page in host.pages().values():
            with host.counting() as counts:  # of the same answers: the host may keep some of them
                page()
            seen.append(counts)
        loops = recorder.n_plus_one()
        workload = recorder.workload()
    for counts in seen:
        for text, count in counts.items():
            name = _name(text, workload.dialect)
            most[name] = max(most[name], count)
    for loop in loops:
        assert most[loop.fingerprint] >= THRESHOLD, f"told, but sent {most[loop.fingerprint]} times: {loop}"
    told = {loop.fingerprint for loop in loops}
    many = {name for name, count in most.items() if count >= 4 * THRESHOLD and _reads(workload, name)}
    missed = many - told
    assert not missed, [(most[m], workload[m].fingerprint.text[:200]) for m in missed]
    step(
        f"{len(workload)} statements recorded, {len(loops)} N+1 loops, among them all {len(many)} large ones"
    )
    for loop in loops[:6]:
        step(f"   {loop.queries} in {loop.runs}: {loop.caller} -> {loop.fix}")
    return workload, loops


def _name(text: str, dialect: str) -> str:
    from eventperf.dbopt import fingerprint

    return fingerprint(text, dialect).id


def _reads(workload: Workload, name: str) -> bool:
    return name in workload and workload[name].is_read


def advise(host: Host, workload: Workload, what_if: str | None) -> Any:
    """Every statement is analysed: none of them is made up."""
    with DatabaseOptimizer(host.engine(), what_if=what_if) as optimizer:
        advice = optimizer.advise(workload, budget="40s")
    refused = [w for w in advice.warnings if "was not analysed" in w or "names what is not here" in w]
    assert not refused, refused
    assert str(advice)
    assert "</html>" in advice.to_html()
    where = "with" if what_if else "without"
    step(f"{where} what_if: {len(advice.indexes)} indexes, {100 * advice.gain:.0f} %, {advice.seconds:.1f} s")
    for index in advice.indexes:
        step(f"   {index.name}: {index.spec.label()}: {index.reason}")
    for warning in advice.warnings:
        step(f"   ! {warning[:300]}")
    return advice


def migrated(host: Host, advice: Any) -> None:
    """The host's own tool makes the same indexes under the same names, and takes them back."""
    back = host.migrate(advice)
    try:
        with DatabaseOptimizer(host.engine()) as optimizer:
            report = optimizer.apply(advice)
            there = ("it exists", "already serves it", "another index has this name")
            wrong = [a for a in report.skipped if not a.reason.endswith(there)]
            assert not report.planned, report.planned
            assert not wrong, wrong
        step(f"migration made {len(report.skipped)} indexes; the host's tool says: {host.drift(advice)}")
    finally:
        back()
    with DatabaseOptimizer(host.engine()) as optimizer:
        assert len(optimizer.apply(advice).planned) == min(len(advice.indexes), 10)


def applied(host: Host, advice: Any, workload: Workload) -> None:
    """Apply measures; what is kept is faster; revert leaves nothing behind."""
    with DatabaseOptimizer(host.engine()) as optimizer:
        seen: list[Any] = []
        optimizer.on(seen.append)
        report = optimizer.apply(advice, dry_run=False, workload=workload)
        step(str(report).replace("\n", "\n            "))
        assert not report.failed, report.failed
        assert len(seen) >= len(report.created) + len(report.reverted)
        slower = [a for a in report.created if a.speedup is not None and a.speedup < 1.0]
        assert not slower, slower
        file = os.path.join(os.environ["HOST_FOLDER"], f"{host.name}-report.json")
        report.save(file)
        done = optimizer.revert(ApplyReport.load(file))
        assert {a.name for a in done.reverted} == {a.name for a in report.created}, str(done)
        assert not optimizer.revert(dry_run=True).planned
    step(f"reverted {len(done.reverted)}")


@contextmanager
def counted(engine: Any) -> Iterator[Counter[str]]:
    """Count the statements of a SQLAlchemy engine."""
    from sqlalchemy import event

    texts: Counter[str] = Counter()

    def count(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
        texts[statement] += 1

    event.listen(engine, "before_cursor_execute", count)
    try:
        yield texts
    finally:
        event.remove(engine, "before_cursor_execute", count)


def alembic_migrated(advice: Any, config: Callable[[], Any]) -> tuple[str, Callable[[], None]]:
    """Write the advice as a revision of the host's and upgrade to it; return its text, and what goes back."""
    from alembic import command
    from alembic.script import ScriptDirectory

    at = config()
    before = ScriptDirectory.from_config(at).get_current_head()
    file = Path(at.get_main_option("script_location")) / "versions" / "eventperf_indexes.py"
    text = advice.to_migration("alembic", down_revision=before)
    file.write_text(text)
    command.upgrade(config(), "head")

    def back() -> None:
        command.downgrade(config(), before)
        file.unlink()

    return text, back


def alembic_drift(engine: Any, metadata: Any, migration: str) -> str:
    """Say in the models what the migration's comments ask for: autogenerate then has nothing to do."""
    import sqlalchemy as sa
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    added = []
    for table, index in re.findall(r"^#   ([\w.]+): (sa\.Index\(.*\))$", migration, re.M):
        made = eval(index, {"sa": sa})  # as a user pastes it
        made._set_parent_with_dispatch(metadata.tables[table])
        added.append(made)
    with engine.connect() as connection:
        differences = compare_metadata(MigrationContext.configure(connection), metadata)
    for index in added:
        index.table.indexes.discard(index)
    ours = [d for d in differences if any(index.name in repr(d) for index in added)]
    assert len(added) == migration.count("op.create_index("), migration
    assert not ours, ours
    return f"nothing to do about {len(added)} indexes, {len(differences)} differences of its own"


@contextmanager
def _working(url: str, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker in a process of its own."""
    program = Path(__file__).with_name("side_worker.py")
    worker = subprocess.Popen([sys.executable, str(program), url, str(folder)])
    try:
        yield worker
    finally:
        worker.kill()
        worker.wait()


def _wait(done: Callable[[], Any], what: str) -> None:
    give_up = time.monotonic() + 90
    while not done():
        assert time.monotonic() < give_up, f"waited 90 s for {what}"
        time.sleep(0.05)


def side_job(host: Host) -> None:
    """A job leaves with the host's commit and only then, outlives its worker, and is in the metrics."""
    from prometheus_client import CollectorRegistry, start_http_server

    folder, registry = Path(tempfile.mkdtemp(dir=os.environ["HOST_FOLDER"])), CollectorRegistry()
    log, sink = folder / "log", PrometheusSink(registry)
    log.touch()
    with (
        QueueManager(host.queue_url) as queues,
        CacheManager(os.environ["HOST_REDIS"], namespace="side") as cache,
    ):
        if hasattr(queues.backend, "create_schema"):
            queues.backend.create_schema()
        StatsCollector(caches={"side": cache}, queues=queues, registry=registry)
        queues.on(sink)
        cache.on(sink)
        kept = host.enqueue(queues, 1, commit=True)
        host.enqueue(queues, 2, commit=False)
        host.deliver(queues)
        assert sum(row.waiting for row in queues.status()) == 1, queues.status()
        with _working(host.queue_url, folder):
            _wait(log.read_text, "the job's first run")  # it holds its job, and dies here
        with _working(host.queue_url, folder):
            _wait(lambda: len(log.read_text().split("\n")) == 3, "its second run")
            (folder / "go").touch()
            assert kept.result(timeout=90) == 2
        runs = [line.split() for line in log.read_text().splitlines()]
        assert [data for _, data in runs] == ["1", "1"], runs
        assert len({pid for pid, _ in runs}) == 2
        cache.get_or_load("page", lambda: kept.id)
        server, _ = start_http_server(0, "127.0.0.1", registry)
        with urllib.request.urlopen(f"http://127.0.0.1:{server.server_port}/metrics", timeout=10) as answer:
            scraped = answer.read().decode()
        server.shutdown()
    for line in ('eventperf_queue_completed{queue="normal"} 1.0', 'eventperf_cache_loads{cache="side"} 1.0'):
        assert line in scraped, scraped
    assert re.search(r'eventperf_events_total{[^}]*event="enqueued"[^}]*room="queues"[^}]*} [12]\.0', scraped)
    step("a job left with the commit only, outlived its worker, and is in the metrics")


def run(host: Host) -> None:
    """The whole scenario."""
    if "pages" not in os.environ.get("HOST_SKIP", ""):
        same_pages(host)
    workload, _ = record(host)
    advise(host, workload, None)
    advice = advise(host, workload, os.environ["HOST_WHAT_IF"])
    assert advice.indexes or advice.unserved
    migrated(host, advice)
    applied(host, advice, workload)
    side_job(host)
    step(f"{host.name}: done")
