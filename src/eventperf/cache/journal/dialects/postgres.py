"""PostgreSQL: triggers with transition tables, and positions that are snapshots.

Numbers of a sequence become visible out of order. So a row has the number of its transaction, and a position
is what ``pg_current_snapshot()`` said: the next round reads transactions that are newer than that, or were
under way then. That is exact however late they commit, and nothing is read twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from eventperf._core.errors import ConfigurationError
from eventperf.cache.journal.layout import (
    CHANGES,
    MOST_ROWS,
    READERS,
    TABLES,
    TRIGGER,
    Batch,
    LostPlace,
    Step,
    Watched,
    quoter,
)

from .numbered import number

quote: Callable[[str], str] = quoter('"')
SAFE: Final = {"smallint", "integer", "bigint", "text", "character varying", "uuid", "date"}
"""Types of keys whose text is the same in Python."""

_LOOK: Final = """
WITH RECURSIVE up AS (
  SELECT inhrelid AS child, inhparent AS parent FROM pg_catalog.pg_inherits
  UNION SELECT up.child, i.inhparent FROM up JOIN pg_catalog.pg_inherits i ON i.inhrelid = up.parent)
SELECT n.nspname, c.relname, c.relkind::text, c.relispartition,
  ARRAY(SELECT p.relname::text FROM up JOIN pg_catalog.pg_class p ON p.oid = up.parent
        WHERE up.child = c.oid ORDER BY 1),
  ARRAY(SELECT a.attname::text FROM unnest(i.indkey) WITH ORDINALITY k(n, o)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.n ORDER BY k.o),
  ARRAY(SELECT pg_catalog.format_type(a.atttypid, NULL) FROM unnest(i.indkey) WITH ORDINALITY k(n, o)
        JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid AND a.attnum = k.n
        LEFT JOIN pg_catalog.pg_collation l ON l.oid = a.attcollation
        WHERE l.collisdeterministic IS NOT FALSE ORDER BY k.o)
FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
LEFT JOIN pg_catalog.pg_index i ON i.indrelid = c.oid AND i.indisprimary
WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
ORDER BY n.nspname = current_schema() DESC, 1, 2
"""
_READ: Final = f"""
SELECT s.snap::text, c.tbl, c.key FROM (SELECT pg_current_snapshot() AS snap) s LEFT JOIN LATERAL (
  SELECT DISTINCT tbl, key FROM {CHANGES}
  WHERE xid >= CAST(CAST(:xmax AS text) AS xid8) OR xid = ANY(CAST(CAST(:xip AS text) AS xid8[]))
  LIMIT {MOST_ROWS + 1}) c ON true
"""
_TABLES: Final = f"""
SELECT DISTINCT tbl FROM {CHANGES}
WHERE xid >= CAST(CAST(:xmax AS text) AS xid8) OR xid = ANY(CAST(CAST(:xip AS text) AS xid8[]))
"""
_TRIGGERS: Final = f"""
SELECT c.relname, array_agg(right(t.tgname, 1)) FROM pg_catalog.pg_trigger t
JOIN pg_catalog.pg_class c ON c.oid = t.tgrelid
WHERE t.tgname ~ '^{TRIGGER}_[iudtr]$' AND t.tgenabled IN ('O', 'A') GROUP BY c.oid, c.relname
"""
_PURGE: Final = f"""
DELETE FROM {CHANGES} WHERE ctid = ANY(ARRAY(
  SELECT ctid FROM {CHANGES} WHERE xid < CAST(CAST(:xmin AS text) AS xid8) LIMIT :most))
