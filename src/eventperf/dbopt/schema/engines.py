"""What each engine's SQL looks like, for whoever writes names, indexes and migrations.

No database is asked. What an engine does (plans, prices, locks) is known by its backend alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require

#: The oldest SQLAlchemy whose engines, connections and events are what is used here.
SQLALCHEMY_FLOOR: Final = (1, 4, 42)

#: From SQLAlchemy's name of an engine to the name of its SQL here.
DIALECTS: Final = {"sqlite": "sqlite", "postgresql": "postgres", "mysql": "mysql", "mariadb": "mysql"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """The form of one engine's SQL.

    Attributes:
        title: Its name for people.
        identifier_limit: Longest name of an index, in bytes.
        mark: What stands around a name.
        opclass: Form of what follows a key: an operator class, or a collation.
        nulls_are_large: NULLs stand last where the order is ascending.
        orders_nulls: An index can have NULLs at the other end.
        expression: Form of an expression as part of an index.
        has_schemas: A dot in a table's name separates its schema.
        concurrently: The word after CREATE INDEX and DROP INDEX that lets writers go on, with a blank.
        online: What ends CREATE INDEX for the same purpose.
        drop_index: Form of DROP INDEX, from the quoted names of index and table.
        names_per_table: Index names are unique per table, not per schema.
        indexes_foreign_keys: The engine makes the index of a foreign key itself.
        text_needs_length: A text without a length is indexed by a prefix only.
        options: How SQLAlchemy's options of an index begin.
    """

    title: str
    identifier_limit: int
    mark: str = '"'
    expression: str = "{}"
    opclass: str = " {}"
    nulls_are_large: bool = False
    orders_nulls: bool = False
    has_schemas: bool = False
    concurrently: str = ""
    online: str = ""
    drop_index: str = "DROP INDEX {index}"
    names_per_table: bool = False
    indexes_foreign_keys: bool = False
    text_needs_length: bool = False
    options: str = "sqlite"


ENGINES: Final = {
    "sqlite": Engine(title="SQLite", identifier_limit=1_000, opclass=" COLLATE {}"),
    "postgres": Engine(
        title="PostgreSQL",
        identifier_limit=63,
        expression="({})",
        nulls_are_large=True,
        orders_nulls=True,
        has_schemas=True,
        concurrently="CONCURRENTLY ",
        drop_index="DROP INDEX CONCURRENTLY IF EXISTS {index}",
        options="postgresql",
    ),
    "mysql": Engine(
        title="MySQL or MariaDB",
        identifier_limit=64,
        mark="`",
        online=" ALGORITHM=INPLACE LOCK=NONE",
        drop_index="DROP INDEX {index} ON {table}",
        names_per_table=True,
        indexes_foreign_keys=True,
        text_needs_length=True,
        options="mysql",
    ),
}


def sqlalchemy_for(needed_by: str) -> Any:
    """Import SQLAlchemy, and refuse one that is too old for what is done with it.

    Raises:
        MissingExtra: It is not installed.
        ConfigurationError: It is older than :data:`SQLALCHEMY_FLOOR`.
    """
    module = require("sqlalchemy", extra="dbopt", needed_by=needed_by)
    version = str(module.__version__)
    if tuple(int(part) for part in re.findall(r"\d+", version)[:3]) < SQLALCHEMY_FLOOR:
        floor = ".".join(map(str, SQLALCHEMY_FLOOR))
        allowed = f'{floor} or later for {needed_by}: pip install "sqlalchemy>={floor}"'
        raise ConfigurationError("sqlalchemy", version, allowed)
    return module


def engine_behind(given: Any) -> Any:
    """Return the engine behind an async engine, a session, or the ``db`` of Flask-SQLAlchemy."""
    if hasattr(given, "sync_engine"):
        return given.sync_engine
    if hasattr(given, "dialect"):
        return getattr(given, "engine", given)
    if hasattr(given, "get_bind"):  # sessions, scoped ones too
        return engine_behind(given.get_bind())
    return engine_behind(given.engine) if hasattr(given, "engine") else given
