"""What an index may be: what an engine can hold of an idea, and one index that does the work of several."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Final

from eventperf.dbopt.protocols import Capabilities
from eventperf.dbopt.schema.model import Column, IndexSpec, Key, Schema, Table

#: Bytes of what is carried along, at most.
WIDEST: Final = 160.0
_MOST_MERGED: Final = 8
#: What a value without a limit is taken for; where texts have a prefix, its bytes.
_ENDLESS_BYTES: Final = {False: 300, True: 256}
_NO_BTREE: Final = (
    "json",
    "xml",
    "point",
    "geometry",
    "polygon",
    "box",
    "circle",
    "tsvector",
    "hstore",
    "[]",
    "array",
    "path",
)


def clean(spec: IndexSpec, table: Table, able: Capabilities) -> IndexSpec | None:
    """Drop repeated columns, a primary key at the end and types without order; uniform DESC is ASC."""
    keys: list[Key] = []
    for key in spec.keys:
        column = None if key.is_expression else table.column(key.name)
        if key.is_expression or (column is not None and has_order(column, spec.method)):
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
    if all(k.descending for k in keys):
        keys = [k.flipped for k in keys]
    elif not able.descending:
        keys = [replace(k, descending=False) for k in keys]
    if able.max_key_bytes is not None:
        while len(keys) > 1 and bytes_of(keys, table, able) > able.max_key_bytes:
            keys.pop()
    names = {k.name for k in keys}
    include = tuple(c for c in spec.include if c not in names) if able.include else ()
    return IndexSpec(table.name, tuple(keys), include, spec.where, spec.method)


def bytes_of(keys: Sequence[Key], table: Table, able: Capabilities) -> int:
    """Return the most bytes of a key; what has no limit counts as one long text would."""
    total = 0
    for key in keys:
        column = None if key.is_expression else table.column(key.name)
        known = column.longest if column is not None else None
        total += known if known is not None else _ENDLESS_BYTES[able.prefix_for_text]
    return total


def has_order(column: Column, method: str) -> bool:
    """Tell whether an index of this kind can hold a column: a tree wants values that have an order."""
    lowered = column.type.lower()
    return method != "btree" or (column.is_ordered and not any(word in lowered for word in _NO_BTREE))


def exists(spec: IndexSpec, table: Table) -> bool:
    """Tell whether a usable index already serves every lookup of ``spec``."""
    return any(i.valid and spec.is_prefix_of(i.spec) for i in table.indexes)


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
    carried = [c for c in found if c is not None and has_order(c, "btree")]
    lengths = [c.longest for c in carried]
    if able.max_key_bytes is not None:
        room = able.max_key_bytes - bytes_of(first.keys, table, able)
        if None in lengths or sum(n for n in lengths if n is not None) > room:
            return None
    if sum(c.stats.width for c in carried) > WIDEST:
        return None
    if able.include:
        spec = IndexSpec(first.table, first.keys, tuple(sorted(c.name for c in carried)), first.where)
    else:
        spec = IndexSpec(first.table, (*first.keys, *(Key(c.name) for c in carried)), (), first.where)
    cleaned = clean(spec, table, able)
    return None if cleaned is None or cleaned in parts or exists(cleaned, table) else cleaned
