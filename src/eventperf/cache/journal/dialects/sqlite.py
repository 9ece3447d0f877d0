"""SQLite: triggers for each row; one writer at a time, so that numbers are in the order of commits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from eventperf.cache.journal.layout import CHANGES, READERS, TABLES, TRIGGER, Batch, Step, Watched, quoter

from .numbered import Place, here, read

quote: Callable[[str], str] = quoter('"')
_KINDS: Final = (("i", "INSERT"), ("u", "UPDATE"), ("d", "DELETE"))


def text(value: str) -> str:
    """Return a literal."""
    return "'" + value.replace("'", "''") + "'"


class SQLite:
    """The journal in a SQLite file."""

    now: str = "(julianday('now') - 2440587.5) * 86400.0"
    channel: str = ""

    def look(self, conn: Any) -> list[Watched]:
        """Return every table of the file."""
        names = conn.exec_driver_sql(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' "
            "AND sql NOT LIKE 'CREATE VIRTUAL%' ORDER BY name",
            execution_options={"no_parameters": True},
        )
        return [self._table(conn, name) for (name,) in names]

    def _table(self, conn: Any, name: str) -> Watched:
        columns = conn.exec_driver_sql(f"SELECT name, type, pk FROM pragma_table_info({text(name)})").all()
        key = sorted((pk, column, kind) for column, kind, pk in columns if pk)
        unique = conn.exec_driver_sql(f'SELECT origin FROM pragma_index_list({text(name)}) WHERE "unique"')
        return Watched(
            schema="", name=name, by_row=True,
            key=tuple(c for _, c, _ in key) if all("INT" in kind.upper() for *_, kind in key) else (),
            replaces=any(origin != "pk" for (origin,) in unique),
        )  # fmt: skip

    def make(self, conn: Any, tables: Sequence[Watched], notify: bool | None) -> list[Step]:
        """Return the steps that make the journal and its triggers; those that are there are made anew."""
        frame = [
            f"CREATE TABLE IF NOT EXISTS {CHANGES} "
            "(id INTEGER PRIMARY KEY AUTOINCREMENT, tbl TEXT NOT NULL, k TEXT)",
            f"CREATE TABLE IF NOT EXISTS {READERS} "
            "(name TEXT NOT NULL PRIMARY KEY, position TEXT NOT NULL, seen_at REAL NOT NULL)",
            f"CREATE TABLE IF NOT EXISTS {TABLES} (tbl TEXT NOT NULL PRIMARY KEY)",
        ]
        return [Step("the journal, and who reads it", frame), *map(self._watch, tables)]

    def _watch(self, table: Watched) -> Step:
        into, name = f"INSERT INTO {CHANGES} (tbl, k)", text(table.name)
        old, new = (f"SELECT {name}, {_key(row, table.key)}" for row in ("OLD.", "NEW."))
        if table.replaces:  # the row that it removes is told by no trigger
            new = f"SELECT {name}, NULL"
        out = []
        for (kind, event), body in zip(_KINDS, (new, f"{old} UNION {new}", old), strict=True):
            trigger = f"{TRIGGER}_{table.digest}_{kind}"
            out += [
                f"DROP TRIGGER IF EXISTS {trigger}",
                f"CREATE TRIGGER {trigger} AFTER {event} ON {quote(table.name)} BEGIN {into} {body}; END",
            ]
        out += [
            f"INSERT OR IGNORE INTO {TABLES} (tbl) VALUES ({name})",
            f"INSERT INTO {CHANGES} (tbl) VALUES ({name})",
        ]
        return Step(table.name, out)

    def drop(self, conn: Any) -> list[Step]:
        """Return the steps that remove triggers and tables of the journal."""
        found = conn.exec_driver_sql("SELECT name FROM sqlite_master WHERE type = 'trigger' ORDER BY name")
        names = [name for (name,) in found if name.startswith(f"{TRIGGER}_")]
        steps = [Step(f"trigger {name}", [f"DROP TRIGGER IF EXISTS {quote(name)}"]) for name in names]
        tables = [f"DROP TABLE IF EXISTS {table}" for table in (CHANGES, READERS, TABLES)]
        return [*steps, Step("the journal, and who reads it", tables)]

    def grants(self, conn: Any, role: str) -> list[str]:
        """Return nothing: a file has no roles."""
        return []

    def here(self, conn: Any) -> str:
        """Return the position of this moment."""
        return here(conn, "", keeps_gaps=False)

    def telling(self, conn: Any) -> set[str]:
        """Return the tables that have all of their triggers: to make a table anew drops them."""
        rows = conn.exec_driver_sql("SELECT tbl_name, name FROM sqlite_master WHERE type = 'trigger'")
        tables = [table for table, name in rows if name.startswith(f"{TRIGGER}_")]
        return {table for table in tables if tables.count(table) == len(_KINDS)}

    def forget(self) -> None:
        """Nothing is known of a connection."""

    def read(self, conn: Any, position: str) -> Batch:
        """Return what was committed since ``position``."""
        return read(conn, Place.of(position), keeps_gaps=False)

    def purge(self, conn: Any, positions: Sequence[str]) -> int:
        """Remove rows that all readers have gone past."""
        least = min(Place.of(position).floor for position in positions)
        asked = f"SELECT id FROM {CHANGES} WHERE id < {least:d} ORDER BY id LIMIT 10000"
        return int(conn.exec_driver_sql(f"DELETE FROM {CHANGES} WHERE id IN ({asked})").rowcount)


def _key(row: str, key: Sequence[str]) -> str:
    return " || ',' || ".join(f"CAST({row}{quote(column)} AS TEXT)" for column in key) or "NULL"
