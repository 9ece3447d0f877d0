"""Compare both forms of a statement on real rows."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from sqlglot import exp

from eventperf.dbopt.errors import DatabaseError
from eventperf.dbopt.protocols import Dialect
from eventperf.dbopt.schema.ddl import quote, quote_table
from eventperf.dbopt.schema.model import Schema, Table

from .proof import multiset, sample_rows, tables_of
from .tree import Node, filled, has_parameters, inlined, text_of
from .trust import cuts_by_chance

_ROWS: Final = 5_000
_SAMPLE: Final = 1_000
TIMEOUT_S: Final = 2.0


class Verdict(NamedTuple):
    """What a comparison on real rows showed.

    Attributes:
        differs: Other rows were seen.
        shows: Equal rows were seen, and some: it could have shown otherwise.
        text: In words.
    """

    differs: bool
    shows: bool
    text: str


DIFFERS: Final = Verdict(True, False, "real rows differ")


class Rows:
    """Real rows of one database, for the comparison of two forms."""

    def __init__(self, dialect: Dialect, schema: Schema, end: float) -> None:
        self._dialect, self._schema, self._end = dialect, schema, end

    def compare(
        self, sql: str, tree: Node, other: Node, values: Sequence[Any] | None, *, too_long: bool = False
    ) -> Verdict:
        """Run both forms and tell whether their rows are equal, and whether that says anything.

        Args:
            sql: The statement as it was written: that is what runs, not what became of it in the parser.
            tree: The same as a tree.
            other: The other form.
            values: Of its parameters; without them nothing can be compared.
            too_long: It is known to take too long: a sample is taken.
        """
        if values is None and has_parameters(tree):
            return Verdict(False, False, "real rows were not compared: the parameters are not known")

        def value(n: int) -> Any:
            return values[n - 1] if values is not None and n <= len(values) else None

        one, two = inlined(tree, value), inlined(other, value)
        if too_long:
            return self._sampled(one, two)
        try:
            ours = self._run(filled(sql, value, self._schema.dialect))
            theirs = self._rows(two)
        except DatabaseError:
            return self._sampled(one, two)
        if len(ours) == _ROWS or len(theirs) == _ROWS:
            return self._sampled(one, two)
        if cuts_by_chance(tree, self._schema):
            return self._without_limit(one, two)
        sorted_by = places(one)
        if multiset(ours) != multiset(theirs) or in_order(ours, sorted_by) != in_order(theirs, sorted_by):
            return DIFFERS
        if not ours:
            return Verdict(False, False, "the statement finds no row today, so nothing was compared")
        return Verdict(False, True, f"{len(ours)} real rows were equal, as multisets")

    def _without_limit(self, one: Node, two: Node) -> Verdict:
        bare = [t.copy() for t in (one, two)]
        for each in bare:
            each.set("limit", None)
            each.set("offset", None)
        try:
            ours, theirs = self._rows(bare[0]), self._rows(bare[1])
        except DatabaseError:
            return Verdict(False, False, "all rows behind LIMIT took too long to compare")
        if multiset(ours) != multiset(theirs):
            return (
                DIFFERS if len(ours) < _ROWS else Verdict(False, False, "rows behind LIMIT were not compared")
            )
        text = f"{len(ours)} real rows were equal; which of equal ranks LIMIT keeps is not defined"
        return Verdict(False, False, f"{text}: order by a key as well to make it so")

    def _rows(self, tree: Node) -> list[Any]:
        return self._run(text_of(tree, self._schema.dialect))

    def _run(self, sql: str) -> list[Any]:
        left = max(0.05, min(TIMEOUT_S, self._end - time.monotonic()))
        return list(self._dialect.rows(sql, timeout_s=left, limit=_ROWS))

    def _sampled(self, one: Node, two: Node) -> Verdict:
        tables = tables_of(one, self._schema)
        if tables is None:
            return Verdict(False, False, "all real rows took too long to compare")
        trial = sample_rows(one, two, self._schema, [(t, self._sample(t)) for t in tables])
        if trial.equal is False:
            return DIFFERS
        if trial.equal is None or not trial.with_rows:
            return Verdict(
                False, False, "all real rows took too long to compare, and a sample decides nothing"
            )
        text = f"all real rows took too long to compare: equal on samples of up to {_SAMPLE:,} rows per table"
        return Verdict(False, not cuts_by_chance(one, self._schema), text)

    def _sample(self, table: Table) -> list[Any]:
        if table.sample:
            return list(table.sample[:_SAMPLE])
        dialect = self._schema.dialect
        names = ", ".join(quote(c, dialect) for c in table.columns)
        sql = f"SELECT {names} FROM {quote_table(table.name, dialect)} LIMIT {_SAMPLE}"
        return list(self._dialect.rows(sql, timeout_s=TIMEOUT_S, limit=_SAMPLE))


def places(tree: Node) -> list[int]:
    """Return where in a row stands what the rows are ordered by, as far as that can be told."""
    order, items = tree.args.get("order"), list(tree.selects)
    names = [item.alias_or_name.lower() for item in items]
    if order is None or any(item.is_star for item in items):
        return []
    out: list[int] = []
    for key in (o.this for o in order.expressions):
        if not isinstance(key, exp.Column) or names.count(key.name.lower()) != 1:
            break
        out.append(names.index(key.name.lower()))
    return out


def in_order(rows: Sequence[Any], places: Sequence[int]) -> list[Any]:
    """Return what rows are ordered by, row by row."""
    return [tuple(row[place] for place in places) for row in rows]
