"""Indexes worth asking the planner about."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from eventperf.dbopt.analysis.names import Predicate, TableUse
from eventperf.dbopt.protocols import Capabilities, Query
from eventperf.dbopt.schema.conditions import Ordering
from eventperf.dbopt.schema.ddl import ansi
from eventperf.dbopt.schema.model import Column, IndexSpec, Key, Schema, Table
from eventperf.dbopt.schema.selectivity import selectivity
from eventperf.dbopt.schema.types import category
from eventperf.dbopt.schema.vetting import is_immutable

from .forms import WIDEST, bytes_of, clean, exists, has_order

_LOOKUPS: Final = ("eq", "in", "null")
_MOST_COVERED: Final = 6
_RARE: Final = 0.3
_FEW: Final = 12
_MANY_NULLS: Final = 0.2
_BYTEWISE: Final = ("C", "POSIX", "ucs_basic")
#: A value in fewer rows than this share of an even one is special, whoever asks for it.
_SPECIAL: Final = 0.5
#: So many texts that agree on a constant make it a part of the statement.
_ENOUGH_TEXTS: Final = 5


def candidates(
    query: Query, schema: Schema, able: Capabilities, shared: Counter[tuple[str, str]], most: int = 4
) -> list[IndexSpec]:
    """Return the indexes that could serve ``query``.

    Args:
        query: The statement and its analysis.
        schema: Tables as they are.
        able: What the engine can do.
        shared: How much of the workload looks each ``(table, column)`` up; columns that many
            statements share come first, so that one index serves several.
        most: Most columns that order an index.
    """
    found: dict[IndexSpec, None] = {}
    for use in query.analysis.uses:
        table = schema.tables[use.table]
        if table.rows < 50:
            continue
        builder = _Builder(query, use, table, able, shared, most, schema.dialect)
        for spec in builder._present(builder.build()):
            cleaned = clean(spec, table, able)
            if cleaned is not None and not exists(cleaned, table):
                found.setdefault(cleaned)
    return list(found)


class _Builder:
    def __init__(
        self,
        query: Query,
        use: TableUse,
        table: Table,
        able: Capabilities,
        shared: Counter[tuple[str, str]],
        most: int,
        dialect: str,
    ) -> None:
        self.use, self.table, self.able, self.most, self.dialect = use, table, able, most, dialect
        self.query, self.values = query, query.sample.values
        self.shared = shared
        self.sel = {id(p): selectivity(p, table, self.values) for p in use.predicates}
        found = [p for p in use.predicates if p.kind in _LOOKUPS]
        # Equalities before IN and IS NULL: after a list, what follows is no longer in order.
        self.equal = self._rank([p.column for p in found if p.kind == "eq"])
        self.lists = self._rank([p.column for p in found if p.kind != "eq"])
        self.joins = self._rank([j[0] for j in use.joins])
        ranges = [p for p in use.predicates if p.kind == "range"]
        by_column: dict[str, float] = {}
        for p in ranges:
            by_column[p.column] = min(by_column.get(p.column, 1.0), 1.0) * self.sel[id(p)]
        self.ranges = sorted(by_column, key=lambda c: by_column[c])
        self.prefixes = [p for p in use.predicates if p.kind == "prefix"]

    def _rank(self, columns: Iterable[str]) -> list[str]:
        unique = list(dict.fromkeys(columns))
        return sorted(unique, key=lambda c: (-self.shared[self.table.name, c], -self._distinct(c), c))

    def _distinct(self, column: str) -> float:
        found = self.table.column(column)
        return found.stats.distinct if found is not None else 1.0

    def build(self) -> Iterator[IndexSpec]:
        heads = self._heads()
        for head in heads:
            for tail in self._tails():
                keys = self._keys(head, tail)
                if keys:
                    yield from self._with_covering(keys)
        yield from self._expressions()
        yield from self._contained()
        yield from self._patterns()
        yield from self._branches()
        yield from self._partial()

    def _heads(self) -> list[list[str]]:
        """Return lists of columns that are looked up by value, alone and with the join's."""
        heads = [self.equal + self.lists, self.equal]
        for join in self.joins:
            heads += [[*self.equal, join, *self.lists], [join, *self.equal, *self.lists], [join]]
        if len(self.joins) > 1:
            heads.append(self.equal + self.joins)
        heads += [[c] for c in self.equal + self.lists]
        heads.append([])
        return [list(h) for h in dict.fromkeys(tuple(h) for h in heads)]

    def _tails(self) -> list[list[Ordering]]:
        tails: list[list[Ordering]] = [[]]
        tails += [[Ordering(c)] for c in self.ranges[:2]]
        if self.use.order_by:
            tails.append(list(self.use.order_by))
        for columns in (self.use.group_by, self.use.distinct, self.use.min_max):
            if columns:
                tails.append([Ordering(c) for c in columns])
        if self.use.group_by and self.ranges:
            tails.append([Ordering(c) for c in (*self.use.group_by, self.ranges[0])])
        return tails

    def _keys(self, head: Sequence[str], tail: Sequence[Ordering]) -> tuple[Key, ...]:
        keys = [self._key(c) for c in head]
        ordered: list[Key] = []
        for asked in tail:
            if asked.column in head:
                continue
            key = self._ordered(asked)
            if key is None:
                break  # what follows would not be in order
            ordered.append(key)
        if ordered and all(k.descending for k in ordered):
            ordered = [k.flipped for k in ordered]
        return tuple([*keys, *ordered][: self.most])

    def _key(self, column: str) -> Key:
        """Return the key that a lookup needs: in its own collation, where that is not the column's."""
        named = {p.collation for p in self.use.predicates if p.column == column and p.kind in _LOOKUPS}
        return Key(column, opclass=self._other_collation(column, named.pop() if len(named) == 1 else None))

    def _ordered(self, asked: Ordering) -> Key | None:
        """Return the key for an order; ``None`` where no index has it, or it could refuse long values."""
        able = self.able
        if asked.nulls_first is not None and not able.orders_nulls:
            return None
        if asked.collation is not None and not able.collations:
            return None
        if able.refuses_long_values and not self.table.is_bounded(asked.column):
            return None
        collation = self._other_collation(asked.column, asked.collation)
        return Key(asked.column, asked.descending, opclass=collation, nulls_first=asked.nulls_first)

    def _other_collation(self, column: str, named: str | None) -> str | None:
        known = self.table.column(column)
        own = (known.collation if known is not None else None) or "BINARY"
        return named if named is not None and self.able.collations and named != own.upper() else None

    def _with_covering(self, keys: tuple[Key, ...]) -> Iterator[IndexSpec]:
        yield IndexSpec(self.table.name, keys)
        names = {k.name for k in keys}
        primary = self.table.primary_key if self.able.appends_primary_key else ()
        rest = sorted(c for c in self.use.columns if c not in names and c not in primary)
        columns = [self.table.column(c) for c in rest]
        width = sum(c.stats.width for c in columns if c is not None)
        if not rest or len(rest) > _MOST_COVERED or width > WIDEST:
            return
        if any(c is None or not has_order(c, "btree") for c in columns):
            return
        if not self._has_room(keys, [c for c in columns if c is not None]):
            return
        if self.able.include:
            yield IndexSpec(self.table.name, keys, tuple(rest))
        else:
            # Columns that are also filtered on come first: the engine can test them in the index.
            filtered = [c for c in rest if any(p.column == c for p in self.use.predicates)]
            ordered = filtered + [c for c in rest if c not in filtered]
            yield IndexSpec(self.table.name, keys + tuple(Key(c) for c in ordered))

    def _has_room(self, keys: Sequence[Key], more: Sequence[Column]) -> bool:
        """Tell whether columns can be carried along: their types have a limit, and the entry has room."""
        if self.able.max_key_bytes is None:
            return True
        lengths = [c.longest for c in more]
        known = [n for n in lengths if n is not None]
        room = self.able.max_key_bytes - bytes_of(keys, self.table, self.able)
        return len(known) == len(lengths) and sum(known) <= room

    def _contained(self) -> Iterator[IndexSpec]:
        """Return inverted indexes for what values contain, and trees of boxes for ranges."""
        if not self.able.inverted:
            return
        for p in self.use.predicates:
            column = self.table.column(p.column)
            if p.kind == "function" and p.inner == "contains" and p.expression:
                key = Key(p.expression, is_expression=True)
                yield IndexSpec(self.table.name, (key,), method="gin")
            elif p.kind == "contains" and column is not None:
                is_range = "range" in column.type.lower()
                method = "gist" if is_range or (p.op == "<@" and "[]" not in column.type) else "gin"
                yield IndexSpec(self.table.name, (Key(p.column),), method=method)

    def _expressions(self) -> Iterator[IndexSpec]:
        if not self.able.expression:
            return
        for p in self.use.predicates:
            is_one = p.kind == "function" and p.inner in ("eq", "in", "range", "prefix")
            if is_one and p.expression and is_immutable(p.expression, self.table, self.dialect):
                opclass = "text_pattern_ops" if p.inner == "prefix" and self.able.pattern_ops else None
                key = Key(p.expression, is_expression=True, opclass=opclass)
                yield IndexSpec(self.table.name, (key,))
                if self.equal:
                    yield IndexSpec(self.table.name, (*map(self._key, self.equal), key))

    def _patterns(self) -> Iterator[IndexSpec]:
        for p in self.prefixes:
            key = self._prefix_key(p)
            if key is not None:
                yield IndexSpec(self.table.name, (key,))
                if self.equal:
                    yield IndexSpec(self.table.name, (*map(self._key, self.equal), key))
        if self.able.trigram:
            for p in self.use.predicates:
                if p.kind in ("prefix", "infix") and (p.kind == "infix" or p.op == "ilike"):
                    yield IndexSpec(self.table.name, (Key(p.column, opclass="gin_trgm_ops"),), method="gin")

    def _prefix_key(self, p: Predicate) -> Key | None:
        """Return the key in whose order a pattern's matches stand side by side."""
        if self.able.collations:  # LIKE takes no notice of case here, GLOB does
            wanted = p.collation or ("BINARY" if p.op == "glob" else "NOCASE")
            return Key(p.column, opclass=self._other_collation(p.column, wanted))
        column = self.table.column(p.column)
        own = column.collation if column is not None else None
        if not self.able.pattern_classes or (own in _BYTEWISE if own else not self.able.pattern_ops):
            return Key(p.column)
        return Key(p.column, opclass="text_pattern_ops") if p.op == "like" else None

    def _branches(self) -> Iterator[IndexSpec]:
        """Return one index per branch of an OR: the engine joins their results."""
        for group in self.use.alternatives:
            for branch in group:
                equal = [p.column for p in branch if p.kind in _LOOKUPS]
                other = [p.column for p in branch if p.kind in ("range", "prefix")][:1]
                keys = tuple(self._key(c) for c in dict.fromkeys(equal + other))
                if keys:
                    yield IndexSpec(self.table.name, keys[: self.most])

    def _partial(self) -> Iterator[IndexSpec]:
        """Return partial indexes on rare constants that are part of the text, not of a call.

        Only NULL tests and few-valued columns qualify: ``WHERE event_id = 57`` would serve one caller.
        """
        if not self.able.partial:
            return
        for p in self.use.predicates:
            column = self.table.column(p.column)
            text = _constant(p)
            if column is None or text is None or self.sel[id(p)] > _RARE:
                continue
            if p.kind in ("eq", "in") and (column.stats.distinct > _FEW or not self._is_fixed(p, column)):
                continue
            head = [c for c in self.equal + self.lists if c != p.column]
            for join in [[], *([j] for j in self.joins)]:
                for tail in self._tails():
                    keys = tuple(k for k in self._keys([*head, *join], tail) if k.name != p.column)
                    if keys:
                        yield IndexSpec(self.table.name, keys, where=text)

    def _is_fixed(self, p: Predicate, column: Column) -> bool:
        """Tell whether these constants belong to the statement, not to one call of it.

        All its texts have them, and there are enough texts; or the text has its values as parameters beside
        them; or the value is a word for a state that few rows are in. The one number that was seen, say a
        customer's, is not the only one that will come.
        """
        texts = [re.compile(rf"(?<![\w.]){re.escape(str(_literal(v)))}(?![\w.])") for v in p.values]
        every = {s.sql for s in self.query.statement.samples}
        if not all(t.search(sql) for sql in every for t in texts):
            return False
        if len(every) >= _ENOUGH_TEXTS or any(":p1" in sql for sql in every):
            return True
        even = len(p.values) / max(1.0, column.stats.distinct)
        is_word = category(column.type) in ("text", "bool", "other")
        return is_word and self.sel[id(p)] < _SPECIAL * even

    def _present(self, found: Iterable[IndexSpec]) -> Iterator[IndexSpec]:
        """Return also those whose first column is often NULL without its NULLs.

        A comparison or an equality join finds no NULL; planners know that.
        """
        for spec in found:
            yield spec
            first = None if spec.keys[0].is_expression else self.table.column(spec.keys[0].name)
            if not self.able.partial or spec.where or spec.method != "btree" or first is None:
                continue
            compared = {p.column for p in self.use.predicates if p.kind in ("eq", "in", "range", "prefix")}
            if first.stats.null_ratio >= _MANY_NULLS and first.name in compared | {*self.joins}:
                yield replace(spec, where=f"{ansi(first.name)} IS NOT NULL")


def _constant(p: Predicate) -> str | None:
    """Return the predicate as text, if its values are constants."""
    quoted = ansi(p.column)
    if p.kind == "null":
        return f"{quoted} IS NULL"
    if p.kind == "not_null":
        return f"{quoted} IS NOT NULL"
    values = [_literal(v) for v in p.values]
    if p.kind not in ("eq", "in") or not values or None in values:
        return None
    if p.kind == "eq" or len(values) == 1:
        return f"{quoted} = {values[0]}"
    return f"{quoted} IN ({', '.join(map(str, values))})"


def _literal(value: object) -> str | None:
    if isinstance(value, str) and not value.startswith(":p"):
        return "'" + value.replace("'", "''") + "'"
    return str(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def column_weights(queries: Iterable[Query]) -> Counter[tuple[str, str]]:
    """Return how much of the workload looks up each column by value."""
    out: Counter[tuple[str, str]] = Counter()
    for query in queries:
        for use in query.analysis.uses:
            looked_up = {p.column for p in use.predicates if p.kind == "eq"} | {j[0] for j in use.joins}
            for column in looked_up:
                out[use.table, column] += max(1, round(query.weight * 1e6))
    return out
