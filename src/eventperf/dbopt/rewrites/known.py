"""The parts of SQL whose meaning the rules know; a statement with any other part is left as it is.

A list of what is known, never of what is dangerous: a function that makes several rows of one, draws a
number, or was written by somebody else is simply not on it.
"""

from __future__ import annotations

from typing import Any, Final

from sqlglot import exp

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
