"""Telling people once: an alert when something begins, a notice when it is over, silence in between."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from eventperf._core.logs import logger
from eventperf._core.texts import one_line
from eventperf.scaling.model import Alert
from eventperf.scaling.protocols import AlertSink

_RELAPSE_S, _CALM_S = 3600.0, 600.0

_log = logger("eventperf.scaling")


class LogAlerts:
    """Tells alerts to a logger: a warning when something begins, a notice when it is over.

    >>> LogAlerts("ops.scaling")
    LogAlerts('ops.scaling')
    """

    def __init__(self, logger: str = "eventperf.scaling.alerts") -> None:
        self._logger = logging.getLogger(logger)

    def __call__(self, alert: Alert, /) -> None:
        self._logger.log(logging.INFO if alert.recovered else logging.WARNING, "%s", one_line(str(alert)))

    def __repr__(self) -> str:
        return f"LogAlerts({self._logger.name!r})"


class Episodes:
    """Which conditions are open for one target; only their beginnings and ends are told.

    One that comes and goes is one episode: the first end is told at once; after a relapse within an hour the
    end is told only when the condition has been away for ten minutes.
    """

    def __init__(self, target: str, sinks: Sequence[AlertSink]) -> None:
        self._target = target
        self._sinks = tuple(sinks)
        self.open: dict[str, str] = {}
        self._gone: dict[str, float] = {}  # open, but away since then
        self._ended: dict[str, float] = {}  # told as over, then
        self._relapsed: set[str] = set()

    def update(self, conditions: Mapping[str, str], at: float) -> list[Alert]:
        """Take what holds now and tell what changed since the last call."""
        if not conditions and not self.open:
            return []  # a quiet tick of a quiet target, nearly all of them
        told = []
        for kind, text in conditions.items():
            self._gone.pop(kind, None)
            if kind not in self.open:
                told.append(Alert(kind=kind, target=self._target, text=text, at=at))
                if at - self._ended.pop(kind, -math.inf) < _RELAPSE_S:
                    self._relapsed.add(kind)
            self.open[kind] = text
        for kind in [k for k in self.open if k not in conditions]:
            since = self._gone.setdefault(kind, at)
            if kind in self._relapsed and at - since < _CALM_S:
                continue
            told.append(
                Alert(kind=kind, target=self._target, text=self.open.pop(kind), at=at, recovered=True)
            )
            del self._gone[kind]
            self._relapsed.discard(kind)
            self._ended[kind] = at
        for alert in told:
            self._tell(alert)
        return told

    def _tell(self, alert: Alert) -> None:
        _log.log(logging.INFO if alert.recovered else logging.WARNING, "%s", alert)
        for sink in self._sinks:
            courier_of(sink).carry(alert)


_PATIENCE_S = 0.1
_IDLE_S = 1.0
_WAITING = 1000


class Courier:
    """Calls one sink, in order, on a thread of its own; a tick never waits for a sink that is slow.

    Whoever brings an alert waits for the call to return, so that a quick sink has been told when the tick
    ends; but for at most 0.1 s in any second, all who bring something together. After that alerts queue up
    (at most 1,000; further ones are dropped, and counted in the log). The thread ends when it has nothing to
    do for a second.
    """

    def __init__(self, sink: AlertSink) -> None:
        self._sink = sink
        self._mu = threading.Condition()
        self._waiting: deque[tuple[Alert, threading.Event]] = deque()
        self._thread: threading.Thread | None = None
        self._patience_s, self._patience_at = _PATIENCE_S, time.monotonic()
        self.dropped: int = 0

    def carry(self, alert: Alert) -> None:
        """Have the sink told of ``alert``."""
        told = threading.Event()
        with self._mu:
            if len(self._waiting) >= _WAITING:
                self.dropped += 1
                if self.dropped in (1, 10, 100) or self.dropped % 1000 == 0:
                    _log.error("alert sink %s is stuck: %d alerts dropped", _name(self._sink), self.dropped)
                return
            self._waiting.append((alert, told))
            self._mu.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="eventperf-alerts", daemon=True)
                self._thread.start()
        began = time.monotonic()
        earned = (began - self._patience_at) * _PATIENCE_S
        patience_s = min(_PATIENCE_S, self._patience_s + earned)
        if patience_s > 0:
            told.wait(patience_s)
        self._patience_at = time.monotonic()
        self._patience_s = max(0.0, patience_s - (self._patience_at - began))

    def _work(self) -> None:
        while True:
            with self._mu:
                if not self._waiting and not self._mu.wait(_IDLE_S) and not self._waiting:
                    self._thread = None
                    _forget(self._sink)
                    return
                if not self._waiting:
                    continue
                alert, told = self._waiting.popleft()
            try:
                self._sink(alert)
            except Exception:
                _log.exception("alert sink %s failed on %s", _name(self._sink), alert.kind)
            finally:
                told.set()


_couriers: dict[Any, Courier] = {}
_couriers_mu = threading.Lock()


def courier_of(sink: AlertSink) -> Courier:
    """Return the courier of ``sink``, one for all scalers of the process."""
    with _couriers_mu:
        return _couriers.setdefault(_key(sink), Courier(sink))


def _forget(sink: AlertSink) -> None:
    """Let an idle courier go; a scaler that has just fetched it may still use it."""
    with _couriers_mu:
        _couriers.pop(_key(sink), None)


def _key(sink: AlertSink) -> Any:
    """Identify a sink: a bound method is a new object each time it is looked up."""
    owner = getattr(sink, "__self__", None)
    return id(sink) if owner is None else (id(owner), getattr(sink, "__name__", ""))


def _name(sink: AlertSink) -> str:
    """Name a sink without its attributes, which may hold secrets."""
    return getattr(sink, "__qualname__", None) or type(sink).__qualname__


def _after_fork() -> None:
    global _couriers_mu
    _couriers.clear()
    _couriers_mu = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
