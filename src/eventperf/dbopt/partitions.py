"""Partition advice: which large tables, by which column, what would be pruned and what would break."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, Protocol

from .advice import PartitionAdvice
from .analysis.names import Predicate
from .errors import DatabaseError
from .protocols import Dialect, Query
from .rewrite_tree import category
from .schema.ddl import create_index_sql, quote, quote_table
from .schema.model import Column, IndexSpec, Schema, Table, index_name
from .schema.selectivity import selectivity

_MOST: Final = 48
_LEAST: Final = 4
_SHARE: Final = 0.3
_READ: Final = 0.6
_UNITS: Final = ("day", "week", "month", "quarter", "year")
_EPOCH_S: Final = (500_000_000, 5_000_000_000)  # 1985 to 2128
_PERIODS_S: Final = (3_600, 86_400, 7 * 86_400, 30 * 86_400, 90 * 86_400, 365 * 86_400)


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """One way to partition one table by ranges of one column.

    Attributes:
        table: The table.
        column: The partition key.
        unit: What one partition holds: a day, a month, or a number of values.
        parts: ``(name, from, to)``, the upper bound not included, as SQL literals.
    """

    table: Table
    column: Column
    unit: str
    parts: tuple[tuple[str, str, str], ...]


class Pruner(Protocol):
    """A dialect that can build an empty partitioned copy and read plans from it."""

    def pruning(
        self, plan: PartitionPlan, schema: Schema, queries: Sequence[Query], /
    ) -> dict[str, int] | None:
        """Return how many partitions each query's plan reads; ``None`` without a place to try it.

        Queries without known parameters are left out: their partitions are chosen when they run.
        """
        ...


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
        if schema.dialect == "sqlite":
            notes.append(
                f"{table.name} ({table.rows:,} rows) would be partitioned by {column.name} elsewhere: SQLite "
                "has no partitions; an index that begins with it, or one file per period, does the same"
            )
            continue
        made = _plan(table, column, dialect)
        if made is None:
            notes.append(
                f"{table.name} was not partitioned by {column.name}: its range of values is not known"
            )
            continue
        found = _advice(made, share, about, schema, dialect)
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
    sql = f"SELECT min({quoted}), max({quoted}) FROM {quote_table(table.name, schema_dialect, True)}"
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
    plan: PartitionPlan, share: float, queries: Sequence[Query], schema: Schema, dialect: Dialect
) -> PartitionAdvice | str:
    table, column = plan.table, plan.column
    total = len(plan.parts) + 1
    prove = getattr(dialect, "pruning", None)
    read: dict[str, int] | None = prove(plan, schema, queries) if prove is not None else None
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
        ddl=tuple(ddl(plan, schema)),
        prunes=prunes,
        reads_all=rest,
        breaks=tuple(breaks(plan, schema)),
        proof=proof,
        is_proven=read is not None,
        parts=len(plan.parts),
    )


def keys(plan: PartitionPlan) -> list[tuple[str, ...]]:
    """Return primary key and unique keys as they have to be: each holds the partition column."""
    table, name = plan.table, plan.column.name
    given = [k for k in (table.primary_key, *table.unique_sets) if k]
    return [k if name in k else (*k, name) for k in dict.fromkeys(given)]


def breaks(plan: PartitionPlan, schema: Schema) -> Iterator[str]:
    """Yield what does not survive as it is."""
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
    if schema.dialect == "mysql":
        for mine, target, _ in table.foreign_keys:
            yield f"the foreign key ({', '.join(mine)}) to {target} must go: partitioned tables may have none"
        if category(column.type) == "time" and column.type.lower().startswith("timestamp"):
            yield f"{column.name} is a TIMESTAMP: it has to become DATETIME to be a range partition key"
    for other in schema.tables.values():
        for mine, target, _ in other.foreign_keys:
            if target.strip('"') != table.name:
                continue
            what = (
                "must go: partitioned tables cannot be referenced"
                if schema.dialect == "mysql"
                else f"needs {column.name} as well: the referenced key is a longer one"
            )
            yield f"the foreign key of {other.name} ({', '.join(mine)}) {what}"


def ddl(plan: PartitionPlan, schema: Schema) -> Iterator[str]:
    """Yield the statements that partition the table; nothing runs them here."""
    yield from _mysql(plan, schema) if schema.dialect == "mysql" else _postgres(plan)


def _mysql(plan: PartitionPlan, schema: Schema) -> Iterator[str]:
    table = quote(plan.table.name, "mysql")
    changes = []
    given = {i.name: i for i in plan.table.indexes if i.unique}
    for name, index in given.items():
        columns = tuple(k.name for k in index.spec.keys)
        if plan.column.name in columns:
            continue
        longer = ", ".join(quote(c, "mysql") for c in (*columns, plan.column.name))
        if index.primary:
            changes.append(f"DROP PRIMARY KEY, ADD PRIMARY KEY ({longer})")
        else:
            quoted = quote(name, "mysql")
            changes.append(f"DROP INDEX {quoted}, ADD UNIQUE INDEX {quoted} ({longer})")
    if changes:
        yield f"ALTER TABLE {table} {', '.join(changes)}"
    yield f"ALTER TABLE {table} {partition_clause(plan, 'mysql')}"


def partition_clause(plan: PartitionPlan, dialect: str) -> str:
    """Return ``PARTITION BY ...``, with the partitions where the engine wants them there."""
    column = quote(plan.column.name, dialect)
    if dialect == "postgres":
        return f"PARTITION BY RANGE ({column})"
    parts = [f"PARTITION {name} VALUES LESS THAN ({high})" for name, _, high in plan.parts]
    parts.append("PARTITION pmax VALUES LESS THAN (MAXVALUE)")
    return f"PARTITION BY RANGE COLUMNS ({column}) ({', '.join(parts)})"


def _postgres(plan: PartitionPlan) -> Iterator[str]:
    schema, _, name = plan.table.name.rpartition(".")
    where = f"{quote(schema, 'postgres')}." if schema else ""
    new, old = (f"{where}{quote(f'{name}_{word}', 'postgres')}" for word in ("partitioned", "unpartitioned"))
    table = f"{where}{quote(name, 'postgres')}"
    like = "INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMMENTS"
    yield f"CREATE TABLE {new} (LIKE {table} {like}) {partition_clause(plan, 'postgres')}"
    yield from partition_tables(plan, new, f"{where}{{}}")
    for key in keys(plan):
        kind = (
            "PRIMARY KEY" if set(plan.table.primary_key) <= set(key) and plan.table.primary_key else "UNIQUE"
        )
        yield f"ALTER TABLE {new} ADD {kind} ({', '.join(quote(c, 'postgres') for c in key)})"
    for index in plan.table.indexes:
        if not index.unique and index.valid:
            spec = IndexSpec(
                f"{schema}.{name}_partitioned" if schema else f"{name}_partitioned",
                index.spec.keys,
                index.spec.include,
                index.spec.where,
                index.spec.method,
            )
            yield create_index_sql(spec, index_name(spec, limit=63), "postgres", schemas=True)
    yield f"INSERT INTO {new} SELECT * FROM {table}"
    yield (
        f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; "
        f"ALTER TABLE {table} RENAME TO {old.removeprefix(where)}; "
        f"ALTER TABLE {new} RENAME TO {quote(name, 'postgres')}; COMMIT"
    )


def partition_tables(plan: PartitionPlan, parent: str, place: str, kind: str = "TABLE") -> Iterator[str]:
    """Yield CREATE TABLE of each partition (PostgreSQL); ``place`` formats a quoted name."""
    name = plan.table.name.rpartition(".")[2][:50]
    for part, low, high in plan.parts:
        made = place.format(quote(f"{name}_{part}", "postgres"))
        yield f"CREATE {kind} {made} PARTITION OF {parent} FOR VALUES FROM ({low}) TO ({high})"
    made = place.format(quote(f"{name}_rest", "postgres"))
    yield f"CREATE {kind} {made} PARTITION OF {parent} DEFAULT"
