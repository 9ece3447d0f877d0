"""Changes of data: what they read to find their rows, and what they write."""

from __future__ import annotations

from typing import NamedTuple

from sqlglot import exp

from eventperf.dbopt.schema.model import Schema, Table

from .predicates import Node


class Change(NamedTuple):
    """What a change of data reads and writes.

    Attributes:
        query: What it reads to find its rows and their new values; ``None`` when nothing.
        written: The table that is changed, with the columns.
        unknown: Its name, where no such table is here.
    """

    query: Node | None = None
    written: tuple[str, frozenset[str]] | None = None
    unknown: str | None = None


def read_part(tree: Node, schema: Schema) -> Change:
    """Return the query inside of INSERT, UPDATE, DELETE or MERGE, with what is written."""
    target = tree.this
    if isinstance(target, exp.Schema):
        target = target.this
    table = _target(tree, target, schema)
    if table is None:
        return Change(unknown=target.name if isinstance(target, exp.Table) else None)
    given = tree.args.get("with_") or tree.args.get("with")
    if isinstance(tree, exp.Insert):
        written = (table.name, frozenset(table.columns))
        query = tree.expression
        if not isinstance(query, (exp.Select, exp.SetOperation)):
            return Change(written=written)
        query = query.copy()
        if given is not None and not (query.args.get("with_") or query.args.get("with")):
            query.set("with_", given.copy())
        return Change(query, written)
    changed = {e.this.name.lower() for e in tree.expressions if isinstance(e, exp.EQ)}
    names = {c for c in table.columns if c.lower() in changed}
    written = (table.name, frozenset(names if isinstance(tree, exp.Update) else table.columns))
    values = [e.expression.copy() for e in tree.expressions if isinstance(e, exp.EQ)]
    select = exp.select(*(values or [exp.Literal.number(1)]))
    _add_sources(select, tree, target)
    for part in ("where", "order", "limit"):
        if tree.args.get(part) is not None:
            select.set(part, tree.args[part].copy())
    if given is not None:
        select.set("with_", given.copy())
    return Change(select, written)


def _target(tree: Node, target: Node, schema: Schema) -> Table | None:
    """Return the table that is changed: DELETE may name its alias, an UPDATE of a join sets one side."""
    if not isinstance(target, exp.Table):
        return None
    sources = [target, *(j.this for j in target.args.get("joins") or ())]
    by_alias = {s.alias_or_name.lower(): s for s in sources if isinstance(s, exp.Table)}
    named = [t.name.lower() for t in tree.args.get("tables") or ()]
    if isinstance(tree, exp.Update):
        named = [e.this.table.lower() for e in tree.expressions if isinstance(e, exp.EQ)]
    chosen = next((by_alias[n] for n in named if n in by_alias), target)
    return schema.table(chosen.name, chosen.db or None)


def _add_sources(select: exp.Select, tree: Node, target: Node) -> None:
    """Give ``select`` all that a change reads from, joins as joins."""
    first = target.copy()
    joins = first.args.pop("joins", None) or []
    others: list[Node] = []
    source = tree.args.get("from_") or tree.args.get("from")
    if source is not None:
        others.append(source.this.copy())
    using = tree.args.get("using")
    if isinstance(using, list):
        others += [u.copy() for u in using]
    elif isinstance(using, (exp.Table, exp.Subquery)):
        others.append(using.copy())
    select.set("from_", exp.From(this=first))
    for join in joins:
        select.append("joins", join)
    for other in others:
        inner = other.args.pop("joins", None) or []
        select.append("joins", exp.Join(this=other, on=_condition(tree)))
        for join in inner:
            select.append("joins", join)


def _condition(tree: Node) -> Node | None:
    on = tree.args.get("on") if isinstance(tree, exp.Merge) else None
    return None if on is None else on.copy()
