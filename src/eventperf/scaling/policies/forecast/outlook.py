"""What the load will be when a replica started now serves, and how far off that may be. Pure.

State goes in and comes out as plain JSON. Three parts: a trend, trusted as far as trends have come true
lately; a burst, when one tick rises by far more than the noise; and the errors of past forecasts, of which
a quantile is covered.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BINS, _LOW, _WIDTH = 48, -0.35, 0.025  # logarithm of what came over what was said
_PRIOR, _PRIOR_BIN = 20.0, 17  # before anything is known: twenty errors of 10 %
_TREND_S = 60.0
_GAP_S = 300.0
_NOISE = 0.04
_NOISE_S = 3600.0
_ERRORS_S = 4 * 3600.0
_GAIN_S = 6 * 3600.0
_GAIN_PRIOR = 0.02
_MOST_BAND = 1.3  # a load more erratic than this is cheaper to follow than to cover
_BURST_SIGMA, _BURST_SHARE, _BURST_REST_S = 8.0, 0.08, 300.0
_WARM_S = 300.0
_LEAST_RPS = 1e-3


@dataclass(frozen=True, slots=True)
class Outlook:
    """A forecast.

    Attributes:
        rate: Requests per second now; ``expected``: when a replica started now serves.
        cover: Factor on it that the safety asks for; ``trigger``: the smaller one that calls for action.
        burst: Whether the load has just left its usual noise.
        settled: Whether the policy has watched long enough to know that noise.
    """

    rate: float
    expected: float
    cover: float
    trigger: float
    burst: bool
    settled: bool


def look_ahead(
    old: Mapping[str, Any], *, at_s: float, rate: float, ahead_s: float, past_s: float, safety: float
) -> tuple[dict[str, Any], Outlook]:
    """Take one measured rate; return what to remember, and the outlook.

    Args:
        old: What the last call returned, empty at first.
        ahead_s: From the middle of the measurement to when a replica started now serves.
        past_s: Age of the middle of the measurement.
        safety: Quantile of forecast errors that is covered.
    """
    if not old or not 0 < at_s - old["recent"][-1][0] <= _GAP_S:
        old = {**old, "recent": [], "said": [], "began": old.get("began", at_s)}
    recent = [p for p in old["recent"] if p[0] >= at_s - _TREND_S] or old["recent"][-1:]
    step_s = at_s - recent[-1][0] if recent else 0.0
    before = recent[-1][1] if recent else rate
    warm = at_s - old["began"] > _WARM_S
    noise, ticks = old.get("noise", _NOISE**2), old.get("ticks", 0)
    sigma, jump = math.sqrt(noise), rate - before
    if recent:
        noise, ticks = _noise(noise, ticks, jump / max(before, 1.0), step_s, rate * past_s), ticks + 1
    recent = [*recent, [at_s, rate]]
    rise = _rise(recent, sigma) * ahead_s
    hits, tries = old.get("gain", (0.0, 0.0))
    trend = rise * min(1.2, max(0.0, (hits + _GAIN_PRIOR) / (tries + _GAIN_PRIOR)))
    burst = warm and step_s > 0 and jump > _BURST_SIGMA * sigma * before and jump > _BURST_SHARE * before
    burst_at = at_s if burst else old.get("burst_at")
    ramp = jump / step_s * ahead_s if burst else 0.0
    memory: dict[str, Any] = {
        "began": old["began"], "recent": recent, "noise": noise, "ticks": ticks, "burst_at": burst_at,
    }  # fmt: skip
    said = [*old["said"], [at_s + ahead_s - past_s, rate + trend, rate, rise]]
    calm = burst_at is None or at_s - burst_at > _BURST_REST_S
    _check(memory, old, said, at_s - past_s, rate, calm=calm)
    cover, trigger = _bands(memory["errors"], safety)
    expected = min(rate + max(trend, ramp), 6.0 * rate)
    return memory, Outlook(rate, expected, cover, trigger, burst, warm)


def _noise(noise: float, ticks: int, change: float, step_s: float, counted: float) -> float:
    """Variance of the relative change of one tick; single leaps hardly move it, counting sets its floor."""
    clipped = min(abs(change), 3.0 * math.sqrt(noise))
    weight = min(1.0, max(step_s / _NOISE_S, 1.0 / (ticks + 21)))
    return max(noise + weight * (clipped * clipped - noise), 4e-6 + 0.5 / max(counted, 1.0))


def _rise(recent: list[list[float]], sigma: float) -> float:
    """Requests per second gained each second over the last minute, less what chance explains."""
    (first_s, first), (last_s, last) = recent[0], recent[-1]
    if last_s <= first_s:
        return 0.0
    chance = 2.0 * sigma * last * math.sqrt(len(recent) - 1)
    return (last - first - chance) / (last_s - first_s) if last - first > chance else 0.0


def _check(
    memory: dict[str, Any], old: Mapping[str, Any], said: list[list[float]], now_s: float, rate: float,
    *, calm: bool,
) -> None:  # fmt: skip
    """Compare what was said for now with what came; errors and trends fade with time."""
    errors, (hits, tries) = old.get("errors"), old.get("gain", (0.0, 0.0))
    errors = [0.0] * BINS if errors is None else errors
    faded, minute = old.get("faded", 0), int(now_s // 60)
    if minute != faded:
        span = 60.0 * max(1, min(minute - faded, 60)) if faded else 0.0
        fade, forget = 0.5 ** (span / _ERRORS_S), 0.5 ** (span / _GAIN_S)
        errors, hits, tries = [e * fade for e in errors], hits * forget, tries * forget
    due = 0
    while due < len(said) and said[due][0] <= now_s:
        _, forecast, then, rise = said[due]
        due += 1
        if not (calm and min(rate, forecast, then) > _LEAST_RPS):
            continue
        if rise > 0:
            predicted, came = min(1.0, rise / then), max(-0.5, min(1.0, (rate - then) / then))
            hits, tries = hits + predicted * came, tries + predicted * predicted
        at = int((math.log(rate / forecast) - _LOW) / _WIDTH)
        errors = [*errors]
        errors[max(0, min(BINS - 1, at))] += 1.0
    memory.update(said=said[due:], errors=errors, gain=[hits, tries], faded=minute)


def _bands(errors: list[float], safety: float) -> tuple[float, float]:
    """Return two quantiles of the errors as factors: at ``safety``, and at thrice its distance from 1."""
    total = sum(errors) + _PRIOR
    far, near = (1.0 - safety) * total, 3.0 * (1.0 - safety) * total
    seen, cover = 0.0, 0.0
    for i in range(BINS - 1, -1, -1):
        seen += errors[i] + (_PRIOR if i == _PRIOR_BIN else 0.0)
        if seen > far:
            factor = min(_MOST_BAND, max(1.0, math.exp(_LOW + (i + 1) * _WIDTH)))
            cover = cover or factor
            if seen > near or factor == 1.0:
                return cover, factor
    return max(cover, 1.0), 1.0
