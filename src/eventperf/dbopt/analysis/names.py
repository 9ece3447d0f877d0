"""What a statement asks of each table, with every name resolved to the table it belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.pushdown_predicates import pushdown_predicates
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, traverse_scope
from sqlglot.schema import MappingSchema

from eventperf.dbopt.schema.conditions import Predicate, PredicateKind
from eventperf.dbopt.schema.model import Schema, Table
from eventperf.dbopt.statements.fingerprint import parse

from .predicates import (
    Node,
    TableUse,
    Uses,
    conditions,
    read_condition,
    read_shape,
)

__all__ = ["Analysis", "Predicate", "PredicateKind", "TableUse", "analyse"]

_FOUND: Final = "eventperf_table"


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
    exact = f"{schema.dialect}, normalization_strategy=case_sensitive"  # names are the schema's by now
    tree = qualify(
        tree,
        schema=MappingSchema(_nest(shape), dialect=exact, normalize=False),
        dialect=exact,
        validate_qualify_columns=False,
        quote_identifiers=False,
        identify=False,
        expand_stars=True,
    )
    try:
        tree = pushdown_predicates(tree, dialect=exact)
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
            table.meta[_FOUND] = found.name  # sqlglot is told the last name only; two schemas may share it
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
    _fold(tree, columns)
    return tree


def _fold(tree: Node, columns: Mapping[str, str]) -> None:
    """Give each alias one case, wherever it is used: digests shout some. Columns keep the schema's."""
    for table in tree.find_all(exp.Table):
        if isinstance(table.this, exp.Identifier):
            name = table.alias_or_name.lower()
            if _FOUND not in table.meta:
                table.set("this", exp.to_identifier(table.name.lower(), quoted=True))  # a CTE
            if _FOUND in table.meta or table.alias:
                table.set("alias", exp.TableAlias(this=exp.to_identifier(name, quoted=True)))
    for alias in tree.find_all(exp.TableAlias):
        if isinstance(alias.this, exp.Identifier):
            alias.set("this", exp.to_identifier(alias.name.lower(), quoted=True))
    for column in tree.find_all(exp.Column):
        if column.table:
            column.set("table", exp.to_identifier(column.table.lower(), quoted=True))
        if isinstance(column.this, exp.Identifier):
            column.this.set("this", columns.get(column.name.lower(), column.name.lower()))
    for named in tree.find_all(exp.Alias):
        name = named.alias.lower()
        named.set("alias", exp.to_identifier(columns.get(name, name), quoted=True))


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
    if _FOUND in table.meta:
        return schema.tables[table.meta[_FOUND]]
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


# --- one scope ----------------------------------------------------------------------------------


def _scope_uses(scope: Scope, schema: Schema, out: Analysis) -> Iterator[TableUse]:
    select = scope.expression
    if not isinstance(select, exp.Select):
        return
    uses = Uses(schema.dialect)
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
    for condition in conditions(select):
        read_condition(condition, uses)
    for join in select.args.get("joins") or ():
        if join.side in ("LEFT", "FULL") and join.alias_or_name in uses:
            uses[join.alias_or_name].in_outer = True
    read_shape(select, uses)
    yield from uses.values()


def _columns(scope: Scope, select: exp.Select, uses: Uses, schema: Schema) -> None:
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
