"""What the parts of the job store suite share: a worker that is driven by hand, and patience."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from eventperf.queues import QueueManager, QueueStatus, Unsupported
from eventperf.queues.protocols import Claimed, JobStore, Outcome, WorkerCard

__all__ = [
    "LEASE_S",
    "Make",
    "Report",
    "Station",
    "StoreTests",
    "balanced",
    "has",
    "needs",
    "run_until",
    "until",
    "whole",
]

Make = Callable[..., QueueManager]

whole = pytest.mark.usefixtures("whole_store")
"""Of a test whose promise holds over the whole store only where that is in one piece."""

LEASE_S = 0.6


class Station:
    """A worker reduced to its calls on the store, for tests that decide every step themselves."""

    def __init__(
        self,
        queues: QueueManager,
        *types: str,
        room: dict[str, int] | None = None,
        lease_s: float = LEASE_S,
        name: str | None = None,
        about: Mapping[str, str | int | float] | None = None,
    ) -> None:
        self.store: JobStore = queues.backend.sync()
        self.room: dict[str, int] = room or dict.fromkeys(queues.queues, 1000)
        self.id: str = name or f"w-{uuid4().hex[:8]}"
        self.card: WorkerCard = WorkerCard(
            id=self.id, types=frozenset(types), room_by_queue=self.room, slots=1000, lease_s=lease_s,
            about=about or {},
        )  # fmt: skip
        self.store.enter(self.card)
        self._backend = queues.backend

    def wait(self, timeout_s: float) -> bool | str:
        """Wait as a worker's thread does, on a face of its own."""
        return self._backend.waiter(self.card).wait(self.id, timeout_s)

    def claim(self, n: int = 1000) -> Claimed:
        return self.store.claim(self.id, self.room, n)

    def take(self, n: int = 1000) -> list[Any]:
        return self.claim(n).leases

    def ids(self, n: int = 1000) -> list[str]:
        return [lease.record.id for lease in self.take(n)]

    def end(self, lease: Any, kind: Any = "done", **facts: Any) -> bool:
        return self.store.finish([Outcome(lease.record.id, lease.token, kind, **facts)])[0]

    def drain(self) -> list[str]:
        """Run everything that is ready, one at a time, and return the ids in their order."""
        found = []
        while leases := self.take(1):
            found.append(leases[0].record.id)
            assert self.end(leases[0])
        return found


def balanced(rows: Sequence[QueueStatus]) -> bool:
    """Tell whether every job that came in is in exactly one state."""
    return all(
        r.enqueued + r.replayed - r.completed - r.failed - r.cancelled == r.waiting + r.delayed + r.active
        for r in rows
    )


def until(done: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """Return the first true answer of ``done``."""
    end = time.monotonic() + timeout_s
    while not (answer := done()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.005)
    return answer


@dataclass
class Report:
    """A typed payload."""

    event_id: int
    title: str = "untitled"


class StoreTests:
    """Base of the parts: ``make`` builds managers on one empty store, ``queues`` is one of them."""

    @pytest.fixture
    def make(self) -> Iterator[Make]:
        raise NotImplementedError("a fixture that builds managers on one store")

    @pytest.fixture
    def whole_store(self, make: Make) -> None:
        """Leave a test out whose promise a backend in several partitions keeps in each of them."""
        with make() as manager:
            if "whole" not in manager.backend.capabilities:
                pytest.skip("what it promises holds in each of its partitions")

    @pytest.fixture
    def queues(self, make: Make) -> Iterator[QueueManager]:
        with make() as manager:
            yield manager


def run_until(
    queues: QueueManager, done: Callable[[], Any], *, lease: float = 5.0, grace: float = 5.0
) -> None:
    """Run a worker in a thread until ``done``."""
    worker = queues.worker(concurrency=4, lease=lease, grace=grace)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        until(done, 60)
    finally:
        worker.stop()
        thread.join(20)
    assert not thread.is_alive()


def has(make: Make, capability: str, ask: Callable[[QueueManager], object]) -> bool:
    """Tell whether the backend declares ``capability``; where it does not, asking for it must be refused."""
    with make() as queues:
        if capability in queues.backend.capabilities:
            return True
        with pytest.raises(Unsupported, match=capability):
            ask(queues)
    return False


def needs(make: Make, capability: str, ask: Callable[[QueueManager], object]) -> None:
    """Leave the test out where ``capability`` is not declared and ``ask`` is refused, as it must be."""
    if not has(make, capability, ask):
        pytest.skip("asking for it is refused, as it must")
