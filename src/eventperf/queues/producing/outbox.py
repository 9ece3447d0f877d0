"""The outbox: jobs that leave for another store with a database transaction's commit, or not at all.

:meth:`QueueManager.enqueue` with ``session=`` or ``using=`` writes the job into a table of the application's
own database, in the application's own transaction; a :class:`Relay` carries it to the store afterwards.

A job reaches the store at least once: a relay that dies between handing a batch over and deleting it from
the table hands it over again. The store knows the job's id for as long as it keeps its record, at least a
minute after the job has ended (``result_ttl`` when it had a result), and ignores the repetition; a relay
that stays away for longer repeats at most one batch.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from eventperf._core.clock import Clock
from eventperf._core.durations import Duration
from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf._core.logs import logger
from eventperf._core.objects import read_json
from eventperf._core.texts import one_line
from eventperf._core.trust import warn_unchecked
from eventperf._core.urls import redact
from eventperf.queues.checks import MAX_SPAN_S, check_int, check_number, check_span
from eventperf.queues.errors import OutboxMissing, QueueError, StoreUnavailable
from eventperf.queues.job import JobRecord, NewJob
from eventperf.queues.options import QueueConfig
from eventperf.queues.protocols import Backend

from .spec import checked

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection, Engine

__all__ = ["TABLE", "Relay", "create_table", "write", "write_django"]

TABLE = "eventperf_outbox"
"""Name of the outbox table."""

STRAY = "unreadable row of the outbox"
"""Type of what stands for a row that is no job, or that the store refuses; its payload is the row's body."""

_REFUSED = (ValueError, TypeError, LookupError, AttributeError, RecursionError, ConfigurationError)

_log = logger("eventperf.queues")

_DEFAULTS = {f.name: f.default for f in dataclasses.fields(JobRecord) if f.default is not dataclasses.MISSING}
_INSERT = f"INSERT INTO {TABLE} (namespace, created_at, body) VALUES ({{}}, {{}}, {{}})"


def _body(new: NewJob) -> str:
    record = {
        f.name: value
        for f in dataclasses.fields(JobRecord)
        if (value := getattr(new.record, f.name)) != _DEFAULTS.get(f.name, ...)
    }
    record["payload"] = base64.b64encode(new.record.payload).decode()
    return json.dumps([record, new.delay_s, new.deadline_s], separators=(",", ":"))


def _job(body: str, waited_s: float) -> NewJob:
    """Read what :func:`write` wrote; raise one of ``_REFUSED`` for what it would not have written."""
    fields, delay_s, deadline_s = read_json(body)
    fields["payload"] = base64.b64decode(fields["payload"], validate=True)
    record = checked(JobRecord(**fields))
    delay_s = check_number(delay_s, argument="delay", low=0, high=MAX_SPAN_S)
    if deadline_s is not None:  # in the store's terms it starts now; one that has passed must not start
        deadline_s = check_number(deadline_s, argument="deadline", low=0, high=MAX_SPAN_S)
        deadline_s = max(1e-3, deadline_s - waited_s)
    return NewJob(record, max(0.0, delay_s - waited_s), deadline_s)


def _stray(row: Any, queues: Mapping[str, Any], job_id: str = "") -> NewJob:
    """Return what stands for a row that is no job: no worker knows its type, so it ends as a dead job."""
    job_id = job_id or f"outbox-{row.n}"
    queue = "normal" if "normal" in queues else next(iter(queues))
    body = row.body.encode("utf-8", "surrogatepass")
    return NewJob(JobRecord(id=job_id, type=STRAY, queue=queue, priority=0, payload=body))


def _sqlalchemy() -> Any:
    from eventperf.queues.backends.sql.engines import sqlalchemy_for_outbox

    return sqlalchemy_for_outbox()


def write(session: Any, jobs: Sequence[NewJob], namespace: str, now: float) -> list[str]:
    """Write jobs in the transaction of an SQLAlchemy session or connection; return their ids."""
    sqlalchemy = _sqlalchemy()
    from eventperf.queues.backends.sql.engines import connection_of

    conn = connection_of(session)
    statement = sqlalchemy.text(_INSERT.format(":namespace", ":created_at", ":body"))
    rows = [{"namespace": namespace, "created_at": now, "body": _body(new)} for new in jobs]
    try:
        conn.execute(statement, rows)
    except sqlalchemy.exc.DBAPIError as error:
        if _lacks_table(conn.dialect.name, error.orig):
            raise OutboxMissing(TABLE) from error
        raise
    return [new.record.id for new in jobs]


