"""An answer as it is kept, and what stands between it and being kept."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Final

KEEP_S: Final = 86_400.0
"""Longest life of an entry; the answer's own is in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """An answer as it is kept.

    Attributes:
        at: When it was made, by the origin of it: ``Age`` counts from there.
        until: End of its life.
        stale_s: How long after that it may stand in while a new one is made.
        grace_s: How long after that it may stand in for an error.
        vary: What the request said in the headers that it varies by.
        tags: What makes it forgotten.
    """

    status: int
    headers: list[list[str]]
    body: bytes
    at: float
    until: float
    stale_s: float
    grace_s: float
    vary: dict[str, str]
    tags: list[str]


class Unstorable(Exception):
    """The answer that was made is nobody's but the asker's."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(status)
        self.status = status


@dataclass(slots=True)
class Marks:
    """What the view that is running says about its answer."""

    ttl_s: float | None = None
    tags: list[str] = field(default_factory=list)


marks: ContextVar[Marks | None] = ContextVar("eventperf_http_marks", default=None)
