"""Indexes on partitioned parents: built part by part without blocking writers, then attached.

Source: PostgreSQL documentation, "CREATE INDEX", "Building Indexes Concurrently": the concurrent form does
not take a partitioned parent, but its parts can be built concurrently and attached one by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from eventperf.dbopt.schema.ddl import create_index_sql, quote_table
from eventperf.dbopt.schema.model import IndexSpec, index_name

_LIMIT = 63
_TREE = """
SELECT CASE WHEN pg_table_is_visible(c.oid) THEN c.relname ELSE n.nspname || '.' || c.relname END,
       t.isleaf, t.level,
       CASE WHEN pg_table_is_visible(u.oid) THEN u.relname ELSE m.nspname || '.' || u.relname END
FROM pg_partition_tree(to_regclass(%s)) t
JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_class u ON u.oid = t.parentrelid LEFT JOIN pg_namespace m ON m.oid = u.relnamespace
ORDER BY t.isleaf, t.level, c.relname
"""
_STATE = """
SELECT i.indisvalid, EXISTS (SELECT 1 FROM pg_inherits h WHERE h.inhrelid = i.indexrelid)
FROM pg_index i WHERE i.indexrelid = to_regclass(%s)
"""


def steps(cursor: Any, spec: IndexSpec, name: str) -> list[tuple[str, str | None]]:
    """Return each statement that is still to run, and what removes its remains should it fail.

    Empty when the table has no parts. What a killed run has built is used, what it left invalid is dropped.
    """
    tree = cursor.execute(_TREE, (quote_table(spec.table, "postgres"),)).fetchall()
    if not any(is_leaf and level for _, is_leaf, level, _ in tree):
        return []
    names = {
        t: name if not level else index_name(replace(spec, table=t), limit=_LIMIT) for t, _, level, _ in tree
    }
    out: list[tuple[str, str | None]] = []
    attached: list[tuple[str, str | None]] = []
    for table, is_leaf, level, parent in tree:
        mine = _place(table, names[table])
        found = cursor.execute(_STATE, (mine,)).fetchone()
        drop = f"DROP INDEX CONCURRENTLY IF EXISTS {mine}" if is_leaf else None
        if found is not None and is_leaf and not found[0]:
            out.append((str(drop), None))
            found = None
        if found is None:
            own = replace(spec, table=table)
            create = create_index_sql(own, names[table], "postgres", concurrently=is_leaf)
            out.append((create if is_leaf else create.replace(" ON ", " ON ONLY ", 1), drop))
        if level and (found is None or not found[1]):
            whole = _place(parent, names[parent])
            attached.append((f"ALTER INDEX {whole} ATTACH PARTITION {mine}", None))
    return out + attached


def _place(table: str, index: str) -> str:
    schema = table.rpartition(".")[0]
    return quote_table(f"{schema}.{index}" if schema else index, "postgres")


def is_parted(cursor: Any, index: str) -> bool:
    """Tell whether an index (quoted) is that of a partitioned parent: it has no concurrent drop."""
    found = cursor.execute(
        "SELECT relkind = 'I' FROM pg_class WHERE oid = to_regclass(%s)", (index,)
    ).fetchone()
    return found is not None and bool(found[0])


def with_roots(db: Any, names: Iterable[str]) -> frozenset[str]:
    """Return index names with those of the parents they are parts of."""
    given: Sequence[str] = sorted(names)
    found = db.execute(
        "SELECT r.relname FROM unnest(%s::text[]) n JOIN pg_class c ON c.relname = n AND c.relkind = 'i' "
        "JOIN pg_class r ON r.oid = pg_partition_root(c.oid)",
        (given,),
    ).fetchall()
    return frozenset((*given, *(row[0] for row in found)))
