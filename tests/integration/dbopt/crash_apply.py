"""Apply a plan in processes that kill themselves at every step, and run it again after each death.

``python crash_apply.py URL PLAN WORKLOAD`` prints one JSON line per death. Every run is a fork of this
process, which itself never connects.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy import create_engine

from eventperf.dbopt import Advice, DatabaseOptimizer, Limits, OptimizerBusy, Workload

DELAYS = (0.001, 0.008)  # into a statement that takes some 10 ms
STEPS = ("execute_ddl", "refresh_statistics", "measure")
WRITES = (2, 7)  # the first build and the first revert: killed before, in and after them
ALIKE = (1, 6, 9, 10)  # one more measurement: on servers, where a death takes longer, one of a kind will do


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def forked(work: Callable[[], None]) -> int:
    """Run ``work`` in a child; return its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            print(json.dumps({"error": repr(error)}), flush=True)
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def apply_until(url: str, plan: str, workload: str, step: int, how: float | str) -> None:
    """Apply, measure and revert everything; die at one step: before it, after it, or some time into it."""
    # Nothing is fast enough to be kept: the way to death leads through all reverts as well.
    with DatabaseOptimizer(url, limits=Limits(min_speedup=1e9)) as optimizer:
        dialect: Any = optimizer.dialect
        count = 0

        def watched(real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **options: Any) -> Any:
                nonlocal count
                mine, count = count, count + 1
                if mine == step and how == "before":
                    die()
                if mine == step and isinstance(how, float):
                    threading.Timer(how, die).start()
                result = real(*args, **options)
                if mine == step:
                    if how != "after":
                        time.sleep(5)  # the timer kills
                    die()
                return result

            return call

        for name in STEPS:
            setattr(dialect, name, watched(getattr(dialect, name)))
        optimizer.apply(Advice.load(plan), dry_run=False, workload=Workload.load(workload))


def again(url: str, plan: str, step: int, how: float | str) -> None:
    """Apply once more as anybody would, say what is there, and take it away."""
    advice = Advice.load(plan)
    busy = 0
    with DatabaseOptimizer(url) as optimizer:
        give_up = time.monotonic() + 30
        while True:
            try:
                report = optimizer.apply(advice, dry_run=False, verify=False)
                break
            except OptimizerBusy:  # the server is still building for the dead
                busy += 1
                if time.monotonic() > give_up:
                    raise
                time.sleep(0.02)
        dialect = optimizer.dialect
        found = [
            i for t in {i.spec.table for i in advice.indexes} for i in dialect.indexes(t) if not i.primary
        ]
        if dialect.name == "postgres":  # parts of partitioned parents too
            left = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
            invalid = [row[0] for row in dialect.rows(left, timeout_s=5.0, limit=9)]
        else:
            invalid = [i.name for i in found if not i.valid]
        line = {
            "step": step,
            "how": how,
            "busy": busy,
            "failed": [a.reason for a in report.failed],
            "cleaned": report.cleaned,
            "skipped": len(report.skipped),
            "found": sorted(i.name for i in found),
            "invalid": invalid,
        }
        for index in advice.indexes:
            if index.name in line["found"]:  # type: ignore[operator]
                dialect.execute_ddl(dialect.drop_sql(index.name, index.spec.table), lock_timeout_s=5.0)
    print(json.dumps(line), flush=True)


def main(url: str, plan: str, workload: str) -> int:
    """Return 0 when a run lived to its end, after all those that died."""
    scheme = url.partition("+")[0].partition(":")[0]
    backend = {"postgresql": "postgres", "sqlite": "sqlite"}.get(scheme, "mysql")
    drivers = {"postgres": ["psycopg"], "mysql": ["pymysql"], "sqlite": []}[backend]
    for module in ("sqlalchemy.pool", "sqlglot", *drivers, f"eventperf.dbopt.backends.{backend}"):
        importlib.import_module(module)  # once, not in every fork
    create_engine(url).dispose()
    step = 0
    while True:
        if step in ALIKE and backend != "sqlite":
            step += 1
            continue
        for how in (DELAYS[0], "before", DELAYS[1], "after") if step in WRITES else (DELAYS[0],):
            code = forked(lambda: apply_until(url, plan, workload, step, how))  # noqa: B023
            if code == 0:
                return 0 if step else 1  # past the last step
            if code != -signal.SIGKILL:
                return 2
            if forked(lambda: again(url, plan, step, how)):  # noqa: B023
                return 3
        step += 1


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
