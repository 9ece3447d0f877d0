"""Statements of SQLite that are run to see how long they take."""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from typing import Any, Final

from eventperf.dbopt.protocols import Measurement
from eventperf.dbopt.statements.workload import Sample

from .harmless import harm
from .what_if import shape

_numbers: Final = itertools.count()


def measured(
    sqlite3: Any, db: Any, samples: Sequence[Sample], *, runs: int, timeout_s: float
) -> Measurement | None:
    """Run SELECTs to their last row; progress callbacks stop those that take too long."""
    times: list[list[float]] = []
    capped = False
    cursor = db.cursor()
    try:
        if any(harm(db, text) is not None for text in {s.sql for s in samples}):
            return None
        plan = _explain(cursor, samples[0])
        for sample in samples:
            took_s: list[float] = []
            times.append(took_s)
            for _ in range(runs):
                took = _run(sqlite3, db, cursor, sample, timeout_s)
                capped = capped or took is None
                took_s.append(timeout_s if took is None else took)
                if sum(took_s) > timeout_s / 4:
                    break
    except sqlite3.Error:
        return None
    finally:
        cursor.close()
        db.rollback()
    return Measurement.of(times, *plan, capped)


def _run(sqlite3: Any, db: Any, cursor: Any, sample: Sample, timeout_s: float) -> float | None:
    """Return the CPU seconds of one run: SQLite runs in this thread, and what else runs is none of it."""
    began = time.thread_time()
    end = time.perf_counter() + timeout_s
    db.set_progress_handler(lambda: time.perf_counter() > end, 10_000)
    try:
        cursor.execute(sample.sql, named(sample.values))
        while cursor.fetchmany(1_000):
            pass
    except sqlite3.OperationalError:
        if time.perf_counter() > end:
            return None
        raise
    finally:
        db.set_progress_handler(None, 0)
    return time.thread_time() - began


def _explain(cursor: Any, sample: Sample) -> tuple[str, frozenset[str]]:
    # EXPLAIN of a cached statement does not notice a dropped index: a new text is never cached.
    cursor.execute(f"EXPLAIN QUERY PLAN /* {next(_numbers)} */ {sample.sql}", named(sample.values))
    return shape(cursor.fetchall())


def named(values: Sequence[Any] | None) -> dict[str, Any]:
    """Return parameters by the names that statements have for them."""
    return {f"p{i}": v for i, v in enumerate(values or (), 1)}
