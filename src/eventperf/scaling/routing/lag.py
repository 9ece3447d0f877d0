"""How far a read replica is behind, and whether it may answer: pure, told the time. No SQL here."""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

E = TypeVar("E", bound=Hashable)

_SAMPLES = 1000


@dataclass(slots=True)
class _Replica:
    replayed: int = -1
    asked_at: float = -math.inf


class Lag(Generic[E]):
    """What is known of the primary's position over time, and of each replica's.

    Lag is measured in this process' monotonic time: a replica that has replayed what the primary had written
    at 10:00:00 and not what it had at 10:00:01 is behind by the time since 10:00:01. No database clock takes
    part, and a primary at rest makes nobody late. Positions only grow. Safe for threads.

    >>> lag = Lag(["a"])
    >>> lag.primary_at(100, now=0.0); lag.primary_at(200, now=1.0); lag.replica_at("a", 150, now=3.0)
    >>> lag.behind_s("a", now=3.0), lag.has("a", 150), lag.has("a", 151)
    (2.0, True, False)
    """

    def __init__(self, replicas: list[E]) -> None:
        self._mu = threading.Lock()
        self._primary: deque[tuple[int, float]] = deque(maxlen=_SAMPLES)
        self._replicas = {name: _Replica() for name in replicas}
        self.primary_asked_at: float = -math.inf

    def primary_at(self, position: int, *, now: float) -> None:
        """Note where the primary is."""
        with self._mu:
            self.primary_asked_at = max(self.primary_asked_at, now)
            if not self._primary or position > self._primary[-1][0]:
                self._primary.append((position, now))

    def replica_at(self, name: E, position: int, *, now: float) -> None:
        """Note where a replica is."""
        with self._mu:
            replica = self._replicas[name]
            replica.asked_at = max(replica.asked_at, now)
            replica.replayed = max(replica.replayed, position)

    def asked_s(self, name: E, *, now: float) -> float:
        """Return how long ago the replica was asked."""
        return now - self._replicas[name].asked_at

    def has(self, name: E, position: int) -> bool:
        """Tell whether the replica is known to have replayed ``position``."""
        return self._replicas[name].replayed >= position

    def behind_s(self, name: E, *, now: float) -> float:
        """Return how long the replica has lacked something; infinity when it was never asked."""
        with self._mu:
            replayed = self._replicas[name].replayed
            if replayed < 0:
                return math.inf
            missing = [at for position, at in self._primary if position > replayed]
            return now - missing[0] if missing else 0.0
