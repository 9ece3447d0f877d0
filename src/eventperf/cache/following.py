"""Entries that follow the database: tags of tables and rows, and what a loader says or reads while it runs.

A table's tag is ``table:NAME``; a row's are ``table:NAME:KEY`` and ``table:NAME:*``, which stands for writes
that do not say their rows. Who follows the database (:mod:`eventperf.contrib.sqlalchemy`, Django) invalidates
them after each commit.
"""

from __future__ import annotations

import functools
import importlib
import re
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, Final

from eventperf._core.contexts import Within
from eventperf._core.errors import ConfigurationError
from eventperf._core.logs import hush

from .keys import fit_tag
from .transactions import DIRTY, LOADS, inside

AUTO: Final = "auto"
ANY_TABLE: Final = "table:*"
"""The tag of everything that follows a table: for writes whose tables cannot be told."""


class Said:
    """The tags that a load gains while it runs.

    Attributes:
        tags: In the order of their saying.
        reads: Whether the tables that it reads count too.
        is_unsure: It used what nobody knows the tables of: the value is not kept.
        has_read_uncommitted: It read through a transaction that had written: the value is not kept.
        wrote: For each transaction in which it wrote, what tells whether it is still open.
    """

    __slots__ = ("has_read_uncommitted", "is_unsure", "reads", "tags", "wrote")

    def __init__(self) -> None:
        self.tags: dict[str, None] = {}
        self.reads: bool = False
        self.is_unsure: bool = False
        self.has_read_uncommitted: bool = False
        self.wrote: list[Callable[[], bool]] = []

    @property
    def is_private(self) -> bool:
        """Whether others must not see what was loaded: it may hold what has not been committed."""
        is_open = self.has_read_uncommitted or any(is_open() for is_open in self.wrote)
        return is_open or (bool(DIRTY) and inside())


_said: Final[ContextVar[tuple[Said, ...]]] = LOADS


class Listening(Within[tuple[Said, ...]]):
    """Hear what a loader says from here on (``with``); loads inside it are heard for it too."""

    __slots__ = ("_heard",)

    def __init__(self, said: Said) -> None:
        super().__init__(_said, (*_said.get(), said))
        self._heard = said

    def __exit__(self, *error: object) -> None:
        DIRTY.pop(("reads", id(self._heard)), None)
        super().__exit__(*error)


def note_reads() -> None:
    """Let the tables that the innermost load reads from here on count."""
    said = _said.get()
    if said:
        said[-1].reads = True
        said[-1].tags[ANY_TABLE] = None
        DIRTY["reads", id(said[-1])] = [lambda: True]  # fast tables step aside: no tags there


def aside() -> bool:
    """Tell whether this caller must not be answered by a fast table."""
    return inside() or wants_reads()


def used(tags: Iterable[str] | None) -> None:
    """A load that notes its reads was answered from the cache: its tags count (``None``: unknown)."""
    for said in _said.get():
        if said.reads:
            said.is_unsure |= tags is None
            said.tags.update(dict.fromkeys(tags or ()))


def depends(*tags: str) -> None:
    """Add tags to the entry that is being loaded: call it in a loader, before reading what they name.

    An invalidation of one of them drops the entry, or refuses it while its load goes on. Cached functions
    that are called by the loader and load for themselves hand their tags on to it. Outside a loader it does
    nothing, so that functions can be called with and without a cache.

    Raises:
        ConfigurationError: A tag is no text.

    >>> from eventperf.cache import CacheManager
    >>> cache = CacheManager()
    >>> def load() -> str:
    ...     depends("event:42", *row("events", 42))
    ...     return "PyCon"
    >>> cache.get_or_load("title", load), cache.invalidate_tags("event:42"), cache.get("title")
    ('PyCon', None, None)
    """
    for tag in tags:
        if not isinstance(tag, str):
            raise ConfigurationError("tags", tag, "texts, such as 'event:42'; row(Event, 42) names a row")
    for said in _said.get():
        said.tags.update(dict.fromkeys(map(fit_tag, tags)))


