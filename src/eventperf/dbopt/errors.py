"""Errors of the database room."""

from __future__ import annotations

from eventperf._core.errors import BackendUnavailable, EventPerfError

__all__ = [
    "AdviceMismatch",
    "DatabaseError",
    "DatabaseUnavailable",
    "OptimizerBusy",
    "SourceUnavailable",
    "StatementRefused",
]


class DatabaseError(EventPerfError):
    """Root of the errors of :mod:`eventperf.dbopt`."""


class DatabaseUnavailable(DatabaseError, BackendUnavailable):
    """The database does not answer, or refuses this user; the cause is chained.

    Attributes:
        url: The URL that was tried, without its password.
    """

    def __init__(self, url: str, reason: str) -> None:
        self.url = url
        self.reason = reason
        super().__init__(f"cannot reach the database {url}: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.url, self.reason)


class SourceUnavailable(DatabaseError):
    """A source of statements (slow log, statistics view, file) that cannot be read here.

    Attributes:
        source: Which source.
        cure: What to do about it.
    """

    def __init__(self, source: str, cure: str) -> None:
        self.source = source
        self.cure = cure
        super().__init__(f"cannot read statements from {source}: {cure}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.source, self.cure)


class OptimizerBusy(DatabaseError):
    """Another optimizer is applying changes to this database at this moment."""


class AdviceMismatch(DatabaseError):
    """A plan file that does not belong to this database, or was not written by this library."""


class StatementRefused(DatabaseError):
    """The database refused a change; the cause is chained.

    Attributes:
        statement: The statement that was refused.
        retryable: A lock time-out or deadlock, worth another attempt.
    """

    def __init__(self, statement: str, reason: str, *, retryable: bool = False) -> None:
        self.statement = statement
        self.reason = reason
        self.retryable = retryable
        super().__init__(f"the database refused {statement!r}: {reason}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.statement, self.reason)
