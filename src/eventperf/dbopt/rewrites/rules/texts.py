"""The first characters of a column become a range, or LIKE."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from sqlglot import exp

from eventperf.dbopt.rewrites.tree import Form, Node, all_of, conjuncts, on_copy, owner
from eventperf.dbopt.rewrites.trust import affinity, base_type
from eventperf.dbopt.schema.model import Column, Schema

from .rule import Rule


def text_prefix(tree: Node, schema: Schema) -> Iterator[Form]:
    """``substr(code, 1, 3) = 'abc'`` starts with 'abc': LIKE on PostgreSQL, a range on SQLite."""
    for node in list(tree.find_all(exp.EQ)):
        left, right = node.left.unnest(), node.right.unnest()
        column = _head(left, right)
        found = owner(column, schema) if column is not None else None
        if column is None or found is None or found.column is None or not _is_bytewise(found.column, schema):
            continue
        value = right.name
        if schema.dialect == "postgres":
            if any(c in value for c in "%_\\"):
                continue
            better: Any = exp.Like(this=column.copy(), expression=exp.Literal.string(value + "%"))
            why = "a text whose first characters equal the literal is one that is LIKE it"
        elif ord(value[-1]) < 0x7F:
            after = value[:-1] + chr(ord(value[-1]) + 1)
            better = all_of(
                [
                    exp.GTE(this=column.copy(), expression=exp.Literal.string(value)),
                    exp.LT(this=column.copy(), expression=exp.Literal.string(after)),
                    node,
                ]
            )
            why = "under the BINARY collation such texts lie in this range; the condition itself stays"
        else:
            continue  # the next text is not known

        def to_prefix(n: Node, better: Any = better) -> None:
            n.replace(exp.Paren(this=better) if isinstance(better, exp.And) else better)

        first = next(conjuncts(better))
        if isinstance(better, exp.And) and any(t == first for t in _siblings(node)):
            continue  # it is there already
        yield Form(
            "prefix-to-range",
            on_copy(tree, node, to_prefix),
            why,
            "Let the bare column be compared, so that an index on it can be used",
        )


def _is_bytewise(column: Column, schema: Schema) -> bool:
    """Tell whether a text equals another only if it is the same text."""
    if schema.dialect == "postgres":
        is_text = base_type(column) in ("text", "character varying")
        return is_text and column.collation in (None, "C", "POSIX", "ucs_basic")
    return schema.dialect == "sqlite" and affinity(column) == "TEXT" and column.collation is None


def _siblings(node: Node) -> list[Node]:
    top = node
    while isinstance(top.parent, (exp.And, exp.Paren)):
        top = top.parent
    return list(conjuncts(top))


def _head(left: Node, right: Node) -> Node | None:
    if not isinstance(right, exp.Literal) or not right.is_string or not right.name:
        return None
    length: Any = None
    if isinstance(left, exp.Substring) and str(left.args.get("start")) == "1":
        length = left.args.get("length")
    elif isinstance(left, exp.Left):
        length = left.expression
    if length is None or str(length) != str(len(right.name)) or not isinstance(left.this, exp.Column):
        return None
    return left.this


RULES: Final = (
    Rule(
        "prefix-to-range",
        "the column holds text that is compared byte by byte",
        text_prefix,
        is_simpler=True,
    ),
)
