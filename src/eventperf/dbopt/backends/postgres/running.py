"""Statements of PostgreSQL that are run to see how long they take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from eventperf.dbopt.protocols import Measurement
from eventperf.dbopt.statements.lex import render
from eventperf.dbopt.statements.workload import Sample

from .harmless import harm
from .what_if import plan_shape, read_plan


def measured(
    psycopg: Any,
    db: Any,
    samples: Sequence[Sample],
    *,
    runs: int,
    timeout_s: float,
    names: Callable[[frozenset[str]], frozenset[str]] = lambda used: used,
) -> Measurement | None:
    """Run SELECTs inside the open transaction, each with a time-out; ``None``: one could do harm, or failed.

    Args:
        names: What the indexes of a plan are called for the caller.
    """
    times: list[list[float]] = []
    capped = False
    try:
        if any(harm(db, text) is not None for text in {s.sql for s in samples}):
            return None
        sql, values = render(samples[0].sql, samples[0].values, "format", "postgres")
        plan = read_plan(db.execute(f"EXPLAIN (FORMAT JSON) {sql}", values or None).fetchone())
        db.execute(f"SET LOCAL statement_timeout = {max(1, int(timeout_s * 1000))}")
        for sample in samples:
            took_s: list[float] = []
            times.append(took_s)
            for _ in range(runs):
                took = _run(psycopg, db, sample)
                capped = capped or took is None
                took_s.append(timeout_s if took is None else took)
                if sum(took_s) > timeout_s / 4:
                    break
    except psycopg.Error:
        return None
    text, used = plan_shape(plan)
    return Measurement.of(times, text, names(used), capped)


def _run(psycopg: Any, db: Any, sample: Sample) -> float | None:
    sql, values = render(sample.sql, sample.values, "format", "postgres")
    db.execute("SAVEPOINT eventperf")
    began = time.perf_counter()
    try:
        db.execute(sql, values or None).fetchall()
    except psycopg.errors.QueryCanceled:
        db.execute("ROLLBACK TO SAVEPOINT eventperf")
        return None
    return time.perf_counter() - began
