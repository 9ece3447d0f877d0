"""How another policy would have done on the load that was measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf.scaling.behavior import Behavior
from eventperf.scaling.deciding import decide
from eventperf.scaling.manager import AutoScaler
from eventperf.scaling.model import METRICS, Change, Observation, Sample, ScalingDecision, TargetState
from eventperf.scaling.protocols import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """One side of the comparison.

    Attributes:
        late_s: Seconds in which a metric was over its bound.
        replica_s: Replica-seconds asked for, the cost.
        actions: Changes of the number; ``flaps``: changes against the direction of the one before, within
            ten minutes.
    """

    late_s: float = 0.0
    replica_s: float = 0.0
    actions: int = 0
    flaps: int = 0


@dataclass(slots=True)
class _Course:
    """One side as it goes on: how many replicas, since when, and what it has cost."""

    replicas: int = 0
    late_s: float = 0.0
    replica_s: float = 0.0
    actions: int = 0
    flaps: int = 0
    turned_at: float = float("-inf")
    direction: int = 0

    def move(self, replicas: int, at: float) -> None:
        if replicas == self.replicas:
            return
        direction = 1 if replicas > self.replicas else -1
        self.actions += 1
        self.flaps += direction == -self.direction and at - self.turned_at <= 600
        self.replicas, self.turned_at, self.direction = replicas, at, direction

    def outcome(self) -> Outcome:
        return Outcome(late_s=self.late_s, replica_s=self.replica_s, actions=self.actions, flaps=self.flaps)


class ShadowScore:
    """Scores a policy beside what really ran: late time, replica time, changes, on the same load.

    Feed it the decisions of a scaler, live or dry, as they come (:meth:`attach`) or from a log that holds
    every tick (``DecisionLog(path, steady=True)``). It keeps its own number of replicas: the policy is asked
    on the load that was measured, put on the replicas it would have had, of which new ones serve only
    ``startup`` later. A ratio such as CPU is taken to spread evenly over the replicas that serve.

    What it cannot know: load that would have come or stayed away had there been more or fewer replicas, such
    as retries of requests that failed. Where what ran was overloaded, the measured load is a lower bound.

    Args:
        policy: What is judged, with its ``behavior``.
        over: The bound per metric above which users suffer: per replica for ``rps`` and ``backlog``, a share
            for ``cpu`` and ``memory``.
        startup: Until a new replica serves.
        longest_tick: Times without decisions longer than this are left out on both sides.

    >>> from eventperf.scaling import AutoScaler, CallableMetrics, SimulatedTarget, TargetTracking
    >>> from eventperf.testing.clock import FakeClock
    >>> clock = FakeClock()
    >>> ran = AutoScaler(SimulatedTarget(4), CallableMetrics(rps=lambda: 500.0), TargetTracking(rps=100),
    ...                  max_replicas=20, dry_run=True, clock=clock)
    >>> score = ShadowScore(TargetTracking(rps=100), over={"rps": 110}, startup=30).attach(ran)
    >>> for _ in range(9):
    ...     _ = ran.tick(); clock.advance(15)
    >>> print(score.summary())
    over 2 min: what ran was late 100.0 % on 8 replica-minutes (0 changes, 0 flaps); the policy 12.5 % on \
