"""AutoScaler: the loop around pure decisions."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from random import Random
from typing import Any

from typing_extensions import Self

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf._core.events import Hooks
from eventperf._core.logs import Lines, logger

from .alerts.conditions import Contest, Watch
from .alerts.episodes import Episodes
from .behavior import Behavior
from .calendar import Calendar
from .deciding import decide
from .errors import ScalingError, TargetConflict
from .model import CalendarEvent, Change, Observation, Sample, ScalingDecision, TargetState, check_replicas
from .policies.forecast.baseline import Baseline
from .protocols import AlertSink, MetricSource, Policy, ReplicaTarget
from .records.log import DecisionLog
from .records.state import LearnedState
from .sources import read_source

_log = logger("eventperf.scaling")

_REMEMBER_S = 3600.0
_AWAY_S = 300.0


class AutoScaler:
    """Reads metrics, decides, scales, logs and alerts; one target.

    Building it does no I/O. It goes on where the last decision for this target in ``log`` ended: after a
    restart, and where another process led meanwhile. Errors of metrics, target, log and alerts never leave
    :meth:`tick`: they are in the decision, in the log and in an alert, and the next tick tries again.

    Args:
        target: What is scaled.
        metrics: What is measured; :class:`Metrics` composes several sources.
        policy: What decides.
        min_replicas: The target is never asked for fewer; ``max_replicas`` never for more.
        behavior: How fast it may follow.
        alerts: Called with every :class:`Alert`, once per episode and once when it is over.
        log: Where decisions are kept, and what was learned is found again; in memory when not given. Targets
            that share one need names of their own.
        calendar: Dated events that draw load, for policies that read them; a list is taken as it is.
        state: Where what was learned is found again, when not in ``log``; one that needs no volume.
        dry_run: Decide and log, but change nothing: the shadow mode.
        max_age: Metrics older than this count as missing.

    >>> from eventperf.scaling import CallableMetrics, SimulatedTarget, TargetTracking
    >>> web = SimulatedTarget(2)
    >>> scaler = AutoScaler(web, CallableMetrics(rps=lambda: 300), TargetTracking(rps=50), max_replicas=10)
    >>> print(scaler.tick().explain())
    simulated: 2 -> 6 replicas (up). rps: 300 in all, target 50 per replica
    """

    def __init__(
        self,
        target: ReplicaTarget,
        metrics: MetricSource,
        policy: Policy,
        *,
        min_replicas: int = 1,
        max_replicas: int,
        behavior: Behavior | None = None,
        alerts: Sequence[AlertSink] = (),
        log: DecisionLog | None = None,
        calendar: Calendar | Sequence[CalendarEvent] | None = None,
        state: LearnedState | None = None,
        dry_run: bool = False,
        max_age: Duration = 120.0,
        clock: Clock | None = None,
        random: Random | None = None,
    ) -> None:
        for argument, value, method in (
            ("target", target, "scale"),
            ("metrics", metrics, "read"),
            ("policy", policy, "decide"),
        ):
            if not callable(getattr(value, method, None)):
                raise ConfigurationError(argument, value, f"an object with {method}()")
        self.min_replicas: int = check_replicas(min_replicas, "min_replicas")
        self.max_replicas: int = check_replicas(max_replicas, "max_replicas")
        if self.max_replicas < max(1, self.min_replicas):
            raise ConfigurationError(
                "max_replicas", max_replicas, f"at least {max(1, min_replicas)}, and min_replicas"
            )
        if isinstance(alerts, str) or not all(callable(sink) for sink in alerts):
            raise ConfigurationError("alerts", alerts, "a list of functions that take an Alert")
        self.target: ReplicaTarget = target
        self.metrics: MetricSource = metrics
        self.policy: Policy = policy
        self.behavior: Behavior = behavior or Behavior()
        self.log: DecisionLog = log if log is not None else DecisionLog()
        self.state: LearnedState | None = state
        self.dry_run = dry_run
        self.frozen: bool = False
        """Set it to change nothing for a while: what was decided is still told and logged."""
        self.advises: bool = False
        """Somebody else carries out what a dry run decides (an HPA, KEDA): its changes are no conflict."""
        self.hooks: Hooks = Hooks()
        self._max_age_s = seconds(max_age, name="max_age")
        self._remembers: tuple[Behavior | None, float] = (None, 0.0)
        self.calendar: Calendar | None = (
            calendar if calendar is None or isinstance(calendar, Calendar) else Calendar(calendar)
        )
        self._clock = clock or SystemClock()
        self._random = random or Random()
        self._episodes = Episodes(target.name, alerts)
        self._baseline = Baseline()
        self._changes: deque[Change] = deque()
        self._recommendations: deque[tuple[float, int]] = deque()
        self._memory: Mapping[str, Any] = {}
        self._shift_s = 0.0  # from this process' monotonic clock to the one records are kept in
        self._last_tick_s: float | None = None
        self._is_taken_over = False
        self._expected: int | None = None
        self._watch, self._contest = Watch(), Contest()
        self._is_paused: bool | None = None  # not known before the first look
        self._is_held = False
        self.log.claim(target, dry_run=dry_run)
        self._one_tick = threading.Lock()
        self._stop = threading.Event()

    # -- one tick ------------------------------------------------------------------------------------

    def tick(self) -> ScalingDecision:
        """Look, decide and act once; ticks of several threads come one after another."""
        with self._one_tick:
            conditions: dict[str, str] = {}
            self._go_on()
            try:
                state = self.target.read()
            except Exception as error:
                decision = self._unreadable(error)
                conditions["target_unreadable"] = decision.error or ""
            else:
                if not self.advises:
                    self._find_contenders(conditions)
                self._look_for_hold(conditions)
                observation = self.observe(state, read_source(self.metrics, ("metrics",)), conditions)
                decision = self._act(self._decide(observation), conditions)
                conditions.update(self._watch.judge(decision, self._clock.monotonic()))
                if "not_ready" in conditions:
                    conditions["not_ready"] += self._why_stuck()
            self._tell(decision, conditions)
            return decision

    def _now(self) -> float:
        return self._clock.monotonic() + self._shift_s

    def _go_on(self) -> None:
        """Take over from the newest record after a start, or after ticks that another process made."""
        now, last_s = self._now(), self._last_tick_s
        self._last_tick_s = now
        if last_s is not None and now - last_s < _AWAY_S:
            return
        try:
            keeper = self.log if self.state is None else self.state
            record = keeper.recall(self.target.name, dry_run=self.dry_run)
        except Exception as error:
            _log.warning("%s: what was learned cannot be read, starting anew: %s", self.target.name, error)
            return
        if record is None or record.observation is None:
            return
        seen, gone_s = record.observation, max(0.0, self._clock.time() - record.at)
        if last_s is not None and now - gone_s <= last_s + 1.0:
            return  # its own
        self._shift_s += seen.at_s + gone_s - now
        self._last_tick_s = self._now()
        self._memory, self._is_taken_over = record.memory, True
        self._is_paused = seen.paused or None
        self._changes, self._recommendations = deque(seen.changes), deque(seen.recommendations)
        self._recommendations.append((seen.at_s, record.wanted))
        if record.applied:
            self._changes.append(Change(at_s=seen.at_s, delta=record.after - record.before))
        _log.info("%s: going on from the decision of %.0f s ago", self.target.name, gone_s)

    def observe(
        self, state: TargetState, samples: Mapping[str, Sample], conditions: dict[str, str] | None = None
    ) -> Observation:
        """Turn readings into what the policy sees; notes outside changes in ``conditions``."""
        now = self._now()
        was_paused = self._is_paused
        self._look_for_pause(state)
        is_changed = self._expected is not None and state.replicas != self._expected
        self._contest.look(is_changed and not self._is_paused)
        if self._expected is not None and is_changed:
            self._changes.append(Change(at_s=now, delta=state.replicas - self._expected))
            if conditions is not None and not (was_paused or self._is_paused or self.advises):
                text = (
                    f"asked for {self._expected} replicas, found {state.replicas}: somebody else changed it"
                )
                conditions["fought_over"] = text
        self._expected = state.replicas
        if (self.frozen or self._is_held) and not state.frozen:
            state = replace(state, frozen=True)
        self._trim(now)
        wall_s = self._clock.time()
        observation = Observation(
            at_s=now,
            state=state,
            min_replicas=self.min_replicas,
            max_replicas=self.max_replicas,
            samples=dict(samples),
            changes=tuple(self._changes),
            recommendations=tuple(self._recommendations),
            tolerance=self.behavior.tolerance,
            baseline_rps=self._baseline.at(wall_s),
            max_age_s=self._max_age_s,
            memory=self._memory,
            time_s=wall_s,
            calendar=() if self.calendar is None else self.calendar.around(wall_s),
            paused=bool(self._is_paused),
        )
        rps = observation.value("rps")
        if rps is not None and state.ready:
            self._baseline.add(wall_s, rps / state.ready)
        return observation

    def _look_for_pause(self, state: TargetState) -> None:
        """Note whether somebody set the target to 0, which this scaler does not: a pause, as with an HPA."""
        if state.replicas or not self.min_replicas:
            self._is_paused = False
        elif self._expected:
            self._is_paused = True
            _log.info("%s: set to 0 by somebody: paused until it is scaled up again", self.target.name)
        elif self._is_paused is None:
            self._is_paused = bool(getattr(self.target, "zero_pauses", False))

    def _look_for_hold(self, conditions: dict[str, str]) -> None:
        """Note whether people hold the target by the state that all its scalers share.

        Not where the target itself says so. A store that is away changes nothing about what was known.
        """
        if self.state is None or getattr(self.target, "carries_freeze", False):
            return
        try:
            self._is_held = self.state.is_frozen(self.target.name)
        except Exception as error:
            known = "frozen" if self._is_held else "not frozen"
            text = (
                f"whether it is frozen cannot be read, it counts as {known}: {type(error).__name__}: {error}"
            )
            conditions["state_failed"] = text

    def _find_contenders(self, conditions: dict[str, str]) -> None:
        """Note other autoscalers on the same target, where the target can tell."""
        ask = getattr(self.target, "contenders", None)
        try:
            found = ask() if callable(ask) else ()
        except Exception as error:
            _log.info("%s: cannot tell who else scales it: %s", self.target.name, error)
            return
        if found:
            conditions["fought_over"] = f"{', '.join(found)} scales it too"

    def _why_stuck(self) -> str:
        """Return what the target knows of replicas that do not become ready, where it can tell."""
        ask = getattr(self.target, "stuck", None)
        try:
            found = ask() if callable(ask) else ""
        except Exception as error:
            _log.info("%s: cannot tell why replicas are not ready: %s", self.target.name, error)
            return ""
        return f". They say: {found}" if found else ""

    def _trim(self, now: float) -> None:
        if self._remembers[0] is not self.behavior:  # a frozen object: another one, or the same answer
            self._remembers = (self.behavior, self.behavior.memory_s)
        memory_s = self._remembers[1]
        keep_s = max(_REMEMBER_S, memory_s)
        while self._changes and now - self._changes[0].at_s > keep_s:
            self._changes.popleft()
        while self._recommendations and now - self._recommendations[0][0] > memory_s:
            self._recommendations.popleft()

    def _decide(self, observation: Observation) -> ScalingDecision:
        at, name = self._clock.time(), self.target.name
        if self._is_taken_over:
            observation = self._checked(observation, at)
        try:
            decision = decide(observation, self.policy, self.behavior, at=at, target=name)
        except Exception as error:
            _log.exception("policy %r failed; %s keeps its replicas", self.policy, name)
            current = observation.state.replicas
            text = f"{type(error).__name__}: {error}"
            return ScalingDecision(
                at=at, target=name, before=current, wanted=current, after=current,
                reason="the policy failed", error=text, observation=observation, dry_run=self.dry_run,
            )  # fmt: skip
        self._recommendations.append((observation.at_s, decision.wanted))
        self._memory = decision.memory
        return replace(decision, dry_run=True) if self.dry_run else decision

    def _checked(self, observation: Observation, at: float) -> Observation:
        """Return the observation, without a memory that this policy cannot read: another one wrote it."""
        self._is_taken_over = False
        try:
            decide(observation, self.policy, self.behavior, at=at, target=self.target.name)
        except Exception as error:
            _log.warning("%s: the memory of another policy is left: %r", self.target.name, error)
            return replace(observation, memory={})
        return observation

    def replay(self, decision: ScalingDecision) -> ScalingDecision:
        """Decide again from the record's observation; equal but for what became of it.

        Raises:
            ConfigurationError: The record has no observation.
        """
        if decision.observation is None:
            raise ConfigurationError("decision", decision.reason, "a decision with its observation")
        again = decide(
            decision.observation, self.policy, self.behavior, at=decision.at, target=decision.target
        )
        return replace(again, dry_run=decision.dry_run, applied=decision.applied, error=decision.error)

    def _act(self, decision: ScalingDecision, conditions: dict[str, str]) -> ScalingDecision:
        if decision.action == "none" or self.dry_run or decision.error is not None:
            return decision
        if told := self._contest.told(self._now()):
            conditions["fought_over"] = told
        if self._contest.waits(self._now()):
            return decision.with_outcome(applied=False, error=told)
        try:
            self.target.scale(decision.after, reason=decision.reason)
        except TargetConflict as error:
            conditions["fought_over"] = str(error)
            return decision.with_outcome(applied=False, error=str(error))
        except Exception as error:
            text = str(error) if isinstance(error, ScalingError) else f"{type(error).__name__}: {error}"
            conditions["scale_failed"] = text
            return decision.with_outcome(applied=False, error=text)
        sample = None if decision.observation is None else decision.observation.value(decision.metric)
        now = self._now()
        step = Change(
            at_s=now, delta=decision.after - decision.before, cause=decision.metric, level=sample or 0.0
        )
        self._changes.append(step)
        self._expected = decision.after
        self._contest.has_set(now)
        return decision.with_outcome(applied=True)

    def _unreadable(self, error: Exception) -> ScalingDecision:
        known, text = self._expected or 0, f"{type(error).__name__}: {error}"
        return ScalingDecision(
            at=self._clock.time(), target=self.target.name, before=known, wanted=known, after=known,
            reason="the target could not be read", error=text, dry_run=self.dry_run,
        )  # fmt: skip

    def on(self, listener: Callable[[Any], object], *types: type) -> Callable[[], None]:
        """Call ``listener`` with every event (of ``types``); returns a function that ends it.

        Events are the :class:`ScalingDecision` of each tick and each :class:`Alert`.
        """
        return self.hooks.subscribe(listener, *types)

    # -- telling -------------------------------------------------------------------------------------

    def _tell(self, decision: ScalingDecision, conditions: dict[str, str]) -> None:
        try:
            self.log.write(decision)
        except Exception as error:
            _log.exception("decision log failed; the decision itself stands")
            conditions["log_failed"] = f"decisions are not kept: {type(error).__name__}: {error}"
        if self.log.fault:  # of a tick before: what failed is not over because nothing was due
            conditions["log_failed"] = f"decisions are not kept: {self.log.fault}"
        if self.state is not None:
            try:
                self.state.keep(decision)
            except Exception as error:
                conditions["state_failed"] = f"what is learned is not kept: {type(error).__name__}: {error}"
        if self.calendar is not None and self.calendar.error:
            conditions["calendar_unreadable"] = f"the last known dates stand: {self.calendar.error}"
        if decision.action != "none":
            _log.info("%s", Lines(decision.explain()))
        self.hooks.emit(decision)
        for alert in self._episodes.update(conditions, decision.at):
            self.hooks.emit(alert)

    # -- the loop ------------------------------------------------------------------------------------

    def run(self, interval: Duration = 15.0, *, stop: threading.Event | None = None) -> None:
        """Tick until ``stop`` is set or :meth:`close` is called.

        Ticks never overlap; one that took long is followed at once by the next. Each wait is spread by
        10 %, so that many scalers do not call their servers together.
        """
        interval_s = seconds(interval, name="interval")
        stop = stop or self._stop
        while not (stop.is_set() or self._stop.is_set()):
            began = self._clock.monotonic()
            self.tick()
            wait = interval_s * self._random.uniform(0.95, 1.05) - (self._clock.monotonic() - began)
            if wait > 0 and stop.wait(wait):
                return

    async def arun(self, interval: Duration = 15.0) -> None:
        """Tick until the task is cancelled; ticks run in a thread, so that the loop stays free."""
        import asyncio

        interval_s = seconds(interval, name="interval")
        while not self._stop.is_set():
            began = self._clock.monotonic()
            await asyncio.to_thread(self.tick)
            await self._clock.asleep(max(0.0, interval_s - (self._clock.monotonic() - began)))

    def close(self) -> None:
        """Let :meth:`run` end after its present tick; the target keeps its replicas."""
        self._stop.set()
        if self.state is not None:
            self.state.flush()
        self.log.release(self.target, dry_run=self.dry_run)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()
