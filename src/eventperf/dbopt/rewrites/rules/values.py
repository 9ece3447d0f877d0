"""Conditions on an expression become conditions on the bare column, which an index can serve."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sqlglot import exp

from eventperf.dbopt.rewrites.tree import Form, Node, on_copy, owner
from eventperf.dbopt.rewrites.trust import is_whole
from eventperf.dbopt.schema.model import Schema

from .rule import Rule

_RANGES: Final = (exp.GT, exp.GTE, exp.LT, exp.LTE)
_TEXT: Final = {
    "postgres": (exp.DataType.Type.TEXT, exp.DataType.Type.VARCHAR),  # CHAR alone is char(1) there
    "mysql": (exp.DataType.Type.TEXT, exp.DataType.Type.VARCHAR, exp.DataType.Type.CHAR),
}


def bare_column(tree: Node, schema: Schema) -> Iterator[Form]:
    """``column + 5 > 10`` is ``column > 5`` for whole numbers."""
    for node in list(tree.find_all(exp.EQ, *_RANGES)):
        left, right = node.left.unnest(), node.right.unnest()
        if not (isinstance(left, (exp.Add, exp.Sub)) and isinstance(left.left, exp.Column)):
            continue
        if not all(isinstance(v, exp.Literal) and v.is_int for v in (left.right, right)):
            continue
        found = owner(left.left, schema)
        column = found.column if found is not None else None
        if found is None or column is None or not is_whole(column, found.table, schema.dialect):
            continue  # 'n/a' + 5 is 5 in SQLite, and the text itself is above every number
        change = int(left.right.name)
        value = int(right.name) - change if isinstance(left, exp.Add) else int(right.name) + change
        number: Any = exp.Literal.number(abs(value))

        def to_bare(n: Node, column: Node = left.left, value: int = value, number: Any = number) -> None:
            n.set("this", column.copy())
            n.set("expression", number if value >= 0 else exp.Neg(this=number))

        yield Form(
            "bare-column",
            on_copy(tree, node, to_bare),
            f"{column.name} holds whole numbers (as long as the sum does not overflow)",
            "Compare the bare column, so that an index on it can be used",
        )


def typed_literal(tree: Node, schema: Schema) -> Iterator[Form]:
    """``CAST(id AS TEXT) = '5'`` is ``id = 5`` for a whole number."""
    types = _TEXT.get(schema.dialect)
    if types is None:
        return  # a column of any declared type may hold any value in SQLite
    for node in list(tree.find_all(exp.EQ)):
        left, right = node.left.unnest(), node.right.unnest()
        if not isinstance(left, exp.Cast) or not isinstance(left.this, exp.Column):
            continue
        if left.to.this not in types or left.to.expressions:
            continue
        if not isinstance(right, exp.Literal) or not right.is_string:
            continue
        found = owner(left.this, schema)
        column = found.column if found is not None else None
        if found is None or column is None or not is_whole(column, found.table, schema.dialect):
            continue
        try:
            value = int(right.name)
        except ValueError:
            continue
        if str(value) != right.name or not 0 <= value < 2**31:
            continue

        def to_number(n: Node, column: Node = left.this, value: int = value) -> None:
            n.set("this", column.copy())
            n.set("expression", exp.Literal.number(value))

        yield Form(
            "typed-literal",
            on_copy(tree, node, to_number),
            f"{column.name} is {column.type}, and only {value} is written {right.name!r}",
            "Compare the column with a value of its own type",
        )


RULES: Final = (
    Rule(
        "bare-column",
        "the column can hold whole numbers only, and the sum does not overflow",
        bare_column,
        is_simpler=True,
    ),
    Rule(
        "typed-literal",
        "the column can hold whole numbers only, and the text is how that number is written",
        typed_literal,
        is_simpler=True,
    ),
)
