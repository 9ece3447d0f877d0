"""Decision records in a SQL table, by SQLAlchemy."""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Sequence
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf._core.logs import logger
from eventperf._core.trust import warn_unchecked
from eventperf._core.urls import redact
from eventperf.scaling.model import ScalingDecision
from eventperf.scaling.records.log import DecisionLog

if TYPE_CHECKING:
    from sqlalchemy import Engine

_log = logger("eventperf.scaling")

_WAITING = 1000


class SqlDecisionLog(DecisionLog):
    """Every decision as a row: what to look for in columns, the whole record as JSON beside them.

    The table is made on the first write if it is not there. A database that does not take a record is left
    alone for ``retry``; meanwhile up to 1,000 records wait in memory, and go in together when it is back. A
    write runs on the thread that ticks: give your engine time-outs (an engine made from a URL waits 5 s for a
    connection).

    Args:
        engine: An engine, or a URL to make one from.
        table: Its name; ``keep`` and ``steady`` are those of :class:`~eventperf.scaling.DecisionLog`.

    Raises:
        MissingExtra: SQLAlchemy is not installed.

    >>> from eventperf.scaling import AutoScaler, CallableMetrics, SimulatedTarget, TargetTracking
    >>> log = SqlDecisionLog("sqlite://")
    >>> _ = AutoScaler(SimulatedTarget(2), CallableMetrics(rps=lambda: 300), TargetTracking(rps=50),
    ...                max_replicas=10, log=log).tick()
    >>> [decision.after for decision in log.find(target="simulated")]
    [6]
    >>> log.close()
    """

    def __init__(
        self,
        engine: Engine | str,
        *,
        table: str = "eventperf_decisions",
        keep: int = 1000,
        steady: bool = False,
        retry: Duration = 30.0,
        clock: Clock | None = None,
    ) -> None:
        super().__init__(keep=keep, steady=steady)
        self._sa = sa = require("sqlalchemy", extra="dbopt", needed_by="SqlDecisionLog")
        if not table or not isinstance(table, str):
            raise ConfigurationError("table", table, "a name")
        self._url: str | None = engine if isinstance(engine, str) else None
        self._given: Any = None if isinstance(engine, str) else engine
        if self._url is not None:
            try:
                sa.engine.make_url(self._url)
            except sa.exc.ArgumentError:
                raise ConfigurationError("engine", redact(self._url), "an engine or its URL") from None
        elif not callable(getattr(engine, "begin", None)):
            raise ConfigurationError("engine", type(engine).__name__, "an engine or its URL")
        self._table = _table(sa, table)
        self._retry_s = seconds(retry, name="retry")
        self._clock = clock or SystemClock()
        self._waiting: deque[ScalingDecision] = deque(maxlen=_WAITING)
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._writing = threading.Lock()
        self._engine: Any = self._given
        self._made = False
        self._shut_until = float("-inf")

    def _open(self) -> Any:
        if self._pid != os.getpid():
            self._begin()  # connections of the parent are not this process' to use
        if self._engine is None:
            assert self._url is not None
            self._engine = engine_of(self._sa, self._url)
        return self._engine

    def _store(self, decision: ScalingDecision) -> bool:
        with self._writing:
            self._waiting.append(decision)
            if self._clock.monotonic() < self._shut_until:
                return False
            rows = [_row(d) for d in self._waiting]
            try:
                engine = self._open()
                if not self._made:
                    self._table.create(engine, checkfirst=True)
                    self._made = True
                with engine.begin() as connection:
                    connection.execute(self._table.insert(), rows)
            except Exception:
                self._shut_until = self._clock.monotonic() + self._retry_s
                raise
            self._waiting.clear()
            return True

    def find(
        self, *, target: str | None = None, since: float | None = None, limit: int = 100
    ) -> Sequence[ScalingDecision]:
        """Return the newest stored decisions, oldest of them first.

        Args:
            since: Seconds since the epoch.
        """
        sa, columns = self._sa, self._table.c
        query = sa.select(columns.record).order_by(columns.id.desc()).limit(limit)
        if target is not None:
            query = query.where(*self._is(target))
        if since is not None:
            query = query.where(columns.at >= since)
        with self._open().connect() as connection:
            found = list(connection.execute(query).scalars())
        return [ScalingDecision.from_json(record) for record in reversed(found)]

    def _is(self, target: str) -> list[Any]:
        """Return the conditions of this target's rows alone: MariaDB takes ``a`` for ``A`` and for ``a ``."""
        column, text = self._table.c.target, _target(target)
        if self._open().dialect.name not in ("mysql", "mariadb"):
            return [column == text]
        return [column == text, self._sa.func.hex(column) == text.encode().hex().upper()]

    def recall(self, target: str, *, dry_run: bool = False) -> ScalingDecision | None:
        """Return the newest decision for ``target``, of whichever process: what a new leader goes on from."""
        if not self._sa.inspect(self._open()).has_table(self._table.name):
            return None  # the first write makes it
        sa, columns = self._sa, self._table.c
        query = sa.select(columns.record).where(*self._is(target), columns.dry_run == dry_run)
        with self._open().connect() as connection:
            records = connection.execute(query.order_by(columns.id.desc()).limit(20)).scalars()
            found = (ScalingDecision.from_json(record) for record in records)
            return next((d for d in found if d.observation is not None), None)

    def forget(self, before: float) -> int:
        """Delete the decisions made before ``before`` (seconds since the epoch) and return how many."""
        with self._open().begin() as connection:
            done = connection.execute(self._table.delete().where(self._table.c.at < before))
            return int(done.rowcount)

    def close(self) -> None:
        """Try once more to store what waits, and close an engine that was made from a URL."""
        with self._writing:
            waiting, self._shut_until = list(self._waiting), float("-inf")
        if waiting:
            last = waiting[-1]
            self._waiting.pop()
            try:
                self._store(last)
            except Exception:
                _log.exception("%d decisions could not be stored", len(waiting))
        if self._url is not None and self._engine is not None and self._pid == os.getpid():
            self._engine.dispose()
            self._engine = None
            self._made = False


