"""Names, conditions and copies of statement trees, for the rules that rewrite them."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, NamedTuple, TypeAlias

from sqlglot import exp

from eventperf.dbopt.schema.model import Column, Schema, Table
from eventperf.dbopt.statements.lex import tokens

Node: TypeAlias = Any  # a tree's base class has another name in each major version of sqlglot


class Form(NamedTuple):
    """Another way to write a statement.

    Attributes:
        rule: The rule that made it.
        tree: The whole statement, rewritten.
        condition: What was checked in the schema, in words.
        advice: What to do, in one sentence.
    """

    rule: str
    tree: Node
    condition: str
    advice: str


@dataclass(frozen=True, slots=True)
class Owner:
    """Where a column comes from: the SELECT, its alias there, and what the schema knows."""

    select: Node
    alias: str
    table: Table | None
    column: Column | None
    in_outer: bool

    @property
    def nullable(self) -> bool:
        """Whether it can be NULL where it is read; unknown columns can."""
        return self.column is None or self.column.nullable or self.in_outer


def sources(select: Node) -> list[tuple[str, Node, bool]]:
    """Return ``(alias, source, may be missing)`` of everything a SELECT reads from."""
    source: Any = select.args.get("from_") or select.args.get("from")
    if source is None:
        return []
    joins = select.args.get("joins") or ()
    items = [source.this, *(j.this for j in joins)]
    out: list[tuple[str, Node, bool]] = [(item.alias_or_name, item, False) for item in items]
    for number, join in enumerate(joins, 1):
        if join.side in ("LEFT", "FULL"):
            out[number] = (*out[number][:2], True)
        if join.side in ("RIGHT", "FULL"):
            out[:number] = [(a, s, True) for a, s, _ in out[:number]]
    return out


def owner(column: Node, schema: Schema) -> Owner | None:
    """Resolve a column by the rules of SQL: the nearest SELECT around it that has it."""
    select = column.find_ancestor(exp.Select)
    while select is not None:
        for alias, source, missing in sources(select):
            if column.table and column.table.lower() != alias.lower():
                continue
            found = _column_of(source, column.name, schema)
            if found is not None:
                return Owner(select, alias, found[0], found[1], missing)
        select = select.find_ancestor(exp.Select)
    return None


def table_of(source: Node, schema: Schema) -> Table | None:
    """Return the table a source names: by its schema where it names one, and never behind a WITH."""
    if not isinstance(source, exp.Table) or source.args.get("catalog"):
        return None
    if source.db:
        return named(source.db, source.name, schema)
    at = source.parent
    while at is not None:
        body = at.args.get("with_") or at.args.get("with")
        if body is not None and any(c.alias.lower() == source.name.lower() for c in body.expressions):
            return None
        at = at.parent
    return schema.table(source.name)


def named(namespace: str, name: str, schema: Schema) -> Table | None:
    """Return ``namespace.name``; a bare name stands for the one namespace statements are written for."""
    found = schema.table(f"{namespace}.{name}")
    usual = {"postgres": "public", "sqlite": "main"}.get(schema.dialect)
    return found or (schema.table(name) if namespace.lower() == usual else None)


def _column_of(source: Node, name: str, schema: Schema) -> tuple[Table | None, Column | None] | None:
    if isinstance(source, exp.Table):
        table = table_of(source, schema)
        if table is None:
            return None, None
        column = table.column(name)
        return None if column is None else (table, column)
    if isinstance(source, exp.Subquery):
        body = source.unnest()
        names = [p.alias_or_name.lower() for p in getattr(body, "selects", ())]
        return (None, None) if name.lower() in names or "*" in names else None
    return None


def is_local(node: Node, select: Node, schema: Schema) -> bool:
    """Tell whether every column in ``node`` belongs to ``select`` or to a SELECT inside ``node``."""
    for column in node.find_all(exp.Column):
        found = owner(column, schema)
        if found is None or not (found.select is select or within(found.select, node)):
            return False
    return True


def within(node: Node | None, root: Node) -> bool:
    """Tell whether ``node`` is ``root`` or below it."""
    while node is not None:
        if node is root:
            return True
        node = node.parent
    return False


def conjuncts(node: Node | None) -> Iterator[Node]:
    """Yield the terms of an AND, brackets opened."""
    if node is None:
        return
    body = node.unnest()
    if isinstance(body, exp.And):
        yield from conjuncts(body.left)
        yield from conjuncts(body.right)
    else:
        yield body


def disjuncts(node: Node) -> Iterator[Node]:
    """Yield the terms of an OR, brackets opened."""
    body = node.unnest()
    if isinstance(body, exp.Or):
        yield from disjuncts(body.left)
        yield from disjuncts(body.right)
    else:
        yield body


def where(select: Node) -> list[Node]:
    """Return the terms of a WHERE."""
    found = select.args.get("where")
    return list(conjuncts(found.this)) if found is not None else []


def all_of(terms: Sequence[Node]) -> Node | None:
    """Join terms with AND."""
    return exp.and_(*(t.copy() for t in terms), copy=False) if terms else None


def set_where(select: Node, terms: Sequence[Node]) -> None:
    """Replace a SELECT's WHERE."""
    body = all_of(terms)
    select.set("where", exp.Where(this=body) if body is not None else None)


