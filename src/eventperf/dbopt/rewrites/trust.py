"""What a schema really promises: identity of values behind an equality, keys, an order that is total."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from sqlglot import exp

from eventperf.dbopt.schema.model import Column, Schema, Table
from eventperf.dbopt.schema.types import category

from .tree import Node, Owner, conjuncts, owner, sources, table_of, where

_WHOLE: Final = ("smallint", "int", "integer", "bigint", "mediumint", "tinyint")
_BYTEWISE: Final = {"C", "POSIX", "ucs_basic", "BINARY"}


def base_type(column: Column) -> str:
    """Return a type without its length: ``varchar(30)`` is ``varchar``."""
    return " ".join(re.sub(r"\([^)]*(?:\)|\Z)", " ", column.type.lower()).split())


def affinity(column: Column) -> str:
    """Return what SQLite makes of values that are written to a column.

    Source: "Determination Of Column Affinity", sqlite.org/datatype3.html.
    """
    type_ = column.type.upper()
    if "INT" in type_:
        return "INTEGER"
    if any(word in type_ for word in ("CHAR", "CLOB", "TEXT")):
        return "TEXT"
    if not type_ or "BLOB" in type_:
        return "BLOB"
    return "REAL" if any(word in type_ for word in ("REAL", "FLOA", "DOUB")) else "NUMERIC"


def is_whole(column: Column, table: Table | None, dialect: str) -> bool:
    """Tell whether a column can hold signed whole numbers only; in SQLite the rowid alone does."""
    if dialect == "sqlite":
        is_rowid = table is not None and table.primary_key == (column.name,) and not column.nullable
        return is_rowid and column.type.upper() == "INTEGER"
    words = base_type(column)
    return words in _WHOLE


def same_kind(one: Owner, other: Owner, schema: Schema) -> bool:
    """Tell whether equality of two columns is an equivalence: one type, one collation, no casts."""
    if one.column is None or other.column is None or one.column.collation != other.column.collation:
        return False
    ours, theirs = category(one.column.type), category(other.column.type)
    if ours != theirs or ours == "other":
        return False
    if schema.dialect == "sqlite":
        kind = affinity(one.column)
        return kind == affinity(other.column) and kind in ("INTEGER", "TEXT", "REAL")
    types = {base_type(one.column), base_type(other.column)}
    if ours == "int":
        return all(t.split(" ")[0] in (*_WHOLE, "serial", "bigserial") for t in types)
    if any(t.startswith(("enum", "set")) for t in types):
        return False
    return len(types) == 1 and (ours != "text" or _is_plain_text(one.column, schema.dialect))


def _is_plain_text(column: Column, dialect: str) -> bool:
    """Refuse collations under which two different texts may be equal, where that is not the engine's rule."""
    return dialect != "postgres" or column.collation is None or column.collation in _BYTEWISE


def is_identity(one: Owner, other: Owner, schema: Schema) -> bool:
    """Tell whether equal values of two columns are the same value, whatever is asked of them."""
    if not same_kind(one, other, schema) or one.column is None:
        return False
    kind = category(one.column.type)
    if kind == "text":
        bytewise = one.column.collation in (None, *_BYTEWISE) and schema.dialect != "mysql"
        return bytewise and base_type(one.column) not in ("character", "char", "bpchar")
    if kind == "int" and schema.dialect != "sqlite" and other.column is not None:
        # The same number, but what is computed of it may be too large, or below zero, for one of them only.
        return base_type(one.column) == base_type(other.column)
    return kind in ("int", "bool", "date") or (kind == "time" and schema.dialect != "sqlite")


def base_tables(select: Node, schema: Schema) -> list[tuple[str, Table]] | None:
    """Return ``(alias, table)`` of each source; ``None`` where one is no table, or may be missing."""
    out = []
    for alias, source, missing in sources(select):
        table = table_of(source, schema)
        if table is None or missing:
            return None
        out.append((alias, table))
    return out or None


def required_keys(table: Table) -> Iterator[tuple[str, ...]]:
    """Yield keys of columns that are never NULL."""
    for key in dict.fromkeys((table.primary_key, *table.unique_sets)):
        columns = [table.column(c) for c in key]
        if key and all(c is not None and not c.nullable for c in columns):
            yield key


_Place = tuple[str, str]


def decides_all(
    select: Node, items: Sequence[Node], tables: Sequence[tuple[str, Table]], schema: Schema
) -> bool:
    """Tell whether ``items`` decide a key of every table, through keys and equalities of one kind."""
    known: set[_Place] = set()
    for item in items:
        if isinstance(item, exp.Star):
            known |= {(a, c) for a, t in tables for c in t.columns}
        elif isinstance(item, exp.Column) and isinstance(item.this, exp.Star):
            known |= {(a, c) for a, t in tables if a == item.table for c in t.columns}
        elif (at := _place(item.unalias(), select, schema)) is not None:
            known.add(at[0])
    pairs = _pairs(select, schema)
    if pairs is None:
        return False
    size = -1
    while size != len(known):
        size = len(known)
        for one, other in pairs:
            if one in known or other in known:
                known |= {one, other}
        for alias, table in tables:
            if any(all((alias, c) in known for c in key) for key in required_keys(table)):
                known |= {(alias, c) for c in table.columns}
    return all(any(all((a, c) in known for c in k) for k in required_keys(t)) for a, t in tables)


def _place(node: Node, select: Node, schema: Schema) -> tuple[_Place, Owner] | None:
    found = owner(node, schema) if isinstance(node, exp.Column) else None
    if found is None or found.select is not select or found.column is None:
        return None
    return (found.alias, found.column.name), found


def _pairs(select: Node, schema: Schema) -> list[tuple[_Place, _Place]] | None:
    terms = where(select)
    for join in select.args.get("joins") or ():
        if join.args.get("using") or join.args.get("method"):
            return None
        terms += list(conjuncts(join.args.get("on")))
    out = []
    for term in terms:
        if isinstance(term, exp.EQ):
            left, right = (_place(n.unnest(), select, schema) for n in (term.left, term.right))
            if left is not None and right is not None and same_kind(left[1], right[1], schema):
                out.append((left[0], right[0]))
    return out


def cuts_by_chance(tree: Node, schema: Schema) -> bool:
    """Tell whether a LIMIT or OFFSET keeps rows that the order does not decide."""
    if not (tree.args.get("limit") or tree.args.get("offset")):
        return False
    order = tree.args.get("order")
    if order is None or not isinstance(tree, exp.Select):
        return True
    if tree.args.get("group") or tree.find(exp.AggFunc):
        return True
    tables = base_tables(tree, schema)
    names = {e.alias: e.unalias() for e in tree.expressions if isinstance(e, exp.Alias)}
    items = [names.get(o.this.name, o.this) if not _table(o.this) else o.this for o in order.expressions]
    return tables is None or not decides_all(tree, items, tables, schema)


def _table(node: Node) -> str:
    return node.table if isinstance(node, exp.Column) else ""
