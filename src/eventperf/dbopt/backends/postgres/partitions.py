"""Partitioned tables on PostgreSQL: their statements, and which parts its planner reads, asked of a copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from eventperf.dbopt.protocols import PartitionPlan, Query
from eventperf.dbopt.schema.ddl import create_index_sql, quote
from eventperf.dbopt.schema.model import IndexSpec, Schema, Table, index_name

from .what_if import explain


def ddl(plan: PartitionPlan) -> Iterator[str]:
    """Yield the statements that partition the table."""
    schema, _, name = plan.table.name.rpartition(".")
    where = f"{quote(schema, 'postgres')}." if schema else ""
    new, old = (f"{where}{quote(f'{name}_{word}', 'postgres')}" for word in ("partitioned", "unpartitioned"))
    table = f"{where}{quote(name, 'postgres')}"
    like = "INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING CONSTRAINTS INCLUDING STORAGE INCLUDING COMMENTS"
    yield f"CREATE TABLE {new} (LIKE {table} {like}) {_clause(plan)}"
    yield from _parts(plan, new, f"{where}{{}}")
    for key in _keys(plan):
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
            yield create_index_sql(spec, index_name(spec, limit=63), "postgres")
    yield f"INSERT INTO {new} SELECT * FROM {table}"
    yield (
        f"BEGIN; LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE; "
        f"ALTER TABLE {table} RENAME TO {old.removeprefix(where)}; "
        f"ALTER TABLE {new} RENAME TO {quote(name, 'postgres')}; COMMIT"
    )


def breaks(plan: PartitionPlan, schema: Schema) -> Iterator[str]:
    """Yield foreign keys that need more columns."""
    for other in schema.tables.values():
        for mine, target, _ in other.foreign_keys:
            if target.strip('"') == plan.table.name:
                yield (
                    f"the foreign key of {other.name} ({', '.join(mine)}) needs {plan.column.name} as well: "
                    "the referenced key is a longer one"
                )


def _clause(plan: PartitionPlan) -> str:
    return f"PARTITION BY RANGE ({quote(plan.column.name, 'postgres')})"


def _keys(plan: PartitionPlan) -> list[tuple[str, ...]]:
    """Return primary key and unique keys as they have to be: each holds the partition column."""
    table, name = plan.table, plan.column.name
    given = [k for k in (table.primary_key, *table.unique_sets) if k]
    return [k if name in k else (*k, name) for k in dict.fromkeys(given)]


def _parts(plan: PartitionPlan, parent: str, place: str, kind: str = "TABLE") -> Iterator[str]:
    """Yield CREATE TABLE of each partition; ``place`` formats a quoted name."""
    name = plan.table.name.rpartition(".")[2][:50]
    for part, low, high in plan.parts:
        made = place.format(quote(f"{name}_{part}", "postgres"))
        yield f"CREATE {kind} {made} PARTITION OF {parent} FOR VALUES FROM ({low}) TO ({high})"
    made = place.format(quote(f"{name}_rest", "postgres"))
    yield f"CREATE {kind} {made} PARTITION OF {parent} DEFAULT"


def pruning(
    psycopg: Any, db: Any, plan: PartitionPlan, schema: Schema, queries: Sequence[Query]
) -> dict[str, int]:
    """Return how many partitions each query reads; temporary tables only, dropped at the end.

    Args:
        psycopg: The driver.
        db: Autocommit connection to the ``what_if`` database.
        plan: The partitioning.
        schema: All tables, for joins.
        queries: What to plan.
    """
    name = plan.table.name.rpartition(".")[2]
    made: list[str] = []
    out: dict[str, int] = {}
    try:
        db.execute(f"CREATE TEMPORARY TABLE {_columns(plan.table)} {_clause(plan)}")
        made.append(name)
        for statement in _parts(plan, f"pg_temp.{quote(name, 'postgres')}", "{}", "TEMPORARY TABLE"):
            db.execute(statement)
        needed = {t for q in queries for t in q.analysis.tables} - {plan.table.name}
        for other in sorted(needed):
            db.execute(f"CREATE TEMPORARY TABLE {_columns(schema.tables[other])}")
            made.append(other.rpartition(".")[2])
        mine = {f"{name[:50]}_{part}" for part, _, _ in plan.parts} | {f"{name[:50]}_rest"}
        for query in queries:
            if query.sample.values is None:
                continue
            with suppress(psycopg.Error):  # a statement that cannot run on copies is not proved
                read = set(_relations(explain(db, query.sample))) & mine
                out[query.id] = len(read)
    finally:
        for table in made:
            with suppress(psycopg.Error):
                db.execute(f"DROP TABLE pg_temp.{quote(table, 'postgres')} CASCADE")
    return out


def _columns(table: Table) -> str:
    parts = ", ".join(f"{quote(c.name, 'postgres')} {c.type}" for c in table.columns.values())
    return f"{quote(table.name.rpartition('.')[2], 'postgres')} ({parts})"


def _relations(plan: dict[str, Any]) -> Iterator[str]:
    if "Relation Name" in plan:
        yield plan["Relation Name"]
    for child in plan.get("Plans", ()):
        yield from _relations(child)
