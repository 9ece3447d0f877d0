"""Jobs in an SQL database through SQLAlchemy: PostgreSQL, MariaDB or MySQL, or a SQLite file on one host.

A job can be enqueued inside the application's own transaction: it becomes visible with the commit, or
never existed. Workers claim batches with ``FOR UPDATE SKIP LOCKED``; SQLite, which has one writer at a
time, takes its write lock instead.

Connections: a producer holds one; a worker up to three for its loop and its jobs, and one that waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, TypeVar

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf._core.urls import BackendURL, redact
from eventperf.queues.backends.faces import AsyncFace
from eventperf.queues.backends.turns import Turns
from eventperf.queues.errors import QueueError, SchemaMissing, StoreUnavailable
from eventperf.queues.job import NewJob
from eventperf.queues.protocols import ENGINE, StoreSettings, WorkerCard

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

    from .dialects import Dialect
    from .store import SqlStore

T = TypeVar("T")

_DRIVERS = {"psycopg": "postgres", "pymysql": "mysql"}
_TRIES = 12
_OPTIONS = ("poll", "notify", "pool")


class SqlBackend:
    """An SQL database behind a URL of SQLAlchemy's: ``postgresql+psycopg://``, ``mysql+pymysql://``, ``sqlite:///``.

    Options of the URL that are this backend's own: ``poll``, the longest pause in seconds between two
    looks of an idle worker where the server cannot wake it (0.25; on PostgreSQL it is woken by
    ``NOTIFY``); ``notify=off`` to poll there too; ``pool``, connections at most (5).

    Attributes:
        url: The URL without those options.
        dialect: What the server says in its own way.
    """

    capabilities: frozenset[str] = ENGINE | {
        "shared", "limits", "flows", "schedules", "transactional_enqueue"
    }  # fmt: skip

    def __init__(self, url: BackendURL, settings: StoreSettings) -> None:
        sa: Any = require("sqlalchemy", extra="dbopt", needed_by="the SQL queue backend")
        from .dialects import DIALECTS

        try:
            parsed = sa.make_url(url.text)
        except sa.exc.ArgumentError as error:
            raise ConfigurationError("url", str(url), "a URL of SQLAlchemy's") from error
        self.url: Any = parsed.difference_update_query(_OPTIONS)
        family = parsed.get_backend_name()
        require_driver(parsed)
        if family == "sqlite" and parsed.database in (None, "", ":memory:"):
            raise ConfigurationError("url", str(url), "a file such as sqlite:///jobs.db (or memory://)")
        self.dialect: Dialect = DIALECTS[family]()
        self.name: str = self.dialect.name
        self.settings: StoreSettings = settings
        self.poll_s: float = _number(parsed.query.get("poll", "0.25"), "poll")
        self.listens: bool = family == "postgresql" and parsed.query.get("notify", "on") != "off"
        self._pool = int(_number(parsed.query.get("pool", "5"), "pool"))
        self._mu = threading.Lock()
        self._writing = Turns()
        self._forget()

    def _forget(self) -> None:
        self._pid = os.getpid()
        self._engine: Engine | None = None
        self._store: SqlStore | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._faces: dict[str, SqlStore] = {}
        self.bell: threading.Condition = threading.Condition()
        self.rung: int = 0
        self._checked = False

    def _here(self) -> None:
        """Forget the parent's connections after a fork, without closing them."""
        if self._pid != os.getpid():
            if self._engine is not None:
                self._engine.dispose(close=False)
            self._forget()

    def engine(self) -> Engine:
        """Return this process's engine, opened on first use."""
        with self._mu:
            self._here()
            if self._engine is None:
                self._engine = engine_for(self.url, self._pool)
            return self._engine

    # -- the protocol ------------------------------------------------------------------------------

    def sync(self) -> SqlStore:
        from .store import SqlStore

        with self._mu:
            self._here()
            if self._store is None:
                self._store = SqlStore(self)
            return self._store

    def waiter(self, card: WorkerCard, /) -> SqlStore:
        from .store import SqlStore

        store = SqlStore(self)
        store.adopt(card)
        with self._mu:
            self._here()
            self._faces[card.id] = store
        return store

    def aio(self) -> AsyncFace:
        store = self.sync()
        with self._mu:
            if self._threads is None:  # of its own: handlers may fill the loop's default pool
                self._threads = ThreadPoolExecutor(4, thread_name_prefix="eventperf-sql")
            return _AsyncSqlFace(store, self._threads)

    def close(self) -> None:
        with self._mu:
            self._here()
            engine, threads, faces = self._engine, self._threads, list(self._faces.values())
            self._forget()
        if threads is not None:
            threads.shutdown()
        for face in faces:
            face.close()
        if engine is not None:
            engine.dispose()

    def left(self, worker: str) -> None:
        """End the waiting of a worker of this process that has signed off."""
        with self._mu:
            face = self._faces.get(worker)
        if face is not None:
            face.interrupt()

    def let_go(self, face: object) -> None:
        """Forget a face that has closed."""
        with self._mu:
            self._faces = {worker: one for worker, one in self._faces.items() if one is not face}

    # -- tables ------------------------------------------------------------------------------------

    def create_schema(self) -> None:
        """Make the tables, or upgrade them; harmless when they are there.

        Raises:
            StoreUnavailable: The database does not answer.
        """
        from . import schema as sql_schema

        with self.translated():
            sql_schema.create(self.engine())

    def schema_ddl(self) -> str:
        """Return the statements of :meth:`create_schema`, for a migration tool."""
        from . import schema as sql_schema

        return sql_schema.ddl(self.engine())

    def _check(self) -> None:
        if self._checked:
            return
        from . import schema as sql_schema

        if self.name == "SQLite":
            sql_schema.create(self.engine())
        else:
            with self.engine().connect() as conn:
                sql_schema.check(conn)
        self._checked = True

    # -- transactions ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turn errors of the driver into this room's."""
        from sqlalchemy import exc

        try:
            yield
        except (exc.OperationalError, exc.InterfaceError, exc.InternalError, exc.TimeoutError) as error:
            raise self.lost(error) from error
        except exc.DBAPIError as error:
            if error.connection_invalidated:
                raise self.lost(error) from error
            raise QueueError(f"{self._where} refused a statement: {error.orig}") from error
        except exc.ResourceClosedError as error:
            raise self.lost(error) from error

    @property
    def _where(self) -> str:
        return f"{self.name} at {redact(self.url.render_as_string(hide_password=True))}"

    def lost(self, error: Exception) -> StoreUnavailable:
        reason = getattr(error, "orig", None) or error
        return StoreUnavailable(f"{self._where} does not answer: {type(reason).__name__}: {reason}")

    def run(self, work: Callable[[Connection], T], *, write: bool = True, repeat: bool = False) -> T:
        """Do ``work`` in a transaction; again when the server chose it as the victim of a deadlock.

        Args:
            write: Whether it may change anything.
            repeat: Whether it may also be repeated after the connection broke, perhaps after its commit.
        """
        from sqlalchemy import exc

        with self.translated():
            for attempt in range(_TRIES):
                try:
                    self._check()
                    return self._once(work, write)
                except exc.DBAPIError as error:
                    if attempt + 1 < _TRIES and self.dialect.is_retryable(error):
                        time.sleep(random.uniform(0, 0.002 * 2 ** min(attempt, 6)))
                    elif not (repeat and error.connection_invalidated and attempt == 0):
                        raise
        raise AssertionError("unreachable")

    def _once(self, work: Callable[[Connection], T], write: bool) -> T:
        engine = self.engine()
        if self.name != "SQLite":
            with engine.begin() as conn:
                return work(conn)
        # SQLite has one writer: threads take turns here, processes by its busy time-out.
        turn = self._writing if write else contextlib.nullcontext()
        with turn, engine.connect() as conn:
            conn.execution_options(eventperf_write=write)
            with conn.begin():
                return work(conn)

    def ring(self) -> None:
        """Wake the waiting workers of this process."""
        with self.bell:
            self.rung += 1
            self.bell.notify_all()

    # -- the application's own transaction ---------------------------------------------------------

    def push_in(self, session: Any, jobs: Sequence[NewJob]) -> list[str]:
        """Enqueue in the transaction of ``session``: an SQLAlchemy session or connection to this database.

        Raises:
            ConfigurationError: Not such an object, or one of another kind of database.
            SchemaMissing: The tables are not in its database.
        """
        conn = connection_of(session)
        if conn.dialect.name not in (
            self.url.get_backend_name(),
            *_SAME.get(self.url.get_backend_name(), ()),
        ):
            raise ConfigurationError("session", conn.dialect.name, f"a session on {self._where}")
        if not self._checked and self.name != "SQLite":
            from . import schema as sql_schema

            sql_schema.check(conn)
        elif self.name == "SQLite":
            self._check_file(conn)
        return self.sync().push_on(conn, jobs)

    def _check_file(self, conn: Connection) -> None:
        """In one file a second connection would wait for the transaction that calls us."""
        from . import schema as sql_schema

        if not self._checked and sql_schema.version_of(conn) != sql_schema.VERSION:
            raise SchemaMissing(0, sql_schema.VERSION)

    async def apush_in(self, session: Any, jobs: Sequence[NewJob]) -> list[str]:
        """Asynchronous twin of :meth:`push_in`, for ``AsyncSession`` and ``AsyncConnection`` too."""
        run_sync = getattr(session, "run_sync", None)
        if run_sync is None:
            return self.push_in(session, jobs)
        found: list[str] = await run_sync(lambda inner: self.push_in(inner, jobs))
        return found


