"""Targets inside this process: a simulated one, and any pair of functions."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf.scaling.errors import ScalingError
from eventperf.scaling.model import TargetState, check_replicas


class SimulatedTarget:
    """Replicas that exist only as numbers: new ones are ready after a start-up time, stopping is instant.

    Args:
        replicas: How many are there, ready, at the beginning.
        startup: Shortest and longest start-up time; a single duration is both.

    >>> from eventperf.testing import FakeClock
    >>> clock = FakeClock(); web = SimulatedTarget(2, startup="30s", clock=clock)
    >>> web.scale(5); web.read().starting, clock.advance(30), web.read().ready
    (3, None, 5)
    """

    def __init__(
        self,
        replicas: int = 1,
        *,
        startup: Duration | tuple[Duration, Duration] = 0.0,
        name: str = "simulated",
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        low, high = startup if isinstance(startup, tuple) else (startup, startup)
        self._startup = (seconds(low, name="startup", zero=True), seconds(high, name="startup", zero=True))
        self._clock = clock or SystemClock()
        self._random = random or Random()
        self._ready_at = [self._clock.monotonic()] * check_replicas(replicas)
        self._name = name

    @property
    def name(self) -> str:
        return self._name

    def read(self) -> TargetState:
        now = self._clock.monotonic()
        ready = sum(at <= now for at in self._ready_at)
        return TargetState(replicas=len(self._ready_at), ready=ready, starting=len(self._ready_at) - ready)

    def scale(self, replicas: int, /, *, reason: str = "") -> None:
        check_replicas(replicas)
        now = self._clock.monotonic()
        self._ready_at.sort()
        del self._ready_at[replicas:]  # those that still start go first, as Kubernetes chooses
        while len(self._ready_at) < replicas:
            self._ready_at.append(now + self._random.uniform(*self._startup))


class CallableTarget:
    """Anything with a number of replicas, as two functions.

    Args:
        read: Returns the present number of replicas, or a :class:`TargetState`.
        scale: Takes the wanted number.
    """

    def __init__(
        self, read: Callable[[], int | TargetState], scale: Callable[[int], object], *, name: str = "callable"
    ) -> None:
        for argument, function in (("read", read), ("scale", scale)):
            if not callable(function):
                raise ConfigurationError(argument, function, "a function")
        self._read, self._scale, self._name = read, scale, name

    @property
    def name(self) -> str:
        return self._name

    def read(self) -> TargetState:
        found = self._read()
        if isinstance(found, TargetState):
            return found
        if isinstance(found, bool) or not isinstance(found, int) or found < 0:
            raise ScalingError(f"{self._name}: read() returned {found!r}, which is no number of replicas")
        return TargetState(replicas=found, ready=found)

    def scale(self, replicas: int, /, *, reason: str = "") -> None:
        self._scale(check_replicas(replicas))