async def awrite(session: Any, jobs: Sequence[NewJob], namespace: str, now: float) -> list[str]:
    """Asynchronous twin of :func:`write`, for ``AsyncSession`` and ``AsyncConnection`` too."""
    run_sync = getattr(session, "run_sync", None)
    if run_sync is None:
        return write(session, jobs, namespace, now)
    found: list[str] = await run_sync(lambda inner: write(inner, jobs, namespace, now))
    return found


def write_django(using: str, jobs: Sequence[NewJob], namespace: str, now: float) -> list[str]:
    """Write jobs in the current transaction of Django's database ``using``; return their ids."""
    db: Any = require("django.db", extra="django", needed_by="enqueue(using=...)")
    if using not in db.connections:
        raise ConfigurationError("using", using, sorted(db.connections))
    statement, conn = _INSERT.format("%s", "%s", "%s"), db.connections[using]
    try:
        with conn.cursor() as cursor:
            cursor.executemany(statement, [(namespace, now, _body(new)) for new in jobs])
    except db.Error as error:
        if _lacks_table(conn.vendor, error.__cause__):
            raise OutboxMissing(TABLE) from error
        raise
    return [new.record.id for new in jobs]


def _lacks_table(family: str, error: BaseException | None) -> bool:
    """Tell whether a driver's error says that there is no such table."""
    from eventperf.queues.backends.sql.trouble import OF, Trouble

    judge = OF.get(family)
    return judge is not None and judge(error) is Trouble.LACKING


def _table() -> Any:
    from sqlalchemy import BigInteger, Column, Float, Integer, MetaData, String, Table, Text
    from sqlalchemy.dialects import mysql

    long = mysql.LONGTEXT(charset="utf8mb4")
    body = Text().with_variant(long, "mysql").with_variant(long, "mariadb")  # one by one: 1.4 takes no more
    return Table(
        TABLE,
        MetaData(),
        Column("n", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True),
        Column("namespace", String(200), nullable=False),
        Column("created_at", Float(53), nullable=False),  # double precision
        Column("body", body, nullable=False),
        mysql_engine="InnoDB",
    )


def create_table(database: str | Engine) -> None:
    """Make the outbox table in ``database``, a URL or an engine; harmless when it is there."""
    sqlalchemy = _sqlalchemy()
    if not isinstance(database, str):
        _table().create(database, checkfirst=True)
        return
    from eventperf.queues.backends.sql.engines import with_driver

    url = with_driver(sqlalchemy.engine.make_url(database))
    warn_unchecked(url, _log)
    engine = sqlalchemy.create_engine(url)
    try:
        _table().create(engine, checkfirst=True)
    finally:
        engine.dispose()


class Carried(Protocol):
    """The manager whose jobs a relay carries."""

    @property
    def namespace(self) -> str: ...
    @property
    def queues(self) -> Mapping[str, QueueConfig]: ...
    @property
    def clock(self) -> Clock: ...
    @property
    def backend(self) -> Backend: ...


