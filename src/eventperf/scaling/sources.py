"""Metrics composed of sources, and the sources that need no other software."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.errors import ConfigurationError

from .model import METRICS, Sample, real
from .protocols import HasBacklog, MetricSource

Readable = MetricSource | Callable[[], float | Sample | None]


class CallableMetrics:
    """Metrics from functions: ``CallableMetrics(cpu=lambda: 0.4, rps=count_requests)``.

    A function returns a number, a :class:`Sample`, or ``None`` when it has none right now.

    >>> CallableMetrics(cpu=lambda: 0.4).read()["cpu"].value
    0.4
    """

    def __init__(self, **functions: Callable[[], float | Sample | None]) -> None:
        for name, function in functions.items():
            if name not in METRICS:
                raise ConfigurationError("metric", name, METRICS)
            if not callable(function):
                raise ConfigurationError(name, function, "a function without arguments")
        self._functions = functions

    def read(self) -> Mapping[str, Sample]:
        return {name: _call(function) for name, function in self._functions.items()}


def _call(function: Callable[[], float | Sample | None]) -> Sample:
    try:
        found = function()
    except Exception as error:
        return Sample(error=f"{type(error).__name__}: {error}")
    if isinstance(found, Sample):
        return found
    if found is None:
        return Sample(error="no value")
    number = real(found)
    return (
        Sample(value=number) if number is not None else Sample(error=f"not a number: {type(found).__name__}")
    )


class ProcessMetrics:
    """CPU and memory of this process, for a worker that scales its own pool.

    CPU is the share of ``cpus`` used since the last reading; memory the resident share of ``memory_bytes``.
    """

    def __init__(
        self, *, memory_bytes: int | None = None, cpus: float | None = None, clock: Clock | None = None
    ) -> None:
        if cpus is not None and not cpus > 0:
            raise ConfigurationError("cpus", cpus, "a number above 0")
        if memory_bytes is not None and not memory_bytes > 0:
            raise ConfigurationError("memory_bytes", memory_bytes, "a number above 0")
        self._cpus = cpus or float(os.cpu_count() or 1)
        self._memory = memory_bytes
        self._clock = clock or SystemClock()
        self._last = (self._clock.monotonic(), time.process_time())

    def read(self) -> Mapping[str, Sample]:
        now, used = self._clock.monotonic(), time.process_time()
        before, used_before = self._last
        samples = {}
        if now > before:
            self._last = (now, used)
            samples["cpu"] = Sample(value=(used - used_before) / ((now - before) * self._cpus))
        else:
            samples["cpu"] = Sample(error="no time has passed since the last reading")
        if self._memory is not None:
            samples["memory"] = Sample(value=_resident_bytes() / self._memory)
        return samples


def _resident_bytes() -> int:
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:  # no /proc: the peak is the nearest the standard library knows
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024


class QueueMetrics:
    """The load of a queue: any object whose ``backlog()`` has ``depth``.

    A :class:`eventperf.queues.QueueManager` fits; so does anything of that shape. Where the backlog also has
    ``arrival_rate``, that is ``rps``; where it has ``run_s`` and ``slots`` too, the share of the workers'
    slots that these arrivals keep busy is ``cpu`` (Little's law; above 1 they cannot keep up). With these
    :class:`~eventperf.scaling.LatencyPolicy` learns by itself what one worker can do.

    >>> class Queue:
    ...     class Now: depth, arrival_rate, run_s, slots = 3, 18.0, 0.2, 6
    ...     def backlog(self): return self.Now
    >>> {name: round(sample.value, 3) for name, sample in QueueMetrics(Queue()).read().items()}
    {'backlog': 3.0, 'rps': 18.0, 'cpu': 0.6}
    """

    def __init__(self, queue: HasBacklog) -> None:
        if not callable(getattr(queue, "backlog", None)):
            raise ConfigurationError("queue", queue, "an object with a backlog() method")
        self._queue = queue

    def read(self) -> Mapping[str, Sample]:
        backlog = self._queue.backlog()
        depth = _number(backlog, "depth")
        if depth is None:
            return {"backlog": Sample(error="backlog() has no depth")}
        found = {"backlog": Sample(value=depth)}
        arrivals, run_s, slots = (_number(backlog, name) for name in ("arrival_rate", "run_s", "slots"))
        if arrivals is not None:
            found["rps"] = Sample(value=arrivals)
            if run_s and slots:
                found["cpu"] = Sample(value=arrivals * run_s / slots)
        return found


def _number(thing: object, name: str) -> float | None:
    return real(getattr(thing, name, None))


class Metrics:
    """One source per metric: ``Metrics(cpu=kubernetes, memory=kubernetes, rps=prometheus)``.

    Each keyword takes a source that measures that metric, or a function that returns its value. A
    source that serves several metrics is read once per tick. What a source raises is an error of its
    metrics, never of the loop.
    """

    def __init__(
        self,
        *,
        cpu: Readable | None = None,
        memory: Readable | None = None,
        rps: Readable | None = None,
        backlog: Readable | None = None,
    ) -> None:
        given = {"cpu": cpu, "memory": memory, "rps": rps, "backlog": backlog}
        self._sources: dict[str, Readable] = {n: s for n, s in given.items() if s is not None}
        if not self._sources:
            raise ConfigurationError("metrics", "none", [f"{name}=..." for name in METRICS])
        for name, source in self._sources.items():
            if not callable(source) and not callable(getattr(source, "read", None)):
                raise ConfigurationError(name, source, "a metric source or a function without arguments")

    @property
    def names(self) -> tuple[str, ...]:
        """What is measured."""
        return tuple(self._sources)

    def read(self) -> Mapping[str, Sample]:
        read: dict[int, Mapping[str, Sample]] = {}
        found: dict[str, Sample] = {}
        for name, source in self._sources.items():
            if not hasattr(source, "read"):
                found[name] = _call(source)
                continue
            if id(source) not in read:
                read[id(source)] = read_source(source, (name,))
            found[name] = read[id(source)].get(name) or Sample(error="the source does not measure this")
        return found


def read_source(source: MetricSource, names: tuple[str, ...]) -> Mapping[str, Sample]:
    """Read ``source``; what it raises becomes the error of ``names``."""
    try:
        return source.read()
    except Exception as error:
        broken = Sample(error=f"{type(error).__name__}: {error}")
        return dict.fromkeys(names, broken)
