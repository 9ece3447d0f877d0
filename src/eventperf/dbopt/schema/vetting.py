"""Index specs from outside: read, judged node by node, and written anew; never pasted."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any, Final

import sqlglot
from sqlglot import exp
from sqlglot.errors import SqlglotError

from eventperf.dbopt.errors import AdviceMismatch

from .engines import ENGINES
from .model import IndexSpec, Key, Table
from .types import category

METHODS: Final = frozenset({"btree", "hash", "gin", "gist", "brin", "spgist", "fulltext", "spatial"})
_CLASS: Final = re.compile(r'(?:"[^"\x00]+"|[A-Za-z_][A-Za-z0-9_]*)(?:\.[A-Za-z_][A-Za-z0-9_]*)?')
_COLLATE: Final = re.compile(r'COLLATE (?:"[^"\x00]+"|[A-Za-z_][A-Za-z0-9_]*)')

# What an index's expression or condition may be made of. Functions are those of the engines whose result
# depends on their arguments alone: building an index runs them, and an unknown one is somebody's code.
_NODES: Final = (
    exp.Column, exp.Identifier, exp.Literal, exp.Null, exp.Boolean, exp.Paren, exp.Not, exp.And, exp.Or,
    exp.Neg, exp.EQ, exp.NEQ, exp.GT, exp.GTE, exp.LT, exp.LTE, exp.Is, exp.In, exp.Between, exp.Like,
    exp.ILike, exp.Add, exp.Sub, exp.Mul, exp.Div, exp.Mod, exp.DPipe, exp.Collate, exp.Var, exp.Tuple,
    exp.Array, exp.Cast, exp.DataType, exp.DataTypeParam, exp.Lower, exp.Upper, exp.Coalesce, exp.Trim,
    exp.Substring, exp.Length, exp.Abs, exp.Round, exp.Floor, exp.Ceil, exp.Concat, exp.Extract,
    exp.Date, exp.TimestampTrunc, exp.DateTrunc, exp.Case, exp.If, exp.JSONExtract,
    exp.JSONExtractScalar, exp.JSONPath, exp.JSONPathRoot, exp.JSONPathKey, exp.JSONPathSubscript,
    exp.JSONBExtract, exp.JSONBExtractScalar, exp.MD5, exp.Nullif, exp.Year, exp.Month, exp.Day,
)  # fmt: skip

#: Functions of the engines that the parser has no class for.
_KNOWN: Final = frozenset({"to_tsvector"})


def vetted(spec: IndexSpec, dialect: str) -> IndexSpec:
    """Return ``spec`` with its texts written anew from what they were read as.

    Raises:
        AdviceMismatch: Something in it is no plain part of an index.

    >>> from eventperf.dbopt.schema.model import IndexSpec, Key
    >>> vetted(IndexSpec("t", (Key("a"),), where="status = 'open'"), "postgres").where
    "status = 'open'"
    """
    if dialect not in ENGINES:
        raise AdviceMismatch(f"the plan is for {dialect!r}; known: {', '.join(ENGINES)}")
    if spec.method not in METHODS:
        raise _refusal("an access method", spec.method)
    return replace(
        spec,
        keys=tuple(_key(key, dialect) for key in spec.keys),
        where=None if spec.where is None else expression(spec.where, dialect),
    )


def _key(key: Key, dialect: str) -> Key:
    if key.prefix is not None and (not isinstance(key.prefix, int) or key.prefix < 1):
        raise _refusal("a prefix length", key.prefix)
    if key.nulls_first not in (None, True, False):
        raise _refusal("a place of NULLs", key.nulls_first)
    if key.opclass is not None and not (_CLASS.fullmatch(key.opclass) or _COLLATE.fullmatch(key.opclass)):
        raise _refusal("an operator class", key.opclass)
    return replace(key, name=expression(key.name, dialect)) if key.is_expression else key


def expression(text: str, dialect: str) -> str:
    """Return an expression or condition of an index, written anew.

    Raises:
        AdviceMismatch: It is more than one expression, or made of something that no index needs.
    """
    try:
        statements = sqlglot.parse(text, read=dialect)
    except (SqlglotError, RecursionError) as error:
        raise _refusal("an expression", text) from error
    if len(statements) != 1 or statements[0] is None:
        raise _refusal("one expression", text)
    tree = statements[0]
    for node in tree.walk():
        if isinstance(node, exp.Anonymous) and str(node.this).lower() in _KNOWN:
            continue
        if not isinstance(node, _NODES):
            raise _refusal(f"part of an index ({type(node).__name__} is not)", text)
    return str(tree.sql(dialect=dialect, comments=False))


def is_immutable(text: str, table: Table, dialect: str) -> bool:
    """Tell whether an index may rest on an expression: its value is the same in every session.

    PostgreSQL refuses to build on what depends on settings: a zone, a style of dates, a locale. SQLite and
    MySQL are asked by the planner, which builds every candidate.
    """
    if dialect != "postgres":
        return True
    try:
        tree = sqlglot.parse_one(expression(text, dialect), read=dialect)
    except (AdviceMismatch, SqlglotError):
        return False
    return not any(_depends(node, table) for node in tree.walk())


def _depends(node: Any, table: Table) -> bool:
    if isinstance(node, exp.Concat):
        return True  # it turns its arguments into texts as the session says
    columns = [table.column(c.name) for c in node.find_all(exp.Column)]
    kinds = {"other" if c is None else category(c.type) for c in columns}
    if isinstance(node, (exp.Extract, exp.TimestampTrunc, exp.DateTrunc, exp.Date)):
        return "zoned" in kinds or "text" in kinds
    if not isinstance(node, exp.Cast):
        return False
    wanted = category(node.to.sql("postgres"))
    if wanted in ("date", "time", "zoned"):
        return wanted == "zoned" or not isinstance(node.this, exp.Column) or not kinds <= {"date", "time"}
    return wanted in ("text", "other") and bool(kinds & {"date", "time", "zoned"})


def _refusal(what: str, given: object) -> AdviceMismatch:
    return AdviceMismatch(
        f"the plan was not applied: {str(given)[:200]!r} is not {what} this library understands"
    )
