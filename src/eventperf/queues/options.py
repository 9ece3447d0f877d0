"""Frozen configuration: queues, order between them, backoff and retry rules."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal, TypedDict

from eventperf._core.durations import Duration
from eventperf._core.errors import ConfigurationError

from .checks import MAX_COUNT, check_int, check_list, check_name, check_number, check_span
from .limits import Limit, check_limits

Order = Literal["strict", "weighted"]

MAX_PRIORITY: Final = 1000
"""Job priorities are whole numbers from 0 to this; larger is more urgent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueConfig:
    """One queue.

    Attributes:
        name: How jobs address it.
        priority: Orders queues among each other (larger first); it never touches the jobs' own priority.
        concurrency: How many of its jobs one worker runs at once, unless that worker was given a total.
        weight: Share under ``order="weighted"``; ``priority + 1`` when not given.
        keep_completed: How many finished jobs stay listed.
        keep_failed: How many dead jobs are kept for replay; ``None`` keeps all.
    """

    name: str
    priority: int = 1
    concurrency: int = 10
    weight: int | None = None
    keep_completed: int = 100
    keep_failed: int | None = 50

    def __post_init__(self) -> None:
        check_name(self.name, argument="name")
        check_int(self.priority, argument="priority", low=0, high=MAX_PRIORITY)
        check_int(self.concurrency, argument="concurrency", low=1)
        if self.weight is not None:
            check_int(self.weight, argument="weight", low=1)
        check_int(self.keep_completed, argument="keep_completed", low=0)
        if self.keep_failed is not None:
            check_int(self.keep_failed, argument="keep_failed", low=0)

    @property
    def share(self) -> int:
        """The weight in use."""
        return self.priority + 1 if self.weight is None else self.weight


DEFAULT_QUEUES: Final[tuple[QueueConfig, ...]] = (
    QueueConfig(name="critical", priority=10, concurrency=20),
    QueueConfig(name="high", priority=5, concurrency=15),
    QueueConfig(name="normal", priority=1, concurrency=10),
    QueueConfig(name="low", priority=0, concurrency=5),
)
"""The four queues of an event platform."""

PRIORITY_BY_TYPE: Final[Mapping[str, int]] = {
    "real_time_notification": 10,
    "emergency_alert": 10,
    "user_report": 5,
    "dashboard_update": 5,
    "data_backup": 1,
    "analytics_batch": 1,
}
"""Job priority by type, used when neither the caller nor the job type says one."""

DEFAULT_PRIORITY: Final = 3
"""Job priority of every other type."""

JOB_TYPES: Final = ("analytics_processing", "notification_sending", "data_export", "report_generation")
"""The job types an event platform handles."""


