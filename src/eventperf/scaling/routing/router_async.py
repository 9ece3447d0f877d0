"""The replica router for asyncio: the same decisions, over SQLAlchemy's async engines."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

from typing_extensions import Self

from eventperf._core.clock import Clock
from eventperf._core.durations import Duration
from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf._core.logs import logger
from eventperf._core.trust import warn_unchecked
from eventperf._core.urls import redact
from eventperf.scaling.routing.replication import Replication
from eventperf.scaling.routing.router import ReplicaRouter, ReplicaStats

_log = logger("eventperf.scaling.replicas")

if TYPE_CHECKING:
    from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

_TIMEOUTS = {
    "psycopg": "connect_timeout",
    "asyncpg": "timeout",
    "asyncmy": "connect_timeout",
    "aiomysql": "connect_timeout",
}


class AsyncReplicaRouter:
    """:class:`ReplicaRouter` for tasks: what a task committed through :meth:`write` it finds in :meth:`read`.

    Args:
        primary: An ``AsyncEngine``, or a URL with an async driver (``postgresql+psycopg``,
            ``postgresql+asyncpg``, ``mysql+asyncmy``, ``mysql+aiomysql``) to make one from;
            ``replicas`` likewise.
        max_lag: As for :class:`ReplicaRouter`, and so are the others.

    Example:
        .. code-block:: python

            router = AsyncReplicaRouter("postgresql+psycopg://app@db1/shop", ["postgresql+psycopg://app@db2/shop"])
            async with router.write() as connection:
                await connection.execute(insert(orders).values(...))
            async with router.read() as connection, AsyncSession(connection) as session:
                await session.scalars(select(Order))  # sees the order above
    """

    def __init__(
        self,
        primary: AsyncEngine | str,
        replicas: Sequence[AsyncEngine | str],
        *,
        max_lag: Duration = 10.0,
        check_every: Duration = 1.0,
        replication: Replication | None = None,
        balancer: Mapping[str, Any] | None = None,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        if isinstance(replicas, str) or not replicas:
            raise ConfigurationError("replicas", "none", "a list of async engines or their URLs")
        self._sa: Any = require("sqlalchemy", extra="dbopt", needed_by="AsyncReplicaRouter")
        self._aio: Any = require("sqlalchemy.ext.asyncio", extra="dbopt", needed_by="AsyncReplicaRouter")
        self._own: list[Any] = []
        self._engines: dict[Any, Any] = {}
        # Its blocking steps run as SQLAlchemy runs its own: in a greenlet that awaits for them.
        self._router: ReplicaRouter = ReplicaRouter(
            self._engine(primary, "primary"),
            [self._engine(one, f"replicas[{n}]") for n, one in enumerate(replicas)],
            max_lag=max_lag,
            check_every=check_every,
            replication=replication,
            balancer=balancer,
            clock=clock,
            random=random,
        )

    def _engine(self, given: Any, argument: str) -> Any:
        allowed = "an async engine or its URL, with an async driver"
        if isinstance(given, str):
            try:
                url = self._sa.engine.make_url(given)
                warn_unchecked(url, _log)
                driver = url.get_driver_name()
                timeout = {_TIMEOUTS[driver]: 5} if driver in _TIMEOUTS else {}
                given = self._aio.create_async_engine(given, connect_args=timeout)
            except self._sa.exc.ArgumentError:
                raise ConfigurationError(argument, redact(given), allowed) from None
            except self._sa.exc.InvalidRequestError as error:
                raise ConfigurationError(argument, redact(given), f"{allowed}: {error}") from None
            self._own.append(given)
        if not isinstance(given, self._aio.AsyncEngine):
            raise ConfigurationError(argument, type(given).__name__, allowed)
        self._engines[given.sync_engine] = given
        return given.sync_engine

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """Run one transaction on the primary; commits at the end of the block, rolls back on an error."""
        async with self._entered(self._router.write()) as connection:
            yield connection

    @asynccontextmanager
    async def read(self, *, primary: bool = False) -> AsyncIterator[AsyncConnection]:
        """Run one read-only transaction on a fit replica, or on the primary where there is none.

        Args:
            primary: Read from the primary in any case.
        """
        async with self._entered(self._router.read(primary=primary)) as connection:
            yield connection

    @asynccontextmanager
    async def _entered(self, block: AbstractContextManager[Any]) -> AsyncIterator[AsyncConnection]:
        spawn = self._sa.util.greenlet_spawn
        connection = await spawn(block.__enter__)
        try:
            yield self._aio.AsyncConnection(self._engines[connection.engine], connection)
        except BaseException:
            if not await spawn(block.__exit__, *sys.exc_info()):
                raise
        else:
            await spawn(block.__exit__, None, None, None)

    async def position(self) -> str:
        """Return what this context has written up to, for :meth:`follow` elsewhere (a cookie, a job's data).

        Raises:
            ScalingError: The primary did not tell the position of the last commit, and does not now.
        """
        found: str = await self._sa.util.greenlet_spawn(self._router.position)
        return found

    def follow(self, position: str) -> None:
        """Let reads of this context see what was written up to ``position``."""
        self._router.follow(position)

    def stats(self) -> list[ReplicaStats]:
        """Return what is known of each replica, in the order they were given."""
        return self._router.stats()

    async def aclose(self) -> None:
        """Close the engines that were made from URLs."""
        for engine in self._own:
            await engine.dispose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()
