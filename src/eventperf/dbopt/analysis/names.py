"""What a statement asks of each table, with every name resolved to the table it belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from sqlglot import exp
from sqlglot.errors import SqlglotError
from sqlglot.optimizer.pushdown_predicates import pushdown_predicates
from sqlglot.optimizer.qualify import qualify
from sqlglot.optimizer.scope import Scope, traverse_scope
from sqlglot.schema import MappingSchema

from eventperf.dbopt.schema.conditions import Predicate, PredicateKind
from eventperf.dbopt.schema.model import Schema, Table
from eventperf.dbopt.statements.fingerprint import parse
from eventperf.dbopt.statements.told import reason

from .plain import balance, plain_uses
from .predicates import Node, TableUse, Uses, conditions, read_condition, read_shape
from .sources import has_no_index, read_changes, stand_ins
from .writes import read_part

__all__ = ["Analysis", "Predicate", "PredicateKind", "TableUse", "analyse"]

_DEPTH: Final = 5  # views on views
_LARGE: Final = 300  # conditions; conditions of larger statements are not pushed into their subqueries
#: What every table has without a word in its definition.
_SYSTEM: Final = frozenset(
    {"ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", "oid", "rowid", "_rowid_", "_rowid"}
)


@dataclass(slots=True)
class Analysis:
    """A statement taken apart.

    Attributes:
        sql: The text that was analysed, with ``:pN`` parameters.
        kind: ``"select"``, ``"insert"``, ``"update"``, ``"delete"`` or ``"other"``.
        uses: Tables read, once per appearance.
        written: Table that is changed, with the columns an UPDATE sets.
        unknown: Names that are neither table nor view here.
        views: Views the statement reads, inner ones after those that read them.
        unread: Where the parser met what it does not know; what is before was analysed.
        error: Why there is nothing to analyse.
        tree: The statement as it is.
        expanded: The same with views replaced by what they select.
    """

    sql: str
    kind: str = "other"
    uses: list[TableUse] = field(default_factory=list)
    written: tuple[str, frozenset[str]] | None = None
    unknown: list[str] = field(default_factory=list)
    views: list[str] = field(default_factory=list)
    is_cut: bool = False
    unread: str | None = None
    error: str | None = None
    tree: Node | None = field(default=None, repr=False)
    expanded: Node | None = field(default=None, repr=False)

    @property
    def tables(self) -> frozenset[str]:
        """Names of all tables read or written."""
        read = frozenset(u.table for u in self.uses)
        return read if self.written is None else read | {self.written[0]}


def analyse(sql: str, schema: Schema) -> Analysis:
    """Resolve ``sql`` against ``schema``; never raises for a statement it cannot read."""
    parsed = parse(sql, schema.dialect)
    out = Analysis(parsed.sql, is_cut=parsed.is_cut, unread=parsed.unread, error=parsed.error)
    if parsed.tree is None:
        return out
    out.tree = parsed.tree
    try:
        _analyse(parsed.tree.copy(), schema, out)
    except (SqlglotError, RecursionError, KeyError, AttributeError, ValueError, TypeError) as error:
        out.error = f"names could not be resolved: {reason(error, sql, schema.dialect)[:160]}"
    return out


_KINDS: Final = {
    exp.Select: "select",
    exp.Union: "select",
    exp.Intersect: "select",
    exp.Except: "select",
    exp.Insert: "insert",
    exp.Update: "update",
    exp.Delete: "delete",
    exp.Merge: "update",
}


def _analyse(tree: Node, schema: Schema, out: Analysis) -> None:
    if isinstance(tree, exp.Subquery):
        tree = tree.unnest()
    out.kind = _KINDS.get(type(tree), "other")
    if out.kind == "other":
        out.error = "not a query or change of data"
        return
    tree = _expand_views(tree, schema, out)
    if out.views:
        out.expanded = tree.copy()
    if out.kind != "select":
        change = read_part(tree, schema)
        out.written = change.written
        out.unknown += [change.unknown] if change.unknown is not None else []
        if change.query is None:
            return
        tree = change.query
    read_changes(tree, schema)
    balance(tree)
    for select in tree.find_all(exp.Select):
        select.set("locks", None)  # FOR UPDATE OF t names no further table
        _flatten(select)
    found = _tables(tree, schema)
    _fix_names(tree, found)
    short = plain_uses(tree, found, schema)
    if short is not None:
        out.uses.extend(_read(tree, short, schema))
        return
    for scope in traverse_scope(_qualified(tree, found, schema)):
        out.uses.extend(_scope_uses(scope, schema, out))


def _qualified(tree: Node, found: dict[int, Table], schema: Schema) -> Node:
    """Return the statement with the table of each column, and what is asked of derived tables within them."""
    shape: Any = {t.name: {c: "text" for c in t.columns} for t in found.values()}
    shape |= stand_ins(tree, found, _is_cte)
    for column in tree.find_all(exp.Column):
        if column.name in _SYSTEM:
            for columns in shape.values():
                columns.setdefault(column.name, "text")
    exact = f"{schema.dialect}, normalization_strategy=case_sensitive"  # names are the schema's by now
    tree = qualify(
        tree,
        schema=MappingSchema(shape, dialect=exact, normalize=False),
        dialect=exact,
        validate_qualify_columns=False,
        quote_identifiers=False,
        identify=False,
        expand_stars=True,
    )
    is_nested = sum(1 for _ in tree.find_all(exp.Select)) > 1
    if is_nested and sum(1 for _ in tree.find_all(exp.Connector)) < _LARGE:
        try:
            tree = pushdown_predicates(tree, dialect=exact)
        except (SqlglotError, KeyError, AttributeError, ValueError, TypeError):
            pass  # only a help: predicates on derived tables stay where they are
    return tree


def _flatten(select: Node) -> None:
    """Take joins out of their brackets: what is asked of each table is the same in any order of joins."""
    source = select.args.get("from_") or select.args.get("from")
    if source is None:
        return
    first, more = _unbracketed(source.this)
    source.set("this", first)
    for join in select.args.get("joins") or ():
        inner, its = _unbracketed(join.this)
        join.set("this", inner)
        for other in its:
            other.set("side", join.args.get("side") or other.args.get("side"))
        more += [join, *its]
    select.set("joins", more)


def _unbracketed(node: Node) -> tuple[Node, list[Node]]:
    """Return the first table inside brackets, and the joins that follow it there."""
    joins: list[Node] = []
    while (
        isinstance(node, exp.Subquery) and not node.alias and isinstance(node.this, (exp.Table, exp.Subquery))
    ):
        joins = [*(node.args.get("joins") or ()), *joins]
        node = node.this
    if joins or (isinstance(node, exp.Table) and node.args.get("joins")):
        joins = [*(node.args.get("joins") or ()), *joins]
        node.set("joins", None)
    out: list[Node] = []
    for join in joins:
        inner, its = _unbracketed(join.this)
        join.set("this", inner)
        out += [join, *its]
    return node, out


# --- names --------------------------------------------------------------------------------------


def _tables(tree: Node, schema: Schema) -> dict[int, Table]:
    """Return the table each node stands for, by the node's identity; CTEs and unknown names have none."""
    out: dict[int, Table] = {}
    for node in tree.find_all(exp.Table):
        if isinstance(node.this, exp.Identifier) and not _is_cte(node):
            table = schema.table(node.name, node.db or None)
            if table is not None:
                out[id(node)] = table
    return out


