"""Partitioned tables on MySQL and MariaDB: their statements, and which parts are read, asked of a copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from eventperf.dbopt.protocols import PartitionPlan, Query
from eventperf.dbopt.schema.ddl import quote
from eventperf.dbopt.schema.model import Schema
from eventperf.dbopt.schema.types import category
from eventperf.dbopt.statements.lex import render

from .what_if import Shadows, Source


def ddl(plan: PartitionPlan) -> Iterator[str]:
    """Yield the statements that partition the table."""
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
    yield f"ALTER TABLE {table} {_clause(plan)}"


def breaks(plan: PartitionPlan, schema: Schema) -> Iterator[str]:
    """Yield foreign keys, which partitioned tables may neither have nor be the target of, and types."""
    table, column = plan.table, plan.column
    for mine, target, _ in table.foreign_keys:
        yield f"the foreign key ({', '.join(mine)}) to {target} must go: partitioned tables may have none"
    if category(column.type) == "time" and column.type.lower().startswith("timestamp"):
        yield f"{column.name} is a TIMESTAMP: it has to become DATETIME to be a range partition key"
    for other in schema.tables.values():
        for mine, target, _ in other.foreign_keys:
            if target == table.name:
                yield (
                    f"the foreign key of {other.name} ({', '.join(mine)}) must go: partitioned tables "
                    "cannot be referenced"
                )


def _clause(plan: PartitionPlan) -> str:
    parts = [f"PARTITION {name} VALUES LESS THAN ({high})" for name, _, high in plan.parts]
    parts.append("PARTITION pmax VALUES LESS THAN (MAXVALUE)")
    return f"PARTITION BY RANGE COLUMNS ({quote(plan.column.name, 'mysql')}) ({', '.join(parts)})"


def pruning(
    db: Any, source: Source, plan: PartitionPlan, schema: Schema, queries: Sequence[Query], errors: Any
) -> dict[str, int]:
    """Return how many partitions each query reads, from EXPLAIN on empty, partitioned shadow tables.

    Args:
        db: Connection to ``what_if``.
        source: Opens connections to the application's database; only read.
        plan: The partitioning.
        schema: All tables.
        queries: What to plan.
        errors: The driver's root error.
    """
    needed = {t for q in queries for t in q.analysis.tables}
    part = Schema(tables={n: t for n, t in schema.tables.items() if n in needed}, dialect="mysql")
    shadows = Shadows(db, source, part, empty=True)
    shadows.need({n: frozenset(t.columns) for n, t in part.tables.items()})
    total = len(plan.parts) + 1
    out: dict[str, int] = {}
    try:
        name = quote(plan.table.name, "mysql")
        with db.cursor() as cursor:
            for index in plan.table.indexes:
                if index.unique:
                    drop = "PRIMARY KEY" if index.primary else f"INDEX {quote(index.name, 'mysql')}"
                    cursor.execute(_without_counter(cursor, name, f"ALTER TABLE {name} DROP {drop}"))
            cursor.execute(f"ALTER TABLE {name} {_clause(plan)}")
            for query in queries:
                if query.sample.values is None:
                    continue
                with suppress(errors):  # a statement that cannot run on copies is not proved
                    out[query.id] = _read(cursor, query, plan.table.name, total)
    finally:
        shadows.close()
    return out


def _without_counter(cursor: Any, name: str, statement: str) -> str:
    """A column that counts up must be a key: it stops counting on the copy."""
    cursor.execute(f"SHOW COLUMNS FROM {name}")
    for field, type_, *_, extra in cursor.fetchall():
        if "auto_increment" in str(extra):
            cursor.execute(f"ALTER TABLE {name} MODIFY {quote(field, 'mysql')} {type_} NOT NULL")
    return statement


def _read(cursor: Any, query: Query, table: str, total: int) -> int:
    sql, values = render(query.sample.sql, query.sample.values, "format", "mysql")
    try:
        cursor.execute(f"EXPLAIN PARTITIONS {sql}", values or None)
    except Exception:
        cursor.execute(f"EXPLAIN FORMAT=TRADITIONAL {sql}", values or None)  # MySQL 8 always names them
    names = [d[0].lower() for d in cursor.description]
    rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    aliases = {u.alias.lower() for u in query.analysis.uses if u.table == table}
    found: set[str] = set()
    for row in rows:
        if str(row["table"]).lower() in aliases and row.get("partitions"):
            found |= set(str(row["partitions"]).split(","))
    if not found and not any("no matching row" in str(r.get("extra")).lower() for r in rows):
        return total
    return len(found)
