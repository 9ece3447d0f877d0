"""EXISTS, IN and counts that ask whether there is a row at all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sqlglot import exp

from eventperf.dbopt.rewrites.tree import Form, Node, on_copy, owner, plain, set_where, sources, where
from eventperf.dbopt.rewrites.trust import same_kind
from eventperf.dbopt.schema.model import Schema

from .links import links
from .rule import Rule, replacing

_COMPARED: Final = (exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE)


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
                on_copy(tree, term, replacing(better)),
                condition,
                "Ask for membership in a set that is computed once, not for each row",
            )


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
            if left.alias.lower() in inner_names or not same_kind(left, right, schema):
                continue
            body = inner.copy()
            mine = exp.column(column.name, table=right.alias, quoted=True)
            theirs = exp.column(inside.this.name, table=left.alias, quoted=True)
            set_where(body, [*where(inner), exp.EQ(this=mine, expression=theirs)])
            body.set("expressions", [exp.Literal.number(1)])
            yield Form(
                "not-in-to-anti-join",
                on_copy(tree, term, replacing(exp.Not(this=exp.Exists(this=body)))),
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
        if not isinstance(counted, exp.Count) or not _counts_rows(counted, inner, schema):
            continue
        wanted = _EXISTS.get((kind, right.name))
        if wanted is None:
            continue
        body = inner.copy()
        body.set("expressions", [exp.Literal.number(1)])
        better: Any = exp.Exists(this=body)
        yield Form(
            "count-to-exists",
            on_copy(tree, node, replacing(better if wanted else exp.Not(this=better))),
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


def _counts_rows(node: Node, inner: Node, schema: Schema) -> bool:
    if node.find(exp.Distinct) is not None or node.expressions:
        return False
    if isinstance(node.this, (exp.Star, exp.Literal)):
        return True
    found = owner(node.this, schema) if isinstance(node.this, exp.Column) else None
    return found is not None and found.select is inner and not found.nullable


RULES: Final = (
    Rule("exists-to-in", "only equalities of one type and collation tie it to the outside", exists_to_in),
    Rule(
        "count-to-exists",
        "rows are counted, not values that may be NULL; no group, no LIMIT",
        count_to_exists,
        is_simpler=True,
    ),
    Rule(
        "not-in-to-anti-join",
        "neither side can be NULL, and both have one type and collation",
        not_in_to_anti_join,
        is_simpler=True,
    ),
)