def _is_cte(node: Node) -> bool:
    """Tell whether a name is that of a CTE where it stands: one defined before, or around it if recursive."""
    if node.db:
        return False
    name = node.name.lower()
    inside, at = [node], node.parent
    while at is not None:
        known = at.args.get("with_") or at.args.get("with")
        for cte in known.expressions if known is not None else ():
            if any(cte is i for i in inside):
                if known.args.get("recursive") and cte.alias_or_name.lower() == name:
                    return True
                break  # those that follow are not known here
            if cte.alias_or_name.lower() == name:
                return True
        inside.append(at)
        at = at.parent
    return False


class _Names(NamedTuple):
    """The columns of a statement's tables: of all, and by the name the statement has for each."""

    every: dict[str, str]
    by_alias: dict[str, dict[str, str]]

    def of(self, column: str, alias: str) -> str | None:
        mine = self.by_alias.get(alias.lower()) if alias else None
        found = mine.get(column.lower()) if mine is not None else None
        return found if found is not None else self.every.get(column.lower())


def _fix_names(tree: Node, found: dict[int, Table]) -> None:
    """Give every table its name of the schema, every column its case, every alias one spelling.

    Servers' digests shout their keywords and some names; a statement may name the schema of a table, of a
    column, of both or of neither.
    """
    bare: dict[str, set[str]] = {}
    for node in tree.find_all(exp.Table):
        if id(node) in found and not node.alias:
            bare.setdefault(node.name.lower(), set()).add(found[id(node)].name)
    names = _Names({}, {})
    for node in tree.find_all(exp.Table):
        table = found.get(id(node))
        if table is None:
            _fold_table(node)
            continue
        alias = node.alias_or_name.lower()
        if not node.alias and len(bare[alias]) > 1 and node.db:
            alias = f"{node.db}.{alias}".lower()  # two tables of one name, told apart by their schemas
        columns = {c.lower(): c for c in table.columns}
        names.by_alias.setdefault(alias, {}).update(columns)
        names.every.update({k: v for k, v in columns.items() if k not in names.every})
        node.set("this", exp.to_identifier(table.name, quoted=True))
        node.set("alias", exp.TableAlias(this=exp.to_identifier(alias, quoted=True)))
        node.set("db", None)
        node.set("catalog", None)
    for join in tree.find_all(exp.Join):
        if join.args.get("method") == "NATURAL":
            _natural(join, found)
        for part in join.args.get("using") or ():
            name = names.every.get(part.name.lower())
            if name is not None and isinstance(part, exp.Identifier):
                part.set("this", name)
                part.set("quoted", True)
    _fold(tree, names)


