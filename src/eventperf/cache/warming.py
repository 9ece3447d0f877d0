"""Warm-up: the data sets a host wants ready before its doors open."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final, TypeVar

from eventperf._core.durations import Duration, show
from eventperf._core.errors import ConfigurationError

from .checks import check_call, check_count, check_life, check_list, check_span
from .engine.effects import Steps, arun, run
from .engine.fill import fill
from .engine.job import Batch
from .verbs.base import value_tags
from .verbs.load import LoadVerbs

T = TypeVar("T")

EVENT_PLATFORM: Final[Mapping[str, float]] = MappingProxyType(
    {
        "active_events": 300.0,
        "popular_event_types": 3600.0,
        "system_configuration": 1800.0,
        "user_permissions": 300.0,
    }
)
"""The data sets of an event platform with their TTLs in seconds; user permissions are keyed per user."""

LOADED, SHARED, FAILED, SKIPPED, MISSING = "loaded", "shared", "failed", "skipped", "missing_loader"


@dataclass(frozen=True, slots=True)
class WarmResult:
    """What became of one data set.

    Attributes:
        name: The data set.
        status: ``"loaded"`` here, ``"shared"`` (it was warm, or another process warmed it), ``"failed"``,
            ``"skipped"`` (something it comes after failed) or ``"missing_loader"``.
        seconds: How long it took.
        entries: How many keys the data set has; 0 where another process warmed a single key.
        error: Why it failed.
    """

    name: str
    status: str
    seconds: float = 0.0
    entries: int = 0
    error: BaseException | None = None


@dataclass(frozen=True, slots=True)
class WarmReport:
    """One line per data set; prints as a table.

    Attributes:
        results: In the order in which they ended.
        seconds: The whole warm-up.
    """

    results: tuple[WarmResult, ...] = field(default=())
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        """Whether every data set is warm."""
        return all(result.status in (LOADED, SHARED) for result in self.results)

    def __getitem__(self, name: str) -> WarmResult:
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(name)

    def __str__(self) -> str:
        lines = [
            f"{r.name:<24} {r.status:<15} {show(r.seconds):>8} {r.entries:>7}  {r.error or ''}".rstrip()
            for r in self.results
        ]
        return "\n".join([f"{'data set':<24} {'status':<15} {'time':>8} {'entries':>7}", *lines])


@dataclass(slots=True)
class _Warmer:
    name: str
    loader: Callable[[], Any]
    ttl_s: float | None
    after: tuple[str, ...]
    key: str
    tags: tuple[str, ...]


class Warmers:
    """The registered data sets of one manager."""

    def __init__(self, manager: LoadVerbs) -> None:
        self._manager = manager
        self._known: dict[str, _Warmer] = {}
        self._expected: set[str] = set()
        self._warm: set[str] = set()
        self._last: dict[str, str] = {}

    @property
    def is_ready(self) -> bool:
        return self._warm >= (self._expected | set(self._known))

    def readiness(self) -> dict[str, Any]:
        names = sorted(self._expected | set(self._known))
        states = {}
        for name in names:
            state = "not_warmed" if name in self._known else MISSING
            states[name] = self._last.get(name, state)
        return {"ready": self.is_ready, "data_sets": states}

    def expect(self, names: Sequence[str]) -> None:
        for name in names:
            _text("names", name)
        self._expected |= set(names or EVENT_PLATFORM)

    def register(
        self, name: str, ttl: Duration | None, after: Sequence[str], key: str | None, tags: Sequence[str]
    ) -> Callable[[Callable[[], T]], Callable[[], T]]:
        _text("name", name)
        if key is not None:
            _text("key", key)
        names = check_list(after, argument="after", of="names, such as ('system_configuration',)")
        for other in names:
            _text("after", other)
        kept = tuple(value_tags(tags))
        life = EVENT_PLATFORM.get(name) if ttl is None else check_life(ttl)
        if name == "user_permissions" and key is None:
            key = "*"

        def keep(loader: Callable[[], T]) -> Callable[[], T]:
            check_call(loader, argument="loader", allowed="a function without arguments")
            self._known[name] = _Warmer(name, loader, life, tuple(names), key or name, kept)
            return loader

        return keep

    def _chosen(self, names: Sequence[str]) -> tuple[dict[str, _Warmer], list[WarmResult]]:
        wanted = list(names or dict.fromkeys([*self._known, *sorted(self._expected)]))
        for name in names:
            if not isinstance(name, str):
                raise ConfigurationError("name", name, "a text")
            if name not in self._known and name not in EVENT_PLATFORM and name not in self._expected:
                allowed = sorted({*self._known, *self._expected, *EVENT_PLATFORM})
                raise ConfigurationError("name", name, allowed)
        chosen: dict[str, _Warmer] = {}
        missing = [WarmResult(name, MISSING) for name in wanted if name not in self._known]

        def add(name: str, path: tuple[str, ...]) -> None:
            if name in path:
                raise ConfigurationError("after", " -> ".join([*path, name]), "data sets without a circle")
            if name in chosen:
                return
            if name not in self._known:
                if all(m.name != name for m in missing):
                    missing.append(WarmResult(name, MISSING))
                return
            for other in self._known[name].after:
                add(other, (*path, name))
            chosen[name] = self._known[name]

        for name in wanted:
            add(name, ())
        return chosen, missing

    def warm(self, names: Sequence[str], concurrency: int, timeout: Duration | None) -> WarmReport:
        """Run the loaders in threads."""
        check_count(concurrency, argument="concurrency", low=1, high=10_000)
        chosen, results = self._chosen(names)
        started = time.monotonic()
        stop = None if timeout is None else started + check_span(timeout, argument="timeout")
        done = {r.name: r for r in results}
        waiting = dict(chosen)
        running: dict[Future[WarmResult], str] = {}
        pool = ThreadPoolExecutor(concurrency, "eventperf-warm")
        try:
            while waiting or running:
                for warmer in self._runnable(waiting, done):
                    running[pool.submit(self._one, warmer)] = warmer.name
                if not running:
                    continue
                left = None if stop is None else max(0.0, stop - time.monotonic())
                finished, _ = wait(running, left, FIRST_COMPLETED)
                if not finished:
                    self._out_of_time(done, [*running.values(), *waiting])
                    break
                for future in finished:
                    result = future.result()
                    done[running.pop(future)] = result
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
        return self._report(done, started)

    async def awarm(self, names: Sequence[str], concurrency: int, timeout: Duration | None) -> WarmReport:
        """Run the loaders as tasks; plain functions run in threads."""
        import asyncio

        check_count(concurrency, argument="concurrency", low=1, high=10_000)
        chosen, results = self._chosen(names)
        started = time.monotonic()
        stop = None if timeout is None else started + check_span(timeout, argument="timeout")
        done = {r.name: r for r in results}
        waiting = dict(chosen)
        room = asyncio.Semaphore(concurrency)
        running: dict[asyncio.Task[WarmResult], str] = {}

        async def one(warmer: _Warmer) -> WarmResult:
            async with room:
                if inspect.iscoroutinefunction(warmer.loader):
                    return await self._aone(warmer)
                return await asyncio.to_thread(self._one, warmer)

        try:
            while waiting or running:
                for warmer in self._runnable(waiting, done):
                    running[asyncio.create_task(one(warmer))] = warmer.name
                if not running:
                    continue
                left = None if stop is None else max(0.0, stop - time.monotonic())
                finished, _ = await asyncio.wait(running, timeout=left, return_when=asyncio.FIRST_COMPLETED)
                if not finished:
                    self._out_of_time(done, [*running.values(), *waiting])
                    break
                for task in finished:
                    done[running.pop(task)] = task.result()
        finally:
            for task in running:
                task.cancel()
        return self._report(done, started)

    @staticmethod
    def _runnable(waiting: dict[str, _Warmer], done: dict[str, WarmResult]) -> list[_Warmer]:
        out = []
        for name, warmer in list(waiting.items()):
            states = [done[other].status for other in warmer.after if other in done]
            if any(state not in (LOADED, SHARED) for state in states):
                del waiting[name]
                done[name] = WarmResult(name, SKIPPED)
            elif len(states) == len(warmer.after):
                del waiting[name]
                out.append(warmer)
        return out

    @staticmethod
    def _out_of_time(done: dict[str, WarmResult], names: list[str]) -> None:
        for name in names:
            done[name] = WarmResult(name, FAILED, error=TimeoutError("the warm-up's timeout went by"))

    def _report(self, done: dict[str, WarmResult], started: float) -> WarmReport:
        self._warm |= {name for name, r in done.items() if r.status in (LOADED, SHARED)}
        self._last.update((name, r.status) for name, r in done.items() if name not in self._warm)
        self._last.update((name, r.status) for name, r in done.items() if r.status in (LOADED, SHARED))
        return WarmReport(tuple(done.values()), time.monotonic() - started)

    def _one(self, warmer: _Warmer) -> WarmResult:
        started = time.monotonic()
        ran: list[int] = []

        def load() -> Any:
            value = warmer.loader()
            if inspect.iscoroutine(value):
                value.close()
                raise TypeError(f"the loader of {warmer.name!r} is a coroutine function: use awarm()")
            return value

        def load_one() -> Any:
            value = load()
            ran.append(1)
            return value

        def load_pairs() -> int:
            ran.append(run(self._fill(warmer, load)))
            return ran[0]

        try:
            key, loader = (_marker(warmer), load_pairs) if warmer.key == "*" else (warmer.key, load_one)
            value = self._manager.get_or_load(key, loader, ttl=warmer.ttl_s, tags=warmer.tags)
        except Exception as error:
            return WarmResult(warmer.name, FAILED, time.monotonic() - started, 0, error)
        return _result(warmer, started, ran, value)

    async def _aone(self, warmer: _Warmer) -> WarmResult:
        started = time.monotonic()
        ran: list[int] = []

        async def load_one() -> Any:
            value = await warmer.loader()
            ran.append(1)
            return value

        async def load_pairs() -> int:
            ran.append(await arun(self._fill(warmer, warmer.loader)))
            return ran[0]

        try:
            key, loader = (_marker(warmer), load_pairs) if warmer.key == "*" else (warmer.key, load_one)
            value = await self._manager.aget_or_load(key, loader, ttl=warmer.ttl_s, tags=warmer.tags)
        except Exception as error:
            return WarmResult(warmer.name, FAILED, time.monotonic() - started, 0, error)
        return _result(warmer, started, ran, value)

    def _fill(self, warmer: _Warmer, load: Callable[[], Any]) -> Steps[int]:
        """Load pairs and keep them with the versions that their tags had before the load."""
        core = self._manager._core
        space, options = core.space, self._manager.options
        life_s = options.in_seconds.ttl if warmer.ttl_s is None else warmer.ttl_s
        batch = Batch(space, {}, lambda _: load(), life_s, warmer.tags, options)
        return (yield from fill(core, batch, f"\x00fill:{warmer.name}"))


def _marker(warmer: _Warmer) -> str:
    """Return the key whose one load stands for the whole data set; other processes wait for it."""
    return f"eventperf:warm:{warmer.name}"


def _result(warmer: _Warmer, started: float, ran: list[int], value: Any) -> WarmResult:
    entries = value if warmer.key == "*" else sum(ran)
    return WarmResult(warmer.name, LOADED if ran else SHARED, time.monotonic() - started, entries)


def _text(argument: str, value: object) -> None:
    if not isinstance(value, str) or not value:
        raise ConfigurationError(argument, value, "a non-empty text")
