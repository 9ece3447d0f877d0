"""Typed events to hooks: what happened, told to whoever asked, never in the way of the host."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from .logs import logger

_log = logger("eventperf.events")

E = TypeVar("E")


class EventSink(Protocol):
    """Something that takes events of any room: logging, Prometheus, OpenTelemetry, a test's list.

    Called on the thread where the event happened, so it must be quick and safe for threads.
    """

    def __call__(self, event: Any, /) -> None:
        """Take one event; what it raises is logged and dropped."""
        ...


class Hooks:
    """Subscriptions of one manager.

    Events are small frozen dataclasses of the room. Emitting costs one attribute check when nobody
    listens: callers on a hot path test ``hooks.active`` before they build the event.

    >>> hooks, seen = Hooks(), []
    >>> stop = hooks.subscribe(seen.append, str)
    >>> hooks.emit("told"); hooks.emit(7); stop(); hooks.emit("silence")
    >>> seen
    ['told']
    """

    __slots__ = ("_listeners", "active")

    def __init__(self) -> None:
        self._listeners: tuple[tuple[Callable[[Any], object], tuple[type, ...]], ...] = ()
        self.active: bool = False

    def subscribe(self, fn: Callable[[E], object], *types: type[E]) -> Callable[[], None]:
        """Call ``fn`` with every event of ``types`` (all events when none is named).

        Returns:
            A function that ends the subscription; calling it again does nothing.
        """
        entry: tuple[Callable[[Any], object], tuple[type, ...]] = (fn, types)
        self._listeners = (*self._listeners, entry)
        self.active = True

        def stop() -> None:
            self._listeners = tuple(e for e in self._listeners if e is not entry)
            self.active = bool(self._listeners)

        return stop

    def emit(self, event: object) -> None:
        """Hand ``event`` to its listeners, in the order they subscribed."""
        for fn, types in self._listeners:
            if not types or isinstance(event, types):
                try:
                    fn(event)
                except KeyboardInterrupt:  # the user's own, wherever it strikes
                    raise
                except BaseException:  # SystemExit and the like too: a listener is not who ends the host
                    _log.exception("hook %r failed on %s", fn, type(event).__name__)
