"""Living with arq: its names with a sturdier worker, and a bridge to move between it and this package.

``from eventperf.queues.compat.arq import Worker, create_pool, cron, func, Retry`` in place of arq's imports
keeps keys, job blobs and every setting, so old and new workers share one queue. The :class:`Worker` here is
arq's, except that it looks for the next job as soon as a slot is free, where arq sleeps ``poll_delay``, and
that it lives on when Redis restarts, where arq's process ends.

:class:`Bridge` takes jobs that stock arq producers enqueue into a :class:`~eventperf.queues.QueueManager`,
runs arq's functions there, writes results where ``arq.jobs.Job.result`` finds them, and hands jobs to stock
arq workers. :func:`dumps` and :func:`loads` are for stock ends beside a manager on ``arq+redis://``.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf._core.logs import logger
from eventperf.queues.backends.arq.wire import as_call, dumps, error_of
from eventperf.queues.backends.arq.wire import loads as _loads
from eventperf.queues.errors import NonRetryable, PayloadError
from eventperf.queues.errors import Retry as RunAgain

if TYPE_CHECKING:
    from eventperf.queues.manager import QueueManager

_arq: Any = require("arq", extra="arq", needed_by="eventperf.queues.compat.arq")
from arq import constants as _keys  # noqa: E402
from arq import cron, func  # noqa: E402
from arq import worker as _worker  # noqa: E402
from arq.connections import ArqRedis, RedisSettings, create_pool  # noqa: E402
from arq.jobs import Job, deserialize_job, serialize_result  # noqa: E402
from arq.worker import (  # noqa: E402
    FailedJobs,
    Function,
    JobExecutionFailed,
    Retry,
    RetryJob,
    async_check_health,
    check_health,
)
from redis import exceptions as _redis  # noqa: E402

from eventperf.queues.backends.arq.worker import Worker  # noqa: E402

__all__ = [
    "ArqRedis",
    "Bridge",
    "Drained",
    "FailedJobs",
    "Function",
    "Job",
    "JobExecutionFailed",
    "RedisSettings",
    "Retry",
    "RetryJob",
    "Worker",
    "async_check_health",
    "check_health",
    "create_pool",
    "create_worker",
    "cron",
    "dumps",
    "func",
    "get_kwargs",
    "loads",
    "run_worker",
]

get_kwargs: Callable[[Any], dict[str, Any]] = _worker.get_kwargs

_log = logger("eventperf.queues")

_LOST = (_redis.ConnectionError, _redis.TimeoutError, OSError)
_CLAIM_S = 60
_RESULT_S = 3600
_AWAY_S = 7 * 86_400  # how long arq's keys of a moved job say that it runs, if nobody ever finishes it


def loads(blob: bytes) -> dict[str, Any]:
    """Read what :func:`dumps` wrote: arq's ``job_deserializer`` where the other end is ``arq+redis://``.

    A job's failure comes back as ``JobExecutionFailed``, its cancellation as ``asyncio.CancelledError``.
    """
    found = _loads(blob)
    if found.get("s") is False:
        kind, text = error_of(found["r"])
        found["r"] = asyncio.CancelledError() if kind == "CancelledError" else JobExecutionFailed(text)
    return found


def create_worker(settings_cls: Any, **kwargs: Any) -> Worker:
    """Build a worker from a settings class, as arq's function of this name does."""
    return Worker(**{**get_kwargs(settings_cls), **kwargs})


def run_worker(settings_cls: Any, **kwargs: Any) -> Worker:
    """Build a worker from a settings class and run it."""
    worker = create_worker(settings_cls, **kwargs)
    worker.run()
    return worker


@dataclass(slots=True)
class Drained:
    """What a look at arq's queue moved.

    Attributes:
        moved: Jobs that are in the manager's store now.
        refused: Ids that stayed, with the reason: unreadable, or data that only pickle can carry.
    """

    moved: int = 0
    refused: dict[str, str] = field(default_factory=dict)


