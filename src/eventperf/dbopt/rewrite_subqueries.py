"""Rules for subqueries: correlated ones become sets that are computed once.

The transformations are those of Kim, "On Optimizing an SQL-like Nested Query", TODS 1982, with the
corrections for empty groups and duplicates of Ganski and Wong, SIGMOD 1987, and the restriction of the
inner side to keys that can be asked for (Mumick, Pirahesh, "Implementation of Magic-sets", SIGMOD 1994).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final, NamedTuple

from sqlglot import exp

from .rewrite_tree import (
    Form,
    Node,
    Owner,
    all_of,
    is_local,
    on_copy,
    owner,
    plain,
    same_kind,
    set_where,
    sources,
    where,
)
from .schema.model import Schema

_COMPARED: Final = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE)
_EMPTY_IS_NULL: Final = (exp.Sum, exp.Avg, exp.Min, exp.Max)
_STRICT: Final = (exp.Mul, exp.Add, exp.Sub, exp.Div, exp.Neg, exp.Paren, exp.Literal, exp.Cast, exp.DataType)


class Link(NamedTuple):
    """One condition that ties a subquery to the query around it: ``inner = outer``."""

    inner: Node
    outer: Node
    inside: Owner
    outside: Owner


def links(inner: Node, schema: Schema) -> tuple[list[Link], list[Node]] | None:
    """Split a subquery's conditions into equalities with the query around it, and its own.

    Returns:
        ``None`` when it depends on the outside in any other way, or is not tied to it at all.
    """
    outer = inner.find_ancestor(exp.Select)
    tied: list[Link] = []
    own: list[Node] = []
    for term in where(inner):
        if is_local(term, inner, schema):
            own.append(term)
            continue
        left, right = (term.left.unnest(), term.right.unnest()) if isinstance(term, exp.EQ) else (None, None)
        if not isinstance(left, exp.Column) or not isinstance(right, exp.Column):
            return None
        one, two = owner(left, schema), owner(right, schema)
        if one is None or two is None:
            return None
        if one.select is not inner:
            left, right, one, two = right, left, two, one
        if one.select is not inner or two.select is not outer or not same_kind(one, two):
            return None
        tied.append(Link(left, right, one, two))
    elsewhere = [v for k, v in inner.args.items() if k not in ("where", "expressions")]
    for part in elsewhere:
        for node in part if isinstance(part, list) else [part]:
            if hasattr(node, "find_all") and not is_local(node, inner, schema):
                return None
    return (tied, own) if tied else None


def _exists(node: Node) -> tuple[Node, bool] | None:
    negated = isinstance(node, exp.Not)
    body = node.this.unnest() if negated else node
    if not isinstance(body, exp.Exists):
        return None
    inner = body.this.unnest() if isinstance(body.this, exp.Subquery) else body.this
    return (inner, negated) if isinstance(inner, exp.Select) else None


def exists_to_in(tree: Node, schema: Schema) -> Iterator[Form]:
    """``EXISTS (... k = o)`` is ``o IN (SELECT k ...)``: the set is built once."""
    for select in list(tree.find_all(exp.Select)):
        for term in where(select):
            found = _exists(term)
            if found is None:
                continue
            inner, negated = found
            split = links(inner, schema) if plain(inner) else None
            if split is None:
                continue
            tied, own = split
            if negated and any(link.outside.nullable for link in tied):
                continue  # NOT EXISTS keeps a row whose key is NULL, NOT IN does not
            body = inner.copy()
            needed = [link.inner for link in tied if link.inside.nullable] if negated else []
            present = [exp.Not(this=exp.Is(this=c.copy(), expression=exp.Null())) for c in needed]
            set_where(body, [*own, *present])
            body.set("expressions", [link.inner.copy() for link in tied])
            body.set("order", None)
            keys = [link.outer.copy() for link in tied]
            left = keys[0] if len(keys) == 1 else exp.Tuple(expressions=keys)
            better: Any = exp.In(this=left, query=exp.Subquery(this=body))
            if negated:
                better = exp.Not(this=better)
            names = " and ".join(link.outer.sql() for link in tied)
            condition = f"the subquery asks only for equality with {names}, types and collations agree"
            if negated:
                condition += f"; {names} cannot be NULL, and NULLs inside are left out"
            yield Form(
                "not-exists-to-not-in" if negated else "exists-to-in",
                on_copy(tree, term, _replacing(better)),
                condition,
                "Ask for membership in a set that is computed once, not for each row",
            )


def _replacing(better: Node) -> Any:
    return lambda node: node.replace(better)


def _aggregate(inner: Node) -> str | None:
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
            if node.find(exp.Select, exp.Window) is not None:
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
                split = links(inner, schema) if _aggregate(inner) == "strict" else None
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
            "comparison drops the row, as the join does (sums of floats may differ in their last digit)",
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
            kind = _aggregate(inner)
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
    better = on_copy(tree, node, _replacing(value))
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


def not_in_to_anti_join(tree: Node, schema: Schema) -> Iterator[Form]:
    """NOT IN (SELECT c ...) is NOT EXISTS when neither side can be NULL."""
    for select in list(tree.find_all(exp.Select)):
        for term in where(select):
            inside = term.this.unnest() if isinstance(term, exp.Not) else None
            query = inside.args.get("query") if isinstance(inside, exp.In) else None
            inner = query.unnest() if query is not None else None
            if inside is None or not isinstance(inner, exp.Select):
                continue
            if len(inner.expressions) != 1 or not plain(inner):
                continue
            column = inner.expressions[0].unalias()
            if not isinstance(inside.this, exp.Column) or not isinstance(column, exp.Column):
                continue
            left, right = owner(inside.this, schema), owner(column, schema)
            if left is None or right is None or left.nullable or right.nullable:
                continue
            inner_names = {a.lower() for a, _, _ in sources(inner)}
            if left.alias.lower() in inner_names or not same_kind(left, right):
                continue
            body = inner.copy()
            mine = exp.column(column.name, table=right.alias, quoted=True)
            theirs = exp.column(inside.this.name, table=left.alias, quoted=True)
            set_where(body, [*where(inner), exp.EQ(this=mine, expression=theirs)])
            body.set("expressions", [exp.Literal.number(1)])
            yield Form(
                "not-in-to-anti-join",
                on_copy(tree, term, _replacing(exp.Not(this=exp.Exists(this=body)))),
                f"neither {inside.this.name} nor {column.name} can be NULL",
                "Use NOT EXISTS: it stops at the first match, and no NULL can empty the result",
            )


def count_to_exists(tree: Node, schema: Schema) -> Iterator[Form]:
    """``(SELECT count(*) ...) > 0`` is EXISTS."""
    each: list[Any] = list(tree.find_all(*_COMPARED))
    for node in each:
        left, right, kind = node.left, node.right, type(node)
        if isinstance(right, exp.Subquery):
            left, right, kind = right, left, _MIRROR.get(kind, kind)
        inner = left.unnest() if isinstance(left, exp.Subquery) else None
        if not isinstance(inner, exp.Select) or not plain(inner, projection=False):
            continue
        if len(inner.expressions) != 1 or not isinstance(right, exp.Literal) or not right.is_int:
            continue
        counted = inner.expressions[0].unalias()
        if not isinstance(counted, exp.Count) or not _counts_rows(counted, schema):
            continue
        wanted = _EXISTS.get((kind, right.name))
        if wanted is None:
            continue
        body = inner.copy()
        body.set("expressions", [exp.Literal.number(1)])
        better: Any = exp.Exists(this=body)
        yield Form(
            "count-to-exists",
            on_copy(tree, node, _replacing(better if wanted else exp.Not(this=better))),
            "a count of rows is never NULL, and is above 0 exactly when a row exists",
            "Ask whether a row exists: the search stops at the first one",
        )


_MIRROR: Final[dict[Any, Any]] = {exp.GT: exp.LT, exp.LT: exp.GT, exp.GTE: exp.LTE, exp.LTE: exp.GTE}
_EXISTS: Final[dict[Any, bool]] = {
    (exp.GT, "0"): True,
    (exp.GTE, "1"): True,
    (exp.NEQ, "0"): True,
    (exp.EQ, "0"): False,
    (exp.LT, "1"): False,
    (exp.LTE, "0"): False,
}


def _counts_rows(node: Node, schema: Schema) -> bool:
    if node.find(exp.Distinct) is not None:
        return False
    if isinstance(node.this, (exp.Star, exp.Literal)):
        return True
    found = owner(node.this, schema) if isinstance(node.this, exp.Column) else None
    return found is not None and not found.nullable


def _unordered(node: Node) -> None:
    node.set("order", None)


def needless_order(tree: Node, schema: Schema) -> Iterator[Form]:
    """ORDER BY inside IN or EXISTS, without LIMIT, sorts for nobody."""
    each: list[Any] = list(tree.find_all(exp.In, exp.Exists))
    for node in each:
        query = node.args.get("query") if isinstance(node, exp.In) else node.this
        inner = query.unnest() if isinstance(query, exp.Subquery) else query
        if isinstance(inner, exp.Select) and inner.args.get("order") and not inner.args.get("limit"):
            yield Form(
                "needless-order",
                on_copy(tree, inner, _unordered),
                "membership and existence do not depend on order",
                "Leave ORDER BY out of the subquery",
            )


__all__ = [
    "aggregate_to_join",
    "count_to_exists",
    "count_to_join",
    "exists_to_in",
    "needless_order",
    "not_in_to_anti_join",
]
