"""What a producer asks for, checked and turned into records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from eventperf._core.durations import Duration
from eventperf._core.errors import ConfigurationError
from eventperf.queues.checks import (
    MAX_SPAN_S,
    check_int,
    check_list,
    check_name,
    check_span,
    check_text,
    has_half,
)
from eventperf.queues.codec import Codec
from eventperf.queues.errors import UnknownQueue
from eventperf.queues.job import JobRecord, NewJob
from eventperf.queues.jobtype import JobType
from eventperf.queues.options import MAX_PRIORITY, QueueConfig
from eventperf.queues.policy import job_priority
from eventperf.queues.soundness import fault


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
    unique_for: str | Duration | None = None
    deadline: Duration | None = None
    fairness_key: str | None = None
    attempts: int | None = None
    timeout: Duration | None = None
    headers: Mapping[str, str] | None = None
    id: str | None = None
    after: Sequence[Any] | None = None
    after_when: str | None = None
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
        queue = (kind.queue or self._default_queue) if spec.queue is None else spec.queue
        if not isinstance(queue, str) or queue not in self._queues:
            raise UnknownQueue("queue", queue, self._queues)
        priority = spec.priority
        if priority is not None:
            check_int(priority, argument="priority", low=0, high=MAX_PRIORITY)
        if spec.unique_key is not None:
            check_text(spec.unique_key, "unique_key")
        elif spec.unique_for is not None:
            raise ConfigurationError("unique_for", spec.unique_for, "nothing without a unique_key")
        if spec.fairness_key is not None:
            check_text(spec.fairness_key, "fairness_key")
        fields: dict[str, Any] = {
            "type": spec.type,
            "queue": queue,
            "priority": job_priority(priority, kind.priority, spec.type),
            "attempts": kind.attempts
            if spec.attempts is None
            else check_int(spec.attempts, argument="attempts", low=1),
            "timeout_s": None if spec.timeout is None else check_span(spec.timeout, argument="timeout"),
            "unique_key": spec.unique_key,
            "unique_for": _unique_for(spec.unique_for),
            "key": spec.fairness_key or "",
            "version": kind.version,
            "headers": _headers(spec.headers),
            "flow": _flow(spec),
            "tags": _tags(spec.tags),
        }
        deadline_s = None if spec.deadline is None else check_span(spec.deadline, argument="deadline")
        return fields, delay_of(spec, now), deadline_s

    def one(self, spec: JobSpec, kind: JobType, made_id: str, now: float) -> NewJob:
        """Return the job that ``spec`` asks for, by the name it has or by ``made_id``."""
        job_id = made_id if spec.id is None else check_job_id(spec.id)
        fields, delay_s, deadline_s = self.template(spec, kind, now)
        payload = self._codec.encode(spec.data, kind.shape)
        record = JobRecord(id=job_id, payload=payload, **fields)
        return NewJob(record, delay_s, deadline_s, named=spec.id is not None)


def checked(record: JobRecord) -> JobRecord:
    """Return a record that came by a way where others may write, if :meth:`Recorder.one` could have made it.

    Raises:
        ConfigurationError: It could not.
    """
    if why := fault(record):
        raise ConfigurationError("record", why, "a job as it was enqueued")
    for name in ("id", "type", "queue"):
        check_name(getattr(record, name), argument=name)
    for name, text in (("unique_key", record.unique_key), ("fairness_key", record.key or None)):
        if text is not None:
            check_text(text, name)
    check_int(record.priority, argument="priority", low=0, high=MAX_PRIORITY)
    check_int(record.attempts, argument="attempts", low=1)
    _unique_for(record.unique_for)
    _headers(record.headers)
    _tags(record.tags)
    if record.flow is not None:
        for one in check_list(record.flow["after"], argument="after", of="job ids"):
            check_text(one, "after")
        check_when(record.flow["when"])
    return record


def _unique_for(value: str | Duration | None) -> str | float:
    if value is None:
        return "waiting"
    if isinstance(value, str) and value in ("waiting", "running"):
        return value
    try:
        return check_span(value, argument="unique_for")
    except ConfigurationError as error:
        raise ConfigurationError(
            "unique_for", value, f"'waiting', 'running' or a duration: {error.allowed}"
        ) from error


def _headers(headers: Mapping[str, str] | None) -> dict[str, str] | None:
    if headers is None:
        return None
    if not isinstance(headers, Mapping):
        raise ConfigurationError("headers", headers, "a mapping of text to text")
    size = 0
    for name, value in headers.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise ConfigurationError("headers", {name: value}, "text to text")
        if has_half(name) or has_half(value):  # the record could not be read back
            raise ConfigurationError("headers", {name: value}, "text without halves of characters")
        size += len(name.encode()) + len(value.encode())
    if size > MAX_HEADER_BYTES:
        allowed = f"at most {MAX_HEADER_BYTES:,} bytes, names and values together: larger data is payload"
        raise ConfigurationError("headers", f"{size:,} bytes", allowed)
    return dict(headers) or None


MAX_HEADER_BYTES = 16_384
"""Headers of one job at most, as UTF-8: they travel with each claim, and are kept with each record."""


def _tags(tags: object) -> tuple[str, ...]:
    if tags is None:
        return ()
    if not isinstance(tags, (list, tuple, set, frozenset)) or len(tags) > MAX_TAGS:
        raise ConfigurationError("tags", tags, f"a list of up to {MAX_TAGS} words")
    return tuple(sorted({check_name(tag, argument="tags") for tag in tags}))


MAX_TAGS = 10
"""Tags of one job at most: each is an entry of an index of its own."""


def _flow(spec: JobSpec) -> dict[str, Any] | None:
    when = "success" if spec.after_when is None else check_when(spec.after_when, "after_when")
    if spec.after is None:
        if spec.after_when is not None:
            raise ConfigurationError("after_when", spec.after_when, "nothing without after")
        return None
    jobs = check_list(spec.after, argument="after", of="jobs or job ids")
    if not jobs:
        return None
    if len(jobs) > MAX_FLOW:
        raise ConfigurationError("after", f"{len(jobs):,} jobs", f"at most {MAX_FLOW:,}")
    if spec.delay is not None or spec.at is not None:
        raise ConfigurationError("after", spec.after, "either after or a time, not both")
    ids = [check_text(getattr(job, "id", job), "after") for job in jobs]
    if spec.id in ids:
        raise ConfigurationError("after", spec.id, "other jobs: it would wait for itself")
    return {"after": list(dict.fromkeys(ids)), "when": when}


def check_when(value: object, argument: str = "when") -> str:
    """Return ``value`` if it says what a job waits for."""
    if not isinstance(value, str) or value not in ("success", "failure", "any", "ended"):
        raise ConfigurationError(argument, value, "'success', 'failure' or 'any' (which 'ended' is, too)")
    return "ended" if value == "any" else value


def check_flow(specs: list[JobSpec]) -> list[JobSpec]:
    """Return ``specs`` if they can be stored in one step and wait for each other."""
    if not all(isinstance(spec, JobSpec) for spec in specs):
        raise ConfigurationError("specs", specs, "a list of JobSpec")
    if not 2 <= len(specs) <= MAX_FLOW + 1:
        raise ConfigurationError("specs", f"{len(specs)} jobs", f"2 to {MAX_FLOW + 1} jobs, all counted")
    named = [spec.id for spec in specs if isinstance(spec.id, str)]
    if len(set(named)) < len(named):
        twice = next(one for one in named if named.count(one) > 1)
        raise ConfigurationError("id", twice, "each id once: a job cannot wait for itself")
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
        return check_span(spec.delay, argument="delay", zero=True)
    if spec.at is None:
        return 0.0
    allowed = "a datetime with a time zone, or seconds since the epoch, at most 31 years ahead"
    at = spec.at
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ConfigurationError("at", at, allowed)
        at = at.timestamp()
    if isinstance(at, bool) or not isinstance(at, (int, float)) or not 0 <= at <= now + MAX_SPAN_S:
        raise ConfigurationError("at", spec.at, allowed)
    return max(0.0, at - now)


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
