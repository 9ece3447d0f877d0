"""What happened to jobs, as one small typed event."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KINDS: Final = (
    "enqueued",
    "started",
    "completed",
    "retried",
    "failed",
    "cancelled",
    "stalled",
    "refused",
    "worker_started",
    "worker_stopped",
    "store_lost",
    "store_back",
)
"""Names that ``queues.on`` accepts. ``failed`` means the dead letter; ``refused`` a late finish that a
newer claim made void; ``stalled`` a lease that ran out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobEvent:
    """One event; fields that do not apply are empty."""

    kind: str
    job_id: str = ""
    type: str = ""
    queue: str = ""
    attempt: int = 0
    run_s: float = 0.0
    wait_s: float = 0.0
    error: str | None = None
    worker: str = ""
    count: int = 1
