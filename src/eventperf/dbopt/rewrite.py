"""Better forms of statements, each with the condition under which it gives the same rows.

A rewrite is a candidate, never a rule: it is advised when its condition holds in the schema and the
planner prices it no higher, and it is called safe only when real rows were compared as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from sqlglot import exp

from .advice import RewriteAdvice
from .analysis import analyse
from .errors import DatabaseError
from .model import Schema, Table
from .protocols import Dialect, Planner, Query
from .workload import Sample

_ROWS: Final = 5_000


class _Form(NamedTuple):
    rule: str
    tree: Any
    condition: str
    advice: str


def rewrites(
    queries: Sequence[Query], schema: Schema, planner: Planner, dialect: Dialect, *, compare: int = 20
) -> list[RewriteAdvice]:
    """Return rewrites whose condition holds, costliest statement first.

    Args:
        queries: The analysed workload.
        schema: Nullability and uniqueness, on which conditions rest.
        planner: Prices both forms.
        dialect: Runs both forms, for a comparison of their rows.
        compare: At most this many pairs are run.
    """
    out: list[RewriteAdvice] = []
    for query in sorted(queries, key=lambda q: -q.weight):
        tree = query.analysis.tree
        if not isinstance(tree, exp.Select) or query.analysis.is_cut:
            continue
        for make in _RULES:
            for form in make(tree, schema):
                found = _priced(query, form, schema, planner)
                if found is None:
                    continue
                if compare > 0:
                    compare -= 1
                    found = _compared(found, query, dialect)
                if found is not None:
                    out.append(found)
    return out


def _priced(query: Query, form: _Form, schema: Schema, planner: Planner) -> RewriteAdvice | None:
    sql = (
        form.tree.sql(dialect=schema.dialect).replace("%(", ":").replace(")s", "")
        if _has(form.tree)
        else None
    )
    text = sql if sql is not None else form.tree.sql(dialect=schema.dialect)
    try:
        before = planner.plan(query, ()).cost
        other = Query(
            statement=query.statement,
            analysis=analyse(text, schema),
            sample=Sample(text, query.sample.values),
            weight=query.weight,
        )
        after = planner.plan(other, ()).cost
    except Exception:
        return None  # a form that this engine cannot plan is no advice
    if after > before * 1.01:
        return None
    return RewriteAdvice(
        fingerprint=query.id,
        rule=form.rule,
        before=query.statement.fingerprint.text,
        after=text,
        is_safe=False,
        verdict=form.condition,
        advice=form.advice,
        cost_before=before,
        cost_after=after,
        callers=tuple(query.statement.callers),
    )


def _has(tree: Any) -> bool:
    return tree.find(exp.Placeholder) is not None


def _compared(found: RewriteAdvice, query: Query, dialect: Dialect) -> RewriteAdvice | None:
    """Run both forms; different rows end the candidate, equal ones make it safe."""
    from dataclasses import replace

    if query.analysis.tree is None or _has(query.analysis.tree) or found.after is None:
        return replace(found, verdict=f"{found.verdict}; rows not compared: parameters stay parameters")
    try:
        ours = Counter(map(repr, dialect.rows(found.after, timeout_s=2.0, limit=_ROWS)))
        theirs = Counter(map(repr, dialect.rows(query.analysis.sql, timeout_s=2.0, limit=_ROWS)))
    except DatabaseError:
        return replace(found, verdict=f"{found.verdict}; rows not compared: the time was up")
    if sum(theirs.values()) == _ROWS:
        return replace(found, verdict=f"{found.verdict}; too many rows to compare")
    if ours != theirs:
        return None
    return replace(
        found, is_safe=True, verdict=f"{found.verdict}; {sum(theirs.values())} rows were equal, as multisets"
    )


# --- rules --------------------------------------------------------------------------------------


def _sources(select: exp.Select, schema: Schema) -> list[tuple[str, Table]] | None:
    source: Any = select.args.get("from_") or select.args.get("from")
    if source is None:
        return None
    out = []
    for item in [source.this, *(j.this for j in select.args.get("joins") or ())]:
        table = schema.table(item.name) if isinstance(item, exp.Table) else None
        if table is None:
            return None
        out.append((item.alias_or_name, table))
    return out


def _needless_distinct(tree: exp.Select, schema: Schema) -> Iterator[_Form]:
    """DISTINCT over one table whose projected columns hold a key changes nothing."""
    if tree.args.get("distinct") is None or tree.args["distinct"].args.get("on") is not None:
        return
    sources = _sources(tree, schema)
    if sources is None or len(sources) != 1 or tree.args.get("group") is not None:
        return
    table = sources[0][1]
    columns = [e.unalias() for e in tree.expressions]
    names = [c.name for c in columns if isinstance(c, exp.Column)]
    keys = [k for k in (table.primary_key, *table.unique_sets) if k and _required(table, k)]
    if any(set(key) <= set(names) for key in keys):
        better = tree.copy()
        better.set("distinct", None)
        yield _Form(
            "needless-distinct",
            better,
            f"the projected columns hold a key of {table.name}, so no two rows are equal",
            "Leave DISTINCT out",
        )


def _required(table: Table, key: Sequence[str]) -> bool:
    found = [table.column(c) for c in key]
    return key == table.primary_key or all(c is not None and not c.nullable for c in found)


def _anti_join(tree: exp.Select, schema: Schema) -> Iterator[_Form]:
    """NOT IN (SELECT c ...) is NOT EXISTS when neither side can be NULL."""
    for node in tree.find_all(exp.Not):
        inside = node.this
        query = inside.args.get("query") if isinstance(inside, exp.In) else None
        select = query.unnest() if query is not None else None
        if (
            not isinstance(select, exp.Select)
            or len(select.expressions) != 1
            or not isinstance(inside.this, exp.Column)
        ):
            continue
        plain = ("group", "having", "limit", "offset", "distinct", "order")
        if any(select.args.get(part) is not None for part in plain):
            continue
        outer, inner = _sources(tree, schema), _sources(select, schema)
        column = select.expressions[0].unalias()
        if (
            outer is None
            or inner is None
            or len(inner) != 1
            or len(outer) != 1
            or not isinstance(column, exp.Column)
        ):
            continue
        left, right = outer[0][1].column(inside.this.name), inner[0][1].column(column.name)
        if left is None or right is None or left.nullable or right.nullable or outer[0][0] == inner[0][0]:
            continue
        better = tree.copy()
        for other in better.find_all(exp.Not):
            if other == node:
                body = other.this.args["query"].unnest().copy()
                same = exp.EQ(
                    this=exp.column(column.name, table=inner[0][0], quoted=True),
                    expression=exp.column(inside.this.name, table=outer[0][0], quoted=True),
                )
                body = body.where(same, copy=False)
                body.set("expressions", [exp.Literal.number(1)])
                other.set("this", exp.Exists(this=body))
                break
        yield _Form(
            "not-in-to-anti-join",
            better,
            f"neither {inside.this.name} nor {column.name} can be NULL",
            "Use NOT EXISTS: it stops at the first match, and no NULL can empty the result",
        )


def _bare_column(tree: exp.Select, schema: Schema) -> Iterator[_Form]:
    """``column + 5 > 10`` is ``column > 5`` for whole numbers."""
    sources = _sources(tree, schema)
    if sources is None:
        return
    for node in tree.find_all(exp.EQ, exp.GT, exp.GTE, exp.LT, exp.LTE):
        left, right = node.left.unnest(), node.right.unnest()
        if not (isinstance(left, (exp.Add, exp.Sub)) and isinstance(left.left, exp.Column)):
            continue
        if not all(isinstance(v, exp.Literal) and v.is_int for v in (left.right, right)):
            continue
        owners = [
            t for a, t in sources if left.left.table in ("", a) and t.column(left.left.name) is not None
        ]
        column = owners[0].column(left.left.name) if len(owners) == 1 else None
        if column is None or "int" not in column.type.lower():
            continue
        change = int(left.right.name)
        value = int(right.name) - change if isinstance(left, exp.Add) else int(right.name) + change
        better = tree.copy()
        for other in better.find_all(type(node)):
            if other == node:
                other.set("this", left.left.copy())
                other.set(
                    "expression",
                    exp.Literal.number(value) if value >= 0 else exp.Neg(this=exp.Literal.number(-value)),
                )
                break
        yield _Form(
            "bare-column",
            better,
            f"{column.name} holds whole numbers (as long as the sum does not overflow)",
            "Compare the bare column, so that an index on it can be used",
        )


_RULES: Final[tuple[Callable[[exp.Select, Schema], Iterator[_Form]], ...]] = (
    _needless_distinct,
    _anti_join,
    _bare_column,
)
