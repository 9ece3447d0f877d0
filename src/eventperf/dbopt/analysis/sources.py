"""What a statement reads beside tables: functions, changes within WITH, the server's own relations."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Final

from sqlglot import exp

from eventperf.dbopt.schema.model import Schema, Table

from .predicates import Node
from .writes import read_part

#: Where servers keep what they know of themselves.
_SYSTEM_PLACES: Final = frozenset({"information_schema", "pg_catalog", "performance_schema", "mysql", "sys"})
_SYSTEM_NAMES: Final = {
    "sqlite": re.compile("sqlite_|pragma_"),
    "postgres": re.compile("pg_"),
    "mysql": re.compile(r"(?:seq_\d+_to_\d+|dual$)"),  # MariaDB's numbers
}
_STAND_IN: Final = "ep_source_"


def has_no_index(source: Node, schema: Schema) -> bool:
    """Tell whether a source is a function, the server's own, or nothing that an index of ours can serve."""
    name, place = source.name.lower(), source.db.lower()
    if name.startswith(_STAND_IN) or name in schema.others or place in _SYSTEM_PLACES:
        return True
    return not place and _SYSTEM_NAMES[schema.dialect].match(name) is not None


def read_changes(tree: Node, schema: Schema) -> None:
    """Put what a change within WITH reads, and hands on by RETURNING, in its place."""
    for cte in list(tree.find_all(exp.CTE)):
        body = cte.this
        if not isinstance(body, (exp.Insert, exp.Update, exp.Delete, exp.Merge)):
            continue
        query = read_part(body, schema).query
        query = exp.select("1") if query is None else query.copy()
        told = body.args.get("returning")
        if told is not None and isinstance(query, exp.Select):
            query.set("expressions", [e.copy() for e in told.expressions])
        cte.set("this", query)


def stand_ins(
    tree: Node, found: Mapping[int, Table], is_cte: Callable[[Node], bool]
) -> dict[str, dict[str, str]]:
    """Give sources that are no tables here the columns that no table has; return them by their names.

    With a source of unknown columns no name could be told. The columns of a function's arguments are read
    by the SELECT around it.
    """
    others = [n for n in tree.find_all(exp.Table) if id(n) not in found and not is_cte(n)]
    if not others:
        return {}
    known = {c for table in found.values() for c in table.columns}
    known |= {a.alias for a in tree.find_all(exp.Alias) if a.alias != a.this.name}
    loose = {c.name: "text" for c in tree.find_all(exp.Column) if c.name not in known} or {"ep": "text"}
    out: dict[str, dict[str, str]] = {}
    for number, node in enumerate(others):
        if not isinstance(node.this, exp.Identifier):
            _name_function(node, f"{_STAND_IN}{number}")
        out[node.name] = loose
    return out


def _name_function(node: Node, name: str) -> None:
    select = node.find_ancestor(exp.Select)
    read = [c.copy() for c in node.find_all(exp.Column)]
    if select is not None and read:
        select.set("expressions", [*select.expressions, *read])
    alias = node.alias or node.name.lower() or name
    node.set("this", exp.to_identifier(name, quoted=True))
    node.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
    node.set("db", None)
