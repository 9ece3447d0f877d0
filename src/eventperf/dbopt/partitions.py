"""Partition advice: which large tables, by which column, what would be pruned and what would break."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

from .errors import DatabaseError
from .findings import PartitionAdvice
from .protocols import Dialect, PartitionPlan, Partitions, Query
from .schema.conditions import Predicate
from .schema.ddl import quote, quote_table
from .schema.engines import ENGINES
from .schema.model import Column, Schema, Table
from .schema.selectivity import selectivity
from .schema.types import category

_MOST: Final = 48
_LEAST: Final = 4
_SHARE: Final = 0.3
_READ: Final = 0.6
_UNITS: Final = ("day", "week", "month", "quarter", "year")
_EPOCH_S: Final = (500_000_000, 5_000_000_000)  # 1985 to 2128
_PERIODS_S: Final = (3_600, 86_400, 7 * 86_400, 30 * 86_400, 90 * 86_400, 365 * 86_400)


def partitions(
    queries: Sequence[Query], schema: Schema, dialect: Dialect, *, min_rows: int
) -> tuple[list[PartitionAdvice], list[str]]:
    """Return advice for large tables, and why large tables got none.

    Args:
        queries: The analysed workload.
        schema: Tables, keys and statistics.
        dialect: Reads bounds, and proves pruning where it can.
        min_rows: Tables smaller than this are left alone.
    """
    out: list[PartitionAdvice] = []
    notes: list[str] = []
    able = dialect if isinstance(dialect, Partitions) else None
    for table in schema.tables.values():
        if table.rows < min_rows or table.is_partitioned:
            continue
        about = [q for q in queries if table.name in q.analysis.tables and q.analysis.kind == "select"]
        chosen = _column(table, about)
        if chosen is None:
            notes.append(
                f"{table.name} ({table.rows:,} rows) is not worth partitioning: no date or number column "
                f"restricts at least {100 * _SHARE:.0f} % of the time spent on it"
            )
            continue
        column, share = chosen
        if able is None:
            title = ENGINES[schema.dialect].title
            notes.append(
                f"{table.name} ({table.rows:,} rows) would be partitioned by {column.name} elsewhere: "
                f"{title} has no partitions; an index that begins with it, or one file per period, does the "
                "same"
            )
            continue
        made = _plan(table, column, dialect)
        if made is None:
            notes.append(
                f"{table.name} was not partitioned by {column.name}: its range of values is not known"
            )
            continue
        found = _advice(made, share, about, schema, able)
        if isinstance(found, str):
            notes.append(found)
        else:
            out.append(found)
    return out, notes


# --- which column -------------------------------------------------------------------------------


def _column(table: Table, queries: Sequence[Query]) -> tuple[Column, float] | None:
    """Return the column whose ranges restrict the largest share of the time, and that share."""
    total = sum(q.weight for q in queries)
    served: dict[str, float] = defaultdict(float)
    for query in queries:
        names = {p.column for p, s in _ranges(query, table) if s <= _READ}
        for name in names:
            served[name] += query.weight
    best = max(served.items(), key=lambda pair: (pair[1], pair[0]), default=None)
    if best is None or not total or best[1] / total < _SHARE:
        return None
    column = table.column(best[0])
    return None if column is None else (column, best[1] / total)


def _ranges(query: Query, table: Table) -> Iterator[tuple[Predicate, float]]:
    for use in query.analysis.uses:
        if use.table != table.name:
            continue
        by_column: dict[str, list[Predicate]] = defaultdict(list)
        for predicate in use.predicates:
            column = table.column(predicate.column)
            family = "" if column is None else category(column.type)
            is_date = family in ("date", "time", "zoned") and predicate.kind in ("range", "eq")
            # Numbers as well, seconds since 1970 above all; but whoever pages by the key wants its index.
            is_number = family == "int" and predicate.kind == "range"
            if is_date or (is_number and (predicate.column,) != table.primary_key):
                by_column[predicate.column].append(predicate)
        for group in by_column.values():
            shares = [selectivity(p, table, query.sample.values) for p in group]
            kept = max(0.0, sum(shares) - len(shares) + 1) if len(shares) > 1 else shares[0]
            yield from ((p, kept) for p in group)


# --- which bounds -------------------------------------------------------------------------------


def _plan(table: Table, column: Column, dialect: Dialect) -> PartitionPlan | None:
    low, high = _span(table, column, dialect)
    if category(column.type) == "int":
        return _numbered(table, column, _whole(low), _whole(high))
    first, last = _day(low), _day(high)
    if first is None or last is None:
        return None
    for unit in _UNITS:
        starts = list(_starts(first, last, unit))
        if len(starts) - 1 <= _MOST:
            break
    if len(starts) - 1 < _LEAST:
        return None
    parts = tuple((f"p{a:%Y%m%d}", f"'{a.isoformat()}'", f"'{b.isoformat()}'") for a, b in pairwise(starts))
    return PartitionPlan(table, column, unit, parts)


def _numbered(table: Table, column: Column, low: int | None, high: int | None) -> PartitionPlan | None:
    """Cut numbers into equal, round steps: of time where they look like seconds since 1970."""
    if low is None or high is None:
        return None
    round_ = sorted(n * 10**power for power in range(18) for n in (1, 2, 5))
    steps = _PERIODS_S if low > _EPOCH_S[0] and high < _EPOCH_S[1] else round_
    step = next((s for s in steps if high // s - low // s < _MOST), None)
    if step is None or high // step - low // step + 1 < _LEAST:
        return None
    starts = [n * step for n in range(low // step, high // step + 2)]
    parts = tuple((f"p{a}".replace("-", "minus_"), str(a), str(b)) for a, b in pairwise(starts))
    return PartitionPlan(table, column, f"{step:,} values", parts)


def _whole(value: Any) -> int | None:
    try:
        return int(value)
    except (TypeError, ValueError):
        return None


def _span(table: Table, column: Column, dialect: Dialect) -> tuple[Any, Any]:
    quoted = quote(column.name, schema_dialect := dialect.name)
    sql = f"SELECT min({quoted}), max({quoted}) FROM {quote_table(table.name, schema_dialect)}"
    try:
        ((low, high),) = list(dialect.rows(sql, timeout_s=5.0, limit=1))
    except (DatabaseError, ValueError):
        is_number = category(column.type) == "int"
        bounds = [*column.stats.bounds, *(v for v, _ in column.stats.common)]
        known = sorted(int(b) if is_number else str(b) for b in bounds)
        low, high = (known[0], known[-1]) if known else (None, None)
    return low, high


def _day(value: Any) -> dt.date | None:
    if isinstance(value, dt.datetime):
        return value.date()
    if isinstance(value, dt.date):
        return value
    try:
        return dt.date.fromisoformat(str(value)[:10])
    except ValueError:
        return None


def _starts(low: dt.date, high: dt.date, unit: str) -> Iterator[dt.date]:
    """Yield the first days of all periods from ``low``'s to the one after ``high``'s."""
    at = _floor(low, unit)
    while at <= high:
        yield at
        at = _next(at, unit)
    yield at


def _floor(day: dt.date, unit: str) -> dt.date:
    if unit == "week":
        return day - dt.timedelta(days=day.weekday())
    if unit == "month":
        return day.replace(day=1)
    if unit == "quarter":
        return dt.date(day.year, 3 * ((day.month - 1) // 3) + 1, 1)
    return dt.date(day.year, 1, 1) if unit == "year" else day


def _next(day: dt.date, unit: str) -> dt.date:
    months = {"month": 1, "quarter": 3, "year": 12}.get(unit)
    if months is None:
        return day + dt.timedelta(days=7 if unit == "week" else 1)
    place = day.year * 12 + day.month - 1 + months
    return dt.date(place // 12, place % 12 + 1, 1)


# --- what it does -------------------------------------------------------------------------------


def _advice(
    plan: PartitionPlan, share: float, queries: Sequence[Query], schema: Schema, engine: Partitions
) -> PartitionAdvice | str:
    table, column = plan.table, plan.column
    total = len(plan.parts) + 1
    read = engine.pruning(plan, schema, queries)
    if read is None:
        proof = "not proved: no what_if database; judged from conditions and statistics"
        prunes = tuple(
            (q.id, min(s for _, s in found)) for q in queries if (found := list(_ranges(q, table)))
        )
        rest = tuple(q.id for q in queries if q.id not in {i for i, _ in prunes})
    else:
        proof = f"EXPLAIN on an empty copy with {total} partitions in the what_if database"
        prunes = tuple((i, n / total) for i, n in read.items() if n < total)
        rest = tuple(i for i, n in read.items() if n >= total)
    weights = {q.id: q.weight for q in queries}
    gained = sum(weights[i] * (1 - s) for i, s in prunes)
    everything = sum(weights.values()) or 1.0
    if not prunes or gained / everything < _SHARE / 2:
        return f"{table.name} was not partitioned by {column.name}: plans on a copy prune too little"
    reason = (
        f"{table.rows:,} rows; {100 * share:.0f} % of the time spent on it is restricted by {column.name}; "
        f"one partition per {plan.unit} ({len(plan.parts)}), so that old ones can be dropped at once"
    )
    return PartitionAdvice(
        table=table.name,
        column=column.name,
        reason=reason,
        ddl=tuple(engine.partition_ddl(plan)),
        prunes=prunes,
        reads_all=rest,
        breaks=(*_breaks(plan), *engine.partition_breaks(plan, schema)),
        proof=proof,
        is_proven=read is not None,
        parts=len(plan.parts),
    )


def _breaks(plan: PartitionPlan) -> Iterator[str]:
    """Yield what no engine lets a partitioned table keep as it is."""
    table, column = plan.table, plan.column
    for key in dict.fromkeys(k for k in (table.primary_key, *table.unique_sets) if k):
        if column.name not in key:
            kind = "primary key" if key == table.primary_key else "unique key"
            names = ", ".join(key)
            yield (
                f"{kind} ({names}) must hold {column.name}: it becomes ({names}, {column.name}), and the "
                f"database no longer keeps ({names}) unique by itself"
            )
    if column.nullable:
        yield f"{column.name} can be NULL: rows without it go to the last partition, and no key may hold it"
