"""What a store tells Redis once and names by its digest afterwards: its queues and its limits.

How they are kept is written in ``lua/settings.lua``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from eventperf.queues.protocols import StoreSettings, WorkerCard

UNTOLD = b"?"
"""What scripts answer that do not know a store's settings (any more)."""

_LIFE_MS = 86_400_000  # told again when it is over, or the server has lost it
_MANY = 64
"""Beyond so many queues a worker waits at one place for all of them."""


def ms(value_s: float) -> int:
    """Return seconds as whole milliseconds."""
    return int(value_s * 1000)


def _digest(facts: Sequence[Any]) -> str:
    """Return a short name of ``facts``."""
    return hashlib.sha1(json.dumps(facts).encode(), usedforsecurity=False).hexdigest()[:20]


@dataclass(frozen=True, slots=True)
class Told:
    """Settings under their digest, and the arguments of ``learn.lua`` that store them there.

    Attributes:
        group: The name of the place where workers of exactly these queues wait, if they are many.
    """

    digest: str
    args: list[Any]
    group: str | None

    @classmethod
    def of(cls, settings: StoreSettings, card: WorkerCard | None) -> Told:
        """Gather the settings of a worker, or of a store."""
        rooms = {} if card is None else card.room_by_queue
        names = list(rooms or settings.queues)
        group = _digest(sorted(rooms)) if len(rooms) > _MANY else None
        queues = "" if group or card is None else "".join(f"{name}\x1f" for name in names)
        limits = settings.options.limits
        facts: list[Any] = ["", f"{len(limits)}\x1f{group or ''}\x1f{queues}", "1st", names[0]]
        for q in settings.queues.values():
            dead = -1 if q.keep_failed is None else q.keep_failed
            one = (rooms.get(q.name, -1), q.priority, q.share, q.keep_completed, dead)
            facts += (f"q\x1f{q.name}", "\x1f".join(map(str, one)))
        for place, limit in enumerate(limits):
            scope = ("l", limit.queue or "", limit.type or "", "1" if limit.per_key else "")
            values = (place, limit.concurrency or -1, limit.rate or -1, ms(limit.per_s))
            facts += ("\x1f".join(scope), "\x1f".join(map(str, values)))
        name = _digest(facts)
        return cls(name, [name, _LIFE_MS, *facts], group)
