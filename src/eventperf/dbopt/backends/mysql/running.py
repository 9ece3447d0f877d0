"""Statements of MySQL and MariaDB that are run to see how long they take."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from eventperf.dbopt.protocols import Measurement
from eventperf.dbopt.statements.lex import render
from eventperf.dbopt.statements.workload import Sample

_TIMED_OUT: Final = (1969, 3024, 1317)


def limit_time(cursor: Any, timeout_s: float, *, is_mariadb: bool) -> None:
    """Set the longest that a statement of this session may take; 0 is no limit."""
    if is_mariadb:
        cursor.execute(f"SET SESSION max_statement_time = {timeout_s:.3f}")
    else:
        cursor.execute(f"SET SESSION max_execution_time = {int(timeout_s * 1000)}")


def measured(
    errors: Any,
    db: Any,
    samples: Sequence[Sample],
    *,
    runs: int,
    timeout_s: float,
    limit: Callable[[Any, float], None],
) -> Measurement | None:
    """Run SELECTs inside the open transaction, then roll it back; ``None``: one failed.

    Args:
        errors: What the driver raises.
        db: The connection.
        samples: What is run; the first one's plan is told.
        runs: How often each.
        timeout_s: Longest single run.
        limit: Sets the longest that a statement may take.
    """
    times: list[list[float]] = []
    capped = False
    with db.cursor() as cursor:
        try:
            sql, values = render(samples[0].sql, samples[0].values, "format", "mysql")
            cursor.execute(f"EXPLAIN FORMAT=TRADITIONAL {sql}", values or None)
            names = [d[0].lower() for d in cursor.description]
            plan = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
            limit(cursor, timeout_s)
            for sample in samples:
                took_s: list[float] = []
                times.append(took_s)
                for _ in range(runs):
                    took = _run(errors, cursor, sample)
                    capped = capped or took is None
                    took_s.append(timeout_s if took is None else took)
                    if sum(took_s) > timeout_s / 4:
                        break
        except errors:
            return None
        finally:
            if db.open:
                db.rollback()
                limit(cursor, 0)
    text = "\n".join(
        f"{p['table']}: {p['type']} {p['key'] or 'no index'} {p['extra'] or ''}".strip() for p in plan
    )
    used = {k for p in plan for k in str(p["key"] or "").replace("Intersect", "").split(",") if k}
    return Measurement.of(times, text, frozenset(used), capped)


def _run(errors: Any, cursor: Any, sample: Sample) -> float | None:
    sql, values = render(sample.sql, sample.values, "format", "mysql")
    began = time.perf_counter()
    try:
        cursor.execute(sql, values or None)
        cursor.fetchall()
    except errors as error:
        if error.args and error.args[0] in _TIMED_OUT:
            return None
        raise
    return time.perf_counter() - began
