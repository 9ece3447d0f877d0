"""What a producer holds: a job it has enqueued, and a function that enqueues itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from eventperf._core.durations import Duration

from .job import JobInfo
from .options import EnqueueOptions

if TYPE_CHECKING:
    from typing_extensions import Unpack  # of typing from Python 3.11 on

D = TypeVar("D")
R = TypeVar("R")


class Asked(Protocol):
    """Whom a handle asks about its job."""

    def job_info(self, id: str) -> JobInfo: ...
    async def ajob_info(self, id: str) -> JobInfo: ...
    def result(self, id: str, timeout: Duration = 30.0) -> Any: ...
    async def aresult(self, id: str, timeout: Duration = 30.0) -> Any: ...
    def cancel(self, id: str) -> bool: ...
    async def acancel(self, id: str) -> bool: ...


class Job:
    """An enqueued job.

    Attributes:
        id: Its id.
        duplicate: True when a job with the same unique key already stood; ``id`` is then that job's.
    """

    __slots__ = ("_queues", "duplicate", "id", "type")

    def __init__(self, queues: Asked, id: str, type: str, duplicate: bool) -> None:
        self._queues = queues
        self.id: str = id
        self.type: str = type
        self.duplicate: bool = duplicate

    def info(self) -> JobInfo:
        """Return where the job stands now."""
        return self._queues.job_info(self.id)

    async def ainfo(self) -> JobInfo:
        """Asynchronous twin of :meth:`info`."""
        return await self._queues.ajob_info(self.id)

    def result(self, timeout: Duration = 30.0) -> Any:
        """Wait for the job and return what its handler returned."""
        return self._queues.result(self.id, timeout)

    async def aresult(self, timeout: Duration = 30.0) -> Any:
        """Asynchronous twin of :meth:`result`."""
        return await self._queues.aresult(self.id, timeout)

    def cancel(self) -> bool:
        """Cancel it; see :meth:`QueueManager.cancel`."""
        return self._queues.cancel(self.id)

    async def acancel(self) -> bool:
        """Asynchronous twin of :meth:`cancel`."""
        return await self._queues.acancel(self.id)

    def __repr__(self) -> str:
        return f"<Job {self.type} {self.id}{' (duplicate)' if self.duplicate else ''}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id

    def __hash__(self) -> int:
        return hash(self.id)


class Enqueues(Protocol):
    """Where a job function puts its jobs."""

    def enqueue(
        self,
        type: str,
        data: Any = None,
        *,
        session: Any = None,
        using: Any = None,
        **options: Unpack[EnqueueOptions],
    ) -> Job: ...
    def aenqueue(
        self, type: str, data: Any = None, *, session: Any = None, **options: Unpack[EnqueueOptions]
    ) -> Awaitable[Job]: ...


class JobFunction(Generic[D, R]):
    """A handler that knows how to enqueue itself; calling it calls the function.

    Attributes:
        name: The job type.
        fn: The function as written.
    """

    def __init__(self, queues: Enqueues, name: str, fn: Callable[[Any, D], R]) -> None:
        self._queues = queues
        self.name = name
        self.fn = fn
        self.__name__: str = getattr(fn, "__name__", name)
        self.__qualname__ = getattr(fn, "__qualname__", name)
        self.__module__ = fn.__module__
        self.__doc__ = fn.__doc__
        self.__wrapped__ = fn

    def __call__(self, ctx: Any, data: D) -> R:
        return self.fn(ctx, data)

    def enqueue(
        self, data: D, *, session: Any = None, using: Any = None, **options: Unpack[EnqueueOptions]
    ) -> Job:
        """Enqueue one job of this type; options as of :meth:`QueueManager.enqueue`."""
        return self._queues.enqueue(self.name, data, session=session, using=using, **options)

    def aenqueue(self, data: D, *, session: Any = None, **options: Unpack[EnqueueOptions]) -> Awaitable[Job]:
        """Asynchronous twin of :meth:`enqueue`."""
        return self._queues.aenqueue(self.name, data, session=session, **options)

    def __repr__(self) -> str:
        return f"<job {self.name!r}: {self.__module__}.{self.__qualname__}>"