"""
_HEAD: Final = "RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS"


def text(value: str) -> str:
    """Return a literal, whatever is in the text.

    >>> print(text("it's"), text("a\\\\b"))
    'it''s' E'a\\\\b'
    """
    body = value.replace("'", "''")
    return "E'" + body.replace("\\", "\\\\") + "'" if "\\" in body else f"'{body}'"


def snapshot(text: str) -> list[int]:
    """Return the numbers of a snapshot: xmin, xmax, and those that were under way.

    Raises:
        LostPlace: It is none.

    >>> snapshot("10:20:10,14"), snapshot("10:10:")
    ([10, 20, 10, 14], [10, 10])
    """
    ends, _, under_way = text.rpartition(":")
    found = [*ends.split(":"), *(under_way.split(",") if under_way else ())]
    if ends.count(":") != 1:
        raise LostPlace("what was kept of it is damaged")
    return [number(one) for one in found]


class Postgres:
    """The journal on PostgreSQL 13 and later."""

    now: str = "extract(epoch from clock_timestamp())::float8"
    channel: str = CHANGES

    def __init__(self) -> None:
        self._identity: str | None = None

    # -- making --------------------------------------------------------------------------------------

    def look(self, conn: Any) -> list[Watched]:
        """Return every table that can be watched."""
        version = conn.exec_driver_sql("SHOW server_version_num").scalar()
        if int(version) < 130_000:
            raise ConfigurationError("url", f"PostgreSQL {version}", "PostgreSQL 13 or later")
        out, rows = [], conn.exec_driver_sql(_LOOK, execution_options={"no_parameters": True}).all()
        parents = {parent for row in rows if not row[3] for parent in row[4]}
        for schema, name, kind, is_partition, above, key, types in rows:
            safe = len(types) == len(key) and set(types) <= SAFE
            inherits = bool(above) and not is_partition
            out.append(
                Watched(
                    schema=schema, name=name, key=tuple(key) if safe else (),
                    by_row=kind == "p" or inherits or name in parents, is_partition=is_partition,
                    above=tuple(above),
                )
            )  # fmt: skip
        return out

    def make(self, conn: Any, tables: Sequence[Watched], notify: bool | None) -> list[Step]:
        """Return the steps that make the journal and its triggers; those that are there are made anew."""
        if notify is None:  # a transaction that has notified cannot be prepared for a two-phase commit
            notify = conn.exec_driver_sql("SHOW max_prepared_transactions").scalar() == "0"
        home = quote(conn.exec_driver_sql("SELECT current_schema()").scalar())
        frame = [
            f"CREATE TABLE IF NOT EXISTS {home}.{CHANGES} (xid xid8 NOT NULL DEFAULT pg_current_xact_id(), "
            "tbl text NOT NULL, key text)",
            f"CREATE INDEX IF NOT EXISTS {CHANGES}_xid ON {home}.{CHANGES} (xid)",
            f"ALTER TABLE {home}.{CHANGES} REPLICA IDENTITY FULL",
            f"CREATE TABLE IF NOT EXISTS {home}.{READERS} (name text PRIMARY KEY, position text NOT NULL, "
            "seen_at float8 NOT NULL)",
            f"CREATE TABLE IF NOT EXISTS {home}.{TABLES} (tbl text PRIMARY KEY)",
        ]
        steps = [Step("the journal, and who reads it", frame)]
        return steps + [self._watch(home, table, notify) for table in tables]

    def _watch(self, home: str, table: Watched, notify: bool) -> Step:
        at = f"{quote(table.schema)}.{quote(table.name)}"
        function = f"{home}.{TRIGGER}_{table.digest}"
        body = _by_row(home, table, notify) if _needs_rows(table) else _by_statement(home, table, notify)
        tag = next(f"$ep{n}$" for n in range(len(body)) if f"$ep{n}$" not in body)
        out = [
            f"CREATE OR REPLACE FUNCTION {function}() {_HEAD} {tag}\n{body}\n{tag}",
            f"REVOKE ALL ON FUNCTION {function}() FROM PUBLIC",
            *(
                f"DROP TRIGGER IF EXISTS {TRIGGER}_{kind} ON {at}"
                for kind in ("t" if table.is_partition else "iudtr")
            ),
        ]
        call = f"EXECUTE FUNCTION {function}()"
        if table.is_partition:
            pass  # rows: its parent's trigger, which the server has cloned
        elif table.by_row:
            out.append(
                f"CREATE TRIGGER {TRIGGER}_r AFTER INSERT OR UPDATE OR DELETE ON {at} FOR EACH ROW {call}"
            )
        else:
            for kind, event, seen in (
                ("i", "INSERT", "NEW TABLE AS ep_new"),
                ("u", "UPDATE", "NEW TABLE AS ep_new OLD TABLE AS ep_old"),
                ("d", "DELETE", "OLD TABLE AS ep_old"),
            ):
                out.append(
                    f"CREATE TRIGGER {TRIGGER}_{kind} AFTER {event} ON {at} REFERENCING {seen} "
                    f"FOR EACH STATEMENT {call}"
                )
        out.append(f"CREATE TRIGGER {TRIGGER}_t AFTER TRUNCATE ON {at} FOR EACH STATEMENT {call}")
        name = text(table.name)
        out += [
            f"INSERT INTO {home}.{TABLES} (tbl) VALUES ({name}) ON CONFLICT DO NOTHING",
            f"INSERT INTO {home}.{CHANGES} (tbl) VALUES ({name})",
        ]
        return Step(table.full_name, out)

    def drop(self, conn: Any) -> list[Step]:
        """Return the steps that remove triggers, functions and tables of the journal."""
        functions = conn.exec_driver_sql(
            "SELECT n.nspname, p.proname FROM pg_catalog.pg_proc p "
            "JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace "
            f"WHERE p.proname ~ '^{TRIGGER}_[0-9a-f]{{12}}$' ORDER BY 1, 2"
        )
        steps = [
            Step(f"triggers by {name}", [f"DROP FUNCTION IF EXISTS {quote(schema)}.{name}() CASCADE"])
            for schema, name in functions
        ]
        tables = [f"DROP TABLE IF EXISTS {table}" for table in (CHANGES, READERS, TABLES)]
        return [*steps, Step("the journal, and who reads it", tables)]

    def grants(self, conn: Any, role: str) -> list[str]:
        """Return what a role needs that reads the journal and nothing else."""
        home, role = quote(conn.exec_driver_sql("SELECT current_schema()").scalar()), quote(role)
        return [
            f"GRANT USAGE ON SCHEMA {home} TO {role}",
            f"GRANT SELECT, DELETE ON {home}.{CHANGES} TO {role}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {home}.{READERS} TO {role}",
            f"GRANT SELECT ON {home}.{TABLES} TO {role}",
        ]

    # -- reading -------------------------------------------------------------------------------------

    def here(self, conn: Any) -> str:
        """Return the snapshot of this moment, and whose it is."""
        self._identity = None
        snap = conn.exec_driver_sql("SELECT pg_current_snapshot()::text").scalar()
        return f"{self._server(conn)} {snap}"

    def _server(self, conn: Any) -> str:
        """Return cluster and timeline: after a failover or a restore the numbers begin anew."""
        if self._identity is None:
            if conn.exec_driver_sql("SELECT pg_is_in_recovery()").scalar():
                raise ConfigurationError("url", "a standby", "the primary: a reader keeps its place there")
            try:
                with conn.begin_nested():
                    self._identity = conn.exec_driver_sql(
                        "SELECT system_identifier::text || '/' || "
                        "left(pg_walfile_name(pg_current_wal_lsn()), 8) FROM pg_control_system()"
                    ).scalar()
            except Exception:  # a right that is not given, a server that has no such thing
                self._identity = "unknown"
        return str(self._identity)

    def telling(self, conn: Any) -> set[str]:
        """Return the tables that have all of their triggers, switched on."""
        rows = conn.exec_driver_sql(_TRIGGERS)
        return {
            name for name, kinds in rows if {"i", "u", "d", "t"} <= set(kinds) or {"r", "t"} <= set(kinds)
        }

    def forget(self) -> None:
        """The connection was lost: it may be another server now."""
        self._identity = None

    def read(self, conn: Any, position: str) -> Batch:
        """Return what was committed since ``position``."""
        from sqlalchemy import text as sql

        server, _, snap = position.partition(" ")
        _, xmax, *xips = snapshot(snap)
        if server != self._server(conn):
            raise LostPlace("the server is another one, or was restored or failed over")
        asked = {"xmax": str(xmax), "xip": "{" + ",".join(map(str, xips)) + "}"}
        rows = conn.execute(sql(_READ), asked).all()
        new = rows[0][0]
        if int(new.split(":")[1]) < xmax:
            raise LostPlace("the server's transactions have begun anew")
        changes = [(row[1], row[2]) for row in rows if row[1] is not None]
        if len(changes) > MOST_ROWS:
            changes = [(row[0], None) for row in conn.execute(sql(_TABLES), asked)]
        return Batch(changes, f"{server} {new}")

    def purge(self, conn: Any, positions: Sequence[str]) -> int:
        """Remove rows of transactions that all readers have seen."""
        from sqlalchemy import text as sql

        least = min(snapshot(position.partition(" ")[2])[0] for position in positions)
        return int(conn.execute(sql(_PURGE), {"xmin": str(least), "most": 10_000}).rowcount)


def _needs_rows(table: Watched) -> bool:
    return table.by_row or table.is_partition


def _key(row: str, key: Sequence[str]) -> str:
    return " || ',' || ".join(f"{row}{quote(column)}::text" for column in key) or "NULL::text"


def _tell(notify: bool) -> str:
    return f"  PERFORM pg_notify('{CHANGES}', '');\n" if notify else ""


def _by_statement(home: str, table: Watched, notify: bool) -> str:
    """Return a body that sees all rows of a statement; beyond ``MOST_ROWS`` it tells the table."""
    into, name = f"INSERT INTO {home}.{CHANGES} (tbl, key)", text(table.name)
    most = MOST_ROWS + 1 if table.key else 1

    def some(rows: str) -> str:
        return f"(SELECT {_key('', table.key)} AS k FROM {rows} LIMIT {most})"

    return (
        "DECLARE n bigint := 1;\nBEGIN\n"
        f"  IF TG_OP = 'INSERT' THEN\n    {into} SELECT {name}, k FROM {some('ep_new')} x;\n"
        "    GET DIAGNOSTICS n = ROW_COUNT;\n"
        f"  ELSIF TG_OP = 'UPDATE' THEN\n"
        f"    {into} SELECT {name}, k FROM ({some('ep_new')} UNION {some('ep_old')}) x;\n"
        "    GET DIAGNOSTICS n = ROW_COUNT;\n"
        f"  ELSIF TG_OP = 'DELETE' THEN\n    {into} SELECT {name}, k FROM {some('ep_old')} x;\n"
        "    GET DIAGNOSTICS n = ROW_COUNT;\n  END IF;\n"
        "  IF n = 0 THEN\n    RETURN NULL;\n  END IF;\n"
        f"  IF TG_OP = 'TRUNCATE' OR n > {MOST_ROWS} THEN\n    {into} VALUES ({name}, NULL);\n  END IF;\n"
        f"{_tell(notify)}  RETURN NULL;\nEND"
    )


def _by_row(home: str, table: Watched, notify: bool) -> str:
    """Return a body for one row of a table, or of a partition that the server gave this trigger to."""
    into, name = f"INSERT INTO {home}.{CHANGES} (tbl, key)", text(table.name)
    above = "".join(f"\n  UNION ALL SELECT {text(parent)}, NULL::text" for parent in table.above)
    family = (
        "SELECT c.relname::text FROM pg_partition_ancestors(TG_RELID) a JOIN pg_class c ON c.oid = a.relid"
    )

    def rows(key: str) -> str:
        return (
            f"    {into} SELECT {name}, {key}{above};\n"
            f"    IF TG_TABLE_NAME <> {name} THEN\n"
            f"      {into} SELECT t, {key} FROM ({family}) f(t) WHERE t <> {name};\n    END IF;\n"
        )

    old, new = _key("OLD.", table.key), _key("NEW.", table.key)
    return (
        "BEGIN\n"
        f"  IF TG_OP = 'TRUNCATE' THEN\n{rows('NULL::text')}"
        f"  ELSIF TG_OP = 'INSERT' THEN\n{rows(new)}"
        f"  ELSIF TG_OP = 'DELETE' THEN\n{rows(old)}"
        f"  ELSE\n{rows(new)}"
        f"    IF {old} IS DISTINCT FROM {new} THEN\n{rows(old)}    END IF;\n"
        f"  END IF;\n{_tell(notify)}  RETURN NULL;\nEND"
    )
