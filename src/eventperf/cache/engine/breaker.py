"""A circuit breaker: after the first silence nobody waits for the server again until it has answered."""

from __future__ import annotations

import threading
import weakref
from typing import Any, Final, Protocol

from eventperf._core.logs import logger
from eventperf.cache.errors import StoreUnavailable

_log = logger("eventperf.cache")
_SAID_MOST: Final = 64


class Watcher(Protocol):
    """A cache that goes on without the server while its breaker is open."""

    def probe(self) -> None:
        """Ask the server for a sign of life."""

    def caught_up(self) -> None:
        """Say to a server that answers again what could not be said."""

    def changed(self, state: str) -> None:
        """The breaker opened or closed."""


class Breaker:
    """Opens on the first command that gets no answer; a probe of its own closes it.

    Callers never probe: while it is open they are refused at once. A daemon thread asks the server every
    ``every_s`` until it answers, lets every watcher say what it could not, then closes. The caches on one
    server share one, so that one of them finds out for all and it is told once.
    """

    is_open: bool

    def __init__(self, url: str, *, every_s: float = 0.2) -> None:
        self._url = url
        self._every_s = every_s
        self._watchers: weakref.WeakSet[Any] = weakref.WeakSet()
        self._said: set[tuple[str, str]] = set()
        self.after_fork()

    def after_fork(self) -> None:
        """Forget the parent's probe."""
        self._mu = threading.RLock()
        self._left = threading.Event()
        self.is_open = False

    def join(self, watcher: Watcher) -> None:
        """Tell ``watcher`` too, for as long as it lives or until it leaves."""
        with self._mu:
            self._watchers.add(watcher)
            self._left.clear()

    def leave(self, watcher: Watcher) -> None:
        """Tell it no more; the probe ends with the last one."""
        with self._mu:
            self._watchers.discard(watcher)
            if not self._watchers:
                self._left.set()

    def _alive(self) -> list[Any]:
        with self._mu:
            return list(self._watchers)

    def trip(self, reason: str = "") -> None:
        """Refuse callers from now on, and start asking for a sign of life."""
        with self._mu:
            if self.is_open or not self._watchers:
                return
            self.is_open = True
        _log.warning(
            "cache at %s does not answer (%s): loads go on without it until it does", self._url, reason
        )
        for watcher in self._alive():
            watcher.changed("open")
        try:
            threading.Thread(target=self._ask, name="eventperf-cache-probe", daemon=True).start()
        except RuntimeError:
            self.is_open = False  # the interpreter is shutting down

    def _ask(self) -> None:
        while not self._left.wait(self._every_s):
            watchers = self._alive()
            if not watchers:
                break
            if not self._answers(watchers):
                continue
            with self._mu:
                self.is_open = False
            _log.info("cache at %s answers again", self._url)
            for watcher in watchers:
                watcher.changed("closed")
            return
        with self._mu:
            self.is_open = False

    @staticmethod
    def _answers(watchers: list[Any]) -> bool:
        """Tell whether the server answers, and has been told what it missed; a refusal is an answer."""
        for n, watcher in enumerate(watchers):
            try:
                if n == 0:
                    watcher.probe()
                watcher.caught_up()
            except StoreUnavailable as error:
                if error.silent:
                    return False
        return True

    def is_news(self, what: str, reason: str) -> bool:
        """Tell whether this refusal has not been told yet, by any cache on this server."""
        kind = (what, reason.split(":", 1)[0][:40])
        with self._mu:
            if kind in self._said or len(self._said) >= _SAID_MOST:
                return False
            self._said.add(kind)
            return True