10 replica-minutes (1 changes, 0 flaps)
    """

    def __init__(
        self,
        policy: Policy,
        *,
        over: Mapping[str, float],
        behavior: Behavior | None = None,
        startup: Duration = 60.0,
        min_replicas: int | None = None,
        max_replicas: int | None = None,
        longest_tick: Duration = 120.0,
    ) -> None:
        if not callable(getattr(policy, "decide", None)):
            raise ConfigurationError("policy", policy, "an object with decide()")
        if not over:
            raise ConfigurationError("over", "nothing", [f"{name}=bound" for name in METRICS])
        for name, bound in over.items():
            if name not in METRICS:
                raise ConfigurationError("over", name, METRICS)
            if isinstance(bound, bool) or not isinstance(bound, (int, float)) or not bound > 0:
                raise ConfigurationError(f"over.{name}", bound, "a number above 0")
        self._policy, self._over = policy, dict(over)
        self._behavior = behavior or Behavior()
        self._startup_s = seconds(startup, name="startup", zero=True)
        self._longest_s = seconds(longest_tick, name="longest_tick")
        self._min, self._max = min_replicas, max_replicas
        self._ran, self._shadow = _Course(), _Course()
        self._steps: list[tuple[float, int]] = []
        self._changes: list[Change] = []
        self._recommendations: list[tuple[float, int]] = []
        self._memory: Mapping[str, object] = {}
        self._last_at: float | None = None
        self._serving = 0
        self.blind_s: float = 0.0
        self.seconds: float = 0.0

    def attach(self, scaler: AutoScaler) -> ShadowScore:
        """Follow the decisions of ``scaler`` and return self; the scaler may be live or dry."""
        scaler.hooks.subscribe(self, ScalingDecision)
        return self

    def __call__(self, decision: ScalingDecision, /) -> None:
        """Take the next decision; those without an observation (an unreadable target) are passed over."""
        seen = decision.observation
        if seen is None:
            return
        now = seen.at_s
        if self._last_at is None:
            self._ran.replicas = self._shadow.replicas = seen.state.replicas
            self._serving = seen.state.ready
        else:
            self._serve(now)
            self._account(now - self._last_at, seen)
        self._ran.move(seen.state.replicas, now)
        self._decide(decision, seen)
        self._last_at = now

    def _account(self, took: float, seen: Observation) -> None:
        """Charge the time since the last decision, on both sides at what there is before this one acts."""
        if not 0 < took <= self._longest_s:
            return
        self.seconds += took
        self._ran.replica_s += took * seen.state.replicas
        self._shadow.replica_s += took * self._shadow.replicas
        values = {name: seen.value(name) for name in self._over}
        if all(value is None for value in values.values()):
            self.blind_s += took
            return
        for course, serving in ((self._ran, seen.state.ready), (self._shadow, self._serving)):
            if any(self._is_over(n, v, seen.state.ready, serving) for n, v in values.items()):
                course.late_s += took

    def _is_over(self, name: str, value: float | None, ready: int, serving: int) -> bool:
        if not value:
            return False
        total = value if name in ("rps", "backlog") else value * ready
        return not serving or total / serving > self._over[name]

    def _serve(self, now: float) -> None:
        """Let those of the shadow's new replicas serve that have started up by now."""
        self._steps = [(at, n) for at, n in self._steps if now - at < self._startup_s and n > 0]
        starting = sum(n for _, n in self._steps)
        self._serving = max(0, self._shadow.replicas - starting)

    def _decide(self, decision: ScalingDecision, seen: Observation) -> None:
        now, mine = seen.at_s, self._shadow.replicas
        samples = {name: self._moved(name, sample, seen) for name, sample in seen.samples.items()}
        keep_s = max(3600.0, self._behavior.memory_s)
        self._changes = [c for c in self._changes if now - c.at_s <= keep_s]
        self._recommendations = [r for r in self._recommendations if now - r[0] <= self._behavior.memory_s]
        view = replace(
            seen,
            state=TargetState(replicas=mine, ready=self._serving, starting=mine - self._serving),
            samples=samples,
            min_replicas=seen.min_replicas if self._min is None else self._min,
            max_replicas=seen.max_replicas if self._max is None else self._max,
            changes=tuple(self._changes),
            recommendations=tuple(self._recommendations),
            tolerance=self._behavior.tolerance,
            memory=self._memory,
        )
        wish = decide(view, self._policy, self._behavior, at=decision.at, target=decision.target)
        self._memory = wish.memory
        self._recommendations.append((now, wish.wanted))
        if wish.after == mine:
            return
        delta = wish.after - mine
        level = view.value(wish.metric)
        self._changes.append(Change(at_s=now, delta=delta, cause=wish.metric, level=level or 0.0))
        self._shadow.move(wish.after, now)
        if delta > 0:
            self._steps.append((now, delta))
            if not self._startup_s:
                self._serving = wish.after
        else:
            self._cut(-delta)
            self._serving = max(0, wish.after - sum(n for _, n in self._steps))

    def _cut(self, fewer: int) -> None:
        """Take away replicas that are still starting first, the newest first, as Deployments do."""
        while fewer and self._steps:
            at, n = self._steps.pop()
            gone = min(n, fewer)
            fewer -= gone
            if n > gone:
                self._steps.append((at, n - gone))

    def _moved(self, name: str, sample: Sample, seen: Observation) -> Sample:
        """Return the sample as it had been on the shadow's replicas."""
        if name in ("rps", "backlog") or sample.value is None:
            return replace(sample, pods=None)
        if not self._serving or not seen.state.ready:
            return replace(sample, pods=None, value=None, error="no replica serves")
        return replace(sample, pods=None, value=sample.value * seen.state.ready / self._serving)

    @property
    def ran(self) -> Outcome:
        """What really ran."""
        return self._ran.outcome()

    @property
    def shadow(self) -> Outcome:
        """What the policy would have done."""
        return self._shadow.outcome()

    def to_dict(self) -> dict[str, object]:
        """Return plain data."""
        return {
            "seconds": self.seconds,
            "blind_s": self.blind_s,
            "ran": asdict(self.ran),
            "shadow": asdict(self.shadow),
        }

    def summary(self) -> str:
        """Return one sentence with both sides."""
        if not self.seconds:
            return "nothing to compare yet"

        def side(outcome: Outcome) -> str:
            late = 100 * outcome.late_s / self.seconds
            changes = f"({outcome.actions} changes, {outcome.flaps} flaps)"
            return f"{late:.1f} % on {outcome.replica_s / 60:.0f} replica-minutes {changes}"

        blind = f" (blind for {self.blind_s / 60:.0f} min)" if self.blind_s else ""
        span = f"over {self.seconds / 60:.0f} min{blind}"
        return f"{span}: what ran was late {side(self.ran)}; the policy {side(self.shadow)}"
