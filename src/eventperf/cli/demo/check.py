"""The demo's independent judge: it knows nothing of caches and queues, only of commits and effects."""

from __future__ import annotations

import sqlite3
import threading
from collections import Counter
from itertools import count
from pathlib import Path

JOB_CLASSES = {"notification_sending": "high", "report_generation": "normal", "analytics_processing": "low"}
"""Side work by type, with the queue it goes to."""


class Watch:
    """Finds stale reads by the after-write rule.

    Counts only grow while the load runs. A reader notes what had been committed (and acknowledged to its
    writer) before it asks; an answer below that number is older than a write that was already over.
    """

    def __init__(self, base: dict[tuple[str, int], int] | None = None) -> None:
        self._counts: Counter[tuple[str, int]] = Counter(base or {})
        self._mu = threading.Lock()
        self.reads = 0
        self.stale = 0

    def committed(self, what: str, id: int) -> None:
        """Note a write whose request has been told that it is done."""
        with self._mu:
            self._counts[what, id] += 1

    def floor(self, what: str, id: int) -> int:
        """Return what an answer asked for from now on must at least show."""
        with self._mu:
            return self._counts[what, id]

    def compare(self, floor: int, answer: int) -> None:
        """Judge one answer."""
        with self._mu:
            self.reads += 1
            self.stale += answer < floor

    def take(self) -> tuple[int, int]:
        """Return reads judged and stale ones since the last call."""
        with self._mu:
            found = self.reads, self.stale
            self.reads = self.stale = 0
        return found


class Ledger:
    """What was promised to users, and which effects really happened: a database file of its own."""

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=OFF")
        self._db.execute("CREATE TABLE effects (key TEXT, kind TEXT, asked REAL, began REAL, done REAL)")
        self._mu = threading.Lock()
        self._numbers = count(1)
        self._promised: set[str] = set()

    def promise(self, kind: str) -> str:
        """Note that a user was promised this work; returns the key its effect must carry."""
        with self._mu:
            key = f"{kind}-{next(self._numbers)}"
            self._promised.add(key)
        return key

    def effect(self, key: str, kind: str, asked: float, began: float, done: float) -> None:
        """Write down that the work was done."""
        with self._mu:
            self._db.execute("INSERT INTO effects VALUES (?, ?, ?, ?, ?)", (key, kind, asked, began, done))

    def outstanding(self) -> int:
        """Return how many promises have no effect yet."""
        with self._mu:
            done = {row[0] for row in self._db.execute("SELECT key FROM effects")}
            return len(self._promised - done)

    def verdict(self) -> tuple[int, int, int]:
        """Return promises, promises without an effect, and effects beyond the first of a promise."""
        lost = self.outstanding()
        with self._mu:
            row = self._db.execute("SELECT COUNT(*) - COUNT(DISTINCT key) FROM effects").fetchone()
            return len(self._promised), lost, int(row[0])

    def times(self, since: float) -> dict[str, list[tuple[float, float]]]:
        """Return ``(wait, total)`` in seconds by queue, for work asked for since then."""
        found: dict[str, list[tuple[float, float]]] = {}
        with self._mu:
            sql = "SELECT kind, began - asked, done - asked FROM effects WHERE asked >= ?"
            for kind, wait, total in self._db.execute(sql, (since,)):
                found.setdefault(JOB_CLASSES[kind], []).append((max(0.0, wait), max(0.0, total)))
        return found

    def close(self) -> None:
        """Close the file."""
        self._db.close()
