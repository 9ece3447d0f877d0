"""From an engine or a URL to a backend, with one clear sentence for everything that cannot work."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from eventperf._core.errors import ConfigurationError, UnknownScheme
from eventperf._core.extras import require
from eventperf._core.logs import logger
from eventperf._core.trust import warn_unchecked
from eventperf._core.urls import Registry, redact
from eventperf.dbopt.errors import DatabaseUnavailable
from eventperf.dbopt.protocols import Dialect
from eventperf.dbopt.schema.engines import DIALECTS, engine_behind, sqlalchemy_for

_log = logger("eventperf.dbopt")

BACKENDS: Final = Registry(
    "dbopt",
    {
        "sqlite": "eventperf.dbopt.backends.sqlite.dialect:SqliteDialect",
        "postgres": "eventperf.dbopt.backends.postgres.dialect:PostgresDialect",
        "mysql": "eventperf.dbopt.backends.mysql.dialect:MysqlDialect",
    },
)
_ALLOWED: Final = ("sqlite:///file.db", "postgresql+psycopg://", "mysql+pymysql://", "mariadb+pymysql://")
_DRIVERS: Final = {  # SQLAlchemy's name: the module; the first that is installed serves what names no other
    "postgres": {"psycopg": "psycopg", "psycopg2": "psycopg2"},
    "mysql": {"pymysql": "pymysql", "mysqldb": "MySQLdb"},
}
_SCHEMES: Final = {"postgres": "postgresql", "mysql": "mysql"}
_OTHERS: Final = ("psycopg2cffi", "pg8000", "mysqlconnector")
_ASYNC: Final = ("asyncpg", "aiomysql", "asyncmy", "aiosqlite", "psycopg_async")
_TLS: Final = {"asyncpg": ("ssl", "sslmode")}  # one wish in the words of two drivers


@dataclass(slots=True)
class Opened:
    """An engine, and whether it is ours to close."""

    engine: Any
    dialect: str
    shown: str
    is_ours: bool

    def close(self) -> None:
        """Dispose of the engine when it was made here."""
        if self.is_ours:
            self.engine.dispose()

    def check(self) -> None:
        """Connect once.

        Raises:
            DatabaseUnavailable: It does not answer.
        """
        sqlalchemy = require("sqlalchemy", extra="dbopt", needed_by="DatabaseOptimizer")
        if self.is_ours and self.dialect == "sqlite" and not _is_there(self.engine.url.database):
            reason = "unable to open the database file: there is none (SQLite would make an empty one)"
            raise DatabaseUnavailable(self.shown, reason)
        try:
            with self.engine.connect():
                return
        except sqlalchemy.exc.SQLAlchemyError as error:
            reason = str(getattr(error, "orig", error)).splitlines()[0]
            raise DatabaseUnavailable(self.shown, reason) from error

    def backend(self, *, what_if: Opened | None, ddl: Opened | None) -> Dialect:
        """Build the backend, after a first connection that proves that all of them answer."""
        for opened in (self, what_if, ddl):
            if opened is not None:
                opened.check()
        build = BACKENDS.resolve(self.dialect)
        made: Dialect = build(
            self.engine, ddl=ddl.engine if ddl else None, what_if=what_if.engine if what_if else None
        )
        return made


def open_engine(given: Any, argument: str, *, beside: Opened | None = None) -> Opened:
    """Take an engine or a URL; nothing is connected yet.

    An engine of a driver that a backend knows is used as it is, so that whatever the application set up on
    it (TLS, tokens, session settings) holds here too. For others we connect to the same place ourselves.

    Args:
        given: The engine or the URL.
        argument: What it is called, for errors.
        beside: What it works with, whose driver it shares.

    Raises:
        ConfigurationError: Neither, or a database that no backend serves.
        MissingExtra: The driver is not installed.
    """
    sqlalchemy = sqlalchemy_for("DatabaseOptimizer")
    require("sqlglot", extra="dbopt", needed_by="DatabaseOptimizer")
    if isinstance(given, (str, sqlalchemy.engine.URL)):
        return _from_url(sqlalchemy, given, argument, beside)
    engine = engine_behind(given)
    name = getattr(getattr(engine, "dialect", None), "name", None)
    if name not in DIALECTS:
        shown = name or type(given).__name__
        raise ConfigurationError(argument, shown, f"a SQLAlchemy engine or a URL: {', '.join(_ALLOWED)}")
    dialect = DIALECTS[name]
    shown = redact(engine.url.render_as_string(hide_password=True))
    if engine.dialect.is_async:
        if dialect == "sqlite" and engine.url.database in (None, "", ":memory:"):
            raise ConfigurationError(argument, shown, "an async SQLite engine on a file, or a sync engine")
        _warn_left_behind(engine, shown)
        return _from_url(sqlalchemy, engine.url, argument, beside)
    shared = beside.engine.dialect.driver if beside is not None else engine.dialect.driver
    if dialect in _DRIVERS and (
        engine.dialect.driver not in _DRIVERS[dialect] or shared != engine.dialect.driver
    ):
        _warn_left_behind(engine, shown)
        return _from_url(sqlalchemy, engine.url, argument, beside)
    return Opened(_of_today(sqlalchemy, engine), dialect, shown, False)


def _warn_left_behind(engine: Any, shown: str) -> None:
    """Say what an engine connects with beside its URL, which is all that we have of it."""
    known = engine.dialect.create_connect_args(engine.url)[1]
    given = inspect.getclosurevars(engine.pool._creator).nonlocals.get(
        "cparams"
    )  # SQLAlchemy shows it nowhere
    left = ["creator="] if given is None else sorted(set(given) - set(known))
    if list(engine.dialect.dispatch.do_connect):
        left.append("what listens to do_connect")
    if left:
        _log.warning(
            "%s: its driver %s cannot be used here, so a connection is made by its URL, without %s: put what "
            "is needed (TLS, tokens) into the URL, or give an engine of another driver",
            shown, engine.dialect.driver, ", ".join(left),
        )  # fmt: skip


def _of_today(sqlalchemy: Any, engine: Any) -> Any:
    """Return an engine on the pool of the given one, whose connections commit as those of SQLAlchemy 2 do.

    SQLAlchemy 1.4 has engines of both kinds; the old one commits each statement that changes something.
    """
    if not str(sqlalchemy.__version__).startswith("1."):
        return engine
    future: Any = importlib.import_module("sqlalchemy.future").Engine
    return engine if isinstance(engine, future) else future(engine.pool, engine.dialect, engine.url)


def _driver(url: Any, dialect: str, beside: Opened | None) -> str:
    """Return SQLAlchemy's name of the driver that serves a URL.

    Raises:
        MissingExtra: None is installed.
    """
    known = _DRIVERS[dialect]
    if beside is not None and beside.dialect == dialect:
        return str(beside.engine.dialect.driver)
    named = url.drivername.partition("+")[2]
    order = [named, *known] if named in known else list(known)
    found = next((n for n in order if find_spec(known[n]) is not None), None)
    if found is None:
        first = next(iter(known))
        require(known[first], extra=dialect, needed_by=f"DatabaseOptimizer on {_SCHEMES[dialect]}")
    return found or ""


def _query(url: Any) -> Any:
    """Return the URL with its options in the words of the driver that takes the place of an async one."""
    old, new = _TLS.get(url.drivername.partition("+")[2], ("", ""))
    value = url.query.get(old)
    return url if value is None else url.difference_update_query([old]).update_query_dict({new: value})


def _from_url(sqlalchemy: Any, given: Any, argument: str, beside: Opened | None) -> Opened:
    try:
        url = sqlalchemy.engine.make_url(given)
    except sqlalchemy.exc.ArgumentError as error:
        raise ConfigurationError(argument, redact(str(given)), f"a URL: {', '.join(_ALLOWED)}") from error
    except ValueError as error:
        raise ConfigurationError(argument, redact(str(given)), f"a URL: {', '.join(_ALLOWED)}") from error
    shown = redact(url.render_as_string(hide_password=True))
    backend = url.get_backend_name()
    if backend == "postgres":
        backend = "postgresql"
    if backend not in DIALECTS:
        raise UnknownScheme(argument, shown, _ALLOWED)
    dialect = DIALECTS[backend]
    if dialect == "sqlite":
        url = url.set(drivername="sqlite")
    else:
        named = url.drivername.partition("+")[2]
        if named in ("", *_ASYNC, *_OTHERS, *_DRIVERS[dialect]):
            url = _query(url).set(drivername=f"{_SCHEMES[dialect]}+{_driver(url, dialect, beside)}")
    warn_unchecked(url, _log)
    try:
        engine = sqlalchemy.create_engine(url, future=True, **_connect(url, dialect))
    except (TypeError, ImportError, sqlalchemy.exc.ArgumentError) as error:
        raise ConfigurationError(argument, shown, f"a driver that is installed ({error})") from error
    return Opened(engine, dialect, shown, True)


def _is_there(path: str | None) -> bool:
    return path in (None, "", ":memory:") or str(path).startswith("file:") or Path(str(path)).exists()


def _connect(url: Any, dialect: str) -> dict[str, Any]:
    if dialect == "sqlite":
        return {}
    name = "connect_timeout"
    return {} if name in url.query else {"connect_args": {name: 10}}
