"""A day or a year of a column becomes a range of the column."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from typing import Any, Final

from sqlglot import exp

from eventperf.dbopt.rewrites.tree import Form, Node, all_of, on_copy, owner
from eventperf.dbopt.rewrites.trust import base_type
from eventperf.dbopt.schema.model import Column, Schema
from eventperf.dbopt.schema.types import category

from .rule import Rule


def date_range(tree: Node, schema: Schema) -> Iterator[Form]:
    """``date(created_at) = '2026-05-01'`` is a range of ``created_at``; so is a year."""
    if schema.dialect == "sqlite":
        return  # SQLite keeps dates as text of any form: nothing in a schema proves which
    for node in list(tree.find_all(exp.EQ)):
        left, right = node.left.unnest(), node.right.unnest()
        read = _dated(left)
        if read is None:
            continue
        column, part = read
        found = owner(column, schema)
        if found is None or found.column is None or not _has_ranges(found.column, part, schema.dialect):
            continue
        span = _span(right, part)
        if span is None:
            continue
        both = _range(column, *span, schema.dialect)

        def to_range(n: Node, both: Any = both) -> None:
            n.replace(exp.Paren(this=all_of(both)))

        yield Form(
            "date-to-range",
            on_copy(tree, node, to_range),
            f"{found.column.name} is a {found.column.type} without zone: the {part} is a range of it",
            "Compare the bare column with a range, so that an index on it can be used",
        )


def _range(column: Node, first: dt.date, after: dt.date, dialect: str) -> list[Node]:
    """Return the terms of a range; on MySQL a 2024-01-00 lies between December and 2024-01-01."""
    low = exp.Literal.string(first.isoformat())
    if dialect == "mysql":
        end = exp.Literal.string(f"{(after - dt.timedelta(days=1)).isoformat()} 23:59:59.999999")
        return [exp.GTE(this=column.copy(), expression=low), exp.LTE(this=column.copy(), expression=end)]
    high = exp.Literal.string(after.isoformat())
    return [exp.GTE(this=column.copy(), expression=low), exp.LT(this=column.copy(), expression=high)]


def _has_ranges(column: Column, part: str, dialect: str) -> bool:
    """Tell whether a day (a year) of a column is a half-open range of it.

    MySQL's TIMESTAMP is kept in UTC and read in the session's zone, where a day may begin twice; and the
    year of its 2026-00-00 is 2026.
    """
    if dialect == "mysql":
        return part == "day" and base_type(column) in ("date", "datetime")
    return category(column.type) in ("date", "time")


def _dated(node: Node) -> tuple[Node, str] | None:
    """Read ``DATE(c)``, ``CAST(c AS DATE)`` or ``YEAR(c)``."""
    inner = node.this if isinstance(node, exp.Expression) else None
    while isinstance(inner, exp.TsOrDsToDate):
        inner = inner.this
    if isinstance(node, exp.Extract) and isinstance(node.expression, exp.Column):
        return (node.expression, "year") if node.name.lower() == "year" else None
    if not isinstance(inner, exp.Column):
        return None
    if isinstance(node, exp.Year):
        return inner, "year"
    if isinstance(node, (exp.Date, exp.TsOrDsToDate)) and not node.expressions and not node.args.get("zone"):
        return inner, "day"
    if isinstance(node, exp.Cast) and node.to.this == exp.DataType.Type.DATE:
        return inner, "day"
    return None


def _span(node: Node, part: str) -> tuple[dt.date, dt.date] | None:
    if isinstance(node, exp.Cast) and node.to.this == exp.DataType.Type.DATE:
        node = node.this
    if not isinstance(node, exp.Literal):
        return None
    try:
        if part == "year":
            year = int(node.name)
            return dt.date(year, 1, 1), dt.date(year + 1, 1, 1)
        if len(node.name) != 10:
            return None
        day = dt.date.fromisoformat(node.name)
        return day, day + dt.timedelta(days=1)
    except (ValueError, OverflowError):
        return None


RULES: Final = (
    Rule(
        "date-to-range",
        "the column is a date or a time without zone: a day is a range; a year is one where no date has a "
        "month or a day of zero",
        date_range,
        is_simpler=True,
    ),
)
