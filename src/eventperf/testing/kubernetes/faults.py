"""Scripted trouble: which requests go wrong, how, and how often."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase


@dataclass(slots=True, kw_only=True)
class Fault:
    """One kind of trouble for the requests it matches.

    Attributes:
        verb: RBAC verb to match (``get list watch create update patch delete``), or None for any.
        path: Glob on the request path, for example ``"*/deployments/web/scale"``.
        times: How many matching requests it strikes; None for all of them.
        status: Answer with this status instead of the real one.
        retry_after_s: Sent as ``Retry-After``.
        cut: ``"silent"`` never answers, ``"reset"`` sends RST, ``"half"`` stops in mid-answer.
        applied: The request takes effect although its answer is broken: a PATCH that in fact succeeded.
        delay_s: The answer comes this late.
        hits: How many requests it has struck.
    """

    verb: str | None = None
    path: str = "*"
    times: int | None = 1
    status: int | None = None
    retry_after_s: float | None = None
    cut: str | None = None
    applied: bool = False
    delay_s: float = 0.0
    hits: int = 0

    def strikes(self, verb: str, path: str) -> bool:
        """Tell whether this request is struck, and count it."""
        if self.times is not None and self.hits >= self.times:
            return False
        if (self.verb is not None and self.verb != verb) or not fnmatchcase(path, self.path):
            return False
        self.hits += 1
        return True
