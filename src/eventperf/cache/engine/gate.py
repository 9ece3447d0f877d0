"""The one door to the second tier: verbs in both forms, counted, behind the circuit breaker.

Silence opens the breaker. A refusal (no right, read-only, full, a command the server does not know) is an
answer: it degrades the one ability, is said once, and keeps nobody else from the store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from typing_extensions import ParamSpec

from eventperf._core.events import Hooks
from eventperf._core.logs import logger
from eventperf.cache.errors import StoreUnavailable
from eventperf.cache.stats import BreakerChanged, Counts, StoreTrouble

from .breaker import Breaker
from .effects import Verb

P = ParamSpec("P")
T = TypeVar("T")

_log = logger("eventperf.cache")
_SAID_MOST: Final = 64


class Gate:
    """Guards every verb of one second tier."""

    def __init__(self, url: str, breaker: Breaker, counts: Counts, hooks: Hooks) -> None:
        self.url: str = url
        self.breaker: Breaker = breaker
        self._counts, self._hooks = counts, hooks
        self._said: set[tuple[str, str]] = set()
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
        chosen = [own]
        self._has_plain.add(what)

        def instead(error: StoreUnavailable) -> Verb[P, T]:
            if not error.permanent or chosen[0] is plain:
                raise error
            chosen[0] = plain
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
        elif not (error.permanent and what in self._has_plain):
            kind = (what, error.reason.split(":", 1)[0][:40])
            if kind not in self._said and len(self._said) < _SAID_MOST:
                self._said.add(kind)
                _log.warning("cache at %s refuses %s: %s", self.url, what, error.reason)
        if self._hooks.active:
            self._hooks.emit(StoreTrouble(error))

    def _is_open(self) -> StoreUnavailable:
        return StoreUnavailable(self.url, "circuit breaker is open", True)

    def changed(self, state: str, reason: str) -> None:
        """Say that the breaker opened or closed."""
        if state == "open":
            _log.warning(
                "cache at %s does not answer (%s): loads go on without it until it does", self.url, reason
            )
        else:
            _log.info("cache at %s answers again", self.url)
        if self._hooks.active:
            self._hooks.emit(BreakerChanged(state))
