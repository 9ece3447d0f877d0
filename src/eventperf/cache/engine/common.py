"""What the caches of this process that use one server have in common: its breaker, and the threads for it."""

from __future__ import annotations

import threading
import weakref
from typing import Any

from eventperf.cache.protocols import CacheStore, SharesServer

from .breaker import Breaker
from .keeper import Keeper
from .replay import Again
from .server_clock import ServerClock


class Common:
    """One for all caches whose stores say that they share a server; else each has its own."""

    def __init__(self, url: str) -> None:
        self.breaker: Breaker = Breaker(url)
        self.keeper: Keeper = Keeper()
        self.again: Again = Again()
        self.clock: ServerClock = ServerClock(url)

    def after_fork(self) -> None:
        """Forget the parent's threads."""
        for part in (self.breaker, self.keeper, self.again):
            part.after_fork()


_mu = threading.RLock()
_commons: weakref.WeakKeyDictionary[Any, Common] = weakref.WeakKeyDictionary()


def common_of(store: CacheStore) -> Common:
    """Return what the caches on the server of ``store`` have in common."""
    if not isinstance(store, SharesServer):
        return Common(store.url)
    with _mu:
        found = _commons.get(store.server)
        if found is None:
            found = _commons[store.server] = Common(store.url)
        return found


def after_fork() -> None:
    """Make a lock that no thread of the parent holds."""
    global _mu
    _mu = threading.RLock()
