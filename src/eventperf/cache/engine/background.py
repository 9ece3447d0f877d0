"""Steps that go on after their caller: a bounded number of threads and tasks at once."""

from __future__ import annotations

import threading
from contextvars import Context
from typing import Any, Final

from eventperf._core.flights import ERROR, OPEN, Flight, Flights
from eventperf.cache.surroundings import apart

from .effects import Steps, arun, run

MOST_THREADS: Final = 32
MOST_TASKS: Final = 256


class Background:
    """Runs the loads of one cache that nobody, or nobody for certain, waits for.

    Args:
        flights: The table of the loads.
        most_threads: Loads in threads at once.
        most_tasks: Loads in tasks at once.
    """

    def __init__(
        self, flights: Flights, *, most_threads: int = MOST_THREADS, most_tasks: int = MOST_TASKS
    ) -> None:
        self._flights = flights
        self._most_threads, self._most_tasks = most_threads, most_tasks
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's threads."""
        self._threads = threading.Semaphore(self._most_threads)
        self._tasks: set[Any] = set()

    def reserve(self, timeout_s: float = 0.0) -> bool:
        """Take a place among the threads, waiting at most so long for one."""
        if timeout_s > 0:
            return self._threads.acquire(timeout=timeout_s)
        return self._threads.acquire(blocking=False)

    def start_thread(self, steps: Steps[Any], flight: Flight) -> None:
        """Go on with ``steps`` in a thread whose place was reserved."""

        def go() -> None:
            self._flights.moved(flight)
            try:
                run(steps)
            except Exception as error:  # landed with the flight: whoever waits for it is told
                self._fell(flight, error)
            finally:
                self._threads.release()

        try:
            threading.Thread(target=apart(go), name="eventperf-cache-load", daemon=True).start()
        except RuntimeError:
            go()  # no new threads at interpreter shutdown

    def start_task(self, steps: Steps[Any], flight: Flight, must: bool) -> bool:
        """Go on with ``steps`` in a task; false when there are too many and it need not be."""
        import asyncio

        if len(self._tasks) >= self._most_tasks and not must:
            return False

        async def go() -> None:
            try:
                await arun(steps)
            except Exception as error:  # landed with the flight: whoever waits for it is told
                self._fell(flight, error)

        task = Context().run(asyncio.get_running_loop().create_task, go())
        self._tasks.add(task)  # a loop keeps only weak references
        task.add_done_callback(self._tasks.discard)
        return True

    def _fell(self, flight: Flight, error: Exception) -> None:
        """End a flight whose steps never began."""
        if flight.state == OPEN:
            self._flights.land(flight, ERROR, error)


class Spawn:
    """Go on with ``steps`` in the background; tells whether there was a place for them.

    ``patience_s`` is how long a caller who needs the outcome waits for a place among the threads; 0 is for
    what can be done another time.
    """

    __slots__ = ("_background", "_flight", "_patience_s", "_steps")

    def __init__(
        self, background: Background, steps: Steps[Any], flight: Flight, patience_s: float = 0.0
    ) -> None:
        self._background, self._steps, self._flight = background, steps, flight
        self._patience_s = patience_s

    def perform(self) -> bool:
        if not self._background.reserve(self._patience_s):
            self._steps.close()
            return False
        self._background.start_thread(self._steps, self._flight)
        return True

    async def aperform(self) -> bool:
        started = self._background.start_task(self._steps, self._flight, self._patience_s > 0)
        if not started:
            self._steps.close()
        return started


def spawn(background: Background, steps: Steps[Any], flight: Flight, patience_s: float = 0.0) -> Steps[bool]:
    """Go on with ``steps`` in the background; false when there was no place for them."""
    return bool((yield Spawn(background, steps, flight, patience_s)))
