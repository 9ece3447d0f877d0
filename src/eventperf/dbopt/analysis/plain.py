"""The short way for plain statements: one SELECT from tables, each column of one table by its name alone.

Most statements of an application are such. Resolving their names takes no scopes, and a tenth of the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sqlglot import exp

from eventperf.dbopt.schema.model import Schema, Table

from .predicates import Node, TableUse, Uses

_LONG = 50  # terms of a chain: shorter ones are left as they are


def plain_uses(tree: Node, found: Mapping[int, Table], schema: Schema) -> Uses | None:
    """Give each column its table and return the tables by alias; ``None`` where that takes more than this.

    Args:
        tree: With names that are the schema's by now.
        found: The table that each node stands for, by the node's identity.
        schema: For the dialect.
    """
    if not isinstance(tree, exp.Select) or tree.args.get("laterals") or tree.args.get("with_"):
        return None
    joins = tree.args.get("joins") or ()
    source = tree.args.get("from_") or tree.args.get("from")
    if source is None or any(j.args.get("using") or j.args.get("method") for j in joins):
        return None
    tables: dict[str, Table] = {}
    for node in (source.this, *(j.this for j in joins)):
        table = found.get(id(node))
        if table is None or node.alias in tables or node.args.get("joins") or node.args.get("pivots"):
            return None
        tables[node.alias] = table
    if sum(1 for _ in tree.find_all(exp.Table, exp.Query)) != len(tables) + 1:
        return None
    owners: dict[str, list[str]] = {}
    for alias, table in tables.items():
        for name in table.columns:
            owners.setdefault(name, []).append(alias)
    renamed = {e.alias for e in tree.expressions if isinstance(e, exp.Alias) and e.alias != e.this.name}
    if renamed & owners.keys() or not _resolved(tree, tables, owners, renamed):
        return None
    out = Uses(schema.dialect)
    out.update({alias: TableUse(table.name, alias) for alias, table in tables.items()})
    return out


def _resolved(
    tree: Node, tables: Mapping[str, Table], owners: Mapping[str, list[str]], renamed: set[str]
) -> bool:
    pairs: list[tuple[Any, str]] = []
    for column in tree.find_all(exp.Column):
        if isinstance(column.this, exp.Star):
            if column.table not in tables:
                return False
        elif column.table:
            if column.table not in tables or column.name not in tables[column.table].columns:
                return False
        elif column.name in renamed and isinstance(column.parent, exp.Ordered):
            continue  # an order by what is selected
        else:
            mine = owners.get(column.name, ())
            if len(mine) != 1:
                return False
            pairs.append((column, mine[0]))
    for column, alias in pairs:
        column.set("table", exp.to_identifier(alias, quoted=True))
    return True


def balance(tree: Node) -> None:
    """Give long chains of AND and OR the depth of a logarithm: whatever climbs a tree is linear in it then.

    A parser makes a chain as deep as it is long, so a thousand terms took half a million steps, or the stack.
    """
    if sum(1 for _ in tree.find_all(exp.Connector)) < _LONG:
        return
    heads = [n for n in tree.find_all(exp.And, exp.Or) if type(n.parent) is not type(n)]
    for head in heads:
        terms = _terms(head)
        if len(terms) >= _LONG:
            head.replace(_half(type(head), terms))


def _terms(head: Node) -> list[Node]:
    left, out = [head], []
    while left:
        at = left.pop()
        if type(at) is type(head):
            left += [at.expression, at.this]
        else:
            out.append(at)
    return out


def _half(kind: Any, terms: list[Node]) -> Node:
    if len(terms) == 1:
        return terms[0]
    middle = len(terms) // 2
    return kind(this=_half(kind, terms[:middle]), expression=_half(kind, terms[middle:]))
