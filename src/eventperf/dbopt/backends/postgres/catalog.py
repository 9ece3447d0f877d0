"""PostgreSQL's catalog: tables, their statistics, indexes and keys, views."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from eventperf.dbopt.schema.ddl import normal_expression, quote_table
from eventperf.dbopt.schema.model import Column, ColumnStats, ExistingIndex, IndexSpec, Key, Schema, Table

_NUMBER = re.compile(r"(small|big)?int(eger)?|numeric(\(.*\))?|real|double precision")
_COUNTABLE: Final = 64_000_000

_TABLES = """
SELECT c.oid, n.nspname, c.relname, pg_table_is_visible(c.oid), c.relkind, c.reltuples::bigint,
       CASE WHEN c.oid = ANY(%s) THEN NULL ELSE pg_relation_size(c.oid) END
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('r', 'p', 'm') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
  AND n.nspname NOT LIKE 'pg\\_temp%%' AND n.nspname NOT LIKE 'pg\\_toast%%'
  AND has_table_privilege(c.oid, 'SELECT')
"""
_COLUMNS = """
SELECT a.attrelid, a.attname,
       CASE WHEN t.typtype = 'd' THEN (
         WITH RECURSIVE base(oid, length) AS (
           SELECT t.typbasetype, t.typtypmod UNION ALL
           SELECT d.typbasetype, d.typtypmod FROM base JOIN pg_type d ON d.oid = base.oid AND d.typtype = 'd')
         SELECT format_type(b.oid, base.length) FROM base JOIN pg_type b
         ON b.oid = base.oid AND b.typtype <> 'd')
            ELSE format_type(a.atttypid, a.atttypmod) END,
       NOT (a.attnotnull OR t.typnotnull),
       s.null_frac, s.avg_width, s.n_distinct, s.most_common_vals::text::text[], s.most_common_freqs,
       s.histogram_bounds::text::text[], s.correlation, t.typlen,
       (SELECT l.collname FROM pg_collation l WHERE l.oid = a.attcollation AND l.collname <> 'default'),
       t.typtype <> 'c' AND (t.typtype <> 'b' OR t.typcategory = 'A' OR EXISTS (
         SELECT 1 FROM pg_opclass o JOIN pg_am m ON m.oid = o.opcmethod AND m.amname = 'btree'
         LEFT JOIN pg_cast k ON k.castsource = t.oid AND k.casttarget = o.opcintype AND k.castmethod = 'b'
         WHERE o.opcdefault AND (o.opcintype = t.oid OR k.oid IS NOT NULL)))
FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
JOIN pg_class c ON c.oid = a.attrelid JOIN pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_stats s ON s.schemaname = n.nspname AND s.tablename = c.relname AND s.attname = a.attname
  AND NOT s.inherited
