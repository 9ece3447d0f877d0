"""Rules for one SELECT: conditions an index can serve, work that changes nothing, OR as a union."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from sqlglot import exp

from .rewrite_tree import (
    Form,
    Node,
    Owner,
    all_of,
    conjuncts,
    disjuncts,
    on_copy,
    owner,
    plain,
    set_where,
    sources,
    where,
)
from .schema.model import Schema, Table
from .schema.types import category

_RANGES: Final = (exp.GT, exp.GTE, exp.LT, exp.LTE)
_WHOLE: Final = {"smallint": 15, "int": 31, "integer": 31, "bigint": 63, "mediumint": 23}


def needless_distinct(tree: Node, schema: Schema) -> Iterator[Form]:
    """DISTINCT over rows that already differ: the projected columns decide a key of every table."""
    for select in list(tree.find_all(exp.Select)):
        distinct = select.args.get("distinct")
        if distinct is None or distinct.args.get("on") is not None or select.args.get("group") is not None:
            continue
        if any(e.find(exp.AggFunc, exp.Window) for e in select.expressions):
            continue
        tables = _base_tables(select, schema)
        if tables is None or not _decides_all(select, tables, schema):
            continue
        names = ", ".join(t.name for _, t in tables)
        yield Form(
            "needless-distinct",
            on_copy(tree, select, lambda n: n.set("distinct", None)),
            f"the projected columns decide a key of {names}, so no two rows are equal",
            "Leave DISTINCT out",
        )


def _base_tables(select: Node, schema: Schema) -> list[tuple[str, Table]] | None:
    out = []
    for alias, source, missing in sources(select):
        table = schema.table(source.name) if isinstance(source, exp.Table) else None
        if table is None or missing:
            return None
        out.append((alias, table))
    return out or None


def _required_keys(table: Table) -> list[tuple[str, ...]]:
    keys = [table.primary_key] if table.primary_key else []
    for key in table.unique_sets:
        columns = [table.column(c) for c in key]
        if key != table.primary_key and all(c is not None and not c.nullable for c in columns):
            keys.append(key)
    return keys


def _decides_all(select: Node, tables: Sequence[tuple[str, Table]], schema: Schema) -> bool:
    """Close the projected columns under keys, equalities and constants."""
    known: set[tuple[str, str]] = set()
    pairs: list[tuple[tuple[str, str], tuple[str, str]]] = []

    def place(node: Node) -> tuple[str, str] | None:
        found = owner(node, schema) if isinstance(node, exp.Column) else None
        if found is None or found.select is not select or found.column is None:
            return None
        return found.alias, found.column.name

    for item in select.expressions:
        if isinstance(item, exp.Star):
            known |= {(a, c) for a, t in tables for c in t.columns}
        elif isinstance(item, exp.Column) and isinstance(item.this, exp.Star):
            known |= {(a, c) for a, t in tables if a == item.table for c in t.columns}
        elif (at := place(item.unalias())) is not None:
            known.add(at)
    terms = where(select)
    for join in select.args.get("joins") or ():
        if join.args.get("using") or join.args.get("method"):
            return False
        terms += list(conjuncts(join.args.get("on")))
    for term in terms:
        if not isinstance(term, exp.EQ):
            continue
        left, right = place(term.left.unnest()), place(term.right.unnest())
        if left is not None and right is not None:
            pairs.append((left, right))
    size = -1
    while size != len(known):
        size = len(known)
        for one, other in pairs:
            if one in known or other in known:
                known |= {one, other}
        for alias, table in tables:
            if any(all((alias, c) in known for c in key) for key in _required_keys(table)):
                known |= {(alias, c) for c in table.columns}
    return all(any(all((a, c) in known for c in k) for k in _required_keys(t)) for a, t in tables)


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
        if column is None or category(column.type) != "int" or "unsigned" in column.type.lower():
            continue
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
        if found is None or found.column is None or category(found.column.type) not in ("date", "time"):
            continue
        span = _span(right, part)
        if span is None:
            continue
        low, high = (exp.Literal.string(d.isoformat()) for d in span)
        both = [exp.GTE(this=column.copy(), expression=low), exp.LT(this=column.copy(), expression=high)]

        def to_range(n: Node, both: Any = both) -> None:
            n.replace(exp.Paren(this=all_of(both)))

        yield Form(
            "date-to-range",
            on_copy(tree, node, to_range),
            f"{found.column.name} is a {found.column.type} without zone: the {part} is a half-open range",
            "Compare the bare column with a range, so that an index on it can be used",
        )


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


def text_prefix(tree: Node, schema: Schema) -> Iterator[Form]:
    """``substr(code, 1, 3) = 'abc'`` starts with 'abc': LIKE on PostgreSQL, a range on SQLite."""
    for node in list(tree.find_all(exp.EQ)):
        left, right = node.left.unnest(), node.right.unnest()
        column = _head(left, right)
        found = owner(column, schema) if column is not None else None
        if column is None or found is None or found.column is None or category(found.column.type) != "text":
            continue
        value = right.name
        if schema.dialect == "postgres" and found.column.type.startswith(("text", "character varying")):
            if any(c in value for c in "%_\\"):
                continue
            better: Any = exp.Like(this=column.copy(), expression=exp.Literal.string(value + "%"))
            why = "a text whose first characters equal the literal is one that is LIKE it"
        elif schema.dialect == "sqlite" and found.column.collation is None and ord(value[-1]) < 0x7F:
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
            continue

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


def _replacing(better: Any) -> Callable[[Node], None]:
    def change(node: Node) -> None:
        node.replace(better)

    return change


def or_to_in(tree: Node, schema: Schema) -> Iterator[Form]:
    """``a = 1 OR a = 2`` is ``a IN (1, 2)``."""
    for node in list(tree.find_all(exp.Or)):
        if isinstance(node.parent, exp.Or):
            continue
        terms = list(disjuncts(node))
        pairs = [_constant(t) for t in terms]
        if any(p is None for p in pairs) or len({p[0].sql() for p in pairs if p is not None}) != 1:
            continue
        column = pairs[0][0]  # type: ignore[index]
        values = [v.copy() for p in pairs if p is not None for v in p[1]]
        better = exp.In(this=column.copy(), expressions=values)
        yield Form(
            "or-to-in",
            on_copy(tree, node, _replacing(better)),
            "IN is defined as the OR of these equalities, with NULLs as well",
            "Use IN",
        )


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
        shared = [t for t in branches[0] if all(t in b for b in branches[1:])]
        if not shared:
            continue
        rests = [all_of([t for t in b if t not in shared]) for b in branches]
        body = all_of(shared)
        if all(r is not None for r in rests):
            either = exp.or_(*rests, copy=False)
            body = exp.and_(body, exp.Paren(this=either), copy=False)
        yield Form(
            "common-factor",
            on_copy(tree, node, _replacing(exp.Paren(this=body))),
            "AND distributes over OR in three-valued logic as well",
            "State once what every branch demands, so that it can join or be looked up",
        )


def or_to_union(tree: Node, schema: Schema) -> Iterator[Form]:
    """``WHERE a OR b`` is two searches; the second leaves out what the first found."""
    if not isinstance(tree, exp.Select):
        return
    bare = tree.copy()
    for part in ("order", "limit", "offset"):
        bare.set(part, None)
    if not plain(bare) or not _orders_by_output(tree):
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


def _orders_by_output(select: Node) -> bool:
    order = select.args.get("order")
    names = [e.alias_or_name for e in select.expressions]
    return order is None or all(
        isinstance(o.this, exp.Column) and not o.this.table and names.count(o.this.name) == 1
        for o in order.expressions
    )


def typed_literal(tree: Node, schema: Schema) -> Iterator[Form]:
    """``CAST(id AS TEXT) = '5'`` is ``id = 5`` for a whole number."""
    if schema.dialect == "sqlite":
        return  # a column of any declared type may hold any value there
    for node in list(tree.find_all(exp.EQ)):
        left, right = node.left.unnest(), node.right.unnest()
        if not isinstance(left, exp.Cast) or not isinstance(left.this, exp.Column):
            continue
        if left.to.this not in (exp.DataType.Type.TEXT, exp.DataType.Type.VARCHAR, exp.DataType.Type.CHAR):
            continue
        if left.to.expressions or not isinstance(right, exp.Literal) or not right.is_string:
            continue
        found = owner(left.this, schema)
        column = found.column if found is not None else None
        if column is None or category(column.type) != "int" or "zerofill" in column.type.lower():
            continue
        bits = _WHOLE.get(column.type.lower().split("(")[0].split(" ")[0], 31)
        try:
            value = int(right.name)
        except ValueError:
            continue
        if str(value) != right.name or not 0 <= value < 2**bits:
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
    tables = _base_tables(select, schema)
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
