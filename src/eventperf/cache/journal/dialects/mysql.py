"""MariaDB and MySQL: triggers for each row, numbered rows, and gaps that a lock tells of.

A row that is not committed is locked by its transaction, so that ``FOR UPDATE NOWAIT`` tells numbers that may
still come from those that were rolled back. A number younger than ``SETTLED_S`` is not asked about: between
its giving and its row there is a moment without a lock.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from eventperf.cache.journal.layout import (
    CHANGES,
    READERS,
    TABLES,
    TRIGGER,
    Batch,
    LostPlace,
    Step,
    Watched,
    quoter,
)

from .numbered import Place, here, read, without_dead

quote: Callable[[str], str] = quoter("`")
SAFE: Final = {"tinyint", "smallint", "mediumint", "int", "bigint"}
SETTLED_S: Final = 10.0
_LOCKED: Final = (1205, 3572)
_KINDS: Final = (("i", "INSERT"), ("u", "UPDATE"), ("d", "DELETE"))
_PLAIN: Final = re.compile(r"[\w$ .-]*", re.ASCII)

_LOOK: Final = """
SELECT t.table_name, c.column_name, c.data_type FROM information_schema.tables t
LEFT JOIN information_schema.statistics s
  ON s.table_schema = t.table_schema AND s.table_name = t.table_name AND s.index_name = 'PRIMARY'
LEFT JOIN information_schema.columns c
  ON c.table_schema = s.table_schema AND c.table_name = s.table_name AND c.column_name = s.column_name
WHERE t.table_schema = database() AND t.table_type = 'BASE TABLE' ORDER BY t.table_name, s.seq_in_index
"""
_CASCADES: Final = """
SELECT r.referenced_table_name, r.table_name, r.delete_rule, r.update_rule, k.referenced_column_name
FROM information_schema.referential_constraints r
JOIN information_schema.key_column_usage k
  ON k.constraint_schema = r.constraint_schema AND k.constraint_name = r.constraint_name
  AND k.table_name = r.table_name