WHERE a.attnum > 0 AND NOT a.attisdropped AND a.attrelid = ANY(%s) ORDER BY a.attrelid, a.attnum
"""
_INDEXES = """
SELECT i.indrelid, ic.relname, i.indisunique, i.indisprimary, i.indisvalid, am.amname, i.indnkeyatts,
       ARRAY(SELECT pg_get_indexdef(i.indexrelid, k, true) FROM generate_series(1, i.indnatts) k),
       ARRAY(SELECT coalesce(att.attname, '') FROM unnest(i.indkey::int2[]) WITH ORDINALITY u(num, ord)
             LEFT JOIN pg_attribute att ON att.attrelid = i.indrelid AND att.attnum = u.num AND u.num > 0
             ORDER BY u.ord),
       i.indoption::int2[],
       ARRAY(SELECT CASE WHEN oc.opcdefault THEN '' ELSE oc.opcname END
             FROM unnest(i.indclass::oid[]) WITH ORDINALITY u(op, ord) JOIN pg_opclass oc ON oc.oid = u.op
             ORDER BY u.ord),
       pg_get_expr(i.indpred, i.indrelid, true),
       CASE WHEN i.indexrelid = ANY(%s) OR i.indrelid = ANY(%s) THEN NULL
            ELSE pg_relation_size(i.indexrelid) END,
       st.idx_scan,
       EXISTS (SELECT 1 FROM pg_constraint k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x'))
         OR i.indisreplident OR i.indisclustered
FROM pg_index i JOIN pg_class ic ON ic.oid = i.indexrelid JOIN pg_am am ON am.oid = ic.relam
LEFT JOIN pg_stat_all_indexes st ON st.indexrelid = i.indexrelid
WHERE i.indrelid = ANY(%s)
"""
_KEYS = """
SELECT k.conrelid, k.confrelid,
       ARRAY(SELECT a.attname FROM unnest(k.conkey) WITH ORDINALITY u(num, ord)
             JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.num ORDER BY u.ord),
       ARRAY(SELECT a.attname FROM unnest(k.confkey) WITH ORDINALITY u(num, ord)
             JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.num ORDER BY u.ord)
FROM pg_constraint k WHERE k.contype = 'f' AND k.conrelid = ANY(%s)
"""
_VIEWS = """
SELECT n.nspname, c.relname, pg_table_is_visible(c.oid), pg_get_viewdef(c.oid)
FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind = 'v' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND NOT EXISTS (
  SELECT 1 FROM pg_rewrite r JOIN pg_depend d ON d.classid = 'pg_rewrite'::regclass AND d.objid = r.oid
  WHERE r.ev_class = c.oid AND d.refobjid = ANY(%s))
"""
# Who holds or awaits such a lock keeps out all that come later, and us: a size is asked of an open relation.
_LOCKED = """
SELECT l.relation, 'pid ' || l.pid || ' (' || coalesce(a.state, 'unknown') || ', since '
       || coalesce(to_char(a.xact_start, 'HH24:MI:SS'), 'an unknown time') || ')'
FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
WHERE l.locktype = 'relation' AND l.mode = 'AccessExclusiveLock' AND l.pid <> pg_backend_pid()
  AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY l.granted
"""
_OTHERS = """
SELECT lower(c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE c.relkind IN ('f', 'S') AND n.nspname NOT IN ('pg_catalog', 'information_schema')
"""
_COUNTED = """
SELECT extract(epoch FROM now() - coalesce(stats_reset, pg_postmaster_start_time()))::float8
FROM pg_stat_database WHERE datname = current_database()
"""


def read(cursor: Any) -> Schema:
    """Read tables, statistics, indexes and views; what is locked exclusively is left out, and named."""
    holders = _holders(cursor)
    held = list(holders)
    every = cursor.execute(_TABLES, (held,)).fetchall()
    names = _names(every)
    tables = [row for row in every if row[0] not in holders]
    oids = [row[0] for row in tables]
    rows = {r[0]: _rows(cursor, names[r[0]], r[5], r[6]) for r in tables}
    columns: dict[int, dict[str, Column]] = {oid: {} for oid in oids}
    for row in cursor.execute(_COLUMNS, (oids,)).fetchall():
        columns[row[0]][row[1]] = _column(row, rows[row[0]])
    indexes = _indexes(cursor, oids, names, held)
    keys: dict[int, list[Any]] = {}
    for oid, target, mine, theirs in cursor.execute(_KEYS, (oids,)).fetchall():
        keys.setdefault(oid, []).append((tuple(mine), names.get(target, str(target)), tuple(theirs)))
    views: dict[str, str] = {}
    for space, name, is_visible, text in cursor.execute(_VIEWS, (held,)).fetchall():
        views[f"{space}.{name}"] = text
        if is_visible:
            views[name] = text
    counted = cursor.execute(_COUNTED).fetchone()
    out = {}
    for oid, space, _, is_visible, kind, _, size in tables:
        found = tuple(indexes.get(oid, ()))
        out[names[oid]] = Table(
            name=names[oid],
            columns=columns[oid],
            primary_key=next((tuple(k.name for k in i.spec.keys) for i in found if i.primary), ()),
            indexes=found,
            rows=max(0, rows[oid]),
            size_bytes=size,
            foreign_keys=tuple(keys.get(oid, ())),
            unique_sets=tuple(
                tuple(k.name for k in i.spec.keys) for i in found if i.unique and i.valid and not i.spec.where
            ),
            is_partitioned=kind == "p",
            namespace=space,
            is_visible=is_visible,
            is_view=kind == "m",
        )
    locked = {names[oid]: who for oid, who in holders.items() if oid in names}
    return Schema(
        tables=out,
        views=views,
        dialect="postgres",
        counted_s=counted[0] if counted else None,
        locked=locked,
        others=frozenset(row[0] for row in cursor.execute(_OTHERS).fetchall()),
    )


def _holders(cursor: Any) -> dict[int, str]:
    """Return who holds or awaits an exclusive lock, by relation; asking takes none."""
    return dict(cursor.execute(_LOCKED).fetchall())


def _names(tables: Sequence[Any]) -> dict[int, str]:
    """Return what each table is called: bare where that means the same to everybody, else with its schema.

    A script is run under another search path than the one it was written under.
    """
    times = Counter(r[2] for r in tables)
    return {
        r[0]: r[2] if r[1] == "public" and times[r[2]] == 1 and "." not in r[2] else f"{r[1]}.{r[2]}"
        for r in tables
    }


def _rows(cursor: Any, name: str, known: int, size: int) -> int:
    """Return a table's rows; one that was never analysed is counted, if it is not large."""
    if known >= 0:
        return known
    if size > _COUNTABLE:
        return int(size // 100)
    counted: int = cursor.execute(f"SELECT count(*) FROM {quote_table(name, 'postgres')}").fetchone()[0]
    return counted


def indexes_of(cursor: Any, table: str) -> list[ExistingIndex]:
    """Return the indexes of one table as they are now."""
    oid = cursor.execute("SELECT to_regclass(%s)::oid", (quote_table(table, "postgres"),)).fetchone()[0]
    if oid is None:
        return []
    return _indexes(cursor, [oid], {oid: table}, list(_holders(cursor))).get(oid, [])


def _indexes(
    cursor: Any, oids: Sequence[int], names: dict[int, str], held: Sequence[int]
) -> dict[int, list[ExistingIndex]]:
    """Return the indexes by table; the size of what is locked is not known."""
    out: dict[int, list[ExistingIndex]] = {}
    for row in cursor.execute(_INDEXES, (list(held), list(held), list(oids))).fetchall():
        oid, name, unique, primary, valid, method, nkeys, texts, attributes, options, classes, where = row[
            :12
        ]
        keys = tuple(
            Key(
                attributes[n] or normal_expression(texts[n], "postgres"),
                bool(options[n] & 1),
                not attributes[n],
                classes[n] or None,
                nulls_first=None if bool(options[n] & 2) == bool(options[n] & 1) else bool(options[n] & 2),
            )
            for n in range(nkeys)
        )
        condition = normal_expression(where, "postgres") if where else None
        spec = IndexSpec(names[oid], keys, tuple(attributes[nkeys:]), condition, method)
        out.setdefault(oid, []).append(
            ExistingIndex(
                name=name,
                spec=spec,
                unique=unique,
                primary=primary,
                valid=valid,
                size_bytes=row[12],
                scans=row[13],
                constraint=row[14],
            )
        )
    return out


def _number(text: str) -> float | str:
    try:
        return float(text) if "." in text or "e" in text else int(text)
    except ValueError:  # NaN, Infinity
        return text


def _truth(text: str) -> bool:
    return text == "t"


def _column(row: Sequence[Any], rows: int) -> Column:
    _, name, type_, nullable, null_ratio, width, distinct, values, shares, bounds, correlation = row[:11]
    length, collation, is_ordered = row[11:]
    cast = _number if _NUMBER.fullmatch(type_) else _truth if type_ == "boolean" else str
    told = Column(
        name=name,
        type=type_,
        nullable=nullable,
        collation=collation,
        fixed_bytes=length if length > 0 else None,
        is_ordered=is_ordered,
    )
    if distinct is None:
        return told
    stats = ColumnStats(
        distinct=distinct if distinct > 0 else max(1.0, -distinct * max(1, rows)),
        null_ratio=null_ratio,
        common=tuple(zip(map(cast, values or ()), shares or (), strict=False)),
        bounds=tuple(map(cast, bounds or ())),
        width=width,
        correlation=correlation or 0.0,
    )
    return replace(told, stats=stats)