_SAME = {"mysql": ("mariadb",), "mariadb": ("mysql",)}


def connection_of(session: Any) -> Connection:
    """Return the connection, in its transaction, behind an SQLAlchemy session or connection."""
    from sqlalchemy.engine import Connection

    if isinstance(session, Connection):
        return session
    found = getattr(session, "connection", None)
    conn = found() if callable(found) else None
    if not isinstance(conn, Connection):
        raise ConfigurationError("session", session, "a Session or a Connection of SQLAlchemy's")
    return conn


def require_driver(url: Any) -> None:
    """Say which extra brings the driver that ``url`` names, if it is one of ours and missing."""
    driver = url.get_driver_name()
    if driver in _DRIVERS:
        require(driver, extra=_DRIVERS[driver], needed_by=f"{url.drivername} URLs")


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < 1e6:
        raise ConfigurationError(name, value, "a positive number")
    return number


def engine_for(url: Any, pool: int) -> Engine:
    from sqlalchemy import create_engine, event

    family = url.get_backend_name()
    if family != "sqlite":
        more: dict[str, Any] = (
            {"connect_args": {"connect_timeout": 5}} if "connect_timeout" not in url.query else {}
        )
        return create_engine(
            url, isolation_level="READ COMMITTED", pool_size=pool, max_overflow=0, pool_timeout=30,
            pool_recycle=1800, **more,
        )  # fmt: skip
    engine = create_engine(url, connect_args={"timeout": 15}, pool_size=pool, max_overflow=0)

    @event.listens_for(engine, "connect")
    def _connected(raw: Any, _: Any) -> None:
        raw.isolation_level = None  # transactions begin where we say, not where the driver guesses
        cursor = raw.cursor()
        cursor.execute("PRAGMA journal_mode=WAL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def _begin(conn: Any) -> None:
        write = conn.get_execution_options().get("eventperf_write", True)
        conn.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


class _AsyncSqlFace(AsyncFace):
    """Calls in threads of the backend."""

    def __init__(self, store: SqlStore, threads: ThreadPoolExecutor) -> None:
        super().__init__(store, in_threads=True)
        self._threads = threads

    async def _do(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
