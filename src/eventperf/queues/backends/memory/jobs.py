"""What the memory backend keeps: jobs, their classes, queues and workers, as plain objects."""

from __future__ import annotations

import heapq
import threading
from collections import OrderedDict, deque

from eventperf.queues.attempts import Attempt
from eventperf.queues.job import JobRecord, JobState
from eventperf.queues.limits import Bucket
from eventperf.queues.options import QueueConfig
from eventperf.queues.policy import Lane
from eventperf.queues.protocols import WorkerCard

WAITING, DELAYED, ACTIVE = JobState.WAITING, JobState.DELAYED, JobState.ACTIVE
COMPLETED, FAILED, CANCELLED = JobState.COMPLETED, JobState.FAILED, JobState.CANCELLED

_RATE_BUCKET_S = 10.0
_RATE_BUCKETS = 6


class StoredJob:
    """The changing part of one job; ``place`` grows whenever older heap entries of it become void."""

    __slots__ = (
        "after", "attempts", "cancel", "children", "crashes", "due", "error", "expires", "finished",
        "history", "lane", "lease_until", "listed", "parked", "place", "progress", "ready_at", "record",
        "result", "started", "state", "steps", "tag", "token", "under", "worker",
    )  # fmt: skip

    def __init__(self, record: JobRecord) -> None:
        self.record: JobRecord = record
        self.state: JobState = WAITING
        self.place: int = 0
        self.attempts: int = 0
        self.crashes: int = 0
        self.token: int = 0
        self.tag: float = 0.0
        self.due: float = 0.0
        self.lease_until: float = 0.0
        self.ready_at: float = 0.0
        self.started: float = 0.0
        self.finished: float = 0.0
        self.expires: float = 0.0
        self.cancel: bool = False
        self.parked: bool = False
        self.listed: bool = False
        self.lane: JobLane | None = None
        self.worker: str | None = None
        self.error: str | None = None
        self.result: bytes | None = None
        self.progress: float | None = None
        self.steps: set[str] | None = None
        self.history: list[Attempt] | None = None
        self.after: set[str] | None = None  # jobs it still waits for
        self.children: list[str] | None = None  # jobs that wait or waited for it
        self.under: list[Bucket] | None = None  # caps it runs under


class JobLane(Lane):
    """A class of waiting jobs with its order: virtual start tags give every fairness key its turn.

    Source of the tags: Golestani, "A Self-Clocked Fair Queueing Scheme", INFOCOM 1994.
    """

    __slots__ = ("heap", "holes", "last", "size", "virtual", "waits")

    def __init__(self, queue: str, rank: int, weight: int, level: int) -> None:
        super().__init__(queue, rank, weight, level)
        self.waits: deque[tuple[int, StoredJob]] = deque()
        self.heap: list[tuple[float, int, int, StoredJob]] = []
        self.last: dict[str, float] = {}
        self.holes: set[tuple[str, float]] = set()  # tags of cancelled jobs that time has not passed
        self.virtual: float = 0.0
        self.size: int = 0

    def tag(self, key: str) -> float:
        tag = self.last[key] = max(self.virtual, self.last.get(key, 0.0)) + 1.0
        return tag

    def leave(self, key: str, tag: float) -> None:
        """Take a cancelled job out: its key's last is what waits of it last; an empty class forgets all.

        Behind the class's time the tags of a key follow one another but for those given back before.
        """
        self.size -= 1
        last = self.last.get(key, 0.0)
        if not self.size:
            self._forget()
        elif self.virtual < tag < last:
            self.holes.add((key, tag))
        elif self.virtual < tag == last:
            tag -= 1.0
            while tag > self.virtual and (key, tag) in self.holes:
                self.holes.remove((key, tag))
                tag -= 1.0
            if tag > self.virtual:
                self.last[key] = tag
            else:
                del self.last[key]

    def _forget(self) -> None:
        self.last.clear()
        self.holes.clear()

    def serve(self, tag: float) -> None:
        if tag > self.virtual:
            self.virtual = tag
            if len(self.last) > 1024 and len(self.last) > 2 * self.size:
                self.last = {k: v for k, v in self.last.items() if v > tag}
            if len(self.holes) > 1024 and len(self.holes) > 2 * self.size:
                self.holes = {hole for hole in self.holes if hole[1] > tag}

    def put(self, job: StoredJob, n: int) -> None:
        heapq.heappush(self.heap, (job.tag, n, job.place, job))
        self.size += 1
        self.waits.append((job.place, job))
        if len(self.waits) > 2 * self.size + 64:
            self.waits = deque(w for w in self.waits if w[0] == w[1].place)

    def take(self) -> StoredJob:
        """Remove and return the next job; only when ``size`` is not 0."""
        heap = self.heap
        while True:
            tag, _, place, job = heapq.heappop(heap)
            if job.place == place:
                self.size -= 1
                self.serve(tag)
                return job

    def oldest(self) -> float | None:
        while self.waits and self.waits[0][0] != self.waits[0][1].place:
            self.waits.popleft()
        return self.waits[0][1].ready_at if self.waits else None


class StoredQueue:
    """Counters and finished jobs of one queue."""

    __slots__ = (
        "active",
        "arrivals",
        "cancelled",
        "completed",
        "config",
        "dead",
        "delayed",
        "done",
        "enqueued",
        "failed",
        "lanes",
        "lapsed",
        "paused",
        "replayed",
        "retried",
        "served",
        "stalled",
        "trimmed",
        "waiting",
    )  # fmt: skip

    def __init__(self, config: QueueConfig) -> None:
        self.config: QueueConfig = config
        self.waiting: int = 0
        self.delayed: int = 0
        self.active: int = 0
        self.enqueued: int = 0
        self.completed: int = 0
        self.failed: int = 0
        self.cancelled: int = 0
        self.retried: int = 0
        self.stalled: int = 0
        self.lapsed: int = 0
        self.trimmed: int = 0
        self.replayed: int = 0
        self.paused: bool = False
        self.lanes: dict[int, JobLane] = {}
        self.dead: OrderedDict[str, StoredJob] = OrderedDict()
        self.done: deque[StoredJob] = deque()
        self.arrivals: dict[int, int] = {}
        self.served: dict[int, int] = {}

    def bump(self, table: dict[int, int], now: float, by: int = 1) -> None:
        bucket = int(now // _RATE_BUCKET_S)
        if bucket in table:
            table[bucket] += by
            return
        table[bucket] = by
        for old in [b for b in table if b < bucket - _RATE_BUCKETS]:
            del table[old]

    def rate(self, table: dict[int, int], now: float, born: float) -> float:
        first = int(now // _RATE_BUCKET_S) - _RATE_BUCKETS
        start = max(born, first * _RATE_BUCKET_S)
        return sum(n for b, n in table.items() if b >= first) / max(now - start, 1.0)


class LiveWorker:
    __slots__ = ("card", "event", "message", "spare_until", "told", "until")

    def __init__(self, card: WorkerCard, until: float) -> None:
        self.card: WorkerCard = card
        self.until: float = until
        self.spare_until: float = 0.0  # it takes no leases back before
        self.event: threading.Event = threading.Event()
        self.message: threading.Event = threading.Event()
        self.told: bool = False  # what a renewal answers has changed
