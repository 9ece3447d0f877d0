"""Jobs in an SQL database through SQLAlchemy: PostgreSQL, MariaDB or MySQL, or a SQLite file on one host.

A job can be enqueued inside the application's own transaction: it becomes visible with the commit, or
never existed. Workers claim batches with ``FOR UPDATE SKIP LOCKED``; SQLite, which has one writer at a
time, takes its write lock instead.

Connections: a producer holds one; a worker up to ``pool`` for its loop and its jobs, one for its renewals,
which wait for nobody, and one that listens.
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
from eventperf._core.logs import logger
from eventperf._core.urls import BackendURL, redact
from eventperf.queues.backends.faces import AsyncFace
from eventperf.queues.backends.fair_lock import FairLock
from eventperf.queues.errors import QueueError, SchemaMissing, StoreUnavailable
from eventperf.queues.job import NewJob
from eventperf.queues.protocols import ENGINE, StoreSettings, WorkerCard

from .engines import connection_of, engine_for, require_driver, sqlalchemy

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine
    from sqlalchemy.exc import DBAPIError

    from .dialects import Dialect
    from .store import SqlStore
    from .tx import Home
    from .waiting import Doorbell

T = TypeVar("T")

_log = logger("eventperf.queues")

_TRIES = 12
_OPTIONS = ("poll", "notify", "pool")


class SqlBackend:
    """An SQL database behind a URL of SQLAlchemy's: ``postgresql+psycopg://``, ``mysql+pymysql://``, ``sqlite:///``.

    Options of the URL that are this backend's own: ``poll``, the longest pause in seconds between two
    looks of an idle worker where the server cannot wake it (0.25; on PostgreSQL it is woken by
    ``NOTIFY``, unless a pooler stands before it); ``notify=off`` to poll in any case, ``notify=on`` to
    rely on ``NOTIFY`` through a pooler of sessions; ``pool``, connections at most (5).

    Attributes:
        url: The URL without those options.
        dialect: What the server says in its own way.
    """

    capabilities: frozenset[str] = ENGINE | {
        "shared", "limits", "flows", "schedules", "transactional_enqueue", "attempts", "search", "metrics",
        "update", "roster", "children", "delete",
    }  # fmt: skip

    def __init__(self, url: BackendURL, settings: StoreSettings) -> None:
        sa = sqlalchemy("the SQL queue backend")
        from .dialects import DIALECTS
        from .tx import Home

        try:
            parsed = sa.make_url(url.text)
        except sa.exc.ArgumentError as error:
            raise ConfigurationError("url", str(url), "a URL of SQLAlchemy's") from error
        self._made_of = url
        self.url: Any = parsed.difference_update_query(_OPTIONS)
        family = parsed.get_backend_name()
        require_driver(parsed)
        if family == "sqlite" and parsed.database in (None, "", ":memory:"):
            raise ConfigurationError("url", str(url), "a file such as sqlite:///jobs.db (or memory://)")
        self.dialect: Dialect = DIALECTS[family]()
        self.name: str = self.dialect.name
        self.settings: StoreSettings = settings
        self.poll_s: float = _number(parsed.query.get("poll", "0.25"), "poll")
        self._notify: str = str(parsed.query.get("notify", "auto"))
        if self._notify not in ("auto", "on", "off"):
            raise ConfigurationError("notify", self._notify, "on or off")
        self._pool = int(_number(parsed.query.get("pool", "5"), "pool"))
        self.home: Home = Home(settings=settings, dialect=self.dialect, notifies=family == "postgresql")
        self._mu = threading.Lock()
        self._writing = FairLock()
        self._pooled = False
        self._forget()

    def __reduce__(self) -> tuple[Any, ...]:
        """Travel to another process as what it was made from."""
        return type(self), (self._made_of, self.settings)

    def _forget(self) -> None:
        from .waiting import Doorbell

        self._pid = os.getpid()
        self._engines: dict[str, Engine] = {}
        self._store: SqlStore | None = None
        self._threads: ThreadPoolExecutor | None = None
        self._faces: dict[str, SqlStore] = {}
        self.doorbell: Doorbell = Doorbell()
        self._checked = False

    def _here(self) -> None:
        """Forget the parent's connections after a fork, without closing them."""
        if self._pid != os.getpid():
            for engine in self._engines.values():
                engine.dispose(close=False)
            self._forget()

    def engine(self, lane: str = "") -> Engine:
        """Return this process's engine, opened on first use; a lane has a connection of its own."""
        with self._mu:
            self._here()
            if lane not in self._engines:
                self._engines[lane] = engine_for(self.url, 1 if lane else self._pool, self._behind_pooler)
            return self._engines[lane]

    @property
    def listens(self) -> bool:
        """Whether workers wait for ``NOTIFY`` here."""
        if not self.home.notifies or self._notify == "off":
            return False
        return self._notify == "on" or not self._pooled

    def _behind_pooler(self) -> None:
        if self._pooled:
            return
        self._pooled = True
        if self._notify == "auto":
            _log.warning(
                "%s is behind a connection pooler, which may swallow NOTIFY: idle workers look every %g s "
                "instead of being woken (?notify=on where it pools sessions, ?notify=off to poll anyway)",
                self.where, self.poll_s,
            )  # fmt: skip

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

        store = SqlStore(self, lane=card.id)
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
            engines, threads, faces = dict(self._engines), self._threads, list(self._faces.values())
            self._forget()
        if threads is not None:
            threads.shutdown()
        for face in faces:
            face.close()
        for engine in engines.values():
            engine.dispose()

    def left(self, worker: str) -> None:
        """End the waiting of a worker of this process that has signed off."""
        with self._mu:
            face = self._faces.get(worker)
        if face is not None:
            face.interrupt()

    def let_go(self, lane: str) -> None:
        """Forget the face and the connection of a worker."""
        with self._mu:
            self._faces.pop(lane, None)
            engine = self._engines.pop(lane, None) if lane else None
        if engine is not None:
            engine.dispose()

    # -- tables ------------------------------------------------------------------------------------

    def create_schema(self) -> int:
        """Make the tables, or bring those of an older release up to date; harmless when they are.

        Returns:
            The version that was found; 0 when there were no tables.

        Raises:
            SchemaMissing: The tables are of a newer release, or lack what no release lacks.
            StoreUnavailable: The database does not answer.
        """
        from . import migrate

        with self.translated():
            return migrate.create(self.engine())

    def schema_version(self) -> int:
        """Return the version of the tables in the database; 0 when there are none."""
        from . import migrate

        with self.translated():
            return self._once(migrate.version_of, write=False)

    def schema_ddl(self, since: int = 0) -> str:
        """Return the statements of :meth:`create_schema`, for a migration tool.

        Args:
            since: The version of the tables that are there; 0 for none.
        """
        from . import migrate

        if not 0 <= since < self.schema_known:
            raise ConfigurationError("since", since, f"a version from 0 to {self.schema_known - 1}")
        return migrate.ddl(self.engine(), since)

    @property
    def schema_known(self) -> int:
        """The version of the tables that this release reads and writes."""
        from . import tables

        return tables.VERSION

    def schema_steps(self, since: int) -> list[tuple[int, str]]:
        """Return what :meth:`create_schema` does to tables of version ``since``: each version and why."""
        from . import history

        return [(n, step.why) for n, step in history.STEPS.items() if 0 < since < n]

    def _check(self) -> None:
        if self._checked:
            return
        from . import migrate

        if self.name == "SQLite":
            migrate.create(self.engine())
        else:
            with self.engine().connect() as conn:
                migrate.check(conn)
        self._checked = True

    # -- transactions ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def translated(self) -> Iterator[None]:
        """Turn errors of the driver into this room's."""
        from sqlalchemy import exc

        try:
            yield
        except exc.DBAPIError as error:
            raise self._told(error) from error
        except (exc.TimeoutError, exc.ResourceClosedError) as error:
            raise self.lost(error) from error
        except (UnicodeError, OverflowError) as error:
            raise QueueError(f"{self.where} cannot store a value: {error}") from error

    @property
    def where(self) -> str:
        """The server, for messages."""
        return f"{self.name} at {redact(self.url.render_as_string(hide_password=True))}"

    def _told(self, error: DBAPIError) -> QueueError:
        """Return this room's error for one of the driver's."""
        from .trouble import Trouble

        trouble = self.dialect.trouble(error)
        if error.connection_invalidated and trouble is Trouble.REFUSED:
            trouble = Trouble.AWAY
        if trouble is Trouble.LACKING and (mismatch := self._mismatch()) is not None:
            return mismatch
        kind = StoreUnavailable if trouble.passes else QueueError
        reason = error.orig or error
        return kind(f"{self.where} {trouble.value}: {type(reason).__name__}: {str(reason)[:500]}")

    def _mismatch(self) -> SchemaMissing | None:
        """Look whether the tables are those of this release, after one or a column of one was not found."""
        from sqlalchemy import exc

        from . import migrate

        def look(conn: Connection) -> tuple[int, list[str]]:
            return migrate.version_of(conn), migrate.lacking(conn)

        try:
            found, missing = self._once(look, write=False)
        except exc.SQLAlchemyError:
            return None
        if found == self.schema_known and not missing:
            return None
        return SchemaMissing(found, self.schema_known, missing if found == self.schema_known else ())

    def lost(self, error: Exception) -> StoreUnavailable:
        """Return the error of a server that does not answer."""
        reason = getattr(error, "orig", None) or error
        return StoreUnavailable(f"{self.where} does not answer: {type(reason).__name__}: {str(reason)[:500]}")

    def run(
        self, work: Callable[[Connection], T], *, write: bool = True, repeat: bool = False, lane: str = ""
    ) -> T:
        """Do ``work`` in a transaction; again when the server chose it as the victim of a conflict.

        Args:
            write: Whether it may change anything.
            repeat: Whether it may also be repeated after the connection broke, perhaps after its commit.
            lane: Over whose connection; the shared ones by default.
        """
        from sqlalchemy import exc

        from .trouble import Trouble

        with self.translated():
            for attempt in range(_TRIES):
                try:
                    self._check()
                    return self._once(work, write, lane)
                except exc.DBAPIError as error:
                    if attempt + 1 < _TRIES and self.dialect.trouble(error) is Trouble.CONFLICT:
                        time.sleep(random.uniform(0, 0.002 * 2 ** min(attempt, 6)))
                    elif not (repeat and error.connection_invalidated and attempt == 0):
                        raise
        raise AssertionError("unreachable")

    def _once(self, work: Callable[[Connection], T], write: bool, lane: str = "") -> T:
        engine = self.engine(lane)
        if self.name != "SQLite":
            with engine.begin() as conn:
                return work(conn)
        # SQLite has one writer: threads take turns here, processes by its busy time-out.
        turn = self._writing if write else contextlib.nullcontext()
        with turn, engine.connect() as conn:
            conn.execution_options(eventperf_write=write)
            with conn.begin():
                return work(conn)

    # -- the application's own transaction ---------------------------------------------------------

    def push_in(self, session: Any, jobs: Sequence[NewJob]) -> list[str]:
        """Enqueue in the transaction of ``session``: an SQLAlchemy session or connection to this database.

        Raises:
            ConfigurationError: Not such an object, or one of another kind of database.
            SchemaMissing: The tables are not in its database.
        """
        from . import migrate

        conn, family = connection_of(session), self.url.get_backend_name()
        if conn.dialect.name not in (family, *_SAME.get(family, ())):
            raise ConfigurationError("session", conn.dialect.name, f"a session on {self.where}")
        if not self._checked:  # on that connection: in one file a second one would wait for its transaction
            (migrate.bring_up if self.name == "SQLite" else migrate.check)(conn)
        return self.sync().push_on(conn, jobs)

    async def apush_in(self, session: Any, jobs: Sequence[NewJob]) -> list[str]:
        """Asynchronous twin of :meth:`push_in`, for ``AsyncSession`` and ``AsyncConnection`` too."""
        run_sync = getattr(session, "run_sync", None)
        if run_sync is None:
            return self.push_in(session, jobs)
        found: list[str] = await run_sync(lambda inner: self.push_in(inner, jobs))
        return found


_SAME = {"mysql": ("mariadb",), "mariadb": ("mysql",)}


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = 0.0
    if not 0 < number < 1e6:
        raise ConfigurationError(name, value, "a positive number")
    return number


class _AsyncSqlFace(AsyncFace):
    """Calls in threads of the backend."""

    def __init__(self, store: SqlStore, threads: ThreadPoolExecutor) -> None:
        super().__init__(store, in_threads=True)
        self._threads = threads

    async def _do(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)
