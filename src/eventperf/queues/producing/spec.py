"""What a producer asks for, checked and turned into records."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf.queues.checks import check_int, check_name
from eventperf.queues.codec import Codec
from eventperf.queues.errors import UnknownQueue
from eventperf.queues.job import JobRecord, NewJob
from eventperf.queues.jobtype import JobType
from eventperf.queues.options import MAX_PRIORITY, QueueConfig
from eventperf.queues.policy import job_priority

_HALF: Final = re.compile(r"[\ud800-\udfff]")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobSpec:
    """One job of a mixed :meth:`QueueManager.enqueue_many`; fields as of ``enqueue``."""

    type: str
    data: Any = None
    queue: str | None = None
    priority: int | None = None
    delay: Duration | None = None
    at: datetime | float | None = None
    unique_key: str | None = None
    unique_for: str | Duration = "waiting"
    deadline: Duration | None = None
    fairness_key: str | None = None
    attempts: int | None = None
    timeout: Duration | None = None
    headers: Mapping[str, str] | None = None
    id: str | None = None
    after: Sequence[Any] | None = None
    after_when: str = "success"
    tags: Sequence[str] = ()


class Recorder:
    """Turns specs into records by the rules of one manager."""

    def __init__(self, queues: Mapping[str, QueueConfig], default_queue: str, codec: Codec) -> None:
        self._queues = queues
        self._default_queue = default_queue
        self._codec = codec

    def template(
        self, spec: JobSpec, kind: JobType, now: float
    ) -> tuple[dict[str, Any], float, float | None]:
        """Check everything of ``spec`` but its data; return record fields, delay and life in seconds."""
        queue = spec.queue or kind.queue or self._default_queue
        if queue not in self._queues:
            raise UnknownQueue("queue", queue, self._queues)
        priority = spec.priority
        if priority is not None:
            check_int(priority, argument="priority", low=0, high=MAX_PRIORITY)
        if spec.unique_key is not None:
            check_text(spec.unique_key, "unique_key")
        if spec.fairness_key is not None:
            check_text(spec.fairness_key, "fairness_key")
        fields: dict[str, Any] = {
            "type": spec.type,
            "queue": queue,
            "priority": job_priority(priority, kind.priority, spec.type),
            "attempts": kind.attempts
            if spec.attempts is None
            else check_int(spec.attempts, argument="attempts", low=1),
            "timeout_s": None if spec.timeout is None else seconds(spec.timeout, name="timeout"),
            "unique_key": spec.unique_key,
            "unique_for": _unique_for(spec.unique_for),
            "key": spec.fairness_key or "",
            "version": kind.version,
            "headers": _headers(spec.headers),
            "flow": _flow(spec),
            "tags": _tags(spec.tags),
        }
        deadline_s = None if spec.deadline is None else seconds(spec.deadline, name="deadline")
        return fields, delay_of(spec, now), deadline_s

    def one(self, spec: JobSpec, kind: JobType, job_id: str, now: float) -> NewJob:
        """Return the job that ``spec`` asks for."""
        fields, delay_s, deadline_s = self.template(spec, kind, now)
        payload = self._codec.encode(spec.data, kind.shape)
        return NewJob(JobRecord(id=job_id, payload=payload, **fields), delay_s, deadline_s)


def check_text(value: object, argument: str) -> str:
    """Return ``value`` if it is text of 1 to 500 characters that no store reads as its own separators."""
    allowed = "text of 1 to 500 characters, none a control character, the last one no blank"
    if not isinstance(value, str) or not 0 < len(value) <= 500 or _CONTROL.search(value) or value[-1] == " ":
        raise ConfigurationError(argument, value, allowed)  # MariaDB takes "a " for "a"
    return value


def _unique_for(value: str | Duration) -> str | float:
    if value in ("waiting", "running"):
        return str(value)
    try:
        return seconds(value, name="unique_for")
    except ConfigurationError as error:
        raise ConfigurationError(
            "unique_for", value, "'waiting', 'running' or a positive duration"
        ) from error


def _headers(headers: Mapping[str, str] | None) -> dict[str, str] | None:
    if not headers:
        return None
    if not isinstance(headers, Mapping):
        raise ConfigurationError("headers", type(headers).__name__, "a mapping of text to text")
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigurationError("headers", {name: value}, "text to text")
        if _HALF.search(name) or _HALF.search(value):  # the record could not be read back
            raise ConfigurationError("headers", {name: value}, "text without halves of characters")
    return dict(headers)


def _tags(tags: object) -> tuple[str, ...]:
    if not tags:
        return ()
    if not isinstance(tags, (list, tuple, set, frozenset)) or len(tags) > MAX_TAGS:
        raise ConfigurationError("tags", tags, f"a list of up to {MAX_TAGS} words")
    return tuple(sorted({check_name(tag, argument="tags") for tag in tags}))


MAX_TAGS = 10
"""Tags of one job at most: each is an entry of an index of its own."""


def _flow(spec: JobSpec) -> dict[str, Any] | None:
    when = check_when(spec.after_when, "after_when")
    if not spec.after:
        return None
    if isinstance(spec.after, (str, bytes)) or not hasattr(spec.after, "__iter__"):
        raise ConfigurationError("after", spec.after, "a list of jobs or job ids")
    if spec.delay is not None or spec.at is not None:
        raise ConfigurationError("after", spec.after, "either after or a time, not both")
    ids = [check_job_id(getattr(job, "id", job)) for job in spec.after]
    return {"after": list(dict.fromkeys(ids)), "when": when}


def check_when(value: object, argument: str = "when") -> str:
    """Return ``value`` if it says what a job waits for."""
    if value not in ("success", "failure", "any", "ended"):
        raise ConfigurationError(argument, value, ("success", "failure", "any"))
    return "ended" if value == "any" else str(value)


def check_flow(specs: list[JobSpec]) -> list[JobSpec]:
    """Return ``specs`` if they can be stored in one step and wait for each other."""
    if not all(isinstance(spec, JobSpec) for spec in specs):
        raise ConfigurationError("specs", specs, "a list of JobSpec")
    if not 2 <= len(specs) <= MAX_FLOW + 1:
        raise ConfigurationError("specs", f"{len(specs)} jobs", f"2 to {MAX_FLOW + 1} jobs, all counted")
    for spec in specs:
        if spec.unique_key is not None or spec.after:
            raise ConfigurationError("specs", spec, "jobs without unique_key and without after")
    if specs[-1].delay is not None or specs[-1].at is not None:
        raise ConfigurationError("specs", specs[-1], "no time for a job that waits for others")
    return specs


MAX_FLOW = 10_000
"""Jobs of one batch at most: they are stored in one step, which the store does nothing beside."""


def delay_of(spec: JobSpec, now: float) -> float:
    """Return the wait in seconds that ``delay`` or ``at`` asks for."""
    if spec.delay is not None and spec.at is not None:
        raise ConfigurationError("at", spec.at, "either delay or at, not both")
    if spec.delay is not None:
        return seconds(spec.delay, name="delay", zero=True)
    if spec.at is None:
        return 0.0
    if isinstance(spec.at, datetime):
        if spec.at.tzinfo is None:
            raise ConfigurationError("at", spec.at, "a datetime with a time zone, or seconds since the epoch")
        return max(0.0, spec.at.timestamp() - now)
    if isinstance(spec.at, bool) or not isinstance(spec.at, (int, float)) or not 0 <= spec.at < 1e11:
        raise ConfigurationError("at", spec.at, "a datetime with a time zone, or seconds since the epoch")
    return max(0.0, spec.at - now)


def new_ids(count: int, bits: Any) -> list[str]:
    """Return ``count`` ids of 12 URL-safe characters (72 random bits each); ``bits`` is ``getrandbits``.

    None begins with a dash, which a command line would take for an option.
    """
    import base64

    text = base64.urlsafe_b64encode(bits(72 * count).to_bytes(9 * count, "big")).decode()
    ids = [text[i : i + 12] for i in range(0, 12 * count, 12)]
    return [f"z{one[1:]}" if one[0] == "-" else one for one in ids]


def check_job_id(value: object) -> str:
    """Return ``value`` if it can be a job id."""
    return check_name(value, argument="id")
