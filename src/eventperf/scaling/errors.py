"""Errors of this room."""

from __future__ import annotations

from eventperf._core.errors import BackendUnavailable, EventPerfError

__all__ = ["ScalingError", "TargetConflict", "TargetUnavailable"]


class ScalingError(EventPerfError):
    """Root of this room's errors; also a target's refusal that a retry will not mend."""


class TargetUnavailable(ScalingError, BackendUnavailable):
    """The target could not be read or changed now; the next tick tries again.

    Attributes:
        retry_after_s: How long the other side asked to be left alone; ``None`` when it did not say.
    """

    def __init__(self, text: str, *, retry_after_s: float | None = None) -> None:
        super().__init__(text)
        self.retry_after_s = retry_after_s


class TargetConflict(ScalingError):
    """Somebody else changed the target since it was read; nothing was written."""