WHERE r.constraint_schema = database() AND r.unique_constraint_schema = database()
ORDER BY 1, 2, k.ordinal_position
"""


def text(value: str) -> str:
    """Return a literal, whatever is in the text and whatever the server takes a backslash for.

    >>> print(text("events"), text("a'b"))
    'events' _utf8mb4 X'612762'
    """
    return f"'{value}'" if _PLAIN.fullmatch(value) else f"_utf8mb4 X'{value.encode().hex()}'"


class MySQL:
    """The journal on MariaDB 10.6 and MySQL 8 with InnoDB."""

    now: str = "TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1e6"
    channel: str = ""

    def __init__(self) -> None:
        self._identity: str | None = None
        self._settled = 0  # numbers up to here were given more than SETTLED_S ago
        self._marked: tuple[int, float] = (0, time.monotonic())

    # -- making --------------------------------------------------------------------------------------

    def look(self, conn: Any) -> list[Watched]:
        """Return every table of the database."""
        keys: dict[str, list[tuple[str, str]]] = {}
        for name, column, kind in conn.exec_driver_sql(_LOOK):
            key = keys.setdefault(name, [])
            if column is not None:
                key.append((column, str(kind).lower()))
        deletes, updates = _cascades(conn)
        return [
            Watched(
                schema="", name=name, by_row=True,
                key=tuple(c for c, _ in key) if all(kind in SAFE for _, kind in key) else (),
                on_delete=tuple(sorted(_closure(name, deletes))),
                on_update=tuple((child, tuple(cols)) for child, cols in updates.get(name, {}).items()),
            )
            for name, key in keys.items()
        ]  # fmt: skip

    def make(self, conn: Any, tables: Sequence[Watched], notify: bool | None) -> list[Step]:
        """Return the steps that make the journal and its triggers; those that are there are made anew."""
        kind = "CHARACTER SET utf8mb4 COLLATE utf8mb4_bin"
        frame = [
            f"CREATE TABLE IF NOT EXISTS {CHANGES} (id BIGINT UNSIGNED NOT NULL AUTO_INCREMENT PRIMARY KEY, "
            f"tbl VARCHAR(64) {kind} NOT NULL, k VARCHAR(400) {kind}) ENGINE=InnoDB",
            f"CREATE TABLE IF NOT EXISTS {READERS} (name VARCHAR(200) {kind} NOT NULL PRIMARY KEY, "
            "position MEDIUMTEXT NOT NULL, seen_at DOUBLE NOT NULL) ENGINE=InnoDB",
            f"CREATE TABLE IF NOT EXISTS {TABLES} (tbl VARCHAR(64) {kind} NOT NULL PRIMARY KEY) "
            "ENGINE=InnoDB",
        ]
        return [Step("the journal, and who reads it", frame), *(self._watch(conn, t) for t in tables)]

    def _watch(self, conn: Any, table: Watched) -> Step:
        schema = quote(conn.exec_driver_sql("SELECT database()").scalar())
        into, name = f"INSERT INTO {schema}.{CHANGES} (tbl, k)", text(table.name)
        old, new = (f"SELECT {name}, {_key(row, table.key)}" for row in ("OLD.", "NEW."))
        deleted = "".join(f" UNION ALL SELECT {text(child)}, NULL" for child in table.on_delete)
        updated = "".join(
            f" UNION ALL SELECT {text(child)}, NULL FROM DUAL WHERE "
            + " OR ".join(f"NOT (OLD.{quote(c)} <=> NEW.{quote(c)})" for c in columns)
            for child, columns in table.on_update
        )
        bodies = {"i": new, "u": f"{old} UNION {new}{updated}", "d": old + deleted}
        out = []
        for kind, event in _KINDS:
            trigger = f"{TRIGGER}_{table.digest}_{kind}"
            out += [
                f"DROP TRIGGER IF EXISTS {trigger}",
                f"CREATE TRIGGER {trigger} AFTER {event} ON {quote(table.name)} FOR EACH ROW "
                f"{into} {bodies[kind]}",
            ]
        out += [
            f"INSERT IGNORE INTO {TABLES} (tbl) VALUES ({name})",
            f"INSERT INTO {CHANGES} (tbl) VALUES ({name})",
        ]
        return Step(table.name, out)

    def drop(self, conn: Any) -> list[Step]:
        """Return the steps that remove triggers and tables of the journal."""
        names = conn.exec_driver_sql(
            "SELECT trigger_name FROM information_schema.triggers WHERE trigger_schema = database() "
            f"AND trigger_name REGEXP '^{TRIGGER}_[0-9a-f]{{12}}_[iud]$' ORDER BY 1"
        )
        steps = [Step(f"trigger {name}", [f"DROP TRIGGER IF EXISTS {name}"]) for (name,) in names]
        tables = [f"DROP TABLE IF EXISTS {table}" for table in (CHANGES, READERS, TABLES)]
        return [*steps, Step("the journal, and who reads it", tables)]

    def grants(self, conn: Any, role: str) -> list[str]:
        """Return what a user needs that reads the journal and nothing else."""
        schema = quote(conn.exec_driver_sql("SELECT database()").scalar())
        user, _, host = role.partition("@")
        who = f"{quote(user)}@{quote(host or '%')}"
        return [
            f"GRANT SELECT, UPDATE, DELETE ON {schema}.{CHANGES} TO {who}",
            f"GRANT SELECT, INSERT, UPDATE, DELETE ON {schema}.{READERS} TO {who}",
            f"GRANT SELECT ON {schema}.{TABLES} TO {who}",
        ]

    # -- reading -------------------------------------------------------------------------------------

    def here(self, conn: Any) -> str:
        """Return the position of this moment."""
        self.forget()
        self._settled, self._marked = 0, (0, time.monotonic())
        return here(conn, self._server(conn), keeps_gaps=True)

    def telling(self, conn: Any) -> set[str] | None:
        """Return the tables that have all of their triggers; who has no right to any is shown none."""
        rows = conn.exec_driver_sql(
            "SELECT event_object_table, count(*) FROM information_schema.triggers "
            f"WHERE trigger_schema = database() AND trigger_name REGEXP '^{TRIGGER}_[0-9a-f]{{12}}_[iud]$' "
            "GROUP BY event_object_table"
        ).all()
        return {name for name, count in rows if count == len(_KINDS)} if rows else None

    def forget(self) -> None:
        """The connection was lost: it may be another server now."""
        self._identity = None

    def _server(self, conn: Any) -> str:
        if self._identity is None:
            self._identity = str(conn.exec_driver_sql("SELECT @@server_id").scalar())
        return self._identity

    def read(self, conn: Any, position: str) -> Batch:
        """Return what was committed since ``position``, late numbers included."""
        at = Place.of(position)
        if at.server != self._server(conn):
            raise LostPlace("the server is another one: restored or failed over")
        batch = read(conn, at, keeps_gaps=True, over=self._over(conn, at))
        if batch.is_all:
            self._settle(Place.of(batch.position).last)
        return batch

    def _over(self, conn: Any, at: Place) -> set[tuple[int, int]]:
        """Return the gaps of which no transaction holds a number: what is to come of them is there by now."""
        old = [gap for gap in at.gaps if gap[1] <= self._settled]
        held = set(without_dead(old, lambda low, high: _is_free(conn, low, high)))
        return {gap for gap in old if gap not in held}

    def _settle(self, last: int) -> None:
        """Numbers up to ``last`` were given by now: ``SETTLED_S`` later none of them is without a lock."""
        now = time.monotonic()
        if now - self._marked[1] > SETTLED_S:
            self._settled = self._marked[0]
            self._marked = (last, now)

    def purge(self, conn: Any, positions: Sequence[str]) -> int:
        """Remove rows that all readers have gone past."""
        least = min(Place.of(position).floor for position in positions)
        asked = f"SELECT id FROM {CHANGES} WHERE id < {least:d} ORDER BY id LIMIT 2000"
        ids = [int(row[0]) for row in conn.exec_driver_sql(asked)]
        # One by one: any range waits for the lock of the row behind its end, and so may a list of numbers,
        # which the server is free to look for in the whole table.
        if ids:
            conn.exec_driver_sql(f"DELETE FROM {CHANGES} WHERE id = %s", [(number,) for number in ids])
        return len(ids)


def _is_free(conn: Any, low: int, high: int) -> bool:
    """Tell whether no transaction holds a row of these numbers; what is there may be committed."""
    from sqlalchemy.exc import OperationalError

    asked = f"SELECT id FROM {CHANGES} WHERE id BETWEEN {low:d} AND {high:d} FOR UPDATE NOWAIT"
    try:
        conn.exec_driver_sql(asked).all()
    except OperationalError as error:
        if getattr(error.orig, "args", (0,))[0] in _LOCKED:
            return False
        raise
    return True


def _key(row: str, key: Sequence[str]) -> str:
    if not key:
        return "NULL"
    return "CONCAT_WS(',', " + ", ".join(f"{row}{quote(column)}" for column in key) + ")"


def _cascades(conn: Any) -> tuple[dict[str, set[str]], dict[str, dict[str, list[str]]]]:
    """Return which tables a delete, and which an update, changes without their triggers: InnoDB runs none."""
    deletes: dict[str, set[str]] = {}
    updates: dict[str, dict[str, list[str]]] = {}
    acts = ("CASCADE", "SET NULL", "SET DEFAULT")
    for parent, child, on_delete, on_update, column in conn.exec_driver_sql(_CASCADES):
        if on_delete in acts:
            deletes.setdefault(parent, set()).add(child)
        if on_update in acts:
            updates.setdefault(parent, {}).setdefault(child, []).append(column)
    return deletes, updates


def _closure(name: str, children: dict[str, set[str]]) -> set[str]:
    found: set[str] = set()
    left = [name]
    while left:
        new = children.get(left.pop(), set()) - found
        found |= new
        left += new
    return found
