"""Conditions, joins, groupings and orders of one SELECT, read as what an index could serve."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from sqlglot import exp

from eventperf.dbopt.schema.conditions import Ordering, Predicate, PredicateKind
from eventperf.dbopt.schema.ddl import normal_expression
from eventperf.dbopt.schema.engines import ENGINES

Node: TypeAlias = Any  # a tree's base class has another name in each major version of sqlglot

_RANGES: Final = (exp.GT, exp.GTE, exp.LT, exp.LTE)


@dataclass(slots=True)
class TableUse:
    """One table in one FROM, with all that is asked of it there.

    Attributes:
        table: Name in the schema.
        alias: Name in the statement.
        predicates: Conditions that all rows must meet.
        alternatives: Groups of OR: one tuple of conditions per branch.
        joins: Columns equated with another table's column: ``(mine, other alias, theirs)``.
        group_by: Columns grouped by, when all are this table's.
        order_by: What is ordered by, when the leading columns are this table's.
        columns: Every column the scope reads from it.
        limited: A LIMIT stands over the order.
        in_outer: It is the optional side of an outer join.
    """

    table: str
    alias: str
    predicates: list[Predicate] = field(default_factory=list)
    alternatives: list[list[tuple[Predicate, ...]]] = field(default_factory=list)
    joins: list[tuple[str, str, str]] = field(default_factory=list)
    group_by: tuple[str, ...] = ()
    order_by: tuple[Ordering, ...] = ()
    columns: set[str] = field(default_factory=set)
    limited: bool = False
    in_outer: bool = False
    min_max: tuple[str, ...] = ()
    distinct: tuple[str, ...] = ()


class Uses(dict[str, TableUse]):
    """Tables of one scope by alias, and the dialect to write expressions in."""

    def __init__(self, dialect: str) -> None:
        super().__init__()
        self.dialect = dialect


def conditions(select: exp.Select) -> Iterator[Node]:
    where = select.args.get("where")
    if where is not None:
        yield from _conjuncts(where.this)
    for join in select.args.get("joins") or ():
        on = join.args.get("on")
        if on is not None:
            yield from _conjuncts(on)


def _conjuncts(node: Node) -> Iterator[Node]:
    return _chain(node, exp.And)


def _disjuncts(node: Node) -> Iterator[Node]:
    return _chain(node, exp.Or)


def _chain(node: Node, kind: Any) -> Iterator[Node]:
    """Yield what is chained by AND or OR, in order; chains of thousands are no deeper than this loop."""
    left = [node]
    while left:
        at = left.pop().unnest()
        if isinstance(at, kind):
            left += [at.right, at.left]
        else:
            yield at


def read_condition(node: Node, uses: Uses) -> None:
    if isinstance(node, exp.Or):
        branches: dict[str, list[tuple[Predicate, ...]]] = {}
        parts = list(_disjuncts(node))
        for part in parts:
            found: dict[str, list[Predicate]] = {}
            for piece in _conjuncts(part):
                hit = _predicate(piece, uses)
                if hit is not None:
                    found.setdefault(hit[0], []).append(hit[1])
            for alias, predicates in found.items():
                branches.setdefault(alias, []).append(tuple(predicates))
        for alias, groups in branches.items():
            if len(groups) == len(parts):
                uses[alias].alternatives.append(groups)
        return
    if isinstance(node, exp.EQ):
        left, right = node.left.unnest(), node.right.unnest()
        if isinstance(left, exp.Column) and isinstance(right, exp.Column) and left.table != right.table:
            for mine, other in ((left, right), (right, left)):
                if mine.table in uses:
                    uses[mine.table].joins.append((mine.name, other.table, other.name))
            return
    if isinstance(node, exp.In) and node.args.get("query") is not None:
        left = node.this.unnest()
        if isinstance(left, exp.Column) and left.table in uses:
            uses[left.table].joins.append((left.name, "", ""))
        return
    hit = _predicate(node, uses)
    if hit is not None:
        uses[hit[0]].predicates.append(hit[1])


_SWAP: Final = {exp.GT: exp.LT, exp.LT: exp.GT, exp.GTE: exp.LTE, exp.LTE: exp.GTE}
_OPS: Final = {exp.GT: ">", exp.GTE: ">=", exp.LT: "<", exp.LTE: "<="}


def _predicate(node: Node, uses: Uses) -> tuple[str, Predicate] | None:
    """Read one condition as (alias, predicate), when it is about one table of this scope."""
    node = node.unnest()
    negated = isinstance(node, exp.Not)
    body = node.this.unnest() if negated else node
    if body.args.get("negate"):  # newer versions of sqlglot keep NOT LIKE in one node
        negated = not negated
    if isinstance(body, exp.Is) and isinstance(body.expression, exp.Null):
        return _on(body.this, "not_null" if negated else "null", (), uses, node)
    if negated:
        return _on(body, "other", (), uses, node)
    if isinstance(body, exp.Column):
        return _on(body, "eq", (True,), uses, node)
    if isinstance(body, exp.Between):
        return _on(body.this, "range", _values(body.args["low"], body.args["high"]), uses, node, "between")
    if isinstance(body, exp.In):
        return _on(body.this, "in", _values(*body.expressions), uses, node)
    if isinstance(body, exp.Escape):
        body = body.this
    if isinstance(body, (exp.Like, exp.ILike, exp.Glob)):
        return _like(body, uses, node)
    if isinstance(body, tuple(_CONTAINS)):
        return _contains(body, uses, node)
    if isinstance(body, (exp.EQ, exp.NullSafeEQ, *_RANGES)):
        left, right = body.left.unnest(), body.right.unnest()
        kind: Any = type(body)
        if not _tables(left, uses) and _tables(right, uses):
            left, right, kind = right, left, _SWAP.get(kind, kind)
        if _tables(right, uses) & _tables(left, uses):
            return None
        what: PredicateKind = "range" if kind in _RANGES else "eq"
        collation = next((c for c in map(_collation, (left, right)) if c is not None), None)
        return _on(_bare(left), what, _values(_bare(right)), uses, node, _OPS.get(kind), collation)
    return None


#: Operators that only an inverted index or a tree of boxes can serve.
_CONTAINS: Final[dict[type, str]] = {
    getattr(exp, name): op
    for name, op in (
        ("ArrayContainsAll", "@>"),
        ("ArrayContainedBy", "<@"),
        ("ArrayOverlaps", "&&"),
        ("JSONBContains", "?"),
        ("JSONBContainsTopKey", "?"),
        ("JSONBContainsAnyTopKeys", "?|"),
        ("JSONBContainsAllTopKeys", "?&"),
        ("MatchAgainst", "@@"),
    )
    if hasattr(exp, name)  # some have another name in each version of sqlglot
}
_TURNED: Final = {"@>": "<@", "<@": "@>"}


def _contains(body: Node, uses: Uses, node: Node) -> tuple[str, Predicate] | None:
    op = _CONTAINS[type(body)]
    sides = [body.this, *(body.expressions or [body.expression])]
    if op == "@@":
        sides.reverse()
    left, right = (s.unnest() for s in sides[:2])
    if not _tables(left, uses) and _tables(right, uses):
        left, right, op = right, left, _TURNED.get(op, op)
    if _tables(right, uses):
        return None
    return _on(left, "contains", _values(right), uses, node, op)


def _bare(node: Node) -> Node:
    """Return an operand without the collation it names."""
    return node.this.unnest() if isinstance(node, exp.Collate) else node


def _collation(node: Node) -> str | None:
    return str(node.expression.name).upper() if isinstance(node, exp.Collate) else None


def _like(body: Node, uses: Uses, node: Node) -> tuple[str, Predicate] | None:
    pattern = _values(body.expression)
    first = pattern[0] if pattern else ""
    kind: PredicateKind = "prefix"
    is_glob = isinstance(body, exp.Glob)
    if isinstance(first, str) and not first.startswith(":p") and first[:1] in ("*?[" if is_glob else "%_"):
        kind = "infix"
    op = "glob" if is_glob else "ilike" if isinstance(body, exp.ILike) else "like"
    column = body.this.unnest()
    return _on(_bare(column), kind, pattern, uses, node, op, _collation(column))


def _tables(node: Node, uses: Uses) -> set[str]:
    return {c.table for c in node.find_all(exp.Column) if c.table in uses}


def _on(
    node: Node,
    kind: PredicateKind,
    values: tuple[Any, ...],
    uses: Uses,
    whole: Node,
    op: str | None = None,
    collation: str | None = None,
) -> tuple[str, Predicate] | None:
    node = node.unnest()
    if isinstance(node, exp.Column):
        found = Predicate(node.name, kind, values, node=whole, op=op, collation=collation)
        return (node.table, found) if node.table in uses else None
    columns = list(node.find_all(exp.Column))
    tables = {c.table for c in columns}
    if len(tables) != 1 or not tables <= uses.keys() or node.find(exp.Select, exp.AggFunc) is not None:
        return None
    if kind == "other" or node.find(exp.Placeholder) is not None:
        return columns[0].table, Predicate(columns[0].name, "other", values, node=whole)
    bare = node.copy()
    for column in bare.find_all(exp.Column):
        column.set("table", None)
    text = normal_expression(bare.sql(dialect=uses.dialect), uses.dialect)
    return columns[0].table, Predicate(columns[0].name, "function", values, text, kind, whole, op)


def _values(*nodes: Node) -> tuple[Any, ...]:
    out: list[Any] = []
    for node in nodes:
        node = node.unnest()
        sign = 1
        if isinstance(node, exp.Neg):
            node, sign = node.this, -1
        if isinstance(node, exp.Cast):
            node = node.this
        if isinstance(node, exp.Placeholder):
            out.append(f":{node.name}")
        elif isinstance(node, exp.Literal) and node.is_string:
            out.append(node.name)
        elif isinstance(node, exp.Literal):
            out.append(
                sign * (float(node.name) if "." in node.name or "e" in node.name.lower() else int(node.name))
            )
        elif isinstance(node, exp.Boolean):
            out.append(bool(node.this))
        else:
            out.append(None)
    return tuple(out)


def read_shape(select: exp.Select, uses: Uses) -> None:
    """Grouping and ordering that one table alone can serve."""
    group = select.args.get("group")
    projections = {e.alias: e.this for e in select.expressions if isinstance(e, exp.Alias)}
    if group is not None:
        columns = [_project(e, select, projections) for e in group.expressions]
        owner = _owner(columns, uses)
        if owner is not None:
            owner.group_by = tuple(c.name for c in columns if isinstance(c, exp.Column))
    if select.args.get("distinct") is not None:
        columns = [_project(e.unalias(), select, projections) for e in select.expressions]
        owner = _owner(columns, uses)
        if owner is not None:
            owner.distinct = tuple(c.name for c in columns if isinstance(c, exp.Column))
    order = select.args.get("order")
    if order is not None:
        keys = [(_project(_bare(o.this), select, projections), o) for o in order.expressions]
        first = keys[0][0]
        if isinstance(first, exp.Column) and first.table in uses:
            own = []
            for column, ordered in keys:
                if not isinstance(column, exp.Column) or column.table != first.table:
                    break
                own.append(_ordering(column, ordered, _collation(ordered.this), uses.dialect))
            uses[first.table].order_by = tuple(own)
            uses[first.table].limited = select.args.get("limit") is not None
    aggregates = [e.unalias() for e in select.expressions]
    if group is None and aggregates and all(isinstance(a, (exp.Min, exp.Max)) for a in aggregates):
        owner = _owner([a.this for a in aggregates], uses)
        if owner is not None:
            owner.min_max = tuple(a.this.name for a in aggregates)


def _ordering(column: Node, ordered: Node, collation: str | None, dialect: str) -> Ordering:
    descending, nulls = bool(ordered.args.get("desc")), ordered.args.get("nulls_first")
    usual = descending if ENGINES[dialect].nulls_are_large else not descending
    return Ordering(
        column.name, descending, None if nulls is None or bool(nulls) == usual else bool(nulls), collation
    )


def _project(node: Node, select: exp.Select, names: dict[str, Node]) -> Node:
    node = node.unnest()
    if isinstance(node, exp.Literal) and not node.is_string and node.name.isdigit():
        position = int(node.name) - 1
        if position < len(select.expressions):
            return select.expressions[position].unalias()
    if isinstance(node, exp.Column) and not node.table and node.name in names:
        return names[node.name]
    return node


def _owner(columns: list[Node], uses: Uses) -> TableUse | None:
    tables = {c.table if isinstance(c, exp.Column) else None for c in columns}
    if len(tables) != 1:
        return None
    (name,) = tables
    return uses.get(name) if name is not None else None
