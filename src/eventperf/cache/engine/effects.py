"""How generators of decisions and the outside world meet, once for threads and once for tasks.

A slow path is written once, as a generator that yields what it wants done (an effect) and is sent the
outcome. :func:`run` does effects by blocking, :func:`arun` by awaiting. Hits never come here.
"""

from __future__ import annotations

import contextvars
import inspect
import threading
from collections.abc import Callable, Generator
from typing import Any, NamedTuple, TypeVar

from eventperf._core.flights import Flight, Flights
from eventperf.cache.errors import NotCacheable
from eventperf.cache.surroundings import apart
from eventperf.cache.values.single_use import COROUTINE

from .state import Core

T = TypeVar("T")


class Call(NamedTuple):
    """A verb of the second tier."""

    name: str
    args: tuple[Any, ...]
    options: dict[str, Any]


class Load(NamedTuple):
    """The host's loader, on behalf of ``flights`` (so that its own reads of these keys do not wait)."""

    loader: Callable[[], Any]
    flights: tuple[Flight, ...]


class Wait(NamedTuple):
    """Until ``flight`` lands, or the time is up."""

    table: Flights
    flight: Flight
    timeout_s: float | None


class Spawn(NamedTuple):
    """Go on with other steps in the background."""

    steps: Generator[Any, Any, Any]
    flight: Flight


class MayWait(NamedTuple):
    """Ask whether waiting for ``flight`` here can end."""

    flight: Flight


Steps = Generator[Any, Any, T]


def call(name: str, *args: Any, **options: Any) -> Call:
    """Return the effect that runs a verb of the second tier."""
    return Call(name, args, options)


def run(core: Core, steps: Steps[T]) -> T:
    """Drive ``steps``, blocking."""
    send, outcome = steps.send, None
    while True:
        try:
            effect = send(outcome)
        except StopIteration as done:
            result: T = done.value
            return result
        try:
            outcome = _perform(core, effect)
            send = steps.send
        except BaseException as error:
            send, outcome = steps.throw, error


def _perform(core: Core, effect: Any) -> Any:
    kind = type(effect)
    if kind is Call:
        return core.call(effect.name, *effect.args, **effect.options)
    if kind is Load:
        with core.flights.leading(*effect.flights):
            value = effect.loader()
        if inspect.isawaitable(value):
            if inspect.iscoroutine(value):
                value.close()
            key = str(effect.flights[0].key) if effect.flights else "the loader's result"
            raise NotCacheable(type(value).__name__, key, COROUTINE)
        return value
    if kind is Wait:
        return effect.table.wait(effect.flight, effect.timeout_s)
    if kind is MayWait:
        return core.flights.may_wait(effect.flight, blocking=True)
    return _spawn_thread(core, effect)


def _spawn_thread(core: Core, effect: Spawn) -> None:
    def go() -> None:
        core.flights.moved(effect.flight)
        try:
            run(core, effect.steps)
        except Exception:
            return  # landed with the flight: whoever waits for it is told

    try:
        threading.Thread(target=apart(go), name="eventperf-cache-load", daemon=True).start()
    except RuntimeError:
        go()  # no new threads at interpreter shutdown


async def arun(core: Core, steps: Steps[T]) -> T:
    """Drive ``steps``, awaiting."""
    send, outcome = steps.send, None
    while True:
        try:
            effect = send(outcome)
        except StopIteration as done:
            result: T = done.value
            return result
        try:
            outcome = await _aperform(core, effect)
            send = steps.send
        except BaseException as error:
            send, outcome = steps.throw, error


async def _aperform(core: Core, effect: Any) -> Any:
    kind = type(effect)
    if kind is Call:
        return await core.acall(effect.name, *effect.args, **effect.options)
    if kind is Load:
        with core.flights.leading(*effect.flights):
            value = effect.loader()
            return await value if inspect.isawaitable(value) else value
    if kind is Wait:
        return await effect.table.await_(effect.flight, effect.timeout_s)
    if kind is MayWait:
        return core.flights.may_wait(effect.flight, blocking=False)
    return _spawn_task(core, effect)


_background: set[Any] = set()


def _spawn_task(core: Core, effect: Spawn) -> None:
    import asyncio

    async def go() -> None:
        try:
            await arun(core, effect.steps)
        except Exception:
            return  # landed with the flight: whoever waits for it is told

    task = contextvars.Context().run(asyncio.get_running_loop().create_task, go())
    _background.add(task)  # a loop keeps only weak references
    task.add_done_callback(_background.discard)
