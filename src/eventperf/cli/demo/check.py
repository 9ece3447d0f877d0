"""The independent check: it keeps its own books and knows nothing of cache or queue.

A read is stale when it shows less than what had been committed, and told to the visitor, before the read
began. A page whose figures may be up to some seconds old is stale beyond that age. A job is lost when it was
promised and its effect never happened, and finished double when it happened twice. Only where the demo kills
workers may a later claim of the job repeat an effect: jobs run at least once.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the check found; ``stale``, ``lost`` and ``double`` must be 0.

    Attributes:
        again: Effects repeated by a later claim, after the job's worker was killed.
    """

    checked: int
    stale: int
    jobs: int
    lost: int
    double: int
    again: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing was stale, lost or done twice."""
        return not (self.stale or self.lost or self.double)


class Ledger:
    """What was committed and promised, written by the visitors themselves.

    Args:
        by_event: Registrations of each event before the load began; ``by_person`` likewise.
        checked_in: Check-ins of each event.
    """

    def __init__(
        self, by_event: dict[int, int], by_person: dict[int, int], checked_in: dict[int, int]
    ) -> None:
        self._mu = threading.Lock()
        self._events = Counter(by_event)
        self._people = Counter(by_person)
        self._gates = Counter(checked_in)
        self._promised: Counter[str] = Counter()
        self._effects: Counter[tuple[str, int, int]] = Counter()
        self.waits: dict[str, list[float]] = defaultdict(list)
        self.checked: int = 0
        self.stale: int = 0
        self.examples: list[str] = []

    # -- visitors tell ---------------------------------------------------------------------------------

    def registered(self, event: int, person: int) -> None:
        """Note a committed registration."""
        with self._mu:
            self._events[event] += 1
            self._people[person] += 1

    def checked_in(self, event: int) -> None:
        """Note a committed check-in."""
        with self._mu:
            self._gates[event] += 1

    def promised(self, job: str) -> int:
        """Note one piece of side work; returns its number among those of its kind."""
        with self._mu:
            self._promised[job] += 1
            return self._promised[job]

    def withdrawn(self, job: str) -> None:
        """Take back a promise whose transaction was rolled back."""
        with self._mu:
            self._promised[job] -= 1

    def done(self, job: str, n: int, claim: int = 0) -> None:
        """Note that its effect happened; ``claim`` tells apart runs of which one may have been killed."""
        with self._mu:
            self._effects[job, n, claim] += 1

    def waited(self, queue: str, seconds: float) -> None:
        """Note how long a job waited for its start."""
        with self._mu:
            self.waits[queue].append(seconds)

    # -- the check -------------------------------------------------------------------------------------

    def expectation(self, page: str, subject: Any) -> dict[str, float]:
        """Return what an answer to a read that begins now must at least show."""
        if page == "event_page":
            return {"registered": self._events[subject]}
        if page == "my_registrations":
            return {"registered": self._people[subject]}
        if page == "dashboard":
            return {"registered": self._events[subject], "checked_in": self._gates[subject]}
        return {"began": time.monotonic()}

    def judge(self, page: str, expected: dict[str, float], answer: dict[str, Any], bounded_s: float) -> None:
        """Compare an answer with what was expected when its read began."""
        wrong = [
            f"{name}={answer[name]}, {least:g} committed"
            for name, least in expected.items()
            if name != "began" and answer[name] < least
        ]
        if "began" in expected and "computed_at" in answer:
            age = expected["began"] - answer["computed_at"]
            if age > bounded_s:
                wrong.append(f"{age:.2f} s old, {bounded_s:g} s allowed")
        with self._mu:
            self.checked += 1
            if wrong:
                self.stale += 1
                self.examples = [*self.examples, f"{page}: {'; '.join(wrong)}"][:5]

    def verdict(self) -> Verdict:
        """Return the sum; call it when all side work has had time to end."""
        with self._mu:
            once = {(job, n) for job, n, _ in self._effects}
            jobs = sum(self._promised.values())
            double = sum(n - 1 for n in self._effects.values() if n > 1)
            again = len(self._effects) - len(once)
            return Verdict(self.checked, self.stale, jobs, jobs - len(once), double, again)