class Relay:
    """Carries jobs from an outbox to the store of a manager, in the order in which they were written.

    A row that is no job, or one that the store refuses, ends in the dead letter and holds nothing up.

    Of several relays on one table one works at a time, the others wait for it: order is kept, and the
    death of one only makes another take over. Jobs of one transaction keep their order, and so do two
    transactions of which the second began after the first had committed.

    Args:
        queues: The manager whose namespace's jobs are carried, and whose store gets them.
        database: Where the table is, as a URL of SQLAlchemy's.
        batch: Jobs per round trip.
        poll: Longest pause between two looks at an empty table.
    """

    def __init__(self, queues: Carried, database: str, *, batch: int = 1000, poll: Duration = 0.1) -> None:
        sqlalchemy = _sqlalchemy()
        from eventperf.queues.backends.sql.engines import require_driver, with_driver

        self._queues = queues
        self._batch = check_int(batch, argument="batch", low=1, high=1000)
        self._poll_s = check_span(poll, argument="poll")
        try:
            url = with_driver(sqlalchemy.engine.make_url(database))
        except sqlalchemy.exc.ArgumentError as error:
            raise ConfigurationError("database", redact(str(database)), "a URL of SQLAlchemy's") from error
        require_driver(url)
        self._url: Any = url
        self._engine: Engine | None = None
        self._stop = threading.Event()
        self.relayed: int = 0

    def run(self, *, burst: bool = False) -> int:
        """Carry jobs until :meth:`stop`; with ``burst`` until the table is empty. Return how many.

        Lost connections to either side are waited out.
        """
        start, pause, lost = self.relayed, 0.002, 0.05
        while not self._stop.is_set():
            try:
                n = self.once()
            except StoreUnavailable as error:
                if burst:
                    raise
                _log.warning("outbox relay: %s", error)
                self._stop.wait(lost)
                lost = min(lost * 2, 1.0)
                continue
            lost = 0.05
            if n:
                pause = 0.002
            elif burst:
                break
            else:
                self._stop.wait(pause)
                pause = min(pause * 1.5, self._poll_s)
        return self.relayed - start

    def stop(self) -> None:
        """End :meth:`run` after the batch it is at; may be called from anywhere."""
        self._stop.set()

    def once(self) -> int:
        """Carry one batch and return how many jobs it had.

        Raises:
            ~eventperf.queues.StoreUnavailable: The database or the store does not answer; nothing is lost.
            ~eventperf.queues.OutboxMissing: The table is not there.
        """
        with self._translated(), self._opened().begin() as conn:
            n = self._carry(conn)
        self.relayed += n
        return n

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from sqlalchemy import exc

        where = redact(self._url.render_as_string(hide_password=True))
        try:
            yield
        except (exc.DBAPIError, exc.TimeoutError) as error:
            if _lacks_table(self._url.get_backend_name(), getattr(error, "orig", None)):
                raise OutboxMissing(TABLE) from error
            if isinstance(error, (exc.OperationalError, exc.InterfaceError, exc.TimeoutError)):
                raise StoreUnavailable(f"the outbox at {where} does not answer: {error}") from error
            raise QueueError(f"the outbox refused a statement: {error.orig}") from error

    def _opened(self) -> Engine:
        if self._engine is None:
            from eventperf.queues.backends.sql.engines import engine_for

            self._engine = engine_for(self._url, 1)
        return self._engine

    def _carry(self, conn: Connection) -> int:
        from sqlalchemy import delete, select

        table = _table()
        asked = select(table).where(table.c.namespace == self._queues.namespace).order_by(table.c.n)
        rows = conn.execute(asked.limit(self._batch).with_for_update()).all()
        if rows:
            now = self._queues.clock.time()
            self._push(rows, [self._read(row, max(0.0, now - row.created_at)) for row in rows])
            conn.execute(delete(table).where(table.c.n.in_([row.n for row in rows])))
        return len(rows)

    def _read(self, row: Any, waited_s: float) -> NewJob:
        try:
            return _job(row.body, waited_s)
        except _REFUSED as error:
            return self._stray(row, error)

    def _stray(self, row: Any, error: Exception, job_id: str = "") -> NewJob:
        why = one_line(str(error)[:200])
        _log.warning("row %d of the outbox is no job and goes to the dead letter: %s", row.n, why)
        return _stray(row, self._queues.queues, job_id)

    def _push(self, rows: Sequence[Any], jobs: list[NewJob]) -> None:
        """Hand jobs over; what the store refuses (a parent it has forgotten) holds nothing else up."""
        push = self._queues.backend.sync().push
        try:
            push(jobs)
        except ConfigurationError:
            for row, job in zip(rows, jobs, strict=True):
                try:
                    push([job])
                except ConfigurationError as error:
                    push([self._stray(row, error, job.record.id)])

    def waiting(self) -> int:
        """Return how many jobs are in the table, for monitoring; it counts them."""
        from sqlalchemy import func, select

        table = _table()
        asked = select(func.count()).where(table.c.namespace == self._queues.namespace)
        with self._translated(), self._opened().connect() as conn:
            return int(conn.execute(asked).scalar_one())

    def close(self) -> None:
        """Stop and close the connection to the database; the manager is left alone."""
        self.stop()
        if self._engine is not None:
            self._engine.dispose()
            self._engine = None

    def __enter__(self) -> Relay:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
