"""Indexes worth asking the planner about."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Final

from eventperf.dbopt.analysis.names import Predicate, TableUse
from eventperf.dbopt.protocols import Capabilities, Query
from eventperf.dbopt.schema.ddl import ansi
from eventperf.dbopt.schema.model import IndexSpec, Key, Schema, Table
from eventperf.dbopt.schema.selectivity import selectivity

_NO_BTREE: Final = (
    "json",
    "xml",
    "point",
    "geometry",
    "polygon",
    "box",
    "circle",
    "tsvector",
    "[]",
    "array",
    "path",
)
_LOOKUPS: Final = ("eq", "in", "null")
_MOST_COVERED: Final = 6
_WIDEST: Final = 160.0
_RARE: Final = 0.3
_FEW: Final = 12
_MOST_MERGED: Final = 8
_MANY_NULLS: Final = 0.2


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
        builder = _Builder(query, use, table, able, shared, most)
        for spec in builder._present(builder.build()):
            cleaned = clean(spec, table, able)
            if cleaned is not None and not exists(cleaned, table):
                found.setdefault(cleaned)
    return list(found)


def clean(spec: IndexSpec, table: Table, able: Capabilities) -> IndexSpec | None:
    """Drop repeated columns, a primary key at the end and types without order; uniform DESC is ASC."""
    keys: list[Key] = []
    for key in spec.keys:
        column = None if key.is_expression else table.column(key.name)
        if key.is_expression or (column is not None and _has_order(column.type, spec.method)):
            if key.name not in [k.name for k in keys]:
                keys.append(key)
        elif not keys:
            return None
        else:
            break
    if able.appends_primary_key:
        while len(keys) > 1 and (keys[-1].name,) == table.primary_key and not keys[-1].descending:
            keys.pop()
    if not keys or (len(keys) == 1 and (keys[0].name,) == table.primary_key):
        return None
    if tuple(k.name for k in keys[: len(table.primary_key)]) == table.primary_key and table.primary_key:
        return None
    ordered = {k.descending for k in keys}
    if ordered == {True} or not able.descending:
        keys = [Key(k.name, False, k.is_expression, k.opclass, k.prefix) for k in keys]
    names = {k.name for k in keys}
    include = tuple(c for c in spec.include if c not in names) if able.include else ()
    return IndexSpec(table.name, tuple(keys), include, spec.where, spec.method)


def _has_order(type_: str, method: str) -> bool:
    lowered = type_.lower()
    return method != "btree" or not any(word in lowered for word in _NO_BTREE)


def exists(spec: IndexSpec, table: Table) -> bool:
    """Tell whether a usable index already serves every lookup of ``spec``."""
    return any(i.valid and spec.is_prefix_of(i.spec) for i in table.indexes)


class _Builder:
    def __init__(
        self,
        query: Query,
        use: TableUse,
        table: Table,
        able: Capabilities,
        shared: Counter[tuple[str, str]],
        most: int,
    ) -> None:
        self.use, self.table, self.able, self.most = use, table, able, most
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

    def _tails(self) -> list[list[tuple[str, bool]]]:
        tails: list[list[tuple[str, bool]]] = [[]]
        tails += [[(c, False)] for c in self.ranges[:2]]
        if self.use.order_by:
            tails.append(list(self.use.order_by))
        for columns in (self.use.group_by, self.use.distinct, self.use.min_max):
            if columns:
                tails.append([(c, False) for c in columns])
        if self.use.group_by and self.ranges:
            tails.append([(c, False) for c in (*self.use.group_by, self.ranges[0])])
        return tails

    def _keys(self, head: Sequence[str], tail: Sequence[tuple[str, bool]]) -> tuple[Key, ...]:
        keys = [Key(c) for c in head]
        keys += [Key(c, d) for c, d in tail if c not in head]
        directions = {k.descending for k in keys[len(head) :]}
        if len(directions) == 1:
            keys = [Key(k.name) for k in keys]
        return tuple(keys[: self.most])

    def _with_covering(self, keys: tuple[Key, ...]) -> Iterator[IndexSpec]:
        yield IndexSpec(self.table.name, keys)
        names = {k.name for k in keys}
        primary = self.table.primary_key if self.able.appends_primary_key else ()
        rest = sorted(c for c in self.use.columns if c not in names and c not in primary)
        columns = [self.table.column(c) for c in rest]
        width = sum(c.stats.width for c in columns if c is not None)
        if not rest or len(rest) > _MOST_COVERED or width > _WIDEST:
            return
        if any(c is None or not _has_order(c.type, "btree") for c in columns):
            return
        if self.able.include:
            yield IndexSpec(self.table.name, keys, tuple(rest))
        else:
            # Columns that are also filtered on come first: the engine can test them in the index.
            filtered = [c for c in rest if any(p.column == c for p in self.use.predicates)]
            ordered = filtered + [c for c in rest if c not in filtered]
            yield IndexSpec(self.table.name, keys + tuple(Key(c) for c in ordered))

    def _expressions(self) -> Iterator[IndexSpec]:
        if not self.able.expression:
            return
        for p in self.use.predicates:
            if p.kind == "function" and p.expression and p.inner in ("eq", "in", "range", "prefix"):
                opclass = "text_pattern_ops" if p.inner == "prefix" and self.able.pattern_ops else None
                key = Key(p.expression, is_expression=True, opclass=opclass)
                yield IndexSpec(self.table.name, (key,))
                if self.equal:
                    yield IndexSpec(self.table.name, (*map(Key, self.equal), key))

    def _patterns(self) -> Iterator[IndexSpec]:
        for p in self.prefixes:
            if self.able.pattern_ops:
                key = Key(p.column, opclass="text_pattern_ops")
                if p.op == "like":
                    yield IndexSpec(self.table.name, (key,))
                    if self.equal:
                        yield IndexSpec(self.table.name, (*map(Key, self.equal), key))
            else:
                yield IndexSpec(self.table.name, (Key(p.column),))
                if self.equal:
                    yield IndexSpec(self.table.name, (*map(Key, self.equal), Key(p.column)))
        if self.able.trigram:
            for p in self.use.predicates:
                if p.kind in ("prefix", "infix") and (p.kind == "infix" or p.op == "ilike"):
                    yield IndexSpec(self.table.name, (Key(p.column, opclass="gin_trgm_ops"),), method="gin")

    def _branches(self) -> Iterator[IndexSpec]:
        """Return one index per branch of an OR: the engine joins their results."""
        for group in self.use.alternatives:
            for branch in group:
                equal = [p.column for p in branch if p.kind in _LOOKUPS]
                other = [p.column for p in branch if p.kind in ("range", "prefix")][:1]
                keys = tuple(Key(c) for c in dict.fromkeys(equal + other))
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
            if p.kind in ("eq", "in") and (column.stats.distinct > _FEW or not self._is_fixed(p)):
                continue
            head = [c for c in self.equal + self.lists if c != p.column]
            for join in [[], *([j] for j in self.joins)]:
                for tail in self._tails():
                    keys = tuple(k for k in self._keys([*head, *join], tail) if k.name != p.column)
                    if keys:
                        yield IndexSpec(self.table.name, keys, where=text)

    def _is_fixed(self, p: Predicate) -> bool:
        """Tell whether every recorded text of the statement has these constants."""
        texts = [re.compile(rf"(?<![\w.]){re.escape(str(_literal(v)))}(?![\w.])") for v in p.values]
        return all(t.search(s.sql) for s in self.query.statement.samples for t in texts)

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


def mergers(
    pool: Iterable[IndexSpec], schema: Schema, able: Capabilities
) -> list[tuple[IndexSpec, list[IndexSpec]]]:
    """Return indexes that each do the work of several with the same keys, with those.

    Where all columns are keys, "the same keys" is the first, and any two make a pair.
    """
    groups: dict[IndexSpec, list[IndexSpec]] = defaultdict(list)
    for spec in pool:
        if spec.method == "btree":
            same = spec.keys if able.include else spec.keys[:1]
            groups[replace(spec, keys=same, include=())].append(spec)
    if able.include:
        sets = [parts for parts in groups.values() if len(parts) > 1]
    else:
        few = [parts for parts in groups.values() if len(parts) <= _MOST_MERGED]
        sets = [list(pair) for parts in few for pair in permutations(parts, 2)]
    found = {merged: parts for parts in sets if (merged := merge(parts, schema, able)) is not None}
    return list(found.items())


def merge(parts: Sequence[IndexSpec], schema: Schema, able: Capabilities) -> IndexSpec | None:
    """Return an index in the order of the first that carries the others' columns, if there can be one.

    Source: Chaudhuri and Narasayya, "Index Merging", ICDE 1999.
    """
    first, *others = parts
    table = schema.tables[first.table]
    columns = dict.fromkeys(first.include)
    for other in others:
        if any(k.is_expression or k.opclass or k.prefix for k in other.keys[1:]):
            return None
        columns |= dict.fromkeys((*(k.name for k in other.keys[1:]), *other.include))
    names = {k.name for k in first.keys}
    found = [table.column(c) for c in columns if c not in names]
    carried = [c for c in found if c is not None and _has_order(c.type, "btree")]
    if sum(c.stats.width for c in carried) > _WIDEST:
        return None
    if able.include:
        spec = IndexSpec(first.table, first.keys, tuple(sorted(c.name for c in carried)), first.where)
    else:
        spec = IndexSpec(first.table, (*first.keys, *(Key(c.name) for c in carried)), (), first.where)
    cleaned = clean(spec, table, able)
    return None if cleaned is None or cleaned in parts or exists(cleaned, table) else cleaned


def column_weights(queries: Iterable[Query]) -> Counter[tuple[str, str]]:
    """Return how much of the workload looks up each column by value."""
    out: Counter[tuple[str, str]] = Counter()
    for query in queries:
        for use in query.analysis.uses:
            looked_up = {p.column for p in use.predicates if p.kind == "eq"} | {j[0] for j in use.joins}
            for column in looked_up:
                out[use.table, column] += max(1, round(query.weight * 1e6))
    return out