@dataclass(frozen=True, slots=True)
class Exponential:
    """Wait ``base * factor ** (attempt - 1)``, at most ``max``, spread by ``jitter``.

    ``jitter=0.2`` draws from 80 % to 120 % of it, so that jobs that failed together do not come back
    together. ``Exponential("1s", factor=1)`` is a fixed wait.

    >>> [Exponential("1s", jitter=0).delay_s(n, 0.5) for n in (1, 2, 3)]
    [1.0, 2.0, 4.0]
    """

    base: Duration = 1.0
    factor: float = 2.0
    max: Duration = 300.0
    jitter: float = 0.2

    def __post_init__(self) -> None:
        object.__setattr__(self, "base", check_span(self.base, argument="base", zero=True))
        object.__setattr__(self, "max", check_span(self.max, argument="max", zero=True))
        check_number(self.factor, argument="factor", low=1, high=1000)
        check_number(self.jitter, argument="jitter", low=0, high=1)

    def delay_s(self, attempt: int, u: float) -> float:
        """Return the wait before the try after ``attempt`` (from 1); ``u`` is uniform in [0, 1)."""
        base, top = float(self.base), float(self.max)  # type: ignore[arg-type]
        try:
            wait = min(top, base * self.factor ** (attempt - 1))
        except OverflowError:
            wait = top
        return wait * (1 + self.jitter * (2 * u - 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRule:
    """What to do with one family of exceptions; the first rule that matches decides.

    Attributes:
        on: Exception class or classes.
        attempts: Total tries for such an error; 1 means never again.
        backoff: Overrides the job type's.
    """

    on: type[BaseException] | tuple[type[BaseException], ...]
    attempts: int | None = None
    backoff: Exponential | None = None

    def __post_init__(self) -> None:
        kinds = self.on if isinstance(self.on, tuple) else (self.on,)
        if not kinds or not all(isinstance(k, type) and issubclass(k, BaseException) for k in kinds):
            raise ConfigurationError("on", self.on, "an exception class or a tuple of them")
        if self.attempts is not None:
            check_int(self.attempts, argument="attempts", low=1)
        if self.backoff is not None and not isinstance(self.backoff, Exponential):
            raise ConfigurationError("backoff", self.backoff, "an Exponential(...)")


class EnqueueOptions(TypedDict, total=False):
    """What ``enqueue`` takes by keyword, for type checkers and for wrappers of your own.

    The fields of :class:`~eventperf.queues.JobSpec` but ``type`` and ``data``, which have their own places.
    """

    queue: str | None
    priority: int | None
    delay: Duration | None
    at: datetime | float | None
    unique_key: str | None
    unique_for: str | Duration | None
    deadline: Duration | None
    fairness_key: str | None
    attempts: int | None
    timeout: Duration | None
    headers: Mapping[str, str] | None
    id: str | None
    after: Sequence[Any] | None
    after_when: str | None
    tags: Sequence[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineOptions:
    """What every process of one namespace should agree on.

    Attributes:
        order: ``"strict"`` serves the queue with the larger priority first; ``"weighted"`` by shares.
        aging: A class of jobs (queue and priority) that was passed over this many times is served next,
            so the job at place k of its class waits at most ``k * (aging + classes)`` services; ``None``
            switches it off and lets low classes starve.
        max_crashes: A job whose worker died this often goes to the dead letter.
        unknown_grace_s: How long a job waits whose type no live worker declares.
        result_ttl_s: How long a finished job's record and result can be asked for.
        max_payload_bytes: Largest encoded payload.
        limits: Rate limits and concurrency caps.
        wait_replicas: Replicas that must have a job before its enqueue returns (Redis).
        wait_timeout_s: How long to wait for them.
    """

    order: Order = "strict"
    aging: int | None = 100
    max_crashes: int = 3
    unknown_grace_s: float = 600.0
    result_ttl_s: float = 600.0
    max_payload_bytes: int = 1_048_576
    limits: tuple[Limit, ...] = ()
    wait_replicas: int = 0
    wait_timeout_s: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.order, str) or self.order not in ("strict", "weighted"):
            raise ConfigurationError("order", self.order, ("'strict'", "'weighted'"))
        if self.aging is not None:
            check_int(self.aging, argument="aging", low=1)
        check_int(self.max_crashes, argument="max_crashes", low=1)
        check_int(self.max_payload_bytes, argument="max_payload_bytes", low=1)
        object.__setattr__(self, "limits", check_limits(self.limits))
        check_int(self.wait_replicas, argument="wait_replicas", low=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerLife:
    """After what a worker lets its jobs end and stops, for whatever runs it to start a new one.

    Attributes:
        max_jobs: How many jobs it begins.
        max_memory_mb: How large its process may get, with those of its ``cpu=True`` jobs (MiB resident).
        max_age_s: How long it runs; up to a tenth less by chance, so that workers started together do not
            end together.
    """

    max_jobs: int | None = None
    max_memory_mb: float | None = None
    max_age_s: float | None = None

    def __post_init__(self) -> None:
        if self.max_jobs is not None:
            check_int(self.max_jobs, argument="max_jobs", low=1)
        if self.max_memory_mb is not None:
            check_number(self.max_memory_mb, argument="max_memory_mb", low=1, high=MAX_COUNT)

    def over(self, *, jobs: int, age_s: float = 0.0, memory_mb: float = 0.0) -> str:
        """Return why a worker of these figures is to stop; empty when it may go on.

        >>> WorkerLife(max_jobs=10, max_age_s=3600).over(jobs=10, age_s=60)
        'it has begun 10 jobs (max_jobs)'
        """
        if self.max_jobs is not None and jobs >= self.max_jobs:
            return f"it has begun {jobs} jobs (max_jobs)"
        if self.max_memory_mb is not None and memory_mb > self.max_memory_mb:
            return f"it has grown to {memory_mb:.0f} MiB (max_memory_mb)"
        if self.max_age_s is not None and age_s >= self.max_age_s:
            return f"it has run for {age_s:.0f} s (max_age)"
        return ""


def queue_configs(queues: Iterable[QueueConfig] | Mapping[str, Mapping[str, int]]) -> dict[str, QueueConfig]:
    """Return configurations by name, refusing doubles and an empty set.

    >>> list(queue_configs({"mail": {"priority": 4, "concurrency": 2}}))
    ['mail']
    """
    if isinstance(queues, Mapping):
        try:
            queues = [QueueConfig(name=name, **fields) for name, fields in queues.items()]
        except TypeError as error:
            fields_ = "priority, concurrency, weight, keep_completed, keep_failed"
            raise ConfigurationError("queues", queues, f"per queue the fields {fields_}") from error
    found: dict[str, QueueConfig] = {}
    for config in check_list(queues, argument="queues", of="QueueConfig objects"):
        if not isinstance(config, QueueConfig):
            raise ConfigurationError("queues", config, "QueueConfig objects or a mapping of name to fields")
        if config.name in found:
            raise ConfigurationError("queues", config.name, "each queue name once")
        found[config.name] = config
    if not found:
        raise ConfigurationError("queues", queues, "at least one queue")
    return found
