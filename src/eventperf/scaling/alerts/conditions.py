"""What of a decision people should know; some of it is only to be seen over several of them. No I/O."""

from __future__ import annotations

from eventperf.scaling.model import ScalingDecision

_PINNED_S = 300.0
_UNREADY_S = 600.0
_LOST, _AGAIN_S, _AGAIN_MOST_S = 3, 15.0, 300.0


class Contest:
    """Whether what was set stands; who is overruled three times in a row tries again at growing intervals.

    Without it a scaler and whoever else writes the replicas start and stop pods at every tick, for ever.
    """

    def __init__(self) -> None:
        self._lost, self._has_set, self._until = 0, False, 0.0

    def look(self, is_changed: bool) -> None:
        """Note whether somebody else has changed the number since the last look."""
        if self._has_set:
            self._lost = self._lost + 1 if is_changed else 0
        self._has_set = False

    def has_set(self, now: float) -> None:
        """Note that the number was set."""
        self._has_set = True
        self._until = now + min(_AGAIN_MOST_S, _AGAIN_S * 2.0 ** min(self._lost, 16))

    def told(self, now: float) -> str:
        """Return what people should know, empty while what was set stands."""
        if self._lost < _LOST:
            return ""
        wait_s = max(0.0, self._until - now)
        return f"set back by somebody else {self._lost} times in a row: tried again in {wait_s:.0f} s"

    def waits(self, now: float) -> bool:
        """Tell whether it is too early to set the number again."""
        return self._lost >= _LOST and now < self._until


class Watch:
    """Conditions of one target, by a stable name with a text; some need time to be one."""

    def __init__(self) -> None:
        self._pinned_since: float | None = None
        self._unready_since: float | None = None
        self._best_ready = 0

    def judge(self, decision: ScalingDecision, now: float) -> dict[str, str]:
        """Return what holds now.

        Args:
            now: Monotonic seconds of this process.
        """
        found = dict(decision.warnings)
        if decision.error is not None and decision.reason == "the policy failed":
            found["policy_failed"] = decision.error
        if decision.blind:
            found["blind"] = "; ".join(f"{name}: {why}" for name, why in decision.blind.items())
        if decision.observation is not None:
            if decision.observation.paused:
                found["paused"] = "somebody set it to 0: nothing is scaled until somebody scales it up again"
            if decision.observation.state.frozen:
                found["frozen"] = "frozen by people: nothing is scaled, up or down, until it is unfrozen"
            found.update(self._pinned(decision, decision.observation.max_replicas, now))
            found.update(self._unready(decision, now))
        return found

    def _pinned(self, decision: ScalingDecision, most: int, now: float) -> dict[str, str]:
        if decision.wanted <= most or decision.after != most:
            self._pinned_since = None
            return {}
        self._pinned_since = now if self._pinned_since is None else self._pinned_since
        if now - self._pinned_since < _PINNED_S:
            return {}
        return {"pinned_at_max": f"{decision.wanted} wanted, {most} allowed"}

    def _unready(self, decision: ScalingDecision, now: float) -> dict[str, str]:
        """Tell when for ten minutes not one more replica has become ready than were before."""
        assert decision.observation is not None
        state = decision.observation.state
        if state.ready >= state.replicas:
            self._unready_since = None
            return {}
        if self._unready_since is None or state.ready > self._best_ready:
            self._unready_since, self._best_ready = now, state.ready
        if now - self._unready_since < _UNREADY_S:
            return {}
        text = (
            f"{state.replicas - state.ready} of {state.replicas} replicas have not become ready for "
            f"{(now - self._unready_since) / 60:.0f} min: look for pending pods (a full cluster, a quota), "
            "failing probes, an image that cannot be pulled"
        )
        return {"not_ready": text}