def reads(tables: Iterable[str] | None) -> None:
    """A statement read these tables (``None``: nobody can tell): loads that follow what they read note it."""
    for said in _said.get():
        if said.reads:
            said.tags.update(dict.fromkeys(table_tags(tables)))
            said.is_unsure |= tables is None


def wants_reads() -> bool:
    """Tell whether anybody wants to know which tables are read here."""
    return any(said.reads for said in _said.get())


# -- names -----------------------------------------------------------------------------------------------


def table_of(model: Any) -> str:
    """Return the table of a model (SQLAlchemy, Django), of a SQLAlchemy table, or of its name.

    Raises:
        ConfigurationError: It is nothing of the kind.
    """
    name = model if isinstance(model, str) else None
    if name is None:
        table = getattr(model, "__table__", None)
        name = getattr(table if table is not None else model, "name", None)
        if (meta := getattr(model, "_meta", None)) is not None:
            name = getattr(meta, "db_table", name)
    if not isinstance(name, str) or not name:
        raise ConfigurationError("follows", model, "models, tables or their names, or 'auto'")
    return plain_name(name)


def tables_of(model: Any) -> list[str]:
    """Return the table of a model, then those that it inherits columns from (joined inheritance)."""
    names = [table_of(model)]
    if (mapper := getattr(model, "__mapper__", None)) is not None:
        names += [table_of(table) for table in mapper.tables if isinstance(getattr(table, "name", None), str)]
    if callable(parents := getattr(getattr(model, "_meta", None), "get_parent_list", None)):
        names += map(table_of, parents())
    return list(dict.fromkeys(names))


def _home_of(model: Any, column: str) -> str | None:
    """Return the table that a column of a Django model lies in, which may be a parent's."""
    fields = getattr(getattr(model, "_meta", None), "concrete_fields", ())
    return next((table_of(field.model) for field in fields if field.column == column), None)


def plain_name(name: str) -> str:
    """Return a table's name without quotes and schema, in small letters: tables of one name count as one."""
    return re.sub(r'["`\[\]]', "", name).rpartition(".")[2].strip().lower()


def table_tags(tables: Iterable[str] | None) -> list[str]:
    """Return the tags of tables; of any table for ``None``."""
    return [ANY_TABLE] if tables is None else [fit_tag(f"table:{plain_name(name)}") for name in tables]


def row(model: Any, *key: object, **link: int) -> tuple[str, ...]:
    """Return the tags of one row: ``depends(*row(Event, 42))``; a key of several columns is given in order.

    ``row(Registration, event_id=42)`` are all rows, also those to come, that link to another by this foreign
    key. Of an insert it is known where it links to; whatever else changes a row of the table counts for all
    links, since nobody else knows where the row pointed to a moment ago.

    Args:
        model: A model of SQLAlchemy or Django, a SQLAlchemy table, or for a key the name of a table.
        key: The primary key.
        link: The column of one foreign key, and the whole number that is in it.

    Raises:
        ConfigurationError: Neither a key nor one link, a column that is no foreign key to whole numbers, or a
            link of a table whose model is not given.

    >>> row("events", 42)
    ('table:events:42', 'table:events:*', 'table:*')
    """
    table = table_of(model)
    if not link:
        tables = tables_of(model)  # the rows of one object have one key in all of them
        rows = (fit_tag(f"table:{name}:{','.join(map(str, key))}") for name in tables)
        return (*rows, *map(any_row, tables), ANY_TABLE)
    ((name, value), *more) = link.items()
    column = links_of(model).get(name)
    if key or more or column is None:
        allowed = f"a primary key, or one of {sorted(links_of(model))}: foreign keys to whole numbers"
        raise ConfigurationError(f"row of {table}", (*key, *link), allowed)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigurationError(name, value, "a whole number")
    return (
        linked(_home_of(model, column) or table, column, value),
        *map(any_link, tables_of(model)),
        ANY_TABLE,
    )


def linked(table: str, column: str, value: int) -> str:
    """Return the tag of the rows of a table that have ``value`` in a foreign key."""
    return fit_tag(f"table:{plain_name(table)}:{column}={value}")


