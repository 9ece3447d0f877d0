"""One condition on a table, as what an index or an estimate needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

PredicateKind = Literal[
    "eq", "in", "range", "prefix", "infix", "null", "not_null", "contains", "function", "other"
]


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
        op: The comparison: ``>``, ``>=``, ``<``, ``<=`` or ``between`` of a range, ``like``, ``ilike`` or
            ``glob`` of a prefix, ``@>``, ``<@``, ``&&``, ``?`` or ``@@`` of what contains.
        collation: The collation that the condition names.
    """

    column: str
    kind: PredicateKind
    values: tuple[Any, ...] = ()
    expression: str | None = None
    inner: PredicateKind | None = None
    node: Any = field(default=None, compare=False, repr=False)
    op: str | None = None
    collation: str | None = None


class Ordering(NamedTuple):
    """One column of an ORDER BY.

    Attributes:
        column: Its name.
        descending: Its direction.
        nulls_first: Where NULLs are asked for, if not where the engine puts them by itself.
        collation: The collation that the order names.
    """

    column: str
    descending: bool = False
    nulls_first: bool | None = None
    collation: str | None = None
