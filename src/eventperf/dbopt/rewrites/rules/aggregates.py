"""Correlated aggregates become sets that are computed once.

The transformations are those of Kim, "On Optimizing an SQL-like Nested Query", TODS 1982, with the
corrections for empty groups and duplicates of Ganski and Wong, SIGMOD 1987, and the restriction of the
inner side to keys that can be asked for (Mumick, Pirahesh, "Implementation of Magic-sets", SIGMOD 1994).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlglot import exp

from eventperf.dbopt.rewrites.tree import (
    Form,
    Node,
    all_of,
    is_local,
    on_copy,
    owner,
    plain,
    set_where,
    sources,
    where,
)
from eventperf.dbopt.rewrites.trust import affinity, base_type, is_identity
from eventperf.dbopt.schema.model import Schema
from eventperf.dbopt.schema.types import category

from .links import Link, links
from .rule import Rule, replacing

_COMPARED: Final = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE)
_EMPTY_IS_NULL: Final = (exp.Sum, exp.Avg, exp.Min, exp.Max)
_STRICT: Final = (exp.Mul, exp.Add, exp.Sub, exp.Neg, exp.Paren, exp.Literal)


def _is_steady(node: Node, schema: Schema) -> bool:
    """Tell whether an aggregate gives the same value in whatever order, and by whichever plan, rows come.

    Sums of floats depend on the order; of texts (or decimals) that are equal, MIN and MAX keep any.
    """
    for column in node.find_all(exp.Column):
        found = owner(column, schema)
        kind = found.column if found is not None else None
        if kind is None:
            return False
        if schema.dialect == "sqlite":
            if affinity(kind) != "INTEGER":
                return False
            continue
        family, is_sum = category(kind.type), isinstance(node, (exp.Sum, exp.Avg))
        exact = base_type(kind) in ("decimal", "numeric") and "(" in kind.type
        if not (family == "int" or exact or (not is_sum and family in ("date", "time", "zoned"))):
            return False
    return True


def _aggregate(inner: Node, schema: Schema) -> str | None:
    """Return ``"strict"`` for an aggregate that is NULL over no rows, ``"count"`` for a COUNT."""
    if len(inner.expressions) != 1:
        return None
    body = inner.expressions[0].unalias()
    if isinstance(body, exp.Count):
        return "count" if body.find(exp.Select) is None else None
    found = False
    stack = [body]
    while stack:
        node = stack.pop()
        if isinstance(node, _EMPTY_IS_NULL):
            if node.find(exp.Select, exp.Window) is not None or not _is_steady(node, schema):
                return None
            found = True
        elif isinstance(node, _STRICT):
            stack += [v for v in node.args.values() if isinstance(v, exp.Expression)]
        else:
            return None
    return "strict" if found else None


def _grouped(inner: Node, split: tuple[list[Link], list[Node]], extra: Sequence[Node], alias: str) -> Node:
    tied, own = split
    body = inner.copy()
    set_where(body, [*own, *extra])
    value = inner.expressions[0].unalias().copy()
    keys = [exp.alias_(link.inner.copy(), f"{alias}_k{n}") for n, link in enumerate(tied, 1)]
    body.set("expressions", [*keys, exp.alias_(value, f"{alias}_v")])
    body.set("group", exp.Group(expressions=[link.inner.copy() for link in tied]))
    body.set("order", None)
    return exp.Subquery(this=body, alias=exp.TableAlias(this=exp.to_identifier(alias)))


def _wanted(select: Node, term: Node, tied: Sequence[Link], schema: Schema) -> list[Node]:
    """Return conditions that keep the inner side to keys the outer rows can ask for."""
    others = [t for t in where(select) if t is not term and not t.find(exp.AggFunc)]
    out: list[Node] = []
    for link in tied:
        if not is_identity(link.inside, link.outside, schema):
            continue  # what holds for a value need not hold for one that is merely equal
        direct = [t for t in others if _only(t, link.outer, select, schema)]
        if direct:
            out += [_instead(t, link, select, schema) for t in direct]
            continue
        near = [t for t in others if _about(t, link.outside.alias, select, schema)]
        table = link.outside.table
        if near and table is not None and table.rows >= 100:
            source = next(s for a, s, _ in sources(select) if a == link.outside.alias)
            asked = exp.select(link.outer.copy()).from_(source.copy())
            set_where(asked, near)
            out.append(exp.In(this=link.inner.copy(), query=exp.Subquery(this=asked)))
    return out


def _only(term: Node, column: Node, select: Node, schema: Schema) -> bool:
    """Tell whether a condition speaks of this one column of the outer query, and of nothing else there."""
    mine = [c for c in term.find_all(exp.Column) if not _inner_column(c, term, schema)]
    # In a nested SELECT the inner column's name could be captured by a table there.
    if any(c.find_ancestor(exp.Select) is not select for c in mine):
        return False
    return bool(mine) and all(c == column for c in mine) and is_local(term, select, schema)


def _about(term: Node, alias: str, select: Node, schema: Schema) -> bool:
    if term.find(exp.Select) is not None:
        return False
    found = [owner(c, schema) for c in term.find_all(exp.Column)]
    return bool(found) and all(f is not None and f.select is select and f.alias == alias for f in found)


def _inner_column(column: Node, term: Node, schema: Schema) -> bool:
    found = owner(column, schema)
    at = found.select if found is not None else None
    while at is not None:
        if at is term:
            return True
        at = at.parent
    return False


def _instead(term: Node, link: Link, select: Node, schema: Schema) -> Node:
    paths = [c for c in term.find_all(exp.Column) if c == link.outer and not _inner_column(c, term, schema)]
    out = term
    for column in paths:
        if column is term:
            return link.inner.copy()
    marks = {id(c) for c in paths}

    def copy(node: Node) -> Node:
        if id(node) in marks:
            return link.inner.copy()
        return None

    done = out.copy()
    for old, new in zip(out.walk(), list(done.walk()), strict=True):
        better = copy(old)
        if better is not None:
            new.replace(better)
    return done


def aggregate_to_join(tree: Node, schema: Schema) -> Iterator[Form]:
    """``x < (SELECT avg(y) ... k = o)`` becomes a join with averages that are computed once per key."""
    for select in list(tree.find_all(exp.Select)):
        if any(isinstance(e, exp.Star) for e in select.expressions) or not _may_join(select):
            continue
        for term in where(select):
            if not isinstance(term, _COMPARED):
                continue
            for side in ("this", "expression"):
                node = term.args[side]
                inner = node.unnest() if isinstance(node, exp.Subquery) else None
                if not isinstance(inner, exp.Select) or not plain(inner, projection=False):
                    continue
                split = links(inner, schema) if _aggregate(inner, schema) == "strict" else None
                if split is not None and is_local(inner.expressions[0], inner, schema):
                    yield from _joined(tree, select, term, side, inner, split, schema)


def _joined(
    tree: Node,
    select: Node,
    term: Node,
    side: str,
    inner: Node,
    split: tuple[list[Link], list[Node]],
    schema: Schema,
) -> Iterator[Form]:
    alias = _free_alias(tree)
    tied = split[0]
    wanted = _wanted(select, term, tied, schema)
    for extra in ([wanted] if wanted else []) + [[]]:
        derived = _grouped(inner, split, extra, alias)
        better = term.copy()
        better.set(side, exp.column(f"{alias}_v", table=alias))
        terms = [t for t in where(select) if t is not term]
        same = [
            exp.EQ(this=exp.column(f"{alias}_k{n}", table=alias), expression=link.outer.copy())
            for n, link in enumerate(tied, 1)
        ]

        def change(node: Node, terms: Any = (*terms, *same, better), derived: Node = derived) -> None:
            set_where(node, terms)
            node.append("joins", exp.Join(this=derived))

        names = ", ".join(link.inner.sql() for link in tied)
        yield Form(
            "aggregate-to-join",
            on_copy(tree, select, change),
            f"one group per {names}, so no row is doubled; over no rows the aggregate is NULL and the "
            "comparison drops the row, as the join does",
            "Compute the aggregate once per key and join it",
        )


def count_to_join(tree: Node, schema: Schema) -> Iterator[Form]:
    """``SELECT a, (SELECT count(*) ... k = o)`` becomes a LEFT JOIN with counts; no group counts 0."""
    for select in list(tree.find_all(exp.Select)):
        joins = select.args.get("joins") or ()
        if not _may_join(select) or any(not (j.args.get("on") or j.args.get("using")) for j in joins):
            continue
        if not plain(select) and not _only_limited(select):
            continue
        if any(isinstance(e, exp.Star) for e in select.expressions):
            continue
        for item in select.expressions:
            node = item.unalias()
            inner = node.unnest() if isinstance(node, exp.Subquery) else None
            if not isinstance(inner, exp.Select) or not plain(inner, projection=False):
                continue
            kind = _aggregate(inner, schema)
            split = links(inner, schema) if kind is not None else None
            if split is None or not is_local(inner.expressions[0], inner, schema):
                continue
            yield _left_joined(tree, select, node, inner, split, kind == "count")


def _left_joined(
    tree: Node, select: Node, node: Node, inner: Node, split: tuple[list[Link], list[Node]], is_count: bool
) -> Form:
    alias = _free_alias(tree)
    derived = _grouped(inner, split, (), alias)
    on = all_of(
        [
            exp.EQ(this=exp.column(f"{alias}_k{n}", table=alias), expression=link.outer.copy())
            for n, link in enumerate(split[0], 1)
        ]
    )
    value: Any = exp.column(f"{alias}_v", table=alias)
    if is_count:
        value = exp.Coalesce(this=value, expressions=[exp.Literal.number(0)])
    better = on_copy(tree, node, replacing(value))
    # The copy of the SELECT is the nearest one around the new column.
    place = next(c for c in better.find_all(exp.Column) if c.table == alias).find_ancestor(exp.Select)
    place.append("joins", exp.Join(this=derived, side="LEFT", on=on))
    names = ", ".join(link.inner.sql() for link in split[0])
    return Form(
        "count-to-join" if is_count else "aggregate-to-left-join",
        better,
        f"one group per {names}, so no row is doubled; a row without a group keeps "
        f"{'0' if is_count else 'NULL'}",
        "Compute the aggregate once per key and join it",
    )


def _may_join(select: Node) -> bool:
    """Refuse where columns are named by NATURAL or USING over everything before."""
    return not any(j.args.get("method") for j in select.args.get("joins") or ()) and bool(sources(select))


def _only_limited(select: Node) -> bool:
    bare = select.copy()
    bare.set("limit", None)
    bare.set("offset", None)
    return plain(bare)


def _free_alias(tree: Node) -> str:
    taken = {t.alias_or_name.lower() for t in tree.find_all(exp.Table, exp.Subquery)}
    return next(f"per_key{n or ''}" for n in range(100) if f"per_key{n or ''}" not in taken)


RULES: Final = (
    Rule(
        "aggregate-to-join",
        "the aggregate is NULL over no rows, and does not depend on the order of rows; only equalities tie "
        "it to the outside",
        aggregate_to_join,
    ),
    Rule(
        "count-to-join",
        "one value per key; no row of the outer query is doubled or lost",
        count_to_join,
    ),
)
