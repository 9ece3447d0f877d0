"""What the load will be when a replica started now serves, and how far off that may be. Pure.

State goes in and comes out as plain JSON. Four parts: what of a reading is believed; a trend, trusted as far
as trends have come true lately; a burst, when one tick rises by far more than the noise; and the errors of
past forecasts, which are covered as far as late requests are worth it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BINS, _FINE, _LOW, _WIDTH = 48, 0.02, -2.3, 0.14
"""Errors are logarithms of what came over what was said, in bins that widen: 0.3 % at 0, 7 % at 0.5."""
_TAIL = 0.05  # the share of the largest errors that the rest of the tail is drawn from
_TREND_S = 60.0
_GAP_S = 300.0
_NOISE = 0.04
_NOISE_S = 3600.0
_ERRORS_S = 6 * 3600.0
_GAIN_S = 6 * 3600.0
_GAIN_PRIOR = 0.02
_GUARD = 0.5  # of the error that one forecast in twenty exceeds
_MOST_COVER = 0.9  # as a logarithm: 2.5 times
_WORTH, _PATIENCE, _LEAST_EXCESS = 0.1, 4.0, 0.002
_BURST_SIGMA, _BURST_SHARE, _BURST_REST_S = 8.0, 0.08, 300.0
_WARM_S = 300.0
_LEAST_RPS = 1e-3
_UNSEEN = 2.0
_HIGH_S = 60 * 86400.0
_STEEPEST = 6.0


@dataclass(frozen=True, slots=True)
class Outlook:
    """A forecast.

    Attributes:
        rate: Requests per second now, as far as believed; ``expected``: when a replica started now serves.
        cover: Factor on it that the safety asks for; ``trigger``: the smaller one that calls for action;
            ``guard``: the smallest, soon after a step down.
        burst: Whether the load has just left its usual noise; ``confirmed``: in the reading before, too.
        high: The highest load seen, slowly forgotten; ``known``: the same before this reading.
        doubted: The reading is far beyond everything seen, and nothing has confirmed it yet.
    """

    rate: float
    expected: float
    cover: float
    trigger: float
    guard: float
    burst: bool
    confirmed: bool
    high: float
    known: float
    doubted: bool


def look_ahead(
    old: Mapping[str, Any], *, at_s: float, rate: float, ahead_s: float, past_s: float, safety: float,
) -> tuple[dict[str, Any], Outlook]:  # fmt: skip
    """Take one measured rate; return what to remember, and the outlook.

    Args:
        old: What the last call returned, empty at first.
        ahead_s: From the middle of the measurement to when a replica started now serves.
        past_s: Age of the middle of the measurement.
        safety: How much being late matters: see :func:`_cover`.
    """
    if not old or not 0 < at_s - old["recent"][-1][0] <= _GAP_S:
        old = {**old, "recent": [], "said": [], "began": old.get("began", at_s)}
    recent = [p for p in old["recent"] if p[0] >= at_s - _TREND_S] or old["recent"][-1:]
    if len(recent) > 1 and recent[-1][1] < 0.5 * recent[-2][1] <= rate:
        recent = recent[:-1]  # a dip that is gone a tick later was a bad reading
    last_s, before = (recent[-1][0], recent[-1][1]) if recent else (at_s, rate)
    step_s = at_s - (old["recent"][-1][0] if old["recent"] else at_s)
    high = old.get("high", 0.0) * 0.5 ** (step_s / _HIGH_S)
    read = rate
    rate = _believed(read, before if recent else high, high, old.get("read"))
    doubted = rate < read
    warm = at_s - old["began"] > _WARM_S
    noise, ticks = old.get("noise", _NOISE**2), old.get("ticks", 0)
    sigma, jump = math.sqrt(noise), rate - before
    if recent and not doubted:
        noise, ticks = _noise(noise, ticks, jump / max(before, 1.0), step_s, rate * past_s), ticks + 1
    recent = [*recent, [at_s, rate]]
    rise = _rise(recent, sigma) * ahead_s
    hits, tries = old.get("gain", (0.0, 0.0))
    trend = rise * min(1.2, max(0.0, (hits + _GAIN_PRIOR) / (tries + _GAIN_PRIOR)))
    burst = warm and step_s > 0 and jump > _BURST_SIGMA * sigma * before and jump > _BURST_SHARE * before
    burst = burst and not doubted
    confirmed = burst and step_s > 0 and old.get("burst_at") == at_s - step_s
    burst_at = at_s if burst else old.get("burst_at")
    ramp = jump / (at_s - last_s) * ahead_s if burst else 0.0
    known = high or rate
    high = high if doubted else max(high, rate)
    memory: dict[str, Any] = {
        "began": old["began"], "recent": recent, "noise": noise, "ticks": ticks, "burst_at": burst_at,
        "high": high, "read": read,
    }  # fmt: skip
    said = [*old["said"], [at_s + ahead_s - past_s, rate + trend, rate, rise]]
    calm = burst_at is None or at_s - burst_at > _BURST_REST_S
    _check(memory, old, said, at_s - past_s, rate, calm=calm and not doubted)
    cover, trigger, guard = _cover(memory["errors"], safety)
    most = _STEEPEST * rate if confirmed else max(rate, min(_UNSEEN * high, _STEEPEST * rate))
    expected = rate if doubted else min(rate + max(trend, ramp), most)
    return memory, Outlook(rate, expected, cover, trigger, guard, burst, confirmed, high, known, doubted)


def _believed(rate: float, before: float, high: float, read: float | None) -> float:
    """Return how much of a reading counts.

    Up to twice the highest load seen, all of it. Beyond, twice the last believed one, until the next reading
    confirms it: one odd figure does not move much.
    """
    if rate <= _UNSEEN * high or high <= 0.0:
        return rate
    return min(rate, max(_UNSEEN * before, read or 0.0))


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
    if errors is None:
        errors = [_PRIOR if i == _PRIOR_BIN else 0.0 for i in range(BINS)]
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
        errors = [*errors]
        errors[_bin(math.log(rate / forecast))] += 1.0
    memory.update(said=said[due:], errors=errors, gain=[hits, tries], faded=minute)


def _bin(error: float) -> int:
    return max(0, min(BINS - 1, int((math.asinh(error / _FINE) - _LOW) / _WIDTH)))


def _edge(at: float) -> float:
    return _FINE * math.sinh(_LOW + at * _WIDTH)


_EDGES = tuple(_edge(at) for at in range(BINS + 1))
_MIDDLES = tuple(_edge(at + 0.5) for at in range(BINS))
_PRIOR, _PRIOR_BIN = 20.0, _bin(0.1)  # before anything is known: twenty errors of 10 %


def _cover(errors: list[float], safety: float) -> tuple[float, float, float]:
    """Return the factors on a forecast that are covered, that call for action, and that do after a step down.

    One late request is worth ``1 / (10 * (1 - safety))`` times what it costs to be ready for one more: up to
    there more cover saves more than it costs. Beyond the largest twentieth of the errors the tail is taken as
    exponential, so that few figures do not decide about rare ones.
    """
    total = sum(errors)
    if total <= 0.0:
        return 1.0, 1.0, 1.0
    worth = _WORTH / (1.0 - safety)
    far, seen, beyond, at = _TAIL * total, 0.0, 0.0, BINS - 1
    while seen + errors[at] <= far:
        seen += errors[at]
        beyond += errors[at] * _MIDDLES[at]
        at -= 1
    top = _EDGES[at + 1]
    edge = top - (top - _EDGES[at]) * (far - seen) / errors[at]
    excess = max(_LEAST_EXCESS, (beyond + (far - seen) * 0.5 * (top + edge)) / far - edge)
    full = edge + excess * math.log(max(1.0, worth * _TAIL / excess))
    soon = edge + excess * math.log(max(1.0, worth * _TAIL / (_PATIENCE * excess)))
    return _factor(full), _factor(soon), _factor(_GUARD * edge)


def _factor(error: float) -> float:
    return math.exp(min(max(error, 0.0), _MOST_COVER))