def any_row(table: str) -> str:
    """Return the tag of every row of a table, for writes that do not say which."""
    return fit_tag(f"table:{plain_name(table)}:*")


def any_link(table: str) -> str:
    """Return the tag of the rows of a table by any of their links, for writes that do not say where to."""
    return fit_tag(f"table:{plain_name(table)}:=*")


def all_tags(tables: Iterable[str] | None) -> list[str]:
    """Return what a write invalidates that says nothing of its rows: their tables, every row, every link."""
    known = list(tables or ())
    return [*table_tags(tables), *map(any_row, known), *map(any_link, known)]


def links_of(model: Any) -> dict[str, str]:
    """Return the columns of foreign keys to whole numbers of a model, by the names that they go by.

    Values of other types are not the same text in every driver, nor are those that a type of the host's own
    makes of them.
    """
    if (meta := getattr(model, "_meta", None)) is not None:
        found: dict[str, str] = {}
        for field in meta.concrete_fields:
            target = getattr(field, "target_field", None) if field.remote_field else None
            if target is not None and _is_whole(target):
                found |= dict.fromkeys((field.name, field.attname, field.column), field.column)
        return found
    table = getattr(model, "__table__", model)
    return {
        column.name: column.name
        for column in getattr(table, "columns", ())
        if column.foreign_keys and _is_whole(column.type)
    }


def _is_whole(kind: Any) -> bool:
    """Tell whether a field or a type is the library's own for whole numbers, not one made of it."""
    home, name = type(kind).__module__, type(kind).__name__.lower()
    if home == "django.db.models.fields":
        return name.endswith(("integerfield", "autofield"))
    return home == "sqlalchemy.sql.sqltypes" and name.removeprefix("big").removeprefix("small") in (
        "integer",
        "int",
    )


def followed(follows: Any) -> tuple[tuple[str, ...], bool]:
    """Return the tags of ``follows=`` and whether it is ``"auto"``.

    Raises:
        ConfigurationError: It is neither a list of models or tables, nor ``"auto"``.
    """
    if follows is None or follows == ():
        return (), False
    if isinstance(follows, str):
        if follows != AUTO:
            raise ConfigurationError("follows", follows, "a list such as [Event, 'registrations'], or 'auto'")
        return (ANY_TABLE,), True
    if not isinstance(follows, Sequence):
        raise ConfigurationError("follows", follows, "a list such as [Event, 'registrations'], or 'auto'")
    return (*table_tags(name for model in follows for name in tables_of(model)), ANY_TABLE), False


# -- statements ------------------------------------------------------------------------------------------

_IDENT: Final = r'(?:"[^"]+"|`[^`]+`|\[[^\[\]]+\]|[^\W\d][\w$]*)'
_NAME: Final = rf"{_IDENT}(?:\s*\.\s*{_IDENT})*"
_NOISE: Final = re.compile(r"'[^']*'|--[^\n]*|/\*.*?\*/", re.DOTALL)
_BEFORE: Final = r"(?:from|join|into|update|table|truncate|only|using|delete|merge|copy|replace)"
_ALIAS: Final = rf"(?:\s+(?:as\s+)?(?!{_BEFORE}\b){_IDENT})?"
_AFTER: Final = re.compile(
    rf"\b{_BEFORE}\s+"
    r"(?:(?:or\s+(?:rollback|abort|replace|fail|ignore)|low_priority|quick|ignore|only|from|into)\s+)*"
    rf"({_NAME})"
    rf"({_ALIAS}(?:\s*,\s*(?:lateral\s+)?{_NAME}{_ALIAS})*)",
    re.IGNORECASE,
)
_MORE: Final = re.compile(rf",\s*(?:lateral\s+)?({_NAME})", re.IGNORECASE)
_KNOWN: Final = re.compile(r"\s*(?:select|with|insert|update|delete|merge|replace)\b", re.IGNORECASE)
_INSERT: Final = re.compile(rf"\s*(?:insert|replace)\s+(?:\w+\s+)*?into\s+({_NAME})", re.IGNORECASE)


