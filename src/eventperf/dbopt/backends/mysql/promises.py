"""What MySQL and MariaDB enforce of tables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

from eventperf.dbopt.schema.model import Table

_Ask = Callable[[str], Iterable[Any]]


def promised(table: Table, ask: _Ask) -> Table:
    """Return a table with each text's collation by name; unique keys hold under it as it is."""
    name = "'" + table.name.replace("\\", "\\\\").replace("'", "''") + "'"
    rows = ask(
        "SELECT column_name, collation_name, is_nullable FROM information_schema.columns "
        f"WHERE table_schema = DATABASE() AND table_name = {name}"
    )
    facts = {row[0]: row[1:] for row in rows}
    columns = {
        c.name: replace(
            c,
            nullable=c.nullable if c.name in facts and facts[c.name][1] == "NO" else True,
            collation=facts[c.name][0] if c.name in facts else "?",
        )
        for c in table.columns.values()
    }
    keys = [k for k in table.unique_sets if all(n in table.columns for n in k)]
    return replace(table, columns=columns, unique_sets=tuple(keys))
