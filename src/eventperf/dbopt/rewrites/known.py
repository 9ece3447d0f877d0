"""The parts of SQL whose meaning the rules know; a statement with any other part is left as it is.

A list of what is known, never of what is dangerous: a function that makes several rows of one, draws a
number, or was written by somebody else is simply not on it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

from sqlglot import exp

from eventperf.dbopt.statements.lex import tokens

from .tree import text_of

_NAMES: Final = """
Select From Join Where Group Having Order Ordered Limit Offset Fetch Distinct With CTE Subquery
Table TableAlias Identifier Column Star Alias Literal Null Boolean Placeholder Var Tuple Paren And
Or Not EQ NEQ GT GTE LT LTE NullSafeEQ NullSafeNEQ Is In Between Like ILike Glob Escape Exists Add
Sub Mul Div IntDiv Mod Neg DPipe Concat Collate Cast DataType DataTypeParam Case If Coalesce Nullif
Count Sum Avg Min Max Abs Round Lower Upper Length Substring Left Right Trim Date TsOrDsToDate Year
Month Day Extract CurrentDate CurrentTimestamp CurrentTime Interval IntervalSpan Union Intersect
Except JSONExtract JSONExtractScalar JSONPath JSONPathRoot JSONPathKey JSONPathSubscript
"""
_NODES: Final = frozenset(_NAMES.split())


#: Words that a tree's text has or has not, with no other meaning.
_SILENT: Final = frozenset(
    ["as", "inner", "outer", "asc", "join", "cross", "all", "offset", "nulls", "first", "last", "is", "both",
     "::", "(", ")", ",", ";"]
)  # fmt: skip
_CASTS: Final = frozenset(["cast", "from", "for", "time", "without", "zone"])
_WORDS: Final = {
    "ifnull": "coalesce", "substr": "substring", "mid": "substring", "ucase": "upper", "lcase": "lower",
    "integer": "int", "distinctrow": "distinct", "now": "current_timestamp", "curdate": "current_date",
    "ltrim": "trim leading", "rtrim": "trim trailing", "btrim": "trim", "!=": "<>", "mod": "%",
}  # fmt: skip
#: Types that are one on one engine only: NUMERIC and REAL are two in SQLite.
_TYPES: Final = {
    "sqlite": {"varchar": "text", "double": "real", "float": "real", "bigint": "int", "nvarchar": "text"},
    "postgres": {
        "numeric": "decimal", "int4": "int", "int8": "bigint", "int2": "smallint", "float4": "real",
        "bool": "boolean", "character": "char", "char_length": "length", "unknown": "null",
        "float": "double precision", "float8": "double precision",
    },
    "mysql": {"signed": "int", "&&": "and", "dayofmonth": "day"},
}  # fmt: skip


def is_open(sql: str, tree: Any, dialect: str) -> bool:
    """Tell whether rules may look at a statement: each part is known, and is what was written."""
    return is_known(tree) and is_told_back(sql, tree, dialect)


def is_told_back(sql: str, tree: Any, dialect: str) -> bool:
    """Tell whether a tree's own text says what the statement says, but for words of one meaning.

    Forms are made of the tree: what the parser took for something else (NUMERIC for REAL, a label with a
    dot for a path, ``||`` for OR where a mode says that it joins texts) would be in all of them.
    """
    return _said(sql, dialect) == _said(text_of(tree, dialect), dialect)


def _said(sql: str, dialect: str) -> Counter[str]:
    return Counter(word for token in tokens(sql, dialect) for word in _plainly(*token, dialect))


def _plainly(kind: str, text: str, dialect: str) -> Iterator[str]:
    if kind in ("space", "comment") or text in _SILENT:
        return
    if kind == "string":
        text = text.replace("\\'", "''").replace("\\\\", "\\") if dialect == "mysql" else text
        yield text[:1].lower() + text[1:]
    elif kind == "ident":
        yield text[1:-1].lower()
    elif kind == "number":
        yield f"0{text}" if text.startswith(".") else text.lower()
    else:
        word = text.lower()
        for one in _TYPES[dialect].get(word, _WORDS.get(word, word)).split():
            if one not in _SILENT and not (dialect != "sqlite" and one in _CASTS):
                yield one


def is_known(tree: Any) -> bool:
    """Tell whether a statement holds only parts that give the same each time, and rows one by one.

    Not known: locks, WITH RECURSIVE, DISTINCT ON, samples of tables, renamed columns of a source, and a
    LIMIT or OFFSET inside, whose rows depend on how the engine happens to read them.
    """
    return all(_known(node, tree) for node in tree.walk())


def _known(node: Any, tree: Any) -> bool:
    if type(node).__name__ not in _NODES:
        return False
    args = node.args
    if isinstance(node, exp.Select):
        cut = (args.get("limit") or args.get("offset")) and node is not tree
        return not cut and not any(args.get(k) for k in ("locks", "laterals", "qualify", "hint", "into"))
    if isinstance(node, exp.SetOperation):
        return node is tree or not (args.get("limit") or args.get("offset"))
    if isinstance(node, exp.Distinct):
        return args.get("on") is None
    if isinstance(node, exp.With):
        return not args.get("recursive")
    if isinstance(node, exp.TableAlias):
        return not args.get("columns") or isinstance(node.parent, exp.CTE)
    if isinstance(node, exp.Table):
        return not any(args.get(k) for k in ("sample", "laterals", "only", "pivots", "partition", "version"))
    if isinstance(node, exp.Limit):
        return not args.get("limit_options")
    return True