def _fold_table(node: Node) -> None:
    if isinstance(node.this, exp.Identifier):
        alias = node.alias
        node.set("this", exp.to_identifier(node.name.lower(), quoted=True))
        if alias:
            node.set("alias", exp.TableAlias(this=exp.to_identifier(alias.lower(), quoted=True)))


def _fold(tree: Node, names: _Names) -> None:
    """Give each alias one case, wherever it is used; columns keep the schema's."""
    for alias in tree.find_all(exp.TableAlias):
        if isinstance(alias.this, exp.Identifier):
            alias.set("this", exp.to_identifier(alias.name.lower(), quoted=True))
    for column in tree.find_all(exp.Column):
        if column.table:
            whole = f"{column.db}.{column.table}".lower()
            table = whole if column.db and whole in names.by_alias else column.table.lower()
            column.set("table", exp.to_identifier(table, quoted=True))
            column.set("db", None)
            column.set("catalog", None)
        if isinstance(column.this, exp.Identifier):
            name = names.of(column.name, column.table) or column.name.lower()
            column.set("this", exp.to_identifier(name, quoted=True))
    for named in tree.find_all(exp.Alias):
        name = named.alias.lower()
        named.set("alias", exp.to_identifier(names.every.get(name, name), quoted=True))


def _natural(join: exp.Join, found: dict[int, Table]) -> None:
    """Turn NATURAL JOIN into USING over the columns both sides have."""
    select = join.find_ancestor(exp.Select)
    right = found.get(id(join.this))
    if select is None or right is None:
        return
    source: Any = select.args.get("from_") or select.args.get("from")
    names: set[str] = set()
    for node in [source.this, *(j.this for j in select.args.get("joins") or () if j is not join)]:
        left = found.get(id(node))
        names |= set(left.columns) if left is not None else set()
    shared = [c for c in right.columns if c in names]
    if shared:
        join.set("method", None)
        join.set("using", [exp.to_identifier(c, quoted=True) for c in shared])


# --- views --------------------------------------------------------------------------------------


def _expand_views(tree: Node, schema: Schema, out: Analysis, depth: int = 0) -> Node:
    """Replace views by what they select, as the engine does."""
    if not schema.views or depth > _DEPTH:
        return tree
    views = {name.lower(): name for name in schema.views}
    hit = False
    for node in list(tree.find_all(exp.Table)):
        whole = f"{node.db}.{node.name}".lower()
        name = views.get(whole if node.db and whole in views else node.name.lower())
        if name is None or _is_cte(node) or isinstance(node.parent, (exp.Insert, exp.Update, exp.Delete)):
            continue
        if schema.table(node.name, node.db or None) is not None:
            continue
        parsed = parse(schema.views[name], schema.dialect).tree
        if isinstance(parsed, exp.Create):
            parsed = parsed.expression
        if isinstance(parsed, (exp.Select, exp.SetOperation)):
            alias = exp.TableAlias(this=exp.to_identifier(node.alias_or_name))
            joins = node.args.get("joins")
            node.replace(exp.Subquery(this=parsed.copy(), alias=alias, joins=joins))
            out.views[:] = [v for v in out.views if v != name] + [name]
            hit = True
    return _expand_views(tree, schema, out, depth + 1) if hit else tree


# --- one scope ----------------------------------------------------------------------------------


def _scope_uses(scope: Scope, schema: Schema, out: Analysis) -> Iterator[TableUse]:
    select = scope.expression
    if not isinstance(select, exp.Select):
        return
    uses = Uses(schema.dialect)
    for alias, source in scope.sources.items():
        if not isinstance(source, exp.Table) or alias not in scope.selected_sources:
            continue
        table = schema.tables.get(source.name)
        if table is not None:
            uses[alias] = TableUse(table.name, alias)
        elif not has_no_index(source, schema):
            out.unknown.append(source.name)
    if uses:
        yield from _read(select, uses, schema)


def _read(select: exp.Select, uses: Uses, schema: Schema) -> Iterator[TableUse]:
    _columns(select, uses, schema)
    for condition in conditions(select):
        read_condition(condition, uses)
    for join in select.args.get("joins") or ():
        if join.side in ("LEFT", "FULL") and join.alias_or_name in uses:
            uses[join.alias_or_name].in_outer = True
    read_shape(select, uses)
    yield from uses.values()


def _columns(select: exp.Select, uses: Uses, schema: Schema) -> None:
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
