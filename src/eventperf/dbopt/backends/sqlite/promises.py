"""What SQLite enforces of tables: less than their declarations say."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from eventperf.dbopt.schema.ddl import quote
from eventperf.dbopt.schema.model import Column, Table

_Ask = Callable[[str], Iterable[Any]]


def promised(table: Table, ask: _Ask) -> Table:
    """Return a table with keys that hold and collations by name.

    A primary key may hold NULLs unless it is the rowid; a unique index may have another collation than its
    column; an INTEGER column may hold text, the rowid alone cannot (its type is INTEGER here, that of every
    other whole number INT). Where collations cannot be told, there are no keys.
    """
    text = "'" + table.name.replace("'", "''") + "'"
    ddl = next(iter(ask(f"SELECT sql FROM sqlite_master WHERE type = 'table' AND name = {text}")), (None,))[0]
    info = {row[1]: row for row in ask(f"SELECT * FROM pragma_table_xinfo({text})")}
    indexes = list(ask(f'SELECT name, "unique", origin, partial FROM pragma_index_list({text})'))
    collations = _collations(table, ddl)
    has_rowid_key = len(table.primary_key) == 1 and all(row[2] != "pk" for row in indexes)
    columns: dict[str, Column] = {}
    for column in table.columns.values():
        row = info.get(column.name)
        is_rowid = has_rowid_key and column.name in table.primary_key
        is_filled = row is not None and (bool(row[3]) or is_rowid)
        type_ = "INT" if column.type.upper() == "INTEGER" and not is_rowid else column.type
        collation = collations.get(column.name, "?")
        columns[column.name] = replace(
            column, nullable=not is_filled, type=type_, collation=None if collation == "BINARY" else collation
        )
    keys = [table.primary_key] if has_rowid_key else []
    for name, unique, _, partial in indexes:
        if unique and not partial and (key := _key(name, collations, ask)) is not None:
            keys.append(key)
    return replace(
        table,
        columns=columns,
        primary_key=table.primary_key if has_rowid_key else (),
        unique_sets=tuple(keys),
    )


def _key(index: str, collations: dict[str, str], ask: _Ask) -> tuple[str, ...] | None:
    text = "'" + index.replace("'", "''") + "'"
    out = []
    for name, collation in ask(f"SELECT name, coll FROM pragma_index_xinfo({text}) WHERE key = 1"):
        if name is None or collations.get(name) != collation:
            return None
        out.append(name)
    return tuple(out)


def _collations(table: Table, ddl: str | None) -> dict[str, str]:
    """Tell each column's own collation: that of an index made on it, in an empty copy of the table."""
    if not ddl:
        return {}
    scratch = sqlite3.connect(":memory:")
    try:
        scratch.execute(ddl)
        columns = ", ".join(quote(name, "sqlite") for name in table.columns)
        scratch.execute(f"CREATE INDEX ep_all ON {quote(table.name, 'sqlite')} ({columns})")
        return dict(scratch.execute("SELECT name, coll FROM pragma_index_xinfo('ep_all') WHERE key = 1"))
    except sqlite3.Error:  # a collation or a function of the application's own
        return {}
    finally:
        scratch.close()
