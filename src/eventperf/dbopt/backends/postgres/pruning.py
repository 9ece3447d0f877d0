"""Which partitions PostgreSQL's planner reads, asked of an empty partitioned copy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

from eventperf.dbopt.partitions import PartitionPlan, partition_clause, partition_tables
from eventperf.dbopt.protocols import Query
from eventperf.dbopt.schema.ddl import quote
from eventperf.dbopt.schema.model import Schema, Table

from .what_if import explain


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
        db.execute(f"CREATE TEMPORARY TABLE {_columns(plan.table)} {partition_clause(plan, 'postgres')}")
        made.append(name)
        for statement in partition_tables(
            plan, f"pg_temp.{quote(name, 'postgres')}", "{}", "TEMPORARY TABLE"
        ):
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