def plain(select: Node, *, projection: bool = True) -> bool:
    """Tell whether a SELECT is FROM and WHERE alone: no grouping, limits, windows or WITH."""
    parts = (
        "group",
        "having",
        "limit",
        "offset",
        "distinct",
        "with_",
        "with",
        "qualify",
        "locks",
        "laterals",
    )
    if any(select.args.get(part) for part in parts):
        return False
    if any(e.find(exp.Window) for e in select.expressions):
        return False
    found = [a for e in select.expressions for a in e.find_all(exp.AggFunc)]
    return not projection or not any(a.find_ancestor(exp.Select) is select for a in found)


def on_copy(tree: Node, node: Node, change: Callable[[Node], None]) -> Node:
    """Copy ``tree``, and let ``change`` work on the copy of ``node`` in it."""
    path: list[tuple[str, int | None]] = []
    at = node
    while at is not tree:
        path.append((at.arg_key, at.index))
        at = at.parent
    out = tree.copy()
    here = out
    for key, index in reversed(path):
        here = here.args[key] if index is None else here.args[key][index]
    if here is out:
        holder = exp.Paren(this=out)
        change(here)
        return holder.this
    change(here)
    return out


_MARK: Final = re.compile(r"%\((p\d+)\)s")


def text_of(tree: Node, dialect: str) -> str:
    """Return SQL with parameters as ``:pN``."""
    return _MARK.sub(r":\1", str(tree.sql(dialect=dialect)))


def has_parameters(tree: Node) -> bool:
    """Tell whether values are missing."""
    return tree.find(exp.Placeholder, exp.Parameter) is not None


def filled(sql: str, value: Callable[[int], Any], dialect: str) -> str:
    """Return a text with literals in the place of ``:pN``, and not one character of it changed."""
    return "".join(
        literal(value(int(text[2:]))).sql(dialect=dialect) if kind == "param" else text
        for kind, text in tokens(sql, dialect)
    )


def inlined(tree: Node, value: Callable[[int], Any]) -> Node:
    """Copy ``tree`` with literals in the place of ``:pN``."""
    out = tree.copy()
    for mark in list(out.find_all(exp.Placeholder)):
        name = mark.name
        number = int(name[1:]) if name[:1] == "p" and name[1:].isdigit() else 1
        mark.replace(literal(value(number)))
    return out


def literal(value: Any) -> Node:
    """Return a value as SQL."""
    if value is None:
        return exp.Null()
    if isinstance(value, bool):
        return exp.Boolean(this=value)
    if isinstance(value, (int, float, Decimal)):
        number = exp.Literal.number(str(abs(value)))
        return exp.Neg(this=number) if value < 0 else number
    if isinstance(value, (dt.datetime, dt.date)):
        return exp.Literal.string(
            value.isoformat(" ") if isinstance(value, dt.datetime) else value.isoformat()
        )
    return exp.Literal.string(str(value))
