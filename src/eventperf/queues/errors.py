"""Errors of this room: one branch, a leaf for each case a caller would handle differently."""

from __future__ import annotations

from collections.abc import Sequence

from eventperf._core import errors
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError, EventPerfError

__all__ = [
    "JobCancelled",
    "JobFailed",
    "JobNotFound",
    "JobNotWaiting",
    "JobTimeout",
    "LeaseLost",
    "NonRetryable",
    "OutboxMissing",
    "PayloadError",
    "PayloadTooLarge",
    "QueueError",
    "ResultTimeout",
    "Retry",
    "SchemaMissing",
    "StoreUnavailable",
    "UnknownQueue",
    "Unsupported",
]


class QueueError(EventPerfError):
    """Root of this room's errors."""


class UnknownQueue(QueueError, ConfigurationError):
    """A queue name that this manager does not have."""


class PayloadError(QueueError, ConfigurationError):
    """Data that does not fit the job type's declared payload, or cannot be encoded or decoded."""


class PayloadTooLarge(PayloadError):
    """Encoded data above the manager's ``max_payload_bytes``."""


class StoreUnavailable(QueueError, errors.StoreUnavailable):
    """The job store does not answer; the call may be repeated with the same job ids."""


class PartlyUnavailable(StoreUnavailable):
    """Some partitions do not answer.

    Attributes:
        answers: Of the others, in the order of what was asked; ``None`` where there is none.
    """

    def __init__(self, message: str, answers: Sequence[bool | None]) -> None:
        self.answers = answers
        super().__init__(message)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (str(self), self.answers)


class SchemaMissing(QueueError):
    """The database lacks the tables of the SQL store, or has those of another release.

    Attributes:
        found: Their version; 0 when there are none.
        needed: The version this release works with.
        lacking: Tables and columns that should be there in that version and are not.
    """

    def __init__(self, found: int, needed: int, lacking: Sequence[str] = ()) -> None:
        self.found = found
        self.needed = needed
        self.lacking: tuple[str, ...] = tuple(lacking)
        if lacking:
            names = ", ".join(self.lacking[:5]) + (", ..." if len(self.lacking) > 5 else "")
            text = (
                f"say version {found} but lack {names}: no release made them so. Put that back, or "
                "drop the tables whose names start with eventperf_ and run eventperf queue schema"
            )
        elif found > needed:
            text = f"are of version {found}, this release knows {needed}: upgrade eventperf here"
        else:
            text = f"are of version {found}, not {needed}" if found else "are not there"
            text += ": run eventperf queue schema, or create_schema()"
        super().__init__(f"the tables of the job store {text}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.found, self.needed, self.lacking)


class OutboxMissing(QueueError):
    """The database lacks the outbox table, so nothing was written.

    Attributes:
        table: Its name.
    """

    def __init__(self, table: str) -> None:
        self.table = table
        super().__init__(
            f"the table {table} is not in this database: make it once, by eventperf queue relay APP "
            "--database URL --create, by eventperf.queues.outbox.create_table(), or in a migration of yours"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.table,)


class Unsupported(QueueError):
    """A feature that the chosen backend declares it does not have.

    Attributes:
        feature: What was asked for.
        backend: The backend that cannot do it.
    """

    def __init__(self, feature: str, backend: str) -> None:
        self.feature = feature
        self.backend = backend
        super().__init__(f"the {backend} backend does not support {feature}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.feature, self.backend)


class _AboutJob(QueueError):
    """An error about one job."""

    def __init__(self, job_id: str, text: str) -> None:
        self.job_id = job_id
        super().__init__(text)

    def __reduce__(self) -> tuple[object, ...]:
        return type(self)._rebuild, (self.args, self.__dict__.copy())

    @classmethod
    def _rebuild(cls, args: tuple[object, ...], facts: dict[str, object]) -> _AboutJob:
        error = cls.__new__(cls)
        error.args = args
        error.__dict__.update(facts)
        return error


class JobNotFound(_AboutJob):
    """No record of this id: never enqueued, or its result and retention have passed."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id, f"no job {job_id!r} (never enqueued, or no longer retained)")


class JobNotWaiting(_AboutJob):
    """The job runs or has ended, so it can no longer be changed; ``state`` says which."""

    def __init__(self, job_id: str, state: str) -> None:
        self.state = state
        super().__init__(job_id, f"job {job_id!r} is {state}: only waiting and delayed jobs can be changed")


class JobFailed(_AboutJob):
    """The job ended in the dead letter; ``reason`` is the last error's text."""

    def __init__(self, job_id: str, reason: str) -> None:
        self.reason = reason
        super().__init__(job_id, f"job {job_id!r} failed: {reason}")


class JobCancelled(_AboutJob):
    """The job was cancelled before it finished."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id, f"job {job_id!r} was cancelled")


class ResultTimeout(_AboutJob):
    """The job did not finish within the time the caller was willing to wait."""

    def __init__(self, job_id: str, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        super().__init__(job_id, f"job {job_id!r} did not finish within {timeout_s:g} s")


class LeaseLost(_AboutJob):
    """Another worker owns this job by now; what this handler does counts no more."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id, f"the lease of job {job_id!r} was lost; another worker may be running it")


class JobTimeout(QueueError):
    """A handler ran longer than its job type allows; retried like any failure."""

    def __init__(self, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        super().__init__(f"timed out after {timeout_s:g} s")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.timeout_s,)


class NonRetryable(QueueError):
    """Raise it in a handler when trying again can never help: the job goes to the dead letter at once."""


class Retry(QueueError):
    """Raise it in a handler to be run again.

    Args:
        delay: When; the job type's backoff when not given.
        count: Whether this run counts as one of the attempts.
    """

    def __init__(
        self, delay: Duration | None = None, *, count: bool = True, reason: str = "retry asked"
    ) -> None:
        self.delay_s: float | None = (
            None if delay is None else seconds(delay, name="delay", zero=True, maximum=1e9)
        )
        self.count = count
        super().__init__(reason)

    def __reduce__(self) -> tuple[object, ...]:
        return _retry, (self.delay_s, self.count, str(self))


def _retry(delay_s: float | None, count: bool, reason: str) -> Retry:
    return Retry(delay_s, count=count, reason=reason)


def timed_follower(delay_s: object) -> ConfigurationError:
    """Return the error of a time for a job that waits for others."""
    return ConfigurationError("delay", delay_s, "no time for a job that waits for others")


NONE_FAILED = "none of the jobs it waited for has failed"
"""Why a job is cancelled that waited for a failure."""


def unknown_parent(job_id: str) -> ConfigurationError:
    """Return what is raised where a job is to wait for one that is not there: a slip, or long forgotten."""
    return ConfigurationError(
        "after",
        job_id,
        "ids of jobs that wait or run, or ended within result_ttl (a minute without a result)",
    )
