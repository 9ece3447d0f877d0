"""Estimates from samples: how many different values, how many rows a condition keeps."""

from __future__ import annotations

import bisect
import math
import operator
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final

from .conditions import Predicate
from .ddl import ansi
from .model import Column, ColumnStats, IndexSpec, Table

_EQ: Final = 0.005
_RANGE: Final = 0.25
_CONTAINS: Final = 0.01
_COMMON: Final = 30
_WIDTHS: Final = 400  # so many values tell the mean width
_SIMPLE: Final = {int, float, str, bytes}
_FEW: Final = 4  # of so few values each is worth remembering
_BOUNDS: Final = 50


def distinct_estimate(sample: Iterable[Any], rows: int) -> float:
    """Return the estimated number of different values in a table of ``rows`` rows.

    Source: the Duj1 estimator, Haas and Stokes, "Estimating the Number of Classes in a Finite
    Population", JASA 1998; also what PostgreSQL's ANALYZE uses.

    >>> distinct_estimate([1, 1, 2, 2], 1000)
    2.0
    >>> round(distinct_estimate(range(100), 1000))
    1000
    """
    counts = Counter(sample)
    return _distinct(counts, sum(counts.values()), rows)


def _distinct(counts: Counter[Any], n: int, rows: int) -> float:
    if not n:
        return 1.0
    if n >= rows:
        return float(max(1, len(counts)))
    once = sum(1 for c in counts.values() if c == 1)
    estimate = n * len(counts) / (n - once + once * n / rows)
    return float(min(rows, max(len(counts), estimate)))