def engine_of(sa: Any, text: str) -> Any:
    """Return an engine that waits 5 s for a connection at most."""
    url = sa.engine.make_url(text)
    warn_unchecked(url, _log)
    options: dict[str, Any] = {}
    if url.get_backend_name() in ("postgresql", "mysql", "mariadb"):
        options = {"connect_args": {"connect_timeout": 5}}
    elif url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        options = {"poolclass": sa.pool.StaticPool, "connect_args": {"check_same_thread": False}}
    return sa.create_engine(url, pool_pre_ping=True, **options)


def _table(sa: Any, name: str) -> Any:
    mysql = require("sqlalchemy.dialects.mysql", extra="dbopt", needed_by="SqlDecisionLog")
    long = sa.Text().with_variant(mysql.LONGTEXT(), "mysql", "mariadb")
    # SQLite numbers rows by itself only when the key is a plain INTEGER
    number = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    return sa.Table(
        name,
        sa.MetaData(),
        sa.Column("id", number, primary_key=True, autoincrement=True),
        sa.Column("at", sa.Double(), nullable=False),
        sa.Column("target", sa.String(255), nullable=False),
        sa.Column("action", sa.String(8), nullable=False),
        sa.Column("replicas_before", sa.Integer(), nullable=False),
        sa.Column("replicas_wanted", sa.Integer(), nullable=False),
        sa.Column("replicas_after", sa.Integer(), nullable=False),
        sa.Column("applied", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("dry_run", sa.Boolean(create_constraint=False), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("record", long, nullable=False),
        sa.Index(f"ix_{name}_target_at", "target", "at"),
    )


def _text(text: str) -> str:
    """Return what any database can hold of it: no NUL, no halves of characters."""
    return text.replace("\0", "\\0").encode("utf-8", "backslashreplace").decode()


def _target(target: str) -> str:
    """Return how a target is written in its column; the record has it whole."""
    shown = _text(target)
    if shown == target and len(shown) <= 255:
        return shown
    return f"{shown[:240]}.{sha256(target.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def _row(decision: ScalingDecision) -> dict[str, Any]:
    return {
        "at": decision.at,
        "target": _target(decision.target),
        "action": decision.action,
        "replicas_before": decision.before,
        "replicas_wanted": decision.wanted,
        "replicas_after": decision.after,
        "applied": decision.applied,
        "dry_run": decision.dry_run,
        "reason": _text(decision.reason),
        "record": decision.to_json(),
    }
