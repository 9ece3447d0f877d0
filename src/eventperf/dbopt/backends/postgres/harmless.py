"""Which recorded statements may be planned and run: those that call nothing but what cannot do harm.

A role is no wall: a function that the statement calls may set it back. So the server is asked what each name
in the statement stands for, in the views, row rules and domains that it names as well.
"""

from __future__ import annotations

from typing import Any, Final

from eventperf.dbopt.statements.calls import calls, one_query

#: Volatile functions of the server that change and reveal nothing.
_ALLOWED: Final = ["random", "clock_timestamp", "timeofday", "gen_random_uuid"]
#: Functions of the server that are stable, and run a text, read by name, or use up a transaction's number.
_FORBIDDEN: Final = "_to_xml|^(txid_current|pg_current_xact_id)$"
#: Operators that a statement uses without their names in it: IN, BETWEEN, LIKE, ORDER BY, DISTINCT ...
_IMPLIED: Final = ["=", "<>", "<", ">", "<=", ">=", "~~", "!~~", "~~*", "!~~*", "~"]
_TEXTS: Final = """
SELECT pg_get_viewdef(oid) FROM pg_class WHERE relkind = 'v' AND relname = ANY(%(words)s::text[])
UNION ALL SELECT coalesce(pg_get_expr(p.polqual, p.polrelid), '') FROM pg_policy p
  JOIN pg_class c ON c.oid = p.polrelid WHERE c.relname = ANY(%(words)s::text[])
UNION ALL SELECT pg_get_constraintdef(c.oid) FROM pg_constraint c JOIN pg_type t ON t.oid = c.contypid
  WHERE t.typname = ANY(%(words)s::text[])
"""
# {own}: a function that is neither the server's nor an extension's.
_OWN: Final = """
(n.nspname NOT IN ('pg_catalog', 'information_schema') AND NOT EXISTS (SELECT 1 FROM pg_depend d
 WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'))
"""
_FUNCTIONS: Final = """
SELECT 'it calls ' || p.proname || ', which ' || CASE
  WHEN n.nspname NOT IN ('pg_catalog', 'information_schema') THEN 'is not a function of the server itself'
  ELSE 'may change something, or run what it is given' END
FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE (p.proname = ANY(%(called)s::text[]) OR (p.proname = ANY(%(dotted)s::text[]) AND p.pronargs = 1
       AND EXISTS (SELECT 1 FROM pg_type t WHERE t.oid = p.proargtypes[0] AND t.typtype IN ('c', 'p'))))
AND NOT CASE WHEN n.nspname IN ('pg_catalog', 'information_schema')
  THEN (p.provolatile IN ('i', 's') OR p.proname = ANY(%(allowed)s::text[])) AND p.proname !~ %(forbidden)s
  ELSE p.provolatile = 'i' AND NOT {own} END
"""
_OPERATORS: Final = """
SELECT 'its operator ' || o.oprname || ' is not one of the server itself'
FROM pg_operator o JOIN pg_proc p ON p.oid = o.oprcode JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE {own} AND (o.oprname = ANY(%(implied)s::text[]) OR position(o.oprname IN %(text)s::text) > 0)
"""
_CASTS: Final = """
SELECT 'it may cast ' || format_type(k.castsource, NULL) || ' by the function ' || p.proname
FROM pg_cast k JOIN pg_proc p ON p.oid = k.castfunc JOIN pg_namespace n ON n.oid = p.pronamespace
WHERE {own} AND EXISTS (SELECT 1 FROM pg_type t WHERE t.oid IN (k.castsource, k.casttarget)
  AND (t.typname = ANY(%(words)s::text[]) OR t.oid IN (SELECT a.atttypid FROM pg_attribute a
    JOIN pg_class c ON c.oid = a.attrelid WHERE c.relname = ANY(%(words)s::text[]))))
"""
_FOREIGN: Final = """
SELECT 'it reads the foreign table ' || f.relname FROM pg_class f WHERE f.relkind = 'f'
AND (f.relname = ANY(%(words)s::text[]) OR EXISTS (WITH RECURSIVE up(id) AS (SELECT f.oid UNION
  SELECT i.inhparent FROM pg_inherits i JOIN up ON i.inhrelid = up.id)
  SELECT 1 FROM up JOIN pg_class c ON c.oid = up.id WHERE c.relname = ANY(%(words)s::text[])))
"""
_ASKED: Final = " UNION ALL ".join((_FUNCTIONS, _OPERATORS, _CASTS, _FOREIGN)).replace("{own}", _OWN)


def harm(db: Any, sql: str, *, on_copies: bool = False) -> str | None:
    """Return why a statement is neither planned nor run; ``None`` when it may be.

    Args:
        db: Connection, before it gives up its rights.
        sql: The statement.
        on_copies: It is planned only, in a database for that purpose: a change of data is then as harmless as
            a query, for copies have no rules and no defaults that planning would look into.
    """
    reason = one_query(sql, "postgres", or_change=on_copies)
    if reason is not None:
        return reason
    words: set[str] = set()
    called: set[str] = set()
    dotted: set[str] = set()
    known, todo = {sql}, [sql]
    while todo:
        fresh: set[str] = set()
        for text in todo:
            found = calls(text, "postgres")
            if found.unread is not None:
                return found.unread
            fresh |= _stored(found.words)
            called |= _stored(found.called)
            dotted |= _stored(found.dotted)
        fresh -= words
        words |= fresh
        rows = db.execute(_TEXTS, {"words": sorted(fresh)}).fetchall() if fresh else []
        todo = [row[0] for row in rows if row[0] not in known]
        known.update(todo)
    row = db.execute(
        f"{_ASKED} LIMIT 1",
        {
            "words": sorted(words),
            "called": sorted(called),
            "dotted": sorted(dotted),
            "allowed": _ALLOWED,
            "forbidden": _FORBIDDEN,
            "implied": _IMPLIED,
            "text": "\n".join(known),
        },
    ).fetchone()
    return None if row is None else str(row[0])


def _stored(names: frozenset[str]) -> set[str]:
    """Return names as the server stores them: cut at 63 bytes."""
    return {n.encode()[:63].decode(errors="ignore") for n in names if "\0" not in n}
