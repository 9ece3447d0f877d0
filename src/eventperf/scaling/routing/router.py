"""Reads to replicas, writes to the primary, and nobody misses what they wrote: over SQLAlchemy engines."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf._core.logs import logger
from eventperf._core.texts import whole
from eventperf._core.trust import warn_unchecked
from eventperf._core.urls import redact
from eventperf.scaling.errors import ScalingError
from eventperf.scaling.routing.balancer import Balancer, EndpointStats
from eventperf.scaling.routing.lag import Lag
from eventperf.scaling.routing.replication import MySQLReplication, PostgresReplication, Replication

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine

_log = logger("eventperf.scaling.replicas")

_UNKNOWN = 2**64
_ASK_AGAIN_S = 0.02
_MYSQL = ("mysql", "mariadb")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaStats:
    """One replica now: ``behind_s`` its lag (infinity: never asked), ``endpoint`` what the balancer knows."""

    behind_s: float
    endpoint: EndpointStats


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, ScalingError) else type(error).__name__


def _replication_of(engine: Any) -> Replication:
    return MySQLReplication() if engine.dialect.name in _MYSQL else PostgresReplication()


class ReplicaRouter:
    """Chooses a server per transaction: the primary to write, a replica that is fit to read.

    A replica is fit when it is at most ``max_lag`` behind and has replayed the last commit of this context:
    what a thread or task committed through :meth:`write` it finds in :meth:`read`, on the primary until a
    replica has caught up. To carry that over to another process or request, hand :meth:`position` to
    :meth:`follow` there. Among fit replicas the :class:`~eventperf.scaling.Balancer` chooses, by latency and
    transactions in flight; one that refuses connections is left alone for a while. With no fit replica reads
    go to the primary; with no primary, replicas go on answering.

    Args:
        primary: An engine, or a URL to make one from; ``replicas`` likewise.
        max_lag: Replicas further behind are not read from.
        check_every: How old knowledge of a position may be before it is asked again, by one cheap query on a
            connection that is in use anyway.
        replication: How positions are asked for; by default the way of the primary's database: PostgreSQL's
            streaming replication, the transaction ids of MariaDB and MySQL.
        balancer: Options of the :class:`~eventperf.scaling.Balancer`.

    Example:
        .. code-block:: python

            router = ReplicaRouter("postgresql+psycopg://app@db1/shop", ["postgresql+psycopg://app@db2/shop"])
            with router.write() as connection:
                connection.execute(insert(orders).values(...))
            with router.read() as connection, Session(connection) as session:
                session.scalars(select(Order))  # sees the order above
    """

    def __init__(
        self,
        primary: Engine | str,
        replicas: Sequence[Engine | str],
        *,
        max_lag: Duration = 10.0,
        check_every: Duration = 1.0,
        replication: Replication | None = None,
        balancer: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        if isinstance(replicas, str) or not replicas:
            raise ConfigurationError("replicas", "none", "a list of engines or their URLs")
        self._sa: Any = require("sqlalchemy", extra="dbopt", needed_by="ReplicaRouter")
        self._max_lag_s = seconds(max_lag, name="max_lag")
        self._check_s = seconds(check_every, name="check_every", zero=True)
        self._clock = clock or SystemClock()
        self._own: list[Any] = []
        self._primary: Any = self._engine(primary, "primary")
        self._replicas = [self._engine(one, f"replicas[{n}]") for n, one in enumerate(replicas)]
        self._replication: Replication = replication or _replication_of(self._primary)
        self._lag: Lag[int] = Lag(list(range(len(self._replicas))))
        self._balancer: Balancer[int] = Balancer(
            list(range(len(self._replicas))), clock=self._clock, random=random, **(balancer or {})
        )
        self._mine: ContextVar[int] = ContextVar("eventperf_position", default=0)
        self._primary_shut_until = float("-inf")

    def _engine(self, given: Any, argument: str) -> Any:
        if not isinstance(given, str):
            if not callable(getattr(given, "connect", None)):
                raise ConfigurationError(argument, type(given).__name__, "an engine or its URL")
            return given
        try:
            url = self._sa.engine.make_url(given)
        except self._sa.exc.ArgumentError:
            raise ConfigurationError(argument, redact(given), "an engine or its URL") from None
        warn_unchecked(url, _log)
        timed = url.get_backend_name() in ("postgresql", *_MYSQL)
        engine = self._sa.create_engine(url, connect_args={"connect_timeout": 5} if timed else {})
        self._own.append(engine)
        return engine

    # -- writing -------------------------------------------------------------------------------------

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """Run one transaction on the primary; commits at the end of the block, rolls back on an error."""
        with self._primary.connect() as connection:
            with connection.begin():
                yield connection
            self._mine.set(_UNKNOWN)  # committed; from here on only the position may be missing
            try:
                with connection.begin():
                    position = self._replication.written(connection)
            except Exception as error:
                _log.info("the position of a commit is not known yet: %s", _why(error))
                return
        self._lag.primary_at(position, now=self._clock.monotonic())
        self._mine.set(position)

    def position(self) -> str:
        """Return what this context has written up to, for :meth:`follow` elsewhere (a cookie, a job's data).

        Raises:
            ScalingError: The primary did not tell the position of the last commit, and does not now.
        """
        if self._mine.get() == _UNKNOWN and not self._settle():
            raise ScalingError("the position of the last commit is not known: the primary does not answer")
        return str(self._mine.get())

    def follow(self, position: str) -> None:
        """Let reads of this context see what was written up to ``position``."""
        at = whole(position, digits=20) if isinstance(position, str) else None
        if at is None or at >= _UNKNOWN:
            raise ConfigurationError("position", position, "what position() returned")
        self._mine.set(max(self._mine.get(), at))

    def _settle(self) -> bool:
        """Find a position that is at least that of this context's last commit."""
        try:
            with self._primary.connect() as connection, connection.begin():
                self._mine.set(self._replication.written(connection))
        except Exception as error:
            _log.info("the primary does not tell its position: %s", _why(error))
            return False
        return True

    # -- reading -------------------------------------------------------------------------------------

    @contextmanager
    def read(self, *, primary: bool = False) -> Iterator[Connection]:
        """Run one read-only transaction on a fit replica, or on the primary where there is none.

        On PostgreSQL, MariaDB and MySQL a write inside is refused on either. A connection that breaks inside
        the block raises as always: only the caller knows whether the block may run again.

        Args:
            primary: Read from the primary in any case.
        """
        with self._reading(primary) as connection, connection.begin():
            if connection.engine is self._primary and connection.dialect.name in _MYSQL:
                connection.exec_driver_sql("SET TRANSACTION READ ONLY")
            yield connection

    @contextmanager
    def _reading(self, primary: bool) -> Iterator[Any]:
        found = None if primary else self._find()
        if found is None:
            with self._primary.connect() as connection:
                if connection.dialect.name == "postgresql":
                    # not on replicas: read-only anyway, they refuse the READ WRITE that follows it
                    connection = connection.execution_options(postgresql_readonly=True)
                yield connection
            return
        pick, connection = found
        failed: BaseException | None = None
        try:
            yield connection
        except BaseException as error:
            failed = error if getattr(error, "connection_invalidated", False) else None
            raise
        finally:
            connection.close()
            pick.__exit__(type(failed) if failed else None, failed, None)

    def _find(self) -> tuple[Any, Any] | None:
        """Return a connection to a fit replica and the pick it counts for."""
        if self._mine.get() == _UNKNOWN and not self._settle():
            return None
        self._ask_primary()
        tried: set[int] = set()
        while len(tried) < len(self._replicas):
            pick = self._balancer.pick(only=lambda name: name not in tried and self._may_be_fit(name))
            try:
                name = pick.__enter__()
            except ScalingError:
                return None
            tried.add(name)
            connection = None
            try:
                connection = self._replicas[name].connect()
                self._forbid_writes(connection)
                if self._is_fit(name, connection):
                    pick.restart()
                    return pick, connection
                pick.__exit__(GeneratorExit, None, None)  # not used: neither a success nor a failure
            except Exception as error:
                _log.warning("replica %d is passed over: %s", name, str(error).partition("\n")[0])
                pick.__exit__(type(error), error, None)
            except BaseException:  # a task that was cancelled: the replica is not to blame
                pick.__exit__(GeneratorExit, None, None)
                if connection is not None:
                    connection.close()
                raise
            if connection is not None:
                connection.close()
        return None

    def _forbid_writes(self, connection: Any) -> None:
        """MariaDB and MySQL let administrators write on a replica that is read-only."""
        if connection.dialect.name in _MYSQL and not connection.info.get("eventperf_read_only"):
            with connection.begin():
                connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
            connection.info["eventperf_read_only"] = True

    def _may_be_fit(self, name: int) -> bool:
        """Leave out, without asking, replicas that were found behind a moment ago."""
        now = self._clock.monotonic()
        return self._lag.asked_s(name, now=now) >= _ASK_AGAIN_S or self._passes(name, now)

    def _is_fit(self, name: int, connection: Any) -> bool:
        now = self._clock.monotonic()
        if self._lag.asked_s(name, now=now) < self._check_s and self._passes(name, now):
            return True
        with connection.begin():
            position = self._replication.replayed(connection)
        self._lag.replica_at(name, position, now=now)
        return self._passes(name, now)

    def _passes(self, name: int, now: float) -> bool:
        behind_s = self._lag.behind_s(name, now=now)
        return behind_s <= self._max_lag_s and self._lag.has(name, self._mine.get())

    def _ask_primary(self) -> None:
        """Note where the primary is, at most every ``check_every``; without it nobody can be behind it."""
        now = self._clock.monotonic()
        if now - self._lag.primary_asked_at < self._check_s or now < self._primary_shut_until:
            return
        try:
            with self._primary.connect() as connection, connection.begin():
                position = self._replication.written(connection)
        except Exception as error:
            self._primary_shut_until = self._clock.monotonic() + max(1.0, self._check_s)
            _log.info("the primary does not tell its position: %s", _why(error))
            return
        self._lag.primary_at(position, now=now)

    # -- state ---------------------------------------------------------------------------------------

    def stats(self) -> list[ReplicaStats]:
        """Return what is known of each replica, in the order they were given."""
        known, now = self._balancer.stats(), self._clock.monotonic()
        return [
            ReplicaStats(behind_s=self._lag.behind_s(n, now=now), endpoint=known[n])
            for n in range(len(self._replicas))
        ]

    def close(self) -> None:
        """Close the engines that were made from URLs."""
        for engine in self._own:
            engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
