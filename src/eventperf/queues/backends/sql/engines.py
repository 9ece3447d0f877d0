"""SQLAlchemy engines as the store needs them, and the application's own connections."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf._core.logs import logger
from eventperf._core.trust import warn_unchecked

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

_log = logger("eventperf.queues")

_DRIVERS = {"psycopg": "postgres", "pymysql": "mysql"}
_BUSY_S = 15


_OUTBOX_FLOOR = (1, 4, 42)


def sqlalchemy(needed_by: str) -> Any:
    """Import SQLAlchemy 2.

    Raises:
        MissingExtra: It is not there.
        ConfigurationError: It is older.
    """
    cure = "SQLAlchemy 2.0 or later (beside an older one: jobs in Redis, and session= by way of the outbox)"
    return _since((2,), needed_by, cure)


def sqlalchemy_for_outbox() -> Any:
    """Import SQLAlchemy 2, or the 1.4 of an application that stays with it.

    Raises:
        MissingExtra: It is not there.
        ConfigurationError: It is older.
    """
    floor = ".".join(map(str, _OUTBOX_FLOOR))
    return _since(
        _OUTBOX_FLOOR, "the outbox", f'SQLAlchemy {floor} or later: pip install "sqlalchemy>={floor}"'
    )


def _since(floor: tuple[int, ...], needed_by: str, allowed: str) -> Any:
    sa: Any = require("sqlalchemy", extra="dbopt", needed_by=needed_by)
    if tuple(int(part) for part in re.findall(r"\d+", sa.__version__)[:3]) < floor:
        raise ConfigurationError(needed_by, f"SQLAlchemy {sa.__version__}", allowed)
    return sa


def require_driver(url: Any) -> None:
    """Say which extra brings the driver that ``url`` names, if it is one of ours and missing."""
    driver = url.get_driver_name()
    if driver in _DRIVERS:
        require(driver, extra=_DRIVERS[driver], needed_by=f"{url.drivername} URLs")


def with_driver(url: Any) -> Any:
    """Return ``url`` with a driver that is installed where it names none.

    ``postgresql://`` is psycopg2 to SQLAlchemy 2.0 and psycopg from 2.1 on; applications have one of them.
    """
    if "+" in url.drivername or url.get_backend_name() != "postgresql" or find_spec(url.get_driver_name()):
        return url
    there = [name for name in ("psycopg", "psycopg2") if find_spec(name)]
    return url.set(drivername=f"postgresql+{there[0]}") if there else url


def connection_of(session: Any) -> Connection:
    """Return the connection, in its transaction, behind an SQLAlchemy session or connection."""
    from sqlalchemy.engine import Connection

    if isinstance(session, Connection):
        if not getattr(session, "_is_future", True) and not session.in_transaction():  # of SQLAlchemy 1.4
            allowed = (
                "a Connection in a transaction (connection.begin()): outside of one each statement commits"
            )
            raise ConfigurationError("session", session, allowed)
        return session
    found = getattr(session, "connection", None)
    conn = found() if callable(found) else None
    if not isinstance(conn, Connection):
        raise ConfigurationError("session", session, "a Session or a Connection of SQLAlchemy's")
    return conn


def engine_for(url: Any, pool: int, on_pooler: Callable[[], object] = lambda: None) -> Engine:
    """Return an engine.

    Args:
        url: SQLAlchemy's.
        pool: Connections at most.
        on_pooler: Called when a pooler is found to stand before the server.
    """
    from sqlalchemy import create_engine

    if url.get_backend_name() == "sqlite":
        return _file_engine(url, pool)
    warn_unchecked(url, _log)
    more: dict[str, Any] = (
        {"connect_args": {"connect_timeout": 5}} if "connect_timeout" not in url.query else {}
    )
    engine = create_engine(
        url, isolation_level="READ COMMITTED", pool_size=pool, max_overflow=0, pool_timeout=30,
        pool_recycle=1800, **more,
    )  # fmt: skip
    if url.get_driver_name() == "psycopg":
        _heed_poolers(engine, on_pooler)
    return engine


def _heed_poolers(engine: Engine, on_pooler: Callable[[], object]) -> None:
    """Leave nothing behind in a session that may be another's in the next transaction.

    A pooler such as PgBouncer gives its clients process numbers of its own, which shows that it is there;
    whether it pools sessions or transactions it does not say, so the worse is taken for granted.
    """
    from sqlalchemy import event

    @event.listens_for(engine, "connect")
    def _connected(raw: Any, _: Any) -> None:
        own = raw.execute("SELECT pg_backend_pid()").fetchone()[0]
        raw.rollback()
        if own != raw.info.backend_pid:
            raw.prepare_threshold = None
            on_pooler()


def _file_engine(url: Any, pool: int) -> Engine:
    from sqlalchemy import create_engine, event
    from sqlalchemy.pool import QueuePool  # SQLAlchemy 1.4 would pool no file

    pooled: dict[str, Any] = {"poolclass": QueuePool, "pool_size": pool, "max_overflow": 0}
    engine = create_engine(url, connect_args={"timeout": _BUSY_S}, **pooled)

    @event.listens_for(engine, "connect")
    def _connected(raw: Any, _: Any) -> None:
        raw.isolation_level = None  # transactions begin where we say, not where the driver guesses
        _write_ahead(raw)

    @event.listens_for(engine, "begin")
    def _begin(conn: Any) -> None:
        write = conn.get_execution_options().get("eventperf_write", True)
        conn.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _write_ahead(raw: Any) -> None:
    """Switch the file to write-ahead logging; others may be at it, and SQLite does not wait."""
    import sqlite3

    end = time.monotonic() + _BUSY_S
    while True:
        try:
            if raw.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
                raw.execute("PRAGMA journal_mode=WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)
