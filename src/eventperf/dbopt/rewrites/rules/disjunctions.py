"""OR: as IN, with what its branches share taken out, or as two searches."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sqlglot import exp

from eventperf.dbopt.rewrites.tree import (
    Form,
    Node,
    all_of,
    conjuncts,
    disjuncts,
    on_copy,
    owner,
    plain,
    set_where,
    where,
)
from eventperf.dbopt.schema.model import Schema

from .rule import Rule, replacing


def or_to_in(tree: Node, schema: Schema) -> Iterator[Form]:
    """``a = 1 OR a = 2`` is ``a IN (1, 2)``."""
    for node in list(tree.find_all(exp.Or)):
        if isinstance(node.parent, exp.Or):
            continue
        terms = list(disjuncts(node))
        pairs = [_constant(t) for t in terms]
        if any(p is None for p in pairs) or len({p[0].sql() for p in pairs if p is not None}) != 1:
            continue
        kinds = {_kind(v) for p in pairs if p is not None for v in p[1]}
        if len(kinds) != 1 or None in kinds or (schema.dialect == "mysql" and "parameter" in kinds):
            continue  # MySQL compares every value of a mixed IN as a number
        column = pairs[0][0]  # type: ignore[index]
        values = [v.copy() for p in pairs if p is not None for v in p[1]]
        better = exp.In(this=column.copy(), expressions=values)
        yield Form(
            "or-to-in",
            on_copy(tree, node, replacing(better)),
            "IN is defined as the OR of these equalities, with NULLs as well",
            "Use IN",
        )


def _kind(value: Node) -> str | None:
    if isinstance(value, exp.Placeholder):
        return "parameter"
    if not isinstance(value, exp.Literal):
        return None
    return "text" if value.is_string else "whole" if value.is_int else None


def _constant(node: Node) -> tuple[Node, list[Node]] | None:
    if isinstance(node, exp.In) and isinstance(node.this, exp.Column) and node.expressions:
        return node.this, list(node.expressions)
    if not isinstance(node, exp.EQ):
        return None
    left, right = node.left.unnest(), node.right.unnest()
    if isinstance(left, (exp.Literal, exp.Placeholder)):
        left, right = right, left
    ok = isinstance(left, exp.Column) and isinstance(right, (exp.Literal, exp.Placeholder))
    return (left, [right]) if ok else None


def common_factor(tree: Node, schema: Schema) -> Iterator[Form]:
    """``(x AND a) OR (x AND b)`` is ``x AND (a OR b)``: a join condition comes out of the OR."""
    for node in list(tree.find_all(exp.Or)):
        if isinstance(node.parent, exp.Or):
            continue
        branches = [list(conjuncts(t)) for t in disjuncts(node)]
        if not _is_condition(node):
            continue
        texts = [{t.sql() for t in b} for b in branches]
        common = set.intersection(*texts)
        shared = list({t.sql(): t for t in branches[0] if t.sql() in common}.values())
        if not shared:
            continue
        rests = [all_of([t for t in b if t.sql() not in common]) for b in branches]
        body = all_of(shared)
        if all(r is not None for r in rests):
            either = exp.or_(*rests, copy=False)
            body = exp.and_(body, exp.Paren(this=either), copy=False)
        yield Form(
            "common-factor",
            on_copy(tree, node, replacing(exp.Paren(this=body))),
            "AND distributes over OR in three-valued logic as well",
            "State once what every branch demands, so that it can join or be looked up",
        )


def _is_condition(node: Node) -> bool:
    """Tell whether only the truth of a node counts, not its value."""
    at = node.parent
    while isinstance(at, (exp.And, exp.Or, exp.Not, exp.Paren)):
        at = at.parent
    return isinstance(at, (exp.Where, exp.Having, exp.Join))


def or_to_union(tree: Node, schema: Schema) -> Iterator[Form]:
    """``WHERE a OR b`` is two searches; the second leaves out what the first found."""
    if not isinstance(tree, exp.Select):
        return
    bare = tree.copy()
    for part in ("order", "limit", "offset"):
        bare.set(part, None)
    if not plain(bare) or not _orders_by_output(tree, schema):
        return
    for term in where(tree):
        branches = list(disjuncts(term))
        if len(branches) != 2 or any(b.find(exp.Select) for b in branches):
            continue
        if {c.sql() for c in branches[0].find_all(exp.Column)} == {
            c.sql() for c in branches[1].find_all(exp.Column)
        }:
            continue
        rest = [t for t in where(tree) if t is not term]
        first, second = bare.copy(), bare.copy()
        is_true = exp.Is(this=exp.Paren(this=branches[0].copy()), expression=exp.Boolean(this=True))
        set_where(first, [*rest, branches[0]])
        set_where(second, [*rest, branches[1], exp.Not(this=exp.Paren(this=is_true))])
        union: Any = exp.Union(this=first, expression=second, distinct=False)
        for part in ("order", "limit", "offset"):
            if tree.args.get(part) is not None:
                union.set(part, tree.args[part].copy())
        yield Form(
            "or-to-union-all",
            union,
            "the branches are disjoint: the second leaves out the rows for which the first is true, and "
            "keeps those for which it is NULL",
            "Search each branch through its own index",
        )


def _orders_by_output(select: Node, schema: Schema) -> bool:
    order = select.args.get("order")
    items = {e.alias_or_name: e.unalias() for e in select.expressions}
    names = [e.alias_or_name for e in select.expressions]
    for ordered in order.expressions if order is not None else ():
        key = ordered.this
        if not isinstance(key, exp.Column) or key.table or names.count(key.name) != 1:
            return False
        found = owner(items[key.name], schema) if isinstance(items[key.name], exp.Column) else None
        column = found.column if found is not None else None
        if schema.dialect != "postgres" and column is None:
            return False
        if schema.dialect == "sqlite" and column is not None and column.collation:
            return False  # a compound SELECT may order by another collation
        if schema.dialect == "mysql" and column is not None and column.type.startswith(("enum", "set")):
            return False  # in a UNION they are texts, and in the order of texts
    return True


RULES: Final = (
    Rule(
        "common-factor",
        "AND distributes over OR, in three-valued logic as well; the OR is a condition, not a value",
        common_factor,
    ),
    Rule(
        "or-to-in", "every branch compares one column with a constant of one kind", or_to_in, is_simpler=True
    ),
    Rule(
        "or-to-union-all",
        "the second search leaves out the rows for which the first condition is true, and keeps those for "
        "which it is NULL",
        or_to_union,
    ),
)
