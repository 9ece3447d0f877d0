"""How generators of decisions and the outside world meet, once for threads and once for tasks.

A slow path is written once, as a generator that yields what it wants done (an effect) and is sent the
outcome. :func:`run` does effects by blocking, :func:`arun` by awaiting; each effect knows both. The typed
helpers (:func:`ask`, :func:`load`, :func:`wait`, :func:`may_wait`) are what steps call with ``yield from``:
they yield one effect and return its outcome with the right type. Hits never come here.
"""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, Protocol, TypeVar, cast

from typing_extensions import ParamSpec

from eventperf._core.flights import Flight, Flights
from eventperf.cache.errors import NotCacheable
from eventperf.cache.following import Listening, Said
from eventperf.cache.values.single_use import COROUTINE

P = ParamSpec("P")
T = TypeVar("T")


class Effect(Protocol):
    """Something to be done outside: by blocking, or by awaiting."""

    def perform(self) -> Any:
        """Do it, blocking."""
        ...

    async def aperform(self) -> Any:
        """Do it, awaiting."""
        ...


Steps = Generator[Effect, Any, T]


class Verb(Generic[P, T]):
    """Something that can be asked for in two forms: ``plain`` by threads, ``task`` by tasks."""

    __slots__ = ("plain", "task")

    def __init__(self, plain: Callable[P, T], task: Callable[P, Awaitable[T]]) -> None:
        self.plain: Callable[P, T] = plain
        self.task: Callable[P, Awaitable[T]] = task


class Ask(Generic[P, T]):
    """A verb of the second tier."""

    __slots__ = ("_args", "_options", "_verb")

    def __init__(self, verb: Verb[P, T], *args: P.args, **options: P.kwargs) -> None:
        self._verb, self._args, self._options = verb, args, options

    def perform(self) -> T:
        return self._verb.plain(*self._args, **self._options)

    async def aperform(self) -> T:
        return await self._verb.task(*self._args, **self._options)


class Load:
    """The host's loader, on behalf of ``flights`` (so that its own reads of these keys do not wait)."""

    __slots__ = ("_flights", "_loader", "_said", "_table")

    def __init__(
        self, table: Flights, loader: Callable[[], Any], flights: tuple[Flight, ...], said: Said
    ) -> None:
        self._table, self._loader, self._flights, self._said = table, loader, flights, said

    def perform(self) -> Any:
        with self._table.leading(*self._flights), Listening(self._said):
            value = self._loader()
        if inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()
            key = str(self._flights[0].key) if self._flights else "the loader's result"
            raise NotCacheable(type(value).__name__, key, COROUTINE)
        return value

    async def aperform(self) -> Any:
        with self._table.leading(*self._flights), Listening(self._said):
            value = self._loader()
            return await value if inspect.isawaitable(value) else value


class Wait:
    """Until ``flight`` lands, or the time is up; tells which."""

    __slots__ = ("_flight", "_table", "_timeout_s")

    def __init__(self, table: Flights, flight: Flight, timeout_s: float | None) -> None:
        self._table, self._flight, self._timeout_s = table, flight, timeout_s

    def perform(self) -> bool:
        return self._table.wait(self._flight, self._timeout_s)

    async def aperform(self) -> bool:
        return await self._table.await_(self._flight, self._timeout_s)


class MayWait:
    """Ask whether waiting for ``flight`` here can end."""

    __slots__ = ("_flight", "_table")

    def __init__(self, table: Flights, flight: Flight) -> None:
        self._table, self._flight = table, flight

    def perform(self) -> bool:
        return self._table.may_wait(self._flight, blocking=True)

    async def aperform(self) -> bool:
        return self._table.may_wait(self._flight, blocking=False)


# -- what steps say --------------------------------------------------------------------------------------


def ask(verb: Verb[P, T], *args: P.args, **options: P.kwargs) -> Steps[T]:
    """Do a verb of the second tier and return its answer."""
    return cast("T", (yield Ask(verb, *args, **options)))


def load(
    table: Flights, loader: Callable[[], Any], flights: tuple[Flight, ...], said: Said | None = None
) -> Steps[Any]:
    """Call the host's loader and return what it makes; ``said`` gains the tags that it says meanwhile."""
    said = Said() if said is None else said
    for flight in flights:
        flight.said = said.tags
    return (yield Load(table, loader, flights, said))


def wait(table: Flights, flight: Flight, timeout_s: float | None) -> Steps[bool]:
    """Park until ``flight`` lands; false when the time was up first."""
    return cast("bool", (yield Wait(table, flight, timeout_s)))


def may_wait(table: Flights, flight: Flight) -> Steps[bool]:
    """Tell whether waiting for ``flight`` here can end."""
    return cast("bool", (yield MayWait(table, flight)))


# -- who does it -----------------------------------------------------------------------------------------


def run(steps: Steps[T]) -> T:
    """Drive ``steps``, blocking."""
    send: Callable[[Any], Effect] = steps.send
    outcome: Any = None
    while True:
        try:
            effect = send(outcome)
        except StopIteration as done:
            return cast("T", done.value)
        except RuntimeError as error:
            if isinstance(outcome, StopIteration) and error.__cause__ is outcome:
                raise outcome from None  # the loader's own: generators cannot let it through
            raise
        try:
            outcome = effect.perform()
            send = steps.send
        except BaseException as error:
            send, outcome = steps.throw, error


async def arun(steps: Steps[T]) -> T:
    """Drive ``steps``, awaiting."""
    send: Callable[[Any], Effect] = steps.send
    outcome: Any = None
    while True:
        try:
            effect = send(outcome)
        except StopIteration as done:
            return cast("T", done.value)
        try:
            outcome = await effect.aperform()
            send = steps.send
        except BaseException as error:
            send, outcome = steps.throw, error