_ENDS: Final = re.compile(r"(?:^|;)\s*(?:commit|end)\b", re.IGNORECASE)
_BEGINS: Final = re.compile(r"\s*(?:begin|start\s+transaction)\b", re.IGNORECASE)
_DEFINES: Final = re.compile(
    r"\s*(?:create|alter|drop|truncate|rename|lock|grant|revoke|analyze|optimize|repair)\b", re.IGNORECASE
)
_NOTHING: Final = re.compile(r"\s*(?:update|delete)\b[^;]*(?:;\s*)?\Z", re.IGNORECASE)


def _without_noise(statement: str) -> str:
    """Return a statement without texts and comments, or with them where engines read them in several ways."""
    if "\\'" in statement:  # on MySQL the quote may belong to the text
        return statement
    end = (
        statement.rfind("*/") + 2 if "*/" in statement else 0
    )  # behind it no comment ends: none is looked for
    return _NOISE.sub(" ", statement[:end] + statement[end:].replace("/*", "  "))


def may_commit(statement: str) -> bool:
    """Tell whether a statement may end the transaction that it is run in: said, or implied as on MySQL."""
    text = _without_noise(statement)
    return _ENDS.search(text) is not None or _DEFINES.match(text) is not None


def begins(statement: str) -> bool:
    """Tell whether a statement begins a transaction of which its library knows nothing."""
    return _BEGINS.match(_without_noise(statement)) is not None


def changed_nothing(statement: str, rows: object) -> bool:
    """Tell whether a statement that touched so many ``rows`` has changed nothing at all."""
    return rows == 0 and _NOTHING.match(_without_noise(statement)) is not None


_LONG: Final = 20_000
"""Longer statements are neither kept nor parsed, at 20 µs a character: their tables are told by sight."""


def tables_in(statement: str) -> frozenset[str] | None:
    """Return the tables that a statement may touch, rather one too many; ``None`` when none can be told.

    With sqlglot installed what it finds counts too.

    >>> sorted(tables_in('SELECT * FROM "app"."Events" e, seats s JOIN x ON x.id = s.id'))
    ['events', 'seats', 'x']
    """
    return _seen(statement) if len(statement) > _LONG else _known(statement)


@functools.lru_cache(1_000)
def _known(statement: str) -> frozenset[str] | None:
    return frozenset({*(_seen(statement) or ()), *_parsed(statement)}) or None


def _seen(statement: str) -> frozenset[str] | None:
    text = _without_noise(statement)
    found = set()
    for match in _AFTER.finditer(text):
        found.add(plain_name(match[1]))
        found.update(plain_name(more[1]) for more in _MORE.finditer(match[2]))
    return frozenset(found) or None


def reads_tables(statement: str) -> bool:
    """Tell whether a reading statement names tables at all (``SELECT 1`` does not)."""
    return re.search(r"\b(?:from|table|call|exec\w*)\b", statement, re.IGNORECASE) is not None


def tables_written(statement: str) -> frozenset[str] | None:
    """Return the tables that a writing statement may change; ``None`` when none can be told.

    >>> sorted(tables_written("INSERT INTO seats SELECT * FROM events"))
    ['seats']
    """
    plain = _INSERT.match(_without_noise(statement))
    return frozenset([plain_name(plain[1])]) if plain is not None else tables_in(statement)


def _parsed(statement: str) -> set[str]:
    if not _KNOWN.match(statement):
        return set()
    try:
        sqlglot = importlib.import_module("sqlglot")
        hush("sqlglot")  # what it cannot read it would show in the log, with its values
    except ImportError:
        return set()
    try:
        trees = sqlglot.parse(statement, error_level=sqlglot.ErrorLevel.IGNORE)
        return {
            plain_name(t.name) for tree in trees if tree for t in tree.find_all(sqlglot.exp.Table) if t.name
        }
    except (sqlglot.errors.SqlglotError, RecursionError, ValueError):
        return set()


__all__ = ["depends", "row"]
