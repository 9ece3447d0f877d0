"""What the room talks about: tables, columns, indexes, statistics."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

from .types import longest

#: Longest name of an advised index: Django takes no longer one, and all outputs give the same.
NAME_LIMIT: Final = 30
_WORD: Final = re.compile(r"\w+")
_PLAIN: Final = re.compile(r"[a-z_][a-z0-9_]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnStats:
    """What a sample (or the server's own statistics) says about one column.

    Attributes:
        distinct: Estimated number of different values in the table.
        null_ratio: Share of NULLs.
        common: The most common values with their share.
        bounds: Values that cut the rest into parts of equal size, ascending.
        width: Mean stored bytes.
        correlation: Between row order and value order, -1 to 1.
    """

    distinct: float = 100.0
    null_ratio: float = 0.0
    common: tuple[tuple[Any, float], ...] = ()
    bounds: tuple[Any, ...] = ()
    width: float = 8.0
    correlation: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """A column of a table.

    Attributes:
        name: Its name.
        type: As the engine writes it.
        nullable: It may be NULL.
        collation: Named only where it differs from the database's.
        stats: What is known of its values.
        fixed_bytes: What each value takes, where the engine says so.
        is_ordered: An index can have its values in order, as far as the engine says.
    """

    name: str
    type: str
    nullable: bool = True
    collation: str | None = None
    stats: ColumnStats = ColumnStats()
    fixed_bytes: int | None = None
    is_ordered: bool = True

    @property
    def longest(self) -> int | None:
        """The most bytes a value can take; ``None`` where nothing limits it."""
        return self.fixed_bytes if self.fixed_bytes is not None else longest(self.type)


@dataclass(frozen=True, slots=True)
class Key:
    """One part of an index: a column, or an expression in the dialect's own SQL.

    Attributes:
        name: Column name, or the expression's text.
        descending: Sort direction.
        is_expression: Whether ``name`` is an expression.
        opclass: PostgreSQL operator class; SQLite collation, where it is not the column's own.
        prefix: Leading characters that are indexed (MySQL, for TEXT and BLOB).
        nulls_first: Where NULLs stand, if not where the engine puts them by itself.
    """

    name: str
    descending: bool = False
    is_expression: bool = False
    opclass: str | None = None
    prefix: int | None = None
    nulls_first: bool | None = None

    @property
    def flipped(self) -> Key:
        """The same read backwards."""
        nulls = None if self.nulls_first is None else not self.nulls_first
        return replace(self, descending=not self.descending, nulls_first=nulls)

    @property
    def order(self) -> str:
        """Its direction in SQL, with a blank before it."""
        nulls = {None: "", True: " NULLS FIRST", False: " NULLS LAST"}[self.nulls_first]
        return (" DESC" if self.descending else "") + nulls


@dataclass(frozen=True, slots=True)
class IndexSpec:
    """An index as an idea: equal specs are the same index whatever their names.

    Attributes:
        table: The table's name as the schema knows it.
        keys: Its parts, in order.
        include: Columns carried along but not ordered (PostgreSQL).
        where: Predicate of a partial index, or ``None``.
        method: Access method.
    """

    table: str
    keys: tuple[Key, ...]
    include: tuple[str, ...] = ()
    where: str | None = None
    method: str = "btree"
    _hash: int = field(default=0, init=False, repr=False, compare=False)  # a search asks a million times

    def __post_init__(self) -> None:
        own = hash((self.table, self.keys, self.include, self.where, self.method))
        object.__setattr__(self, "_hash", own)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return IndexSpec, (self.table, self.keys, self.include, self.where, self.method)

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of all columns and expressions, keys first."""
        return tuple(k.name for k in self.keys) + self.include

    def is_prefix_of(self, other: IndexSpec) -> bool:
        """Tell whether every lookup through this index can go through ``other`` as well.

        >>> a = IndexSpec("t", (Key("x"),)); b = IndexSpec("t", (Key("x"), Key("y")))
        >>> a.is_prefix_of(b), b.is_prefix_of(a)
        (True, False)
        """
        if (self.table, self.where, self.method) != (other.table, other.where, other.method):
            return False
        if self.method != "btree":
            return self == other
        n = len(self.keys)
        if other.keys[:n] != self.keys:
            flipped = tuple(k.flipped for k in self.keys)
            if other.keys[:n] != flipped:
                return False
        return set(self.include) <= {k.name for k in other.keys} | set(other.include)

    def label(self) -> str:
        """Return the index for people: ``registrations (event_id, status DESC)``."""
        parts = ", ".join(
            f"{k.name}{f' {k.opclass}' if k.opclass and k.opclass.isupper() else ''}{k.order}"
            for k in self.keys
        )
        text = f"{self.table} ({parts})"
        if self.include:
            text += f" include ({', '.join(self.include)})"
        if self.where:
            text += f" where {self.where}"
        return text if self.method == "btree" else f"{text} using {self.method}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {
            "table": self.table,
            "keys": [
                {
                    "name": k.name,
                    "descending": k.descending,
                    "is_expression": k.is_expression,
                    "opclass": k.opclass,
                    "prefix": k.prefix,
                    "nulls_first": k.nulls_first,
                }
                for k in self.keys
            ],
            "include": list(self.include),
            "where": self.where,
            "method": self.method,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> IndexSpec:
        """Build from :meth:`to_dict`'s data."""
        keys = tuple(Key(**key) for key in data["keys"])
        return cls(data["table"], keys, tuple(data["include"]), data["where"], data["method"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ExistingIndex:
    """An index that is there.

    Attributes:
        name: Its name.
        spec: What it is, as far as it can be told.
        unique: It enforces uniqueness.
        primary: It is the primary key.
        constraint: It belongs to a constraint, so it cannot simply be dropped.
        valid: The database uses it; a half-made one is not valid.
        size_bytes: On disk, ``None`` where the engine does not say.
        scans: Uses since the statistics began, ``None`` where the engine does not count.
    """

    name: str
    spec: IndexSpec
    unique: bool = False
    primary: bool = False
    constraint: bool = False
    valid: bool = True
    size_bytes: int | None = None
    scans: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table with its columns, indexes and size.

    Attributes:
        name: What it is called here: bare where no other schema has its name and all find it, else with
            its schema.
        namespace: Its schema, where the engine has them.
        is_visible: Statements find it without naming its schema.
        is_view: A materialized view: it can have indexes, but no keys.
        counted: How many value lists sets of columns have, once somebody asked.
    """

    name: str
    columns: Mapping[str, Column]
    primary_key: tuple[str, ...] = ()
    indexes: tuple[ExistingIndex, ...] = ()
    rows: int = 0
    size_bytes: int = 0
    foreign_keys: tuple[tuple[tuple[str, ...], str, tuple[str, ...]], ...] = ()
    unique_sets: tuple[tuple[str, ...], ...] = ()
    is_partitioned: bool = False
    namespace: str | None = None
    is_visible: bool = True
    is_view: bool = False
    sample: Sequence[Sequence[Any]] = field(default=(), repr=False)
    counted: dict[frozenset[str], float] = field(default_factory=dict, init=False, repr=False, compare=False)

    @property
    def bare(self) -> str:
        """Its name without its schema; a dot in it is its own."""
        if self.namespace is None:
            return self.name.rpartition(".")[2]
        return self.name.removeprefix(f"{self.namespace}.")

    def column(self, name: str) -> Column | None:
        """Return a column by name, whatever its case."""
        found = self.columns.get(name)
        if found is None:
            lowered = name.lower()
            found = next((c for n, c in self.columns.items() if n.lower() == lowered), None)
        return found

    def is_bounded(self, name: str) -> bool:
        """Tell whether a key on a column can refuse no value that can be written today.

        Its type has a limit, or an index refuses longer values already.
        """
        column = self.column(name)
        if column is None or column.longest is not None:
            return column is not None
        trees = [i.spec for i in self.indexes if i.valid and i.spec.method == "btree" and not i.spec.where]
        return any(k.name == column.name and not k.prefix for spec in trees for k in spec.keys)

    def is_unique(self, columns: Iterable[str]) -> bool:
        """Tell whether no two rows agree on ``columns``."""
        given = set(columns)
        keys = [*self.unique_sets, *([self.primary_key] if self.primary_key else [])]
        return any(set(key) <= given for key in keys)


@dataclass(frozen=True, slots=True, kw_only=True)
class Schema:
    """All tables and views that statements may name.

    Attributes:
        tables: Tables by what they are called here.
        views: Definitions by name: bare where statements find them so, and with their schema.
        dialect: The engine's SQL.
        counted_s: Seconds since the server began to count scans of indexes; ``None`` where it does not.
        locked: Tables that could not be read because somebody holds an exclusive lock, with who it is.
        others: What statements may read beside tables and views, and no index of ours can serve: virtual and
            foreign tables, sequences; without their schemas, in lower case.
    """

    tables: Mapping[str, Table]
    views: Mapping[str, str] = field(default_factory=dict)
    dialect: str = "sqlite"
    counted_s: float | None = None
    locked: Mapping[str, str] = field(default_factory=dict)
    others: frozenset[str] = frozenset()

    @property
    def notes(self) -> list[str]:
        """What could not be read, in words."""
        return [
            f"{name} was left out: it is locked exclusively by {who}" for name, who in self.locked.items()
        ]

    def table(self, name: str, namespace: str | None = None) -> Table | None:
        """Return a table by the name a statement has for it, whatever its case.

        Args:
            name: The name, without its schema.
            namespace: The schema that the statement names; else what is found without one.
        """
        found = self.tables.get(name)
        if found is not None and found.is_visible and namespace is None:
            return found
        lowered = name.lower()
        named = [t for t in self.tables.values() if t.bare.lower() == lowered]
        if namespace:
            wanted = namespace.lower()
            mine = [t for t in named if (t.namespace or t.name.rpartition(".")[0]).lower() == wanted]
            mine += [t for t in named if t.namespace is None and "." not in t.name]
            return mine[0] if mine else None
        seen = [t for t in named if t.is_visible]
        whole = [t for n, t in self.tables.items() if n.lower() == lowered]
        return next(iter((*seen, *whole)), None)


def index_name(spec: IndexSpec, *, limit: int, prefix: str = "ix") -> str:
    """Return the one name this index has on every machine, within the dialect's limit.

    Readable parts are cut; a digest of the whole definition keeps two long names apart.

    >>> index_name(IndexSpec("registrations", (Key("event_id"), Key("status"))), limit=63)
    'ix_ep_registrations_event_id_status_d0a21539'
    """
    known = repr(spec).replace(", nulls_first=None", "")  # names stay what earlier versions gave
    digest = hashlib.blake2b(known.encode(), digest_size=4).hexdigest()
    parts = [spec.table.rpartition(".")[2], *(k.name for k in spec.keys)]
    body = re.sub(r"[^A-Za-z0-9]+", "_", "_".join(parts)).strip("_").lower()
    head = f"{prefix}_ep_{body}"
    return f"{head.encode()[: limit - 9].decode(errors='ignore').rstrip('_')}_{digest}"


def words_of(texts: Iterable[str]) -> frozenset[str]:
    """Return the words of texts in lower case, which hold the parts of every name in them."""
    return frozenset(word for text in texts for word in _WORD.findall(text.lower()))


def touched(
    names: Iterable[str],
    views: Mapping[str, str],
    pointing: Mapping[str, Iterable[str]],
    words: frozenset[str],
) -> frozenset[str]:
    """Return the tables that statements of these words may read, or set off a look into.

    Args:
        names: All tables.
        views: Definitions: what a view reads is read by its name.
        pointing: Tables that each table's foreign keys point to: a change there looks for rows here.
        words: Of the statements, in lower case.

    >>> sorted(touched(["a", "b c", "d", "e"], {"v": "SELECT * FROM d"}, {"e": ["a"]}, words_of(["a, v; c"])))
    ['a', 'd', 'e']
    """
    known, left = set(words), dict(views)
    while named := [v for v in left if words_of([v]) <= known]:
        known |= words_of(left.pop(v) for v in named)
    found = {n for n in names if words_of([n]) <= known}
    lowered = {n.lower() for n in found}
    return frozenset(found | {n for n, to in pointing.items() if lowered & {t.lower() for t in to}})


def is_plain(name: str) -> bool:
    """Tell whether a name means the same with and without quotes on every engine."""
    return _PLAIN.fullmatch(name) is not None
