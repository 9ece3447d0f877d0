"""Write index DDL: quoted, deterministic, in each engine's online form."""

from __future__ import annotations

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from .engines import ENGINES
from .model import IndexSpec, Key, is_plain


def quote(name: str, dialect: str) -> str:
    r'''Return ``name`` as an identifier, whatever is in it; ``schema.table`` stays two names.

    >>> print(quote('odd "name"', 'sqlite'), quote('order', 'mysql'))
    "odd ""name""" `order`
    '''
    mark = ENGINES[dialect].mark
    return mark + name.replace(mark, mark * 2) + mark


def ansi(name: str) -> str:
    """Return a name as conditions of indexes have it: quoted where it must be.

    >>> ansi("status"), ansi("Status")
    ('status', '"Status"')
    """
    return name if is_plain(name) else '"' + name.replace('"', '""') + '"'


def quote_table(name: str, dialect: str) -> str:
    """Return a table's name quoted; where the engine has schemas, a dot separates schema and table."""
    if ENGINES[dialect].has_schemas and "." in name:
        schema, _, table = name.partition(".")
        return f"{quote(schema, dialect)}.{quote(table, dialect)}"
    return quote(name, dialect)


def key_sql(key: Key, dialect: str) -> str:
    """Return one part of an index."""
    text = ENGINES[dialect].expression.format(key.name)
    if not key.is_expression:
        text = quote(key.name, dialect)
        if key.prefix:
            text += f"({key.prefix})"
    if key.opclass:
        text += ENGINES[dialect].opclass.format(key.opclass)
    return text + key.order


def create_index_sql(spec: IndexSpec, name: str, dialect: str, *, concurrently: bool = False) -> str:
    """Return CREATE INDEX in the engine's online form."""
    parts = ", ".join(key_sql(k, dialect) for k in spec.keys)
    table = quote_table(spec.table, dialect)
    using = f" USING {spec.method}" if spec.method != "btree" else ""
    how = ENGINES[dialect].concurrently if concurrently else ""
    text = f"CREATE INDEX {how}{quote(name, dialect)} ON {table}{using} ({parts})"
    if spec.include:
        text += f" INCLUDE ({', '.join(quote(c, dialect) for c in spec.include)})"
    if spec.where:
        text += f" WHERE {spec.where}"
    return text + ENGINES[dialect].online


def normal_expression(text: str, dialect: str) -> str:
    """Return an expression or condition in one form, so that equal ones compare equal.

    >>> normal_expression('LOWER("email")', "postgres"), normal_expression("lower((email)::text)", "postgres")
    ('LOWER(email)', 'LOWER(email)')
    """
    try:
        tree = sqlglot.parse_one(text, read=dialect)
    except SqlglotError:
        return text
    for cast in list(tree.find_all(exp.Cast)):
        if cast.to.this in (exp.DataType.Type.TEXT, exp.DataType.Type.VARCHAR):
            if cast is tree:
                tree = cast.this
            else:
                cast.replace(cast.this)
    for paren in list(tree.find_all(exp.Paren)):
        if isinstance(paren.this, (exp.Column, exp.Literal)) and paren is not tree:
            paren.replace(paren.this)
    if isinstance(tree, exp.Paren):
        tree = tree.this
    for name in tree.find_all(exp.Identifier):
        if is_plain(name.name):
            name.set("quoted", False)
    return str(tree.sql(dialect=dialect))