def column_stats(values: Sequence[Any], rows: int) -> ColumnStats:
    """Summarise a sample of one column."""
    n = len(values)
    if not n:
        return ColumnStats(distinct=1.0, width=4.0)
    present = [v for v in values if v is not None]
    if not {*map(type, present)} <= _SIMPLE:
        present = [_hashable(v) for v in present]
    counts = Counter(present)
    common = tuple(
        (v, c / n)
        for v, c in counts.most_common(_COMMON)
        if c > 1 and (c / n > 1.25 / len(counts) or len(counts) <= _FEW)
    )
    skip = {v for v, _ in common}
    rest = [v for v in present if v not in skip]
    try:
        rest.sort()
    except TypeError:
        rest = []
    bounds = tuple(rest[i * (len(rest) - 1) // _BOUNDS] for i in range(_BOUNDS + 1)) if len(rest) > 1 else ()
    some = values[:: max(1, n // _WIDTHS)]
    return ColumnStats(
        distinct=_distinct(counts, len(present), rows),
        null_ratio=(n - len(present)) / n,
        common=common,
        bounds=bounds,
        width=sum(map(_width, some)) / len(some),
    )


def _hashable(value: Any) -> Any:
    return value if isinstance(value, (int, float, str, bytes)) or value is None else str(value)


def _width(value: Any) -> float:
    if value is None:
        return 0.0
    if isinstance(value, bool):
        return 1.0
    if isinstance(value, int):
        return float(min(8, (value.bit_length() + 8) // 8))
    if isinstance(value, float):
        return 8.0
    if isinstance(value, (str, bytes)):
        return float(len(value.encode() if isinstance(value, str) else value))
    return 8.0


def prefix_distinct(table: Table, columns: Sequence[str]) -> list[float]:
    """Return the estimated number of different value lists for each prefix of ``columns``."""
    known = [c for c in columns if c in table.columns]
    out: list[float] = []
    for length in range(1, len(known) + 1):
        some = frozenset(known[:length])
        found = table.counted.get(some)
        if found is None:
            found = table.counted[some] = _lists(table, some)
        out.append(max(found, out[-1]) if out else found)
    return out


def _lists(table: Table, columns: frozenset[str]) -> float:
    """Return the estimated number of different value lists in ``columns``, whatever their order."""
    if table.is_unique(columns):
        return float(max(1, table.rows))
    places = [place for place, name in enumerate(table.columns) if name in columns]
    if not table.sample:
        distinct = [table.columns[c].stats.distinct for c in columns]
        return min(math.prod(distinct), float(max(1, table.rows)))
    values = operator.itemgetter(*places)
    try:
        return distinct_estimate(map(values, table.sample), table.rows)
    except TypeError:  # JSON and arrays
        return distinct_estimate((str(values(row)) for row in table.sample), table.rows)


def selectivity(predicate: Predicate, table: Table, values: Sequence[Any] | None) -> float:
    """Return the share of rows that ``predicate`` keeps, with the sample's parameter values."""
    column = table.column(predicate.column)
    if column is None:
        return _RANGE
    kind = predicate.inner if predicate.kind == "function" else predicate.kind
    given = [_resolve(v, values) for v in predicate.values]
    stats = column.stats
    if predicate.kind == "function":
        return 0.01 if kind in ("eq", "in") else _RANGE
    if kind == "eq":
        return (
            1.0 / max(1, table.rows)
            if table.is_unique((column.name,))
            else _equal(stats, given[0] if given else None)
        )
    if kind == "in":
        return min(1.0, sum(_equal(stats, v) for v in given) or _EQ)
    if kind == "null":
        return max(stats.null_ratio, 1e-6)
    if kind == "not_null":
        return 1.0 - stats.null_ratio
    if kind == "range":
        return _range(predicate, stats, given)
    if kind == "contains":
        return _CONTAINS
    if kind == "prefix":
        return _prefix(column, given)
    return 0.1 if kind == "infix" else 0.5


def _resolve(value: Any, values: Sequence[Any] | None) -> Any:
    if isinstance(value, str) and value[:2] == ":p" and value[2:].isdigit():
        place = int(value[2:]) - 1
        return values[place] if values is not None and place < len(values) else None
    return value


def _equal(stats: ColumnStats, value: Any) -> float:
    if value is None:
        return (1.0 - stats.null_ratio) / max(1.0, stats.distinct)
    key = _hashable(value)
    for known, share in stats.common:
        if known == key or (type(known) is not type(key) and str(known) == str(key)):
            return share
    return _rare_share(stats)


def _rare_share(stats: ColumnStats) -> float:
    """Return the share of rows of one value that is not among the common ones."""
    rest = 1.0 - stats.null_ratio - sum(share for _, share in stats.common)
    return max(rest, 0.0001) / max(1.0, stats.distinct - len(stats.common))


def _range(predicate: Predicate, stats: ColumnStats, given: Sequence[Any]) -> float:
    if not given or any(v is None for v in given):
        return _RANGE / 4 if predicate.op == "between" else _RANGE
    below = [_below(stats, v) for v in given]
    if any(b is None for b in below):
        return _RANGE
    shares = [b for b in below if b is not None]
    if predicate.op == "between":
        share = shares[-1] - shares[0]
    elif predicate.op in ("<", "<="):
        share = shares[0]
    else:
        share = 1.0 - stats.null_ratio - shares[0]
    return min(1.0, max(share, 0.0005))


def _below(stats: ColumnStats, value: Any) -> float | None:
    """Return the share of rows below ``value``."""
    key = _hashable(value)
    try:
        common = sum(share for known, share in stats.common if known < key)
        if not stats.bounds:
            return common if stats.common else None
        rest = 1.0 - stats.null_ratio - sum(share for _, share in stats.common)
        return float(common + rest * bisect.bisect_left(stats.bounds, key) / len(stats.bounds))
    except TypeError:
        return None


def _prefix(column: Column, given: Sequence[Any]) -> float:
    pattern = given[0] if given and isinstance(given[0], str) else ""
    fixed = len(pattern.split("%")[0].split("_")[0])
    return max(1.0 / max(1.0, column.stats.distinct), 0.2**fixed) if fixed else 0.1


def partial_columns(spec: IndexSpec, table: Table) -> tuple[str, ...]:
    """Return the columns that the predicate of a partial index restricts."""
    where = spec.where or ""
    names = {ansi(n): n for n in table.columns}
    return tuple(n for text, n in names.items() if where.startswith(f"{text} "))


def partial_share(spec: IndexSpec, table: Table) -> float:
    """Return the share of rows in a partial index."""
    where = spec.where or ""
    operand = where.partition(" = ")[2] or where.partition(" IN ")[2].strip("()")
    listed = {v.strip().strip("'") for v in operand.split(", ")}
    for column in table.columns.values():
        name = ansi(column.name)
        if where.startswith(f"{name} IS NULL"):
            return max(column.stats.null_ratio, 0.0001)
        if where.startswith(f"{name} IS NOT NULL"):
            return 1.0 - column.stats.null_ratio
        if where.startswith((f"{name} = ", f"{name} IN (")):
            shares = [share for value, share in column.stats.common if str(value) in listed]
            return sum(shares) + (len(listed) - len(shares)) * _rare_share(column.stats)
    return 0.5
