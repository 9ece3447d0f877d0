"""Handlers that outlive their worker: their jobs are kept from others until they have ended."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

from eventperf._core.logs import logger
from eventperf.queues.errors import QueueError
from eventperf.queues.protocols import JobStore, Outcome

from .heartbeat import Heartbeat

_log = logger("eventperf.queues")

_BATCH = 500
_GONE_WITHIN_S = 1.0
_LEFT = "its worker's process ended while it ran"


class Leftovers:
    """Goes on renewing leases after a stop, for what nobody can stop: threads, coroutines that go on.

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
            "worker %s stops beside handlers that run on; these jobs go back once they or this "
            "process have ended: %s",
            self._worker,
            ", ".join(outcome.job_id for outcome in left.values()),
        )
        atexit.register(self.hand_back)
        for future in left:
            future.add_done_callback(self._over)

    def _over(self, future: Future[Any]) -> None:
        with self._mu:
            outcome = self._left.pop(future, None)
            is_last = outcome is not None and not self._left
        if outcome is not None:
            self._report([outcome])
        if is_last:
            atexit.unregister(self.hand_back)
            self._close()

    def hand_back(self) -> None:
        """Give back all that is left: the process ends, and with it what runs."""
        with self._mu:
            outcomes, self._left = list(self._left.values()), {}
        if outcomes:
            self._heart.close()
            report_last(self._store, self._worker, outcomes)

    def _report(self, outcomes: list[Outcome]) -> None:
        _finish(self._store, self._worker, outcomes)

    def _close(self) -> None:
        self._heart.close()  # before: it would renew for a worker that has left
        _leave(self._store, self._worker)
        self._store.close()


def report_last(store: JobStore, worker: str, outcomes: list[Outcome]) -> None:
    """Report what has ended and hand back the rest of a worker whose process ends now.

    Not to be started at once: until the process has gone, handlers go on in it.
    """
    told = [_soon(one) if one.kind == "release" else one for one in outcomes]
    for start in range(0, len(told), _BATCH):
        _finish(store, worker, told[start : start + _BATCH])
    _leave(store, worker)


def _soon(outcome: Outcome) -> Outcome:
    return replace(outcome, kind="retry", delay_s=_GONE_WITHIN_S, count=False, error=_LEFT)


def _finish(store: JobStore, worker: str, outcomes: list[Outcome]) -> None:
    try:
        store.finish(outcomes)
    except Exception as error:  # whatever it is: the others are to be handed back, too
        _log.warning("worker %s could not hand back %d jobs: %s", worker, len(outcomes), error)


def _leave(store: JobStore, worker: str) -> None:
    try:
        store.leave(worker)
    except QueueError as error:
        _log.debug("worker %s could not sign off: %s", worker, error)
