"""What PostgreSQL enforces of tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

from eventperf.dbopt.schema.ddl import quote_table
from eventperf.dbopt.schema.model import Table

_Ask = Callable[[str], Iterable[Any]]
_TABLE: Final = """
SELECT c.relkind IN ('r', 'p')
   AND (c.relkind = 'p' OR NOT EXISTS (SELECT 1 FROM pg_inherits h WHERE h.inhparent = c.oid))
FROM pg_class c WHERE c.oid = to_regclass({name})
"""
_COLUMNS: Final = """
SELECT a.attname, a.attnotnull, CASE WHEN l.oid IS NULL OR l.collname = 'default' THEN NULL
       WHEN l.collisdeterministic THEN l.collname ELSE '?' || l.collname END
FROM pg_attribute a LEFT JOIN pg_collation l ON l.oid = a.attcollation
WHERE a.attrelid = to_regclass({name}) AND a.attnum > 0 AND NOT a.attisdropped
"""
_KEYS: Final = """
SELECT i.indisprimary, ARRAY(
  SELECT a.attname FROM unnest(i.indkey::int2[], i.indcollation::oid[]) WITH ORDINALITY u(num, coll, ord)
  JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = u.num
  WHERE u.ord <= i.indnkeyatts AND (u.coll = 0 OR u.coll = a.attcollation) ORDER BY u.ord), i.indnkeyatts
FROM pg_index i
WHERE i.indrelid = to_regclass({name}) AND i.indisunique AND i.indisvalid AND i.indisready AND i.indimmediate
  AND i.indpred IS NULL AND i.indexprs IS NULL
"""


def promised(table: Table, ask: _Ask) -> Table:
    """Return a table with keys that hold for each of its rows, and collations by name.

    A parent's rows are its children's as well, whose keys and NULLs are their own. An index that is not
    valid, or partial, or checked at commit, or of another collation than its column, decides nothing.
    """
    name = "'" + quote_table(table.name, "postgres").replace("'", "''") + "'"
    found = [*ask(_TABLE.format(name=name))]
    is_whole = bool(found and found[0][0])
    facts = {row[0]: row[1:] for row in ask(_COLUMNS.format(name=name))}
    columns = {
        c.name: replace(
            c,
            nullable=not (is_whole and c.name in facts and facts[c.name][0]),
            collation=facts[c.name][1] if c.name in facts else "?",
        )
        for c in table.columns.values()
    }
    keys = (
        [(r[0], tuple(r[1])) for r in ask(_KEYS.format(name=name)) if len(r[1]) == r[2]] if is_whole else []
    )
    return replace(
        table,
        columns=columns,
        primary_key=next((k for is_primary, k in keys if is_primary), ()),
        unique_sets=tuple(k for _, k in keys),
    )
