"""Making and removing the journal: looked at first, shown as SQL, and run step by step when asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from typing import Any, Final

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf._core.logs import logger
from eventperf._core.trust import warn_unchecked
from eventperf._core.urls import redact
from eventperf.cache.errors import CacheError, JournalMissing, StoreUnavailable

from .dialects.mysql import MySQL
from .dialects.postgres import Postgres
from .dialects.sqlite import SQLite
from .layout import UNASKED, Dialect, Plan, Watched

DIALECTS: Final[dict[str, Callable[[], Dialect]]] = {
    "postgresql": Postgres,
    "mysql": MySQL,
    "mariadb": MySQL,
    "sqlite": SQLite,
}
_LACKING: Final = ("42P01", "1146", "no such table")
_CURES: Final = (
    (
        "log_bin_trust_function_creators",
        "set log_bin_trust_function_creators=1, or let an administrator run it",
    ),
    ("1419", "set log_bin_trust_function_creators=1, or let an administrator run it"),
    ("55P03", "a long transaction holds the table: run it again at a quieter time"),
    ("1205", "a long transaction holds the table: run it again at a quieter time"),
    (
        "42501",
        "make it as the owner of the tables, with the right to create in the schema; read it with what "
        "`eventperf cache journal URL --role NAME` grants",
    ),
)


def engine_for(database: Any) -> tuple[Any, bool]:
    """Return an engine for a URL or an engine, and whether it is ours to dispose of.

    Raises:
        ConfigurationError: It is neither, or of an engine without a journal.
        MissingExtra: SQLAlchemy, or the driver, is not installed.
    """
    sa: Any = require("sqlalchemy", extra="dbopt", needed_by="the change journal")
    if not isinstance(database, str):
        engine = getattr(database, "sync_engine", database)
        if not hasattr(engine, "dialect") or getattr(engine.dialect, "is_async", False):
            allowed = "a URL of SQLAlchemy's, or an engine that is not asynchronous"
            raise ConfigurationError("database", type(database).__name__, allowed)
        _dialect(engine.dialect.name)
        return engine, False
    try:
        url = sa.make_url(database)
    except sa.exc.ArgumentError as error:
        raise ConfigurationError("database", redact(database), "a URL of SQLAlchemy's") from error
    _dialect(url.get_backend_name())
    for plain, drivers in (("postgresql", ("psycopg", "psycopg2")), ("mysql", ("pymysql", "MySQLdb"))):
        if url.drivername == plain:
            name = next((one for one in drivers if find_spec(one)), drivers[0])
            url = url.set(drivername=f"{plain}+{'mysqldb' if name == 'MySQLdb' else name}")
    more: dict[str, Any] = {"connect_args": {"timeout": 15}}
    if url.get_backend_name() != "sqlite":
        more = {"connect_args": {} if "connect_timeout" in url.query else {"connect_timeout": 5}}
        more |= {"pool_size": 1, "max_overflow": 1}
    warn_unchecked(url, logger("eventperf.cache"))
    try:
        return sa.create_engine(url, **more), True
    except ModuleNotFoundError as error:
        extra = {"psycopg": "postgres", "pymysql": "mysql"}.get(str(error.name), "dbopt")
        require(str(error.name), extra=extra, needed_by=f"{url.drivername} URLs")
        raise


def reading_engine(database: Any) -> tuple[Any, bool]:
    """Return an engine whose statements see what is committed when they begin; ours beside a given one.

    Its connections are made so. A level that is set for one use is set back at its end, and where the server
    goes away in that moment SQLAlchemy's pool loses a place for good.
    """
    engine, is_ours = engine_for(database)
    dialect = engine.dialect
    if dialect.name == "sqlite":
        return engine, is_ours
    sa: Any = require("sqlalchemy", extra="dbopt", needed_by="the change journal")
    if not is_ours:
        engine = sa.engine.Engine(engine.pool.recreate(), dialect, engine.url)
    sa.event.listen(engine, "connect", lambda raw, _: dialect.set_isolation_level(raw, "READ COMMITTED"))
    return engine, True


def _dialect(name: str) -> Callable[[], Dialect]:
    if name not in DIALECTS:
        raise ConfigurationError("database", name, "PostgreSQL, MariaDB, MySQL or SQLite")
    return DIALECTS[name]


def dialect_of(engine: Any) -> Dialect:
    """Return what the journal needs to know of an engine."""
    return _dialect(engine.dialect.name)()


def where(engine: Any) -> str:
    """Return the address of an engine without its password."""
    return redact(engine.url.render_as_string(hide_password=True))


@contextmanager
def translated(engine: Any) -> Iterator[None]:
    """Raise our errors for those of the driver.

    Raises:
        JournalMissing: There is no journal.
        StoreUnavailable: The database does not answer.
        CacheError: It refuses.
    """
    from sqlalchemy import exc

    try:
        yield
    except exc.DBAPIError as error:
        said = f"{getattr(error.orig, 'sqlstate', None) or ''} {error.orig}"
        if any(mark in said for mark in _LACKING) and "eventperf_change" in said:
            raise JournalMissing(where(engine)) from error
        cure = next((cure for mark, cure in _CURES if mark in said), "")
        if isinstance(error, (exc.OperationalError, exc.InterfaceError)) and not cure:
            raise StoreUnavailable(where(engine), str(error.orig).strip(), True) from error
        raise CacheError(
            f"{where(engine)} refused: {str(error.orig).strip()}{cure and '; ' + cure}"
        ) from error


@contextmanager
def reading(engine: Any) -> Iterator[Any]:
    """Yield a connection.

    One that failed is closed for good: a pool may drop it open if it is in the midst of a transaction, or
    dies while it is given back.
    """
    conn = engine.connect()
    raw = conn.connection.driver_connection
    try:
        yield conn
        conn.close()
    except BaseException:
        with suppress(Exception):
            conn.invalidate()
        with suppress(Exception):
            conn.close()
        with suppress(Exception):
            raw.close()
        raise


def plan(
    database: Any, tables: Sequence[str] = (), *, exclude: Sequence[str] = (), notify: bool | None = None
) -> Plan:
    """Return what would make the journal, and keep it up to date, for ``tables`` (default: all but ours).

    Raises:
        ConfigurationError: There is no such table.
    """
    engine, is_ours = engine_for(database)
    dialect = dialect_of(engine)
    try:
        with translated(engine), engine.connect() as conn:
            there = dialect.look(conn)
            chosen, left_out = choose(there, tables, exclude)
            steps = dialect.make(conn, chosen, notify)
    finally:
        if is_ours:
            engine.dispose()
    notes = [f"{t.full_name}: no row is told by itself (no primary key, or not one of plain numbers)"
             for t in chosen if not t.key]  # fmt: skip
    return Plan(steps, chosen, left_out, notes)


def choose(
    there: Sequence[Watched], tables: Sequence[str], exclude: Sequence[str]
) -> tuple[list[Watched], list[str]]:
    """Return the tables that were asked for, with those that show their rows, and the names left out."""
    known = {name for table in there for name in (table.name, table.full_name)}
    for argument, names in (("--table", tables), ("--exclude", exclude)):
        for name in names:
            if name not in known:
                raise ConfigurationError(argument, name, sorted(known)[:50] or "a table: there is none")
    home = there[0].schema if there else ""
    chosen, left_out = [], []
    for table in there:
        asked = table.name in tables or table.full_name in tables or bool(set(table.above) & set(tables))
        by_default = not tables and not table.name.startswith(UNASKED) and table.schema == home
        is_out = table.name in exclude or table.full_name in exclude
        if (asked or by_default) and not is_out:
            chosen.append(table)
        else:
            left_out.append(table.full_name)
    return chosen, left_out


def drop_plan(database: Any) -> Plan:
    """Return what would remove the journal and all of its triggers."""
    engine, is_ours = engine_for(database)
    try:
        with translated(engine), engine.connect() as conn:
            return Plan(dialect_of(engine).drop(conn), [])
    finally:
        if is_ours:
            engine.dispose()


def apply(database: Any, plan: Plan, said: Callable[[str], object] = lambda line: None) -> None:
    """Run a plan, a transaction for each step; what was done before a failure stays until the next time.

    Raises:
        CacheError: The database refused a step; the text says which.
    """
    engine, is_ours = engine_for(database)
    try:
        for step in plan.steps:
            try:
                with translated(engine), engine.begin() as conn:
                    if engine.dialect.name == "postgresql":
                        conn.exec_driver_sql("SET LOCAL lock_timeout = '5s'")
                    elif engine.dialect.name != "sqlite":
                        conn.exec_driver_sql("SET SESSION lock_wait_timeout = 5")
                    for statement in step.statements:
                        conn.exec_driver_sql(statement, execution_options={"no_parameters": True})
            except CacheError as error:
                raise CacheError(f"{step.about}: {error}") from error
            said(step.about)
    finally:
        if is_ours:
            engine.dispose()


def grants(database: Any, role: str) -> list[str]:
    """Return the statements that let ``role`` read the journal and nothing else."""
    engine, is_ours = engine_for(database)
    try:
        with translated(engine), engine.connect() as conn:
            return dialect_of(engine).grants(conn, role)
    finally:
        if is_ours:
            engine.dispose()
