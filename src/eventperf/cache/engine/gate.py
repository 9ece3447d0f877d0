"""The one door to the second tier: verbs in both forms, counted, behind the circuit breaker.

Silence opens the breaker. A refusal (no right, read-only, full, a command the server does not know) is an
answer: it degrades the one ability, is said once, and keeps nobody else from the store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from typing_extensions import ParamSpec

from eventperf._core.events import Hooks
from eventperf._core.logs import logger
from eventperf.cache.errors import StoreUnavailable
from eventperf.cache.protocols import CacheStore
from eventperf.cache.stats import BreakerChanged, Counts, StoreTrouble

from .breaker import Breaker
from .effects import Verb

P = ParamSpec("P")
T = TypeVar("T")

_log = logger("eventperf.cache")


class Gate:
    """Guards every verb of one second tier.

    Args:
        store: What it guards.
        breaker: Shared with the other caches on its server.
        owed: Says to the store what could not be said while it was silent.
        counts: Where failed commands are counted.
        hooks: Who is told of them.
    """

    def __init__(
        self, store: CacheStore, breaker: Breaker, owed: Callable[[], None], counts: Counts, hooks: Hooks
    ) -> None:
        self.url: str = store.url
        self.breaker: Breaker = breaker
        self.probe: Callable[[], None] = store.ping
        self.caught_up: Callable[[], None] = owed
        self._counts, self._hooks = counts, hooks
        self._has_plain: set[str] = set()

    def verb(self, what: str, plain: Callable[P, T], task: Callable[P, Awaitable[T]]) -> Verb[P, T]:
        """Return ``what`` the store can do, guarded."""
        breaker, trouble = self.breaker, self.trouble

        def guarded(*args: P.args, **options: P.kwargs) -> T:
            if breaker.is_open:
                raise self._is_open()
            try:
                return plain(*args, **options)
            except StoreUnavailable as error:
                trouble(what, error)
                raise

        async def aguarded(*args: P.args, **options: P.kwargs) -> T:
            if breaker.is_open:
                raise self._is_open()
            try:
                return await task(*args, **options)
            except StoreUnavailable as error:
                trouble(what, error)
                raise

        return Verb(guarded, aguarded)

    def ability(self, what: str, own: Verb[P, T], plain: Verb[P, T], loss: str) -> Verb[P, T]:
        """Return ``own`` until the store says that it will never do it, then the ``plain`` way.

        Args:
            what: The ability's name, for the log.
            own: As the store does it.
            plain: As it can be done with the methods that every store has.
            loss: What the plain way does not give.
        """
        chosen, breaker = [own], self.breaker
        self._has_plain.add(what)

        def instead(error: StoreUnavailable) -> Verb[P, T]:
            if not error.permanent or chosen[0] is plain:
                raise error
            chosen[0] = plain
            if breaker.is_news(f"{what} at all", error.reason):
                _log.warning(
                    "cache at %s: %s is refused (%s); from now on %s", self.url, what, error.reason, loss
                )
            return plain

        def choose(*args: P.args, **options: P.kwargs) -> T:
            try:
                return chosen[0].plain(*args, **options)
            except StoreUnavailable as error:
                return instead(error).plain(*args, **options)

        async def achoose(*args: P.args, **options: P.kwargs) -> T:
            try:
                return await chosen[0].task(*args, **options)
            except StoreUnavailable as error:
                other = instead(error)
            return await other.task(*args, **options)

        return Verb(choose, achoose)

    def trouble(self, what: str, error: StoreUnavailable) -> None:
        """Count a failed command; silence opens the breaker, a refusal is said once."""
        self._counts.store_errors += 1
        if error.silent:
            self.breaker.trip(error.reason)
        elif error.permanent and what in self._has_plain:
            pass  # said by whoever takes the plain way
        elif self.breaker.is_news(what, error.reason):
            _log.warning("cache at %s refuses %s: %s", self.url, what, error.reason)
        if self._hooks.active:
            self._hooks.emit(StoreTrouble(error))

    def _is_open(self) -> StoreUnavailable:
        return StoreUnavailable(self.url, "circuit breaker is open", True)

    def changed(self, state: str) -> None:
        """The breaker opened or closed."""
        if self._hooks.active:
            self._hooks.emit(BreakerChanged(state))
