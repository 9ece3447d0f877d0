"""What eventperf has to do inside an application that nobody here wrote; each host gives its pages and tools.

Nothing here knows a framework. A step that fails raises: the run ends with the host's traceback.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Protocol

from eventperf.dbopt import ApplyReport, DatabaseOptimizer, NPlusOne, Workload

THRESHOLD = 5
_MASKS = (
    re.compile(r"csrfmiddlewaretoken[^>]*>|nonce[=-][\"']?[\w+/=-]+|[?&]_=\w+"),
    re.compile(r"\d\d:\d\d:\d\d(\.\d+)?|\d{8}T\d{6}Z?|\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?"),
    re.compile(r"\b[0-9a-f]{32,64}\b|id=\"[\w-]{6,}\""),
)


class Counts(Protocol):
    """An independent count: how often each text was sent while one page was made."""

    texts: Counter[str]


class Host(Protocol):
    """What an application has to offer."""

    name: str

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

    def drift(self) -> str:
        """Return what the host's tool would still change."""


def masked(page: str) -> str:
    """Return a page without what differs at each look."""
    for mask in _MASKS:
        page = mask.sub("*", page)
    return page


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
    assert not failed, failed
    assert len(steady) >= 12, f"only {len(steady)} of {len(pages)} pages can be compared"
    step(f"{len(steady)} of {len(pages)} pages are the same with both caches, cold and warm")


def record(host: Host) -> tuple[Workload, list[NPlusOne]]:
    """Every loop that is told was sent as often, and no loop of many statements is missed."""
    with host.recording() as recorder:
        for page in host.pages().values():
            page()
        loops = recorder.n_plus_one()
        workload = recorder.workload()
    most: Counter[str] = Counter()
    for page in host.pages().values():
        with host.counting() as counts:
            page()
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
        step(f"migration made {len(report.skipped)} indexes; the host's tool says: {host.drift()}")
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
    step(f"{host.name}: done")
