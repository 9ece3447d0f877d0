"""What was learned, kept in a SQL table."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

from eventperf._core.errors import BackendUnavailable, ConfigurationError
from eventperf._core.extras import require
from eventperf._core.urls import redact

from .sql import engine_of

if TYPE_CHECKING:
    from sqlalchemy import Engine

_NEEDED_BY = "the state of scaling in a database"


class SqlState:
    """A :class:`~eventperf.scaling.protocols.StateStore` of one row a name, for any database of SQLAlchemy.

    The table is made by the first save, where it is not there.

    Args:
        engine: An engine, or a URL to make one from.

    Raises:
        MissingExtra: SQLAlchemy is not installed.
    """

    def __init__(self, engine: Engine | str, *, table: str = "eventperf_scaling_state") -> None:
        self._sa: Any = require("sqlalchemy", extra="dbopt", needed_by=_NEEDED_BY)
        self._url: str | None = engine if isinstance(engine, str) else None
        self._given: Any = None if isinstance(engine, str) else engine
        if self._url is not None:
            try:
                self._sa.engine.make_url(self._url)
            except self._sa.exc.ArgumentError:
                raise ConfigurationError("engine", redact(self._url), "an engine or its URL") from None
        self._table = _table(self._sa, table)
        self._mu = threading.Lock()
        self._engine: Any = None
        self._pid = 0
        self._is_made = False

    def load(self, name: str, /) -> bytes | None:
        try:
            engine = self._open()
            if not self._is_made and not self._sa.inspect(engine).has_table(self._table.name):
                return None
            columns = self._table.c
            with engine.connect() as connection:
                query = self._sa.select(columns.data).where(columns.name == name)
                found = connection.execute(query).scalar()
        except self._sa.exc.SQLAlchemyError as error:
            raise self._away(error) from error
        self._is_made = True
        return None if found is None else bytes(found)

    def save(self, name: str, data: bytes, /) -> None:
        values = {"data": data, "saved_at": time.time()}
        change = self._table.update().where(self._table.c.name == name).values(**values)
        try:
            engine = self._open()
            if not self._is_made:
                self._make(engine)
            with engine.begin() as connection:
                if connection.execute(change).rowcount:
                    return
            try:
                with engine.begin() as connection:
                    connection.execute(self._table.insert().values(name=name, **values))
            except self._sa.exc.IntegrityError:  # another process made the row meanwhile
                with engine.begin() as connection:
                    connection.execute(change)
        except self._sa.exc.SQLAlchemyError as error:
            raise self._away(error) from error

    def _make(self, engine: Any) -> None:
        try:
            self._table.create(engine, checkfirst=True)
        except self._sa.exc.SQLAlchemyError:  # another process was quicker, or there is no right to
            if not self._sa.inspect(engine).has_table(self._table.name):
                raise
        self._is_made = True

    def _open(self) -> Any:
        if self._given is not None:
            return self._given
        with self._mu:
            if self._engine is None or self._pid != os.getpid():
                assert self._url is not None
                self._engine, self._pid = engine_of(self._sa, self._url), os.getpid()
            return self._engine

    def _away(self, error: Exception) -> BackendUnavailable:
        self._is_made = False  # it may have been dropped
        where = redact(self._url) if self._url is not None else "the database"
        said = str(getattr(error, "orig", None) or error).partition("\n")[0]
        return BackendUnavailable(f"{where} does not keep the state of scaling: {said}")

    def close(self) -> None:
        """Close the connections of an engine made from a URL."""
        with self._mu:
            if self._engine is not None and self._pid == os.getpid():
                self._engine.dispose()
            self._engine = None


def _table(sa: Any, name: str) -> Any:
    if not name or not isinstance(name, str):
        raise ConfigurationError("table", name, "a name")
    mysql = require("sqlalchemy.dialects.mysql", extra="dbopt", needed_by=_NEEDED_BY)
    packed = sa.LargeBinary().with_variant(mysql.LONGBLOB(), "mysql", "mariadb")
    return sa.Table(
        name,
        sa.MetaData(),
        sa.Column("name", sa.String(190), primary_key=True),
        sa.Column("data", packed, nullable=False),
        sa.Column("saved_at", sa.Double(), nullable=False),
    )
