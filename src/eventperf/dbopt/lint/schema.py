"""Faults of a schema that can be seen without a database: lint of SQLAlchemy metadata, for CI."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf.dbopt.schema.engines import ENGINES

from .statements import Finding

_Hit = tuple[str, str, str]  # rule, what it is about, why


def lint_metadata(metadata: Any, dialect: str = "sqlite") -> list[Finding]:
    """Return findings about the tables of a SQLAlchemy ``MetaData`` (or a declarative base).

    Args:
        metadata: ``MetaData``, or anything with a ``metadata`` attribute that is one.
        dialect: ``"sqlite"``, ``"postgres"`` or ``"mysql"``: where it will run.

    Example:
        >>> from sqlalchemy import Column, ForeignKey, Integer, MetaData, Table
        >>> m = MetaData()
        >>> _ = Table("a", m, Column("id", Integer, primary_key=True))
        >>> _ = Table("b", m, Column("id", Integer, primary_key=True), Column("a_id", ForeignKey("a.id")))
        >>> [(f.rule, f.statement) for f in lint_metadata(m)]
        [('unindexed-foreign-key', 'b (a_id)')]
    """
    sqlalchemy = require("sqlalchemy", extra="dbopt", needed_by="lint_metadata")
    given = metadata if isinstance(metadata, sqlalchemy.MetaData) else getattr(metadata, "metadata", None)
    if not isinstance(given, sqlalchemy.MetaData):
        raise ConfigurationError("metadata", type(metadata).__name__, "a SQLAlchemy MetaData or base class")
    if dialect not in ENGINES:
        raise ConfigurationError("dialect", dialect, "sqlite, postgres or mysql")
    tables = sorted(given.tables.values(), key=lambda t: str(t.fullname))
    hits = [hit for table in tables for hit in _table(sqlalchemy, table, dialect)]
    hits += _names(tables, dialect)
    return [
        Finding(
            rule=rule,
            fingerprint=hashlib.blake2b(f"{rule} {about}".encode(), digest_size=8).hexdigest(),
            statement=about,
            message=message,
        )
        for rule, about, message in hits
    ]


def _table(sqlalchemy: Any, table: Any, dialect: str) -> Iterator[_Hit]:
    name = str(table.fullname)
    primary = tuple(c.name for c in table.primary_key.columns)
    if not primary:
        yield "no-primary-key", name, "rows cannot be told apart: replication and ORMs need a key"
    known: list[tuple[str, tuple[str, ...], bool]] = [("the primary key", primary, True)] if primary else []
    for constraint in table.constraints:
        if isinstance(constraint, sqlalchemy.UniqueConstraint) and len(constraint.columns):
            unique = tuple(c.name for c in constraint.columns)
            known.append((constraint.name or f"unique {', '.join(unique)}", unique, True))
    indexes = sorted(table.indexes, key=lambda i: str(i.name))
    for index in indexes:
        columns = _plain(index)
        if columns is not None:
            known.append((str(index.name), columns, bool(index.unique)))
    yield from _foreign_keys(table, name, known, dialect)
    yield from _redundant(name, known, {str(i.name) for i in indexes})
    for index in indexes:
        yield from _index(sqlalchemy, index, name, dialect)


def _plain(index: Any) -> tuple[str, ...] | None:
    """Return the columns of an index that is nothing but columns, in order."""
    options = index.dialect_options
    partial = any(options[d].get("where") is not None for d in ("postgresql", "sqlite"))
    method = options["postgresql"].get("using")
    if partial or options["postgresql"].get("include") or (method and method != "btree"):
        return None
    columns = [c.name for c in index.columns]
    return tuple(columns) if len(columns) == len(index.expressions) else None


def _foreign_keys(
    table: Any, name: str, known: Sequence[tuple[str, tuple[str, ...], bool]], dialect: str
) -> Iterator[_Hit]:
    if ENGINES[dialect].indexes_foreign_keys:
        return  # InnoDB makes the index itself
    for key in sorted(table.foreign_key_constraints, key=lambda k: tuple(c.name for c in k.columns)):
        columns = tuple(c.name for c in key.columns)
        if not any(set(lead[: len(columns)]) == set(columns) for _, lead, _ in known):
            yield (
                "unindexed-foreign-key",
                f"{name} ({', '.join(columns)})",
                f"each delete in {key.referred_table.fullname}, and each join from it, reads the whole table",
            )


def _redundant(
    name: str, known: Sequence[tuple[str, tuple[str, ...], bool]], droppable: set[str]
) -> Iterator[_Hit]:
    gone: set[str] = set()
    for index, columns, unique in known:
        if index not in droppable:
            continue
        for other, longer, other_unique in known:
            if other == index or other in gone or longer[: len(columns)] != columns:
                continue
            if longer == columns and (other_unique or not unique):
                gone.add(index)
                yield "duplicate-index", f"{name}.{index}", f"the same as {other} ({', '.join(longer)})"
                break
            if longer != columns and not unique:
                gone.add(index)
                yield "redundant-index", f"{name}.{index}", f"a prefix of {other} ({', '.join(longer)})"
                break


def _index(sqlalchemy: Any, index: Any, table: str, dialect: str) -> Iterator[_Hit]:
    about = f"{table}.{index.name}"
    columns = list(index.columns)
    if len(columns) == 1 and isinstance(columns[0].type, sqlalchemy.Boolean) and _plain(index) is not None:
        yield (
            "boolean-index",
            about,
            "half of the table is behind each entry: make it partial, or put another column first",
        )
    if ENGINES[dialect].text_needs_length:
        lengths = index.dialect_options["mysql"].get("length") or {}
        for column in columns:
            long = isinstance(column.type, (sqlalchemy.Text, sqlalchemy.LargeBinary))
            bare = long and getattr(column.type, "length", None) is None
            if bare and not (isinstance(lengths, int) or column.name in lengths):
                yield (
                    "text-without-length",
                    about,
                    f"{column.name} needs mysql_length={{...}}: error 1170 otherwise",
                )


def _names(tables: Sequence[Any], dialect: str) -> Iterator[_Hit]:
    engine = ENGINES[dialect]
    limit = engine.identifier_limit
    names = [(str(t.fullname), str(i.name)) for t in tables for i in t.indexes if i.name]
    cut = Counter(n.encode()[:limit] for _, n in names)
    for table, name in sorted(names):
        if len(name.encode()) > limit:
            why = f"longer than {limit} bytes"
            if cut[name.encode()[:limit]] > 1:
                why += ", and cut to it the same as another one"
            yield "long-index-name", f"{table}.{name}", why
        elif cut[name.encode()[:limit]] > 1 and not engine.names_per_table:
            yield "name-used-twice", f"{table}.{name}", "index names are unique per schema"


__all__ = ["lint_metadata"]
