"""Names of the journal's tables, and what a dialect knows of them."""

from __future__ import annotations

import hashlib
import os
import secrets
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Protocol

from eventperf.cache.following import any_link, any_row, plain_name, table_tags
from eventperf.cache.keys import fit_tag

CHANGES: Final = "eventperf_changes"
READERS: Final = "eventperf_change_readers"
TABLES: Final = "eventperf_change_tables"
TRIGGER: Final = "eventperf_changed"
"""How the names of triggers and functions begin."""

MOST_ROWS: Final = 1_000
"""Rows of one statement, or of one round of reading, that are told one by one; beyond it tables are told."""

UNASKED: Final = ("eventperf_", "alembic_version", "django_migrations", "django_session")
"""How names of tables begin that are left out unless they are asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """A table whose changes are written down.

    Attributes:
        schema: Where it is; empty where the engine has none.
        name: As it is written in the catalog.
        key: Columns of the primary key, in order; empty where it has none, or one whose text differs between
            the database and Python: then the table is told, and all of its rows.
        by_row: Its triggers run for each row (partitions, inheritance, engines that know no other).
        is_partition: Rows are told by its parent's triggers; it needs one for ``TRUNCATE`` alone.
        above: Tables that show its rows as well: what it is a partition of, or inherits from.
        on_delete: Tables that a delete changes without their triggers, with nothing to compare.
        on_update: The same of an update, with the columns that matter.
        replaces: A new row may remove another one unheard (SQLite's ``OR REPLACE``).
    """

    schema: str
    name: str
    key: tuple[str, ...] = ()
    by_row: bool = False
    is_partition: bool = False
    above: tuple[str, ...] = ()
    on_delete: tuple[str, ...] = ()
    on_update: tuple[tuple[str, tuple[str, ...]], ...] = ()
    replaces: bool = False

    @property
    def full_name(self) -> str:
        """Schema and name, for people."""
        return f"{self.schema}.{self.name}" if self.schema else self.name

    @property
    def digest(self) -> str:
        """A short name of its own."""
        return hashlib.blake2b(f"{self.schema}\0{self.name}".encode(), digest_size=6).hexdigest()


@dataclass(frozen=True, slots=True)
class Batch:
    """What a round of reading found.

    Attributes:
        changes: Tables with the key of a row, or ``None`` for the table and all of its rows.
        position: Where the next round goes on; a text that is kept.
        is_all: There may be more at once.
    """

    changes: list[tuple[str, str | None]]
    position: str
    is_all: bool = True


class LostPlace(Exception):
    """The journal has gone on without this reader, or is another one: what it missed nobody can tell."""


class Step(NamedTuple):
    """A change of the schema: statements of one transaction."""

    about: str
    statements: list[str]


@dataclass(slots=True)
class Plan:
    """What ``eventperf cache journal`` would do."""

    steps: list[Step]
    tables: list[Watched]
    left_out: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def to_sql(self) -> str:
        """Return the statements, as they are run."""
        lines: list[str] = []
        for step in self.steps:
            lines += [f"-- {line}" for line in step.about.splitlines()]
            lines += [f"{statement};" for statement in step.statements] + [""]
        return "\n".join(lines)


class Dialect(Protocol):
    """What a journal needs to know of an engine."""

    now: str
    channel: str

    def look(self, conn: Any) -> list[Watched]: ...

    def make(self, conn: Any, tables: Sequence[Watched], notify: bool | None) -> list[Step]:
        """Return the steps that make the journal and its triggers; those that are there are made anew."""
        ...

    def drop(self, conn: Any) -> list[Step]: ...

    def grants(self, conn: Any, role: str) -> list[str]: ...

    def here(self, conn: Any) -> str:
        """Return the position of this moment: everything that is committed by now has been read."""
        ...

    def forget(self) -> None:
        """The connection was lost: it may be another server now."""
        ...

    def telling(self, conn: Any) -> set[str] | None:
        """Return the tables that have all of their triggers; ``None`` where this role is not shown them."""
        ...

    def read(self, conn: Any, position: str) -> Batch: ...

    def purge(self, conn: Any, positions: Sequence[str]) -> int:
        """Remove what all positions have gone past; return how many rows."""
        ...


def name_for(caches: Sequence[Any], own: bool, given: str | None) -> str:
    """Return the name of a reader; a cache in process memory shares its place with no other."""
    if own:
        mine = f"{socket.gethostname()[:80]}:{os.getpid()}:{secrets.token_hex(4)}"
        return f"{given[:90]}:{mine}" if given else mine
    if given:
        return given
    spaces = sorted({cache.namespace for cache in caches})
    urls = sorted({cache.store.url for cache in caches})
    digest = hashlib.blake2b("\0".join([*spaces, *urls]).encode(), digest_size=8).hexdigest()
    return f"{','.join(spaces)[:100]}:{digest}"


def tags_of(changes: Iterable[tuple[str, str | None]]) -> list[str]:
    """Return the tags of changes: the same that ``follow`` invalidates.

    >>> tags_of([("events", "42"), ("events", None)])
    ['table:events', 'table:events:=*', 'table:events:42', 'table:events:*']
    """
    tags: dict[str, None] = {}
    for table, key in changes:
        tags[table_tags([table])[0]] = tags[any_link(table)] = None
        tags[any_row(table) if key is None else fit_tag(f"table:{plain_name(table)}:{key}")] = None
    return list(tags)


def quoter(mark: str) -> Callable[[str], str]:
    """Return what quotes identifiers with ``mark``.

    >>> print(quoter('"')('a"b'))
    "a""b"
    """
    return lambda name: mark + name.replace(mark, mark * 2) + mark
