"""What a statement asks of each table, with every name resolved to the table it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Literal, TypeAlias

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.normalize_identifiers import normalize_identifiers
from sqlglot.optimizer.pushdown_predicates import pushdown_predicates
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, traverse_scope

from .ddl import normal_expression
from .fingerprinting import parse
from .model import Schema, Table

Node: TypeAlias = Any  # a tree's base class has another name in each major version of sqlglot

PredicateKind = Literal["eq", "in", "range", "prefix", "infix", "null", "not_null", "function", "other"]

_RANGES: Final = (exp.GT, exp.GTE, exp.LT, exp.LTE)


@dataclass(frozen=True, slots=True)
class Predicate:
    """One condition on one column (or on an expression over one table's columns).

    Attributes:
        column: Column name; for ``kind="function"`` the first column inside.
        kind: How it can be looked up.
        values: Literals, or ``":pN"`` names of parameters.
        expression: For ``kind="function"``: the expression's SQL without table names.
        inner: For ``kind="function"``: how the expression is compared.
        node: The condition in the tree.
        op: The comparison of a range: ``>``, ``>=``, ``<``, ``<=`` or ``between``.
    """

    column: str
    kind: PredicateKind
    values: tuple[Any, ...] = ()
    expression: str | None = None
    inner: PredicateKind | None = None
    node: Node | None = field(default=None, compare=False, repr=False)
    op: str | None = None


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
        order_by: Columns ordered by with direction, when the leading ones are this table's.
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
    order_by: tuple[tuple[str, bool], ...] = ()
    columns: set[str] = field(default_factory=set)
    limited: bool = False
    in_outer: bool = False
    min_max: tuple[str, ...] = ()
    distinct: tuple[str, ...] = ()


@dataclass(slots=True)
class Analysis:
    """A statement taken apart.

    Attributes:
        sql: The text that was analysed, with ``:pN`` parameters.
        kind: ``"select"``, ``"insert"``, ``"update"``, ``"delete"`` or ``"other"``.
        uses: Tables read, once per appearance.
        written: Table that is changed, with the columns an UPDATE sets.
        unknown: Names that are neither table nor view here.
        error: Why there is nothing to analyse.
    """

    sql: str
    kind: str = "other"
    uses: list[TableUse] = field(default_factory=list)
    written: tuple[str, frozenset[str]] | None = None
    unknown: list[str] = field(default_factory=list)
    is_cut: bool = False
    error: str | None = None
    tree: Node | None = field(default=None, repr=False)

    @property
    def tables(self) -> frozenset[str]:
        """Names of all tables read."""
        return frozenset(u.table for u in self.uses)


def analyse(sql: str, schema: Schema) -> Analysis:
    """Resolve ``sql`` against ``schema``; never raises for a statement it cannot read."""
    parsed = parse(sql, schema.dialect)
    out = Analysis(parsed.sql, is_cut=parsed.is_cut, error=parsed.error)
    if parsed.tree is None:
        return out
    tree = parsed.tree.copy()
    out.tree = parsed.tree
    try:
        _analyse(tree, schema, out)
    except (SqlglotError, RecursionError, KeyError, AttributeError, ValueError, TypeError) as error:
        out.error = f"names could not be resolved: {str(error).splitlines()[0][:160]}"
    return out


def _analyse(tree: Node, schema: Schema, out: Analysis) -> None:
    out.kind = {
        exp.Select: "select",
        exp.Union: "select",
        exp.Intersect: "select",
        exp.Except: "select",
        exp.Insert: "insert",
        exp.Update: "update",
        exp.Delete: "delete",
    }.get(type(tree), "other")
    if isinstance(tree, exp.Subquery):
        tree, out.kind = tree.unnest(), "select"
    if isinstance(tree, (exp.Insert, exp.Update, exp.Delete)):
        tree = _read_part(tree, schema, out)
        if tree is None:
            return
    elif out.kind == "other":
        out.error = "not a query or change of data"
        return
    tree = _expand_views(tree, schema)
    shape = {name: {c.name: "text" for c in t.columns.values()} for name, t in schema.tables.items()}
    tree = _fix_names(tree, schema)
    tree = qualify(
        tree,
        schema=_nest(shape),
        dialect=schema.dialect,
        validate_qualify_columns=False,
        quote_identifiers=False,
        identify=False,
        expand_stars=True,
    )
    try:
        tree = pushdown_predicates(tree, dialect=schema.dialect)
    except (SqlglotError, KeyError, AttributeError, ValueError, TypeError):
        pass  # only a help: predicates on derived tables stay where they are
    for scope in traverse_scope(tree):
        out.uses.extend(_scope_uses(scope, schema, out))


def _nest(shape: dict[str, dict[str, str]]) -> dict[str, Any]:
    """sqlglot wants one depth: tables of other schemas are looked up by their last name as well."""
    return {name.rpartition(".")[2] if "." in name else name: columns for name, columns in shape.items()}


def _fix_names(tree: Node, schema: Schema) -> Node:
    """Give every table and column the case it has in the schema (digests shout their keywords)."""
    columns = {c.lower(): c for t in schema.tables.values() for c in t.columns}
    for table in tree.find_all(exp.Table):
        found = _lookup(table, schema)
        if found is not None and isinstance(table.this, exp.Identifier):
            alias = table.alias
            if not alias and table.this.name != found.name.rpartition(".")[2]:
                table.set("alias", exp.TableAlias(this=exp.to_identifier(table.this.name)))
            table.set("this", exp.to_identifier(found.name.rpartition(".")[2], quoted=True))
            table.set("db", None)
            table.set("catalog", None)
    for column in tree.find_all(exp.Column):
        name = columns.get(column.name.lower())
        if name is not None and isinstance(column.this, exp.Identifier):
            column.set("this", exp.to_identifier(name, quoted=True))
            # schema.table.column: the schema is implied by the table
            column.set("db", None)
            column.set("catalog", None)
    for using in tree.find_all(exp.Join):
        for part in using.args.get("using") or ():
            name = columns.get(part.name.lower())
            if name is not None and isinstance(part, exp.Identifier):
                part.set("this", name)
                part.set("quoted", True)
        if using.args.get("method") == "NATURAL":
            _natural(using, tree, schema)
    return normalize_identifiers(tree, dialect="sqlite") if schema.dialect == "mysql" else tree


def _natural(join: exp.Join, tree: Node, schema: Schema) -> None:
    """Turn NATURAL JOIN into USING over the columns both sides have."""
    select = join.find_ancestor(exp.Select)
    right = _lookup(join.this, schema) if isinstance(join.this, exp.Table) else None
    if select is None or right is None:
        return
    source: Any = select.args.get("from_") or select.args.get("from")
    names: set[str] = set()
    for table in [source.this, *(j.this for j in select.args.get("joins") or () if j is not join)]:
        left = _lookup(table, schema) if isinstance(table, exp.Table) else None
        names |= set(left.columns) if left is not None else set()
    shared = [c for c in right.columns if c in names]
    if shared:
        join.set("method", None)
        join.set("using", [exp.to_identifier(c, quoted=True) for c in shared])


def _lookup(table: exp.Table, schema: Schema) -> Table | None:
    if table.db:
        found = schema.table(f"{table.db}.{table.name}")
        if found is not None:
            return found
    return schema.table(table.name)


def _expand_views(tree: Node, schema: Schema, depth: int = 0) -> Node:
    if not schema.views or depth > 5:
        return tree
    views = {name.lower(): sql for name, sql in schema.views.items()}
    ctes = {c.alias_or_name.lower() for c in tree.find_all(exp.CTE)}
    hit = False
    for table in list(tree.find_all(exp.Table)):
        body = views.get(table.name.lower())
        if body is None or table.name.lower() in ctes or isinstance(table.parent, (exp.Insert, exp.Update)):
            continue
        parsed = parse(body, schema.dialect).tree
        if isinstance(parsed, exp.Create):
            parsed = parsed.expression
        if isinstance(parsed, (exp.Select, exp.SetOperation)):
            table.replace(
                exp.Subquery(
                    this=parsed.copy(), alias=exp.TableAlias(this=exp.to_identifier(table.alias_or_name))
                )
            )
            hit = True
    return _expand_views(tree, schema, depth + 1) if hit else tree


def _read_part(tree: Node, schema: Schema, out: Analysis) -> Node | None:
    """Return the query inside a change of data: what it reads to find its rows."""
    target = tree.this
    if isinstance(target, exp.Schema):
        target = target.this
    table = _lookup(target, schema) if isinstance(target, exp.Table) else None
    if table is None:
        if isinstance(target, exp.Table):
            out.unknown.append(target.name)
        return None
    if isinstance(tree, exp.Insert):
        out.written = (table.name, frozenset(table.columns))
        query = tree.expression
        return query.copy() if isinstance(query, (exp.Select, exp.SetOperation)) else None
    changed = {e.this.name for e in tree.expressions if isinstance(e, exp.EQ)}
    names = {c for c in table.columns if c.lower() in {n.lower() for n in changed}}
    out.written = (table.name, frozenset(names if isinstance(tree, exp.Update) else table.columns))
    where = tree.args.get("where")
    select = exp.select(exp.Literal.number(1)).from_(target.copy())
    if where is not None:
        select.set("where", where.copy())
    return select


class _Uses(dict[str, TableUse]):
    """Tables of one scope by alias, and the dialect to write expressions in."""

    def __init__(self, dialect: str) -> None:
        super().__init__()
        self.dialect = dialect


# --- one scope ----------------------------------------------------------------------------------


def _scope_uses(scope: Scope, schema: Schema, out: Analysis) -> Iterator[TableUse]:
    select = scope.expression
    if not isinstance(select, exp.Select):
        return
    uses = _Uses(schema.dialect)
    for alias, source in scope.sources.items():
        if not isinstance(source, exp.Table) or alias not in scope.selected_sources:
            continue
        table = _lookup(source, schema)
        if table is None:
            out.unknown.append(source.name)
            continue
        uses[alias] = TableUse(table.name, alias)
    if not uses:
        return
    _columns(scope, select, uses, schema)
    for condition in _conditions(select):
        _condition(condition, uses)
    for join in select.args.get("joins") or ():
        if join.side in ("LEFT", "FULL") and join.alias_or_name in uses:
            uses[join.alias_or_name].in_outer = True
    _shape(select, uses)
    yield from uses.values()


def _columns(scope: Scope, select: exp.Select, uses: _Uses, schema: Schema) -> None:
    for column in select.find_all(exp.Column):
        use = uses.get(column.table)
        if use is None:
            continue
        if isinstance(column.this, exp.Star):
            table = schema.tables[use.table]
            use.columns |= set(table.columns)
        else:
            use.columns.add(column.name)
    if any(isinstance(e, exp.Star) for e in select.expressions):
        for use in uses.values():
            use.columns |= set(schema.tables[use.table].columns)


def _conditions(select: exp.Select) -> Iterator[Node]:
    where = select.args.get("where")
    if where is not None:
        yield from _conjuncts(where.this)
    for join in select.args.get("joins") or ():
        on = join.args.get("on")
        if on is not None:
            yield from _conjuncts(on)


def _conjuncts(node: Node) -> Iterator[Node]:
    node = node.unnest()
    if isinstance(node, exp.And):
        yield from _conjuncts(node.left)
        yield from _conjuncts(node.right)
    else:
        yield node


def _disjuncts(node: Node) -> Iterator[Node]:
    node = node.unnest()
    if isinstance(node, exp.Or):
        yield from _disjuncts(node.left)
        yield from _disjuncts(node.right)
    else:
        yield node


def _condition(node: Node, uses: _Uses) -> None:
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


def _predicate(node: Node, uses: _Uses) -> tuple[str, Predicate] | None:
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
    if isinstance(body, (exp.Like, exp.ILike)):
        return _like(body, uses, node)
    if isinstance(body, (exp.EQ, exp.NullSafeEQ, *_RANGES)):
        left, right = body.left.unnest(), body.right.unnest()
        kind: Any = type(body)
        if not _tables(left, uses) and _tables(right, uses):
            left, right, kind = right, left, _SWAP.get(kind, kind)
        if _tables(right, uses) & _tables(left, uses):
            return None
        what: PredicateKind = "range" if kind in _RANGES else "eq"
        return _on(left, what, _values(right), uses, node, _OPS.get(kind))
    return None


def _like(body: Node, uses: _Uses, node: Node) -> tuple[str, Predicate] | None:
    pattern = _values(body.expression)
    first = pattern[0] if pattern else ""
    kind: PredicateKind = "prefix"
    if isinstance(first, str) and not first.startswith(":p") and first[:1] in ("%", "_"):
        kind = "infix"
    return _on(body.this, kind, pattern, uses, node, "ilike" if isinstance(body, exp.ILike) else "like")


def _tables(node: Node, uses: _Uses) -> set[str]:
    return {c.table for c in node.find_all(exp.Column) if c.table in uses}


def _on(
    node: Node,
    kind: PredicateKind,
    values: tuple[Any, ...],
    uses: _Uses,
    whole: Node,
    op: str | None = None,
) -> tuple[str, Predicate] | None:
    node = node.unnest()
    if isinstance(node, exp.Column):
        return (
            (node.table, Predicate(node.name, kind, values, node=whole, op=op))
            if node.table in uses
            else None
        )
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


def _shape(select: exp.Select, uses: _Uses) -> None:
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
        keys = [(_project(o.this, select, projections), bool(o.args.get("desc"))) for o in order.expressions]
        first = keys[0][0]
        if isinstance(first, exp.Column) and first.table in uses:
            own = []
            for column, descending in keys:
                if not isinstance(column, exp.Column) or column.table != first.table:
                    break
                own.append((column.name, descending))
            uses[first.table].order_by = tuple(own)
            uses[first.table].limited = select.args.get("limit") is not None
    aggregates = [e.unalias() for e in select.expressions]
    if group is None and aggregates and all(isinstance(a, (exp.Min, exp.Max)) for a in aggregates):
        owner = _owner([a.this for a in aggregates], uses)
        if owner is not None:
            owner.min_max = tuple(a.this.name for a in aggregates)


def _project(node: Node, select: exp.Select, names: dict[str, Node]) -> Node:
    node = node.unnest()
    if isinstance(node, exp.Literal) and not node.is_string and node.name.isdigit():
        position = int(node.name) - 1
        if position < len(select.expressions):
            return select.expressions[position].unalias()
    if isinstance(node, exp.Column) and not node.table and node.name in names:
        return names[node.name]
    return node


def _owner(columns: list[Node], uses: _Uses) -> TableUse | None:
    tables = {c.table if isinstance(c, exp.Column) else None for c in columns}
    if len(tables) != 1:
        return None
    (name,) = tables
    return uses.get(name) if name is not None else None
