"""Work that changes nothing: DISTINCT over rows that differ anyway, ORDER BY that nobody sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sqlglot import exp

from eventperf.dbopt.rewrites.tree import Form, Node, on_copy
from eventperf.dbopt.rewrites.trust import base_tables, decides_all
from eventperf.dbopt.schema.model import Schema

from .rule import Rule


def needless_distinct(tree: Node, schema: Schema) -> Iterator[Form]:
    """DISTINCT over rows that already differ: the projected columns decide a key of every table."""
    for select in list(tree.find_all(exp.Select)):
        if select.args.get("distinct") is None or select.args.get("group") is not None:
            continue
        if any(e.find(exp.AggFunc, exp.Window) for e in select.expressions):
            continue
        tables = base_tables(select, schema)
        if tables is None or not decides_all(select, select.expressions, tables, schema):
            continue
        names = ", ".join(t.name for _, t in tables)
        yield Form(
            "needless-distinct",
            on_copy(tree, select, lambda n: n.set("distinct", None)),
            f"the projected columns decide a key of {names}, so no two rows are equal",
            "Leave DISTINCT out",
        )


def needless_order(tree: Node, schema: Schema) -> Iterator[Form]:
    """ORDER BY inside IN or EXISTS, where nothing is cut off by it, sorts for nobody."""
    each: list[Any] = list(tree.find_all(exp.In, exp.Exists))
    for node in each:
        query = node.args.get("query") if isinstance(node, exp.In) else node.this
        inner = query.unnest() if isinstance(query, exp.Subquery) else query
        if not isinstance(inner, exp.Select) or not inner.args.get("order"):
            continue
        if inner.args.get("limit") or inner.args.get("offset"):
            continue  # which rows are left then depends on the order
        yield Form(
            "needless-order",
            on_copy(tree, inner, _unordered),
            "membership and existence do not depend on order",
            "Leave ORDER BY out of the subquery",
        )


def _unordered(node: Node) -> None:
    node.set("order", None)


RULES: Final = (
    Rule(
        "needless-distinct",
        "the projected columns decide a key of every table: valid, whole, never NULL, of the column's own "
        "collation, and not of a parent whose children hold rows",
        needless_distinct,
        is_simpler=True,
    ),
    Rule(
        "needless-order",
        "the subquery has no LIMIT and no OFFSET, and is asked for membership or existence only",
        needless_order,
        is_simpler=True,
    ),
)