class Bridge:
    """Between arq's queue in one Redis and a manager, in both directions.

    Args:
        queues: The manager.
        redis: Where arq's keys are.
        queue_name: arq's queue.
        job_deserializer: As of arq; pickle when not given, so only for queues you trust.
        job_serializer: The same for results and forwarded jobs.
    """

    def __init__(
        self,
        queues: QueueManager,
        redis: RedisSettings,
        *,
        queue_name: str = _keys.default_queue_name,
        job_serializer: Callable[[dict[str, Any]], bytes] | None = None,
        job_deserializer: Callable[[bytes], dict[str, Any]] | None = None,
    ) -> None:
        self._queues = queues
        self._redis = redis
        self._queue_name = queue_name
        self._pack = job_serializer
        self._unpack = job_deserializer
        self._adopted: set[str] = set()
        self._opening: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Lock] = (
            weakref.WeakKeyDictionary()
        )
        self._pools: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, ArqRedis] = (
            weakref.WeakKeyDictionary()
        )

    async def _pool(self) -> ArqRedis:
        loop = asyncio.get_running_loop()
        if loop not in self._pools:
            async with self._opening.setdefault(loop, asyncio.Lock()):  # one, however many ask at once
                if loop not in self._pools:
                    self._pools[loop] = await create_pool(
                        self._redis,
                        job_serializer=self._pack,
                        job_deserializer=self._unpack,
                        default_queue_name=self._queue_name,
                    )
        return self._pools[loop]

    async def aclose(self) -> None:
        """Close the connections of the running loop."""
        pool = self._pools.pop(asyncio.get_running_loop(), None)
        if pool is not None:
            await pool.aclose(close_connection_pool=True)

    # -- from arq ----------------------------------------------------------------------------------

    def adopt(self, functions: Sequence[Any], *, queue: str | None = None) -> None:
        """Make arq's functions handlers of the manager, with arq's rules.

        They get the ``ctx`` of arq with ``job_id``, ``job_try`` and ``redis``. ``Retry`` runs them again, any
        other exception ends the job. Results go where stock producers look for them.
        """
        for given in functions:
            found: Function = func(given)
            options: dict[str, Any] = {"attempts": found.max_tries or 5}
            if found.timeout_s is not None:
                options["timeout"] = found.timeout_s
            if queue is not None:
                options["queue"] = queue
            self._queues.job(found.name, **options)(self._handler(found))
            self._adopted.add(found.name)

    def _handler(self, function: Function) -> Callable[[Any, Any], Any]:
        async def run(ctx: Any, data: dict[str, Any]) -> Any:
            pool = await self._pool()
            started = datetime.now(timezone.utc)
            inner = {"job_id": ctx.job_id, "job_try": ctx.attempt, "redis": pool, "enqueue_time": started}
            try:
                result = await function.coroutine(inner, *data["args"], **data["kwargs"])
            except Retry as again:
                delay = None if again.defer_score is None else again.defer_score / 1000
                raise RunAgain(delay or 0.0) from again
            except Exception as error:
                await self._answer(pool, function.name, ctx, data, error, started, success=False)
                raise NonRetryable(f"{type(error).__name__}: {error}") from error
            await self._answer(pool, function.name, ctx, data, result, started, success=True)
            return result

        return run

    async def _answer(
        self, pool: ArqRedis, name: str, ctx: Any, data: Any, result: Any, started: datetime, *, success: bool
    ) -> None:
        ended = datetime.now(timezone.utc)
        times = [int(at.timestamp() * 1000) for at in (started, ended)]
        blob = serialize_result(
            name, tuple(data["args"]), data["kwargs"], ctx.attempt, times[0], success, result,
            times[0], times[1],
            f"eventperf:{name}", self._queue_name, ctx.job_id, serializer=self._pack,
        )  # fmt: skip
        async with pool.pipeline(transaction=True) as pipe:
            if blob is not None:
                pipe.set(_keys.result_key_prefix + ctx.job_id, blob, ex=_RESULT_S)
            self._forget(pipe, ctx.job_id)
            await pipe.execute()

    def _forget(self, pipe: Any, job_id: str) -> None:
        pipe.zrem(self._queue_name, job_id)
        for prefix in (_keys.job_key_prefix, _keys.retry_key_prefix, _keys.in_progress_key_prefix):
            pipe.delete(prefix + job_id)

    async def drain(self, *, limit: int = 1000) -> Drained:
        """Move jobs that wait or are delayed in arq's queue into the manager's store.

        Those of adopted functions look to arq like running ones until they have ended, so that producers can
        wait for results; all others leave arq's keys at once.

        Stock workers may go on working: a job is taken with arq's own mark of a running job. A drain that
        dies half-way leaves the job in both places for up to a minute, then moves it again under its id.
        """
        pool, answer = await self._pool(), Drained()
        for raw, score in await pool.zrange(self._queue_name, 0, limit - 1, withscores=True):
            job_id = raw.decode()
            if not await pool.set(_keys.in_progress_key_prefix + job_id, b"1", ex=_CLAIM_S, nx=True):
                continue
            try:
                refused = await self._move(pool, job_id, score)
            except BaseException:
                await pool.delete(_keys.in_progress_key_prefix + job_id)
                raise
            if refused is None:
                answer.moved += 1
            else:
                answer.refused[job_id] = refused
                await pool.delete(_keys.in_progress_key_prefix + job_id)
        return answer

    async def _move(self, pool: ArqRedis, job_id: str, score: float) -> str | None:
        blob = await pool.get(_keys.job_key_prefix + job_id)
        if blob is None:
            return "its data is gone: it finished or expired"
        try:
            job = deserialize_job(blob, deserializer=self._unpack)
        except _arq.jobs.DeserializationError as error:
            return f"unreadable: {error}"
        wait_s = max(0.0, score / 1000 - datetime.now(timezone.utc).timestamp())
        data = {"args": list(job.args), "kwargs": job.kwargs}
        try:
            await self._queues.aenqueue(job.function, data, id=job_id, delay=wait_s)
        except (PayloadError, ConfigurationError) as error:
            return str(error)
        async with pool.pipeline(transaction=True) as pipe:
            if job.function in self._adopted:  # its producer may be waiting: to arq the job is running
                pipe.zadd(self._queue_name, {job_id: score + _AWAY_S * 1000}, xx=True)
                pipe.set(_keys.in_progress_key_prefix + job_id, b"1", ex=_AWAY_S)
            else:
                self._forget(pipe, job_id)
            await pipe.execute()
        return None

    async def run(self, stop: asyncio.Event, *, poll_s: float = 0.1) -> None:
        """Drain again and again until ``stop`` is set; a Redis that is away is waited for."""
        while not stop.is_set():
            try:
                moved = (await self.drain()).moved
            except _LOST as error:
                _log.warning("arq bridge: Redis does not answer, trying again: %s", error)
                moved = 0
            if not moved:
                try:
                    await asyncio.wait_for(stop.wait(), poll_s)
                except asyncio.TimeoutError:
                    continue

    # -- to arq ------------------------------------------------------------------------------------

    def forward(self, *types: str) -> None:
        """Make a worker of the manager hand jobs of these types to arq's queue, for stock workers there.

        Data of the shape ``{"args": [...], "kwargs": {...}}`` becomes those arguments, anything else the
        only argument. A job that is handed over counts as completed here; arq knows it by the same id.
        """
        for type_ in types:
            self._queues.job(type_)(self._forwarder(type_))

    def _forwarder(self, type_: str) -> Callable[[Any, Any], Any]:
        async def hand_over(ctx: Any, data: Any) -> None:
            pool = await self._pool()
            args, kwargs = as_call(data)
            await pool.enqueue_job(type_, *args, _job_id=ctx.job_id, _queue_name=self._queue_name, **kwargs)

        return hand_over
