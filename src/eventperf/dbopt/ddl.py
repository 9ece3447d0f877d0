"""Write index DDL: quoted, deterministic, in each engine's online form."""

from __future__ import annotations

from .model import IndexSpec, Key


def quote(name: str, dialect: str) -> str:
    r'''Return ``name`` as an identifier, whatever is in it; ``schema.table`` stays two names.

    >>> print(quote('odd "name"', 'sqlite'), quote('order', 'mysql'))
    "odd ""name""" `order`
    '''
    mark = "`" if dialect == "mysql" else '"'
    return mark + name.replace(mark, mark * 2) + mark


def quote_table(name: str, dialect: str, schemas: bool = False) -> str:
    """Return a table's name quoted; with ``schemas`` a dot separates schema and table."""
    if schemas and "." in name:
        schema, _, table = name.partition(".")
        return f"{quote(schema, dialect)}.{quote(table, dialect)}"
    return quote(name, dialect)


def key_sql(key: Key, dialect: str) -> str:
    """Return one part of an index."""
    text = f"({key.name})" if key.is_expression and dialect == "postgres" else key.name
    if not key.is_expression:
        text = quote(key.name, dialect)
        if key.prefix:
            text += f"({key.prefix})"
    if key.opclass:
        text += f" {key.opclass}"
    return text + (" DESC" if key.descending else "")


def create_index_sql(
    spec: IndexSpec, name: str, dialect: str, *, concurrently: bool = False, schemas: bool = False
) -> str:
    """Return CREATE INDEX in the engine's online form."""
    parts = ", ".join(key_sql(k, dialect) for k in spec.keys)
    table = quote_table(spec.table, dialect, schemas)
    using = f" USING {spec.method}" if spec.method != "btree" else ""
    text = f"CREATE INDEX {'CONCURRENTLY ' if concurrently else ''}{quote(name, dialect)} ON {table}{using} ({parts})"
    if spec.include:
        text += f" INCLUDE ({', '.join(quote(c, dialect) for c in spec.include)})"
    if spec.where:
        text += f" WHERE {spec.where}"
    if dialect == "mysql":
        text += " ALGORITHM=INPLACE LOCK=NONE"
    return text
