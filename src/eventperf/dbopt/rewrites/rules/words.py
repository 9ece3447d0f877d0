"""What only the application can change, said in words."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from sqlglot import exp

from eventperf.dbopt.rewrites.tree import Node, Owner, owner, where
from eventperf.dbopt.rewrites.trust import base_tables
from eventperf.dbopt.schema.model import Schema
from eventperf.dbopt.schema.types import category


def hints(tree: Node, schema: Schema, values: Sequence[Any] | None) -> Iterator[tuple[str, str, str]]:
    """Yield ``(rule, verdict, advice)`` for what only the application can change."""
    for select in list(tree.find_all(exp.Select)):
        yield from _keyset(select, schema, values)
        for term in where(select):
            yield from _null_trap(term, schema)
            if schema.dialect == "mysql":
                yield from _implicit_cast(term, schema)


def _keyset(select: Node, schema: Schema, values: Sequence[Any] | None) -> Iterator[tuple[str, str, str]]:
    offset, order = select.args.get("offset"), select.args.get("order")
    if offset is None or order is None:
        return
    skipped = _value(offset.expression, values)
    if skipped is None or skipped < 1000:
        return
    tables = base_tables(select, schema)
    keys = [o.this for o in order.expressions]
    if tables is None or not all(isinstance(k, exp.Column) for k in keys):
        return
    directions = {bool(o.args.get("desc")) for o in order.expressions}
    names = [k.sql() for k in keys]
    table = tables[0][1]
    if not table.is_unique([k.name for k in keys]):
        names += [c for c in table.primary_key if c not in names]
    sign = "<" if directions == {True} else ">"
    last = ", ".join(f":last_{n.rpartition('.')[2]}" for n in names)
    condition = f"({', '.join(names)}) {sign} ({last})" if len(names) > 1 else f"{names[0]} {sign} {last}"
    if len(directions) > 1:
        condition = f"the tuple of the last row in the order {', '.join(names)}"
    yield (
        "offset-to-keyset",
        f"{skipped:,} rows are read and thrown away; pages would follow rows instead of positions, so rows "
        "inserted meanwhile neither repeat nor hide others; a page cannot be jumped to by its number",
        f"Page by the last row seen: WHERE {condition} ORDER BY {', '.join(names)}",
    )


def _value(node: Node, values: Sequence[Any] | None) -> int | None:
    if isinstance(node, exp.Literal) and node.is_int:
        return int(node.name)
    if isinstance(node, exp.Placeholder) and values and node.name[1:].isdigit():
        value = values[int(node.name[1:]) - 1]
        return value if isinstance(value, int) else None
    return None


def _null_trap(term: Node, schema: Schema) -> Iterator[tuple[str, str, str]]:
    inside = term.this.unnest() if isinstance(term, exp.Not) else None
    query = inside.args.get("query") if isinstance(inside, exp.In) else None
    inner = query.unnest() if query is not None else None
    if not isinstance(inner, exp.Select) or len(inner.expressions) != 1:
        return
    column = inner.expressions[0].unalias()
    found: Owner | None = owner(column, schema) if isinstance(column, exp.Column) else None
    if found is None or not found.nullable or _excludes_null(inner, column):
        return
    yield (
        "not-in-with-nulls",
        f"not equivalent, so not rewritten: {column.name} can be NULL, and one NULL empties the result",
        f"If that is not meant, use NOT EXISTS, or add {column.sql()} IS NOT NULL inside",
    )


def _excludes_null(inner: Node, column: Node) -> bool:
    return any(
        isinstance(t, exp.Not)
        and isinstance(t.this.unnest(), exp.Is)
        and isinstance(t.this.unnest().expression, exp.Null)
        and t.this.unnest().this.name == column.name
        for t in where(inner)
    )


def _implicit_cast(term: Node, schema: Schema) -> Iterator[tuple[str, str, str]]:
    if not isinstance(term, exp.EQ):
        return
    column, value = term.left.unnest(), term.right.unnest()
    found = owner(column, schema) if isinstance(column, exp.Column) else None
    if found is None or found.column is None or category(found.column.type) != "text":
        return
    if isinstance(value, exp.Literal) and not value.is_string:
        yield (
            "implicit-cast",
            f"not equivalent in every case: ' {value.name}' and '{value.name}.0' equal the number alone",
            f"{found.column.name} is {found.column.type}: compare it with '{value.name}', for a number "
            "turns every row's text into a number and no index is used",
        )
