"""The handle a producer gets back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from eventperf._core.durations import Duration

if TYPE_CHECKING:
    from .job import JobInfo
    from .manager import QueueManager


class Job:
    """An enqueued job.

    Attributes:
        id: Its id.
        duplicate: True when a job with the same unique key already stood; ``id`` is then that job's.
    """

    __slots__ = ("_queues", "duplicate", "id", "type")

    def __init__(self, queues: QueueManager, id: str, type: str, duplicate: bool) -> None:
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
