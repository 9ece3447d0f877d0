"""Handlers in threads that outlive their worker: their jobs are kept from others until they have ended."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any

from eventperf._core.logs import logger
from eventperf.queues.errors import QueueError
from eventperf.queues.protocols import JobStore, Outcome

from .heartbeat import Heartbeat

_log = logger("eventperf.queues")


class Leftovers:
    """Goes on renewing leases after a stop, for threads that nobody can stop.

    A job is handed back when its thread has ended, or when the process does (and its threads with it).
    """

    def __init__(self, store: JobStore, heart: Heartbeat, worker: str) -> None:
        self._store = store
        self._heart = heart
        self._worker = worker
        self._mu = threading.Lock()
        self._left: dict[Future[Any], Outcome] = {}

    def keep(self, left: Mapping[Future[Any], Outcome]) -> None:
        """Keep the leases of these threads' jobs until each has ended."""
        self._left = dict(left)
        _log.warning(
            "worker %s stops beside handlers that run on in threads; these jobs go back once they or this "
            "process have ended: %s",
            self._worker,
            ", ".join(outcome.job_id for outcome in left.values()),
        )
        atexit.register(self._at_exit)
        for future in left:
            future.add_done_callback(self._over)

    def _over(self, future: Future[Any]) -> None:
        with self._mu:
            outcome = self._left.pop(future, None)
            is_last = outcome is not None and not self._left
        if outcome is not None:
            self._report([outcome])
        if is_last:
            atexit.unregister(self._at_exit)
            self._close()

    def _at_exit(self) -> None:
        with self._mu:
            outcomes, self._left = list(self._left.values()), {}
        if outcomes:
            self._report(outcomes)
            self._close()

    def _report(self, outcomes: list[Outcome]) -> None:
        try:
            self._store.finish(outcomes)
        except QueueError as error:
            _log.warning("worker %s could not hand back %d jobs: %s", self._worker, len(outcomes), error)

    def _close(self) -> None:
        self._heart.close()  # before: it would renew for a worker that has left
        try:
            self._store.leave(self._worker)
        except QueueError as error:
            _log.debug("worker %s could not sign off: %s", self._worker, error)
        self._store.close()
