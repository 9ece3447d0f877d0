"""The newest decision of each target, and what of it others are told. No I/O."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

from eventperf._core.clock import Clock, SystemClock
from eventperf.scaling.errors import ScalingError
from eventperf.scaling.model import ScalingDecision

_ROUNDS = 4  # a decision older than so many intervals is no recommendation any more
_LEAST_S = 30.0


class NoSuchTarget(ScalingError):
    """Nobody decides about this target here."""


class NoRecommendation(ScalingError):
    """There is none that can be trusted now."""


class Board:
    """Takes the decisions of all scalers of a process: ``scaler.on(board.put, ScalingDecision)``.

    Safe for threads.

    Args:
        names: Of the targets, for example ``prod/deployment/web``.
        interval_s: How often they are decided about; after four times that a decision is too old.
    """

    def __init__(self, names: Iterable[str], *, interval_s: float = 15.0, clock: Clock | None = None) -> None:
        self.names: tuple[str, ...] = tuple(names)
        self.oldest_s: float = max(_LEAST_S, _ROUNDS * interval_s)
        self._clock = clock or SystemClock()
        self._began = self._clock.monotonic()
        self._newest: dict[str, tuple[float, ScalingDecision]] = {}
        self._listeners: tuple[Callable[[str], object], ...] = ()
        self._mu = threading.Lock()

    def put(self, decision: ScalingDecision) -> None:
        """Take a decision, and tell who listens that there is one."""
        with self._mu:
            self._newest[decision.target] = (self._clock.monotonic(), decision)
        for tell in self._listeners:
            tell(decision.target)

    def listen(self, fn: Callable[[str], object]) -> Callable[[], None]:
        """Call ``fn`` with the name of each target that was decided about; returns what ends it."""
        with self._mu:
            self._listeners = (*self._listeners, fn)

        def stop() -> None:
            with self._mu:
                self._listeners = tuple(f for f in self._listeners if f is not fn)

        return stop

    def name_of(self, target: str, namespace: str = "") -> str:
        """Return the full name of a target; the only one there is when none is named.

        Raises:
            NoSuchTarget: There is none of this name, or several.

        >>> Board(["prod/deployment/web"]).name_of("deployment/web", "prod")
        'prod/deployment/web'
        """
        if target:
            found = [n for n in self.names if n in (target, f"{namespace}/{target}" if namespace else target)]
            if not found and not namespace:
                found = [n for n in self.names if n.partition("/")[2] == target]
        else:
            found = [n for n in self.names if not namespace or n.partition("/")[0] == namespace]
        if len(found) == 1:
            return found[0]
        known = ", ".join(self.names[:20]) or "none"
        asked = f"{namespace}/{target}" if namespace else target or "no target"
        problem = "is not decided about here" if not found else "can be several"
        raise NoSuchTarget(f"{asked[:200]!r} {problem}; known: {known}")

    def decision(self, name: str) -> ScalingDecision:
        """Return the newest decision about a target.

        Raises:
            NoRecommendation: There is none yet, it is too old, or the target could not be read.
        """
        with self._mu:
            at, decision = self._newest.get(name, (0.0, None))
        if decision is None:
            raise NoRecommendation(f"{name}: nothing was decided yet")
        age_s = self._clock.monotonic() - at
        if age_s > self.oldest_s:
            raise NoRecommendation(f"{name}: the last decision is {age_s:.0f} s old")
        if decision.observation is None or decision.error:
            raise NoRecommendation(f"{name}: {decision.error or decision.reason}")
        return decision

    def answer(self, target: str, namespace: str = "") -> dict[str, Any]:
        """Return what is recommended, as plain data.

        Raises:
            NoSuchTarget, NoRecommendation: As above.
        """
        decision = self.decision(self.name_of(target, namespace))
        assert decision.observation is not None
        state = decision.observation.state
        return {
            "target": decision.target, "replicas": decision.after, "current": state.replicas,
            "ready": state.ready, "at": decision.at, "reason": decision.reason,
            "limits": [name for name, _ in decision.limits], "blind": dict(decision.blind),
            "frozen": state.frozen,
        }  # fmt: skip

    def health(self) -> str:
        """Return why the loop is not well, empty when it is: no decision at all for too long."""
        with self._mu:
            last = max([self._began, *(at for at, _ in self._newest.values())])
        age_s = self._clock.monotonic() - last
        return f"nothing was decided for {age_s:.0f} s" if age_s > 2.0 * self.oldest_s else ""

    def unready(self) -> str:
        """Return what is missing before all can be answered, empty when nothing is."""
        with self._mu:
            missing = [name for name in self.names if name not in self._newest]
        return f"not decided about yet: {', '.join(missing[:20])}" if missing else ""

    def metrics(self) -> str:
        """Return Prometheus' text format: gauges by target."""
        with self._mu:
            newest, now = dict(self._newest), self._clock.monotonic()
        lines: list[str] = []
        for name, text, value in _GAUGES:
            full = f"eventperf_scaling_{name}"
            lines += [f"# HELP {full} {text}", f"# TYPE {full} gauge"]
            for target, (at, decision) in sorted(newest.items()):
                figure = value(decision, now - at, self.oldest_s)
                if figure is not None:
                    namespace, _, rest = target.partition("/")
                    labels = f'namespace="{_escaped(namespace)}",target="{_escaped(rest or target)}"'
                    lines.append(f"{full}{{{labels}}} {figure:g}")
        return "\n".join(lines) + "\n"


def _recommended(decision: ScalingDecision, age_s: float, oldest_s: float) -> float | None:
    """Nothing rather than a number that nobody stands for: Prometheus then sees a gap."""
    is_good = decision.observation is not None and not decision.error and age_s <= oldest_s
    return float(decision.after) if is_good else None


def _state(name: str) -> Callable[[ScalingDecision, float, float], float | None]:
    def read(decision: ScalingDecision, age_s: float, oldest_s: float) -> float | None:
        seen = decision.observation
        return None if seen is None else float(getattr(seen.state, name))

    return read


_GAUGES: tuple[tuple[str, str, Callable[[ScalingDecision, float, float], float | None]], ...] = (
    ("recommended_replicas", "Replicas that are recommended now.", _recommended),
    ("current_replicas", "Replicas asked for.", _state("replicas")),
    ("ready_replicas", "Replicas that serve.", _state("ready")),
    ("frozen", "1 while people hold it as it is.", _state("frozen")),
    ("blind_metrics", "Metrics that cannot be trusted.", lambda d, age, oldest: float(len(d.blind))),
    ("failed", "1 when it could not be read or changed.", lambda d, age, oldest: float(bool(d.error))),
    ("decision_age_seconds", "Since the last decision.", lambda d, age, oldest: round(age, 3)),
)


def _escaped(text: str) -> str:
    text = text.encode("utf-8", "replace").decode()  # a half of a character cannot be sent
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
