"""Every verb a script on arq's own keys."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NoReturn

from eventperf._core.extras import require
from eventperf._core.urls import BackendURL
from eventperf._redis.answers import Misread
from eventperf._redis.patience import within
from eventperf._redis.script import read_script
from eventperf.queues.backends.redis.client import COMMAND_TIMEOUT_S, build_client, lost
from eventperf.queues.errors import QueueError, Unsupported
from eventperf.queues.job import JobInfo, JobState, NewJob, QueueStatus
from eventperf.queues.protocols import Claimed, Outcome, Renewed, StoreSettings, WorkerCard

from .wire import ArqWire

_BATCH = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class ArqPlace:
    """Where arq's queues are and what is written there.

    Attributes:
        url: The server, as a plain Redis URL.
        keys: This package's queue names to arq's.
        poll_s: How often arq's workers look at an empty queue.
    """

    url: BackendURL
    settings: StoreSettings
    wire: ArqWire
    keys: Mapping[str, str]
    poll_s: float


class ArqStore:
    """The face for threads; every verb is one script, so one round trip and one instant."""

    def __init__(self, place: ArqPlace) -> None:
        errors: Any = require("redis.exceptions", extra="queues", needed_by="the arq backend")
        self._place = place
        self._wire = place.wire
        self._keys = place.keys
        self._client = build_client(place.url)
        self._call = self._client.register_script(read_script(__package__, "arq").text)
        self._down: tuple[type[Exception], ...] = (
            errors.ConnectionError,
            errors.TimeoutError,
            OSError,
            Misread,
        )
        self._refused: type[Exception] = errors.RedisError
        self.cards: dict[str, WorkerCard] = {}

    def _run(self, verb: str, *args: Any) -> Any:
        try:
            with within(COMMAND_TIMEOUT_S):
                return self._call(args=[verb, *args])
        except self._down as error:
            raise lost(self._place.url, error) from error
        except self._refused as error:
            raise QueueError(f"Redis at {self._place.url} refused a command: {error}") from error

    # -- producing ---------------------------------------------------------------------------------

    def push(self, jobs: Sequence[NewJob], /) -> list[str]:
        args = [arg for job in jobs for arg in self._push_args(job)]
        for i in range(0, len(args), 5 * _BATCH):
            self._run("push", *args[i : i + 5 * _BATCH])
        return [job.record.id for job in jobs]

    def _push_args(self, job: NewJob) -> tuple[Any, ...]:
        record = job.record
        blob = self._wire.job(record, int(self._place.settings.clock.time() * 1000))
        life = "" if job.deadline_s is None else max(1, int(job.deadline_s * 1000))
        return record.id, self._keys[record.queue], blob, -int(-job.delay_s * 1000 // 1), life

    def fetch(self, ids: Sequence[str], /) -> list[JobInfo | None]:
        now, rows = self._run("look", len(self._keys), *self._keys.values(), *ids)
        return [self._info(job_id, now, *row) for job_id, row in zip(ids, rows, strict=True)]

    def _info(
        self, job_id: str, now: int, result: bytes | None, busy: int, blob: bytes | None, tries: bytes | None,
        score: bytes | None, place: int, progress: bytes | None, error: bytes | None,
    ) -> JobInfo | None:  # fmt: skip
        if result is not None:
            return self._wire.ended(result, job_id, {key: name for name, key in self._keys.items()})
        if score is None:
            return None
        due = float(score)
        state = JobState.ACTIVE if busy else JobState.DELAYED if due > now else JobState.WAITING
        queue = list(self._keys)[place]
        at = None if progress is None else float(progress)
        info = self._wire.standing(blob, job_id, queue, state, int(tries or 0), due)
        return replace(info, progress=at, error=None if error is None else error.decode())

    def counts(self) -> list[QueueStatus]:
        rows = self._run("counts", *self._keys.values())
        workers = self.load()[0]
        return [
            QueueStatus(
                name=name, priority=self._place.settings.queues[name].priority, waiting=waiting,
                delayed=delayed, active=active, oldest_wait_s=oldest / 1000, enqueued=enqueued,
                completed=completed, failed=failed, cancelled=cancelled, retried=retried, workers=workers,
                arrival_rate=float(came), service_rate=float(went),
            )
            for name, (
                waiting, delayed, active, oldest, enqueued, completed, failed, cancelled, retried, came, went
            ) in zip(self._keys, rows, strict=True)
        ]  # fmt: skip

    def load(self) -> tuple[int, int, float]:
        listed, mean = self._run("load")
        return len(listed), sum(int(x.rpartition(b"|")[2]) for x in listed), float(mean)

    # -- operators ---------------------------------------------------------------------------------

    def listing(self, queue: str, state: JobState, /, *, offset: int = 0, limit: int = 100) -> list[JobInfo]:
        if state not in (JobState.WAITING, JobState.DELAYED, JobState.ACTIVE):
            self._cannot("dead_letter")
        ids = [i.decode() for i in self._run("ids", self._keys[queue], state.value, offset, limit)]
        return [info for info in (self.fetch(ids) if ids else ()) if info is not None]

    def cancel(self, ids: Sequence[str], /) -> list[bool]:
        return [self._cancel(job_id) for job_id in ids]

    def _cancel(self, job_id: str) -> bool:
        now, (row,) = self._run("look", len(self._keys), *self._keys.values(), job_id)
        blob, score, place = row[2], row[4], row[5]
        if score is None or blob is None:
            return False
        result = self._wire.cancelled(blob, job_id, list(self._keys.values())[place], now)
        kept_ms = max(1000, int(self._place.settings.options.result_ttl_s * 1000))
        return bool(self._run("cancel", job_id, result, kept_ms, *self._keys.values()))

    def purge(self, queue: str, state: JobState, /) -> int:
        if state not in (JobState.WAITING, JobState.DELAYED):
            self._cannot("dead_letter")
        return int(self._run("purge", self._keys[queue], state.value))

    def replay(self, queue: str, ids: Sequence[str] | None = None, /, *, limit: int | None = None) -> int:
        self._cannot("dead_letter")

    def set_paused(self, queue: str, paused: bool, /) -> None:
        self._cannot("pause")

    def _cannot(self, feature: str) -> NoReturn:
        raise Unsupported(feature, "arq")

    # -- workers -----------------------------------------------------------------------------------

    def enter(self, card: WorkerCard, held: Sequence[str] = (), /) -> None:
        self.cards[card.id] = card
        self.renew(card.id, ())

    def leave(self, worker: str, /) -> None:
        self._run("leave", f"{worker}|{self.cards.pop(worker).slots}")

    def renew(self, worker: str, held: Sequence[tuple[str, int]], /) -> Renewed:
        card = self.cards[worker]
        lease_ms = int(card.lease_s * 1000)
        gone = self._run(
            "renew", f"{worker}|{card.slots}", 3 * lease_ms, lease_ms, len(self._keys), *self._keys.values(),
            *(job_id for job_id, _ in held),
        )  # fmt: skip
        return Renewed(lost=[job_id.decode() for job_id in gone])

    def ended(self, queue: str, job_id: str, kind: str, run_s: float, error: str | None) -> None:
        """Count a run that ended: ``completed``, ``failed``, ``cancelled`` or ``retried``."""
        self._run("ended", self._keys[queue], job_id, kind, run_s, error or "")

    def note(
        self, job_id: str, token: int, /, *, progress: float | None = None, step: str | None = None
    ) -> bool:
        self._run("note", job_id, *(("progress", progress) if step is None else (f"step:{step}", 1)))
        return True

    def steps(self, job_id: str, /) -> frozenset[str]:
        fields = [f.decode() for f in self._run("steps", job_id)]
        return frozenset(f.removeprefix("step:") for f in fields if f.startswith("step:"))

    def claim(self, worker: str, room: Mapping[str, int], total: int, /) -> Claimed:
        self._cannot("claims")

    def finish(self, outcomes: Sequence[Outcome], /) -> list[bool]:
        self._cannot("claims")

    def wait(self, worker: str, timeout_s: float, /) -> bool | str:
        time.sleep(timeout_s)  # arq's workers look by themselves
        return False

    # -- schedules ---------------------------------------------------------------------------------

    def fire(self, name: str, slot: float, job: NewJob, /, *, late: bool = False) -> bool:
        return bool(self._run("fire", name, slot, int(late), *self._push_args(job)))

    def time(self) -> float:
        return float(self._run("time")) / 1000

    def close(self) -> None:
        """Give back the connection; a later call opens it again."""
        self._client.close()
