"""What comes again: leaps of the load by the hour and day, and those that dated events bring. Pure.

Time is cut into slots of five minutes. A slot's *reference* is the load that was seen when replicas for it
had to be started; its *leap* is how far the load then rose above that. Leaps are kept by time of day and
expected again at that time, on like hours, and on like weekdays most. Leaps near dated events are explained
by what events of a kind bring per expected person, minute by minute around their date, which a Kalman filter
learns (one variance per coefficient: events that overlap share a surprise by how little is known of each).

State goes in and comes out as plain JSON; sums run over lists, so that a replay adds in the same order.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from eventperf.scaling.model import CalendarEvent

from . import shapes

SLOT_S = 300.0
_DAY, _HOUR = 288, 12
_KEPT_DAYS = 8
_LEAST_KEPT, _LEAST_RESERVE = 1.1, 1.2
_UNSURE_MOST = 4.0  # what other hours or a single day have shown is reserved for up to so many times the load
_KERNEL = (1.0, 0.3, 0.15, 0.04)  # by hours apart
_HOURS = tuple((hours * _HOUR, _KERNEL[min(abs(hours), 3)]) for hours in range(-12, 12))
_FADE = 0.93  # a day
_WEEKDAY = 1.5
_TINY_RPS, _LEAST_RPS = 40.0, 0.1
_LEAP_DOUBT, _LEAST_QUANTILE = 9.0, 0.75
_OPEN = 4  # slots kept for learning and for what they reserve

_LEAST_EVENT = 0.06

# A slot is a list: number, reference, share of a leap kept by day, explained by events, features.


def weekly(age_days: int) -> float:
    """Weight of what was seen so many days ago.

    >>> weekly(7) > weekly(6)
    True
    """
    same_day = _WEEKDAY if age_days % 7 == 0 else 1.0
    return same_day * math.pow(_FADE, age_days)


_AGES = tuple(weekly(a) for a in range(_KEPT_DAYS + 1))
_PAST = tuple(sum(_AGES[1 : n + 1]) for n in range(_KEPT_DAYS + 1))  # weight of the last n days


def reserved_quantile(doubt: float) -> float:
    """Return the quantile of leaps that is reserved for, of the share of the load that may be late.

    A reserve stands for ten minutes and more, and a leap without one is late for about one: it has to be that
    much likelier to come. What came on each of three days is reserved for at any doubt.

    >>> round(reserved_quantile(0.01), 3), reserved_quantile(0.1)
    (0.91, 0.75)
    """
    return max(_LEAST_QUANTILE, 1.0 - _LEAP_DOUBT * doubt)


def leap_quantile(leaps: Mapping[str, Any], number: int, first_day: int, quantile: float) -> float:
    """Return the leap (a factor of the reference) to expect in slot ``number``; 0 when it is not worth it."""
    day, at = divmod(number, _DAY)
    past = _PAST[max(0, min(_KEPT_DAYS, day - first_day))]
    found: list[tuple[float, float]] = []
    total = 1.0
    for hours, nearness in _HOURS:
        place = (at + hours) % _DAY
        total += nearness * (past + _AGES[0] if place < at else past)
        kept = leaps.get(str(place))
        if kept:
            found += [
                (leap, nearness * _AGES[day - then]) for then, leap in kept if 0 <= day - then <= _KEPT_DAYS
            ]
    if not found:
        return 0.0
    found.sort(reverse=True)
    seen = 0.0
    for leap, weight in found:
        seen += weight
        if seen > (1.0 - quantile) * total:
            if leap < _LEAST_RESERVE:
                return 0.0
            return max(
                _again(leaps.get(str(at), ()), day, first_day, quantile), min(float(leap), _UNSURE_MOST)
            )
    return 0.0


def _again(kept: Sequence[Sequence[float]], day: int, first_day: int, quantile: float) -> float:
    """Return the leap of this very slot, of any size, if it came on half of the days and twice; else 0."""
    past = max(1, min(_KEPT_DAYS, day - first_day))
    own = sorted(leap for then, leap in kept if 0 < day - then <= _KEPT_DAYS)
    if len(own) < 2 or 2 * len(own) < past:
        return 0.0
    return float(own[min(len(own) - 1, int(quantile * len(own)))])


def start(time_s: float) -> dict[str, Any]:
    """Return the state before anything was seen."""
    return {
        "slots": [], "ahead": {}, "seen": None, "peak": 0.0, "leaps": {},
        "first_day": int(time_s // (_DAY * SLOT_S)), "shapes": {}, "doubts": {},
    }  # fmt: skip


def roll(
    old: Mapping[str, Any], *, time_s: float, measured_s: float, rate: float | None, last_rate: float,
    lead_s: float, quantile: float, events: Sequence[CalendarEvent] | None,
) -> dict[str, Any]:  # fmt: skip
    """Move to ``time_s``: open the slot that replicas started now will serve in, learn from a past one.

    Args:
        measured_s: End of what was measured; ``rate`` is that measurement, ``None`` when there is none.
        lead_s: How long before its begin a slot is opened.
        events: Known events, ``None`` when the policy reads no calendar.
    """
    new = dict(old)
    if rate is not None:
        place = int(measured_s // SLOT_S)
        if place != new["seen"]:
            _learn(new)
            new["seen"], new["peak"] = place, rate
        elif rate > new["peak"]:
            new["peak"] = rate
    elif new["peak"] is not None and new["seen"] is not None:
        new["peak"], new["seen"] = 0.0, None  # a slot that was not seen whole teaches nothing
    number = int((time_s + lead_s) // SLOT_S)
    slots = new["slots"]
    if not slots:  # nothing could be started ahead of the first one: it teaches nothing
        new.setdefault("since", number)
    if not slots or slots[-1][0] != number:
        ahead, first_day = new["ahead"], new["first_day"]
        leaps = {}
        for n in range(number, number + _OPEN):
            known = ahead.get(str(n))
            leaps[str(n)] = leap_quantile(new["leaps"], n, first_day, quantile) if known is None else known
        found = [] if events is None else shapes.features(number, last_rate, events)
        slot = [number, last_rate, leaps[str(number)], shapes.explained(new["shapes"], found), found]
        new["slots"] = [*(s for s in slots if number - _OPEN < s[0] < number), slot]
        new["ahead"] = leaps
    return new


def _learn(new: dict[str, Any]) -> None:
    slot = next((s for s in new["slots"] if s[0] == new["seen"]), None)
    if slot is None or slot[0] <= new.get("since", -1):
        return
    number, began, _, said, found = slot
    leap, reference = new["peak"] - began, max(began, _LEAST_RPS)
    if found:
        new["doubts"] = shapes.learn_doubt(new["doubts"], new["shapes"], found, reference, leap, said)
        new["shapes"] = shapes.learn(new["shapes"], found, reference, leap, said, number)
    factor = (new["peak"] - said) / max(reference, _TINY_RPS)
    if factor >= _LEAST_KEPT:
        day, at = divmod(number, _DAY)
        kept = [e for e in new["leaps"].get(str(at), ()) if day - e[0] <= _KEPT_DAYS]
        new["leaps"] = {**new["leaps"], str(at): [*kept, [day, round(factor, 2)]]}


def reserves(
    state: Mapping[str, Any], *, time_s: float, soon_s: float, rate: float, quantile: float
) -> tuple[float, float, str]:
    """Return the load to be ready for now, the load not to fall below, and why the first.

    Args:
        soon_s: How far the second looks ahead.
        quantile: Of what events bring beyond what was said.
    """
    present = int(time_s // SLOT_S)
    now = soon = 0.0
    why = ""
    for number, reference, leap, said, found in state["slots"]:
        if number < present:
            continue
        again, dated = leap * max(reference, _TINY_RPS), 0.0
        if said > 0:
            told = sum(size for key, size in found if key == shapes.SAID)
            unsure = shapes.surplus(state["doubts"], state["shapes"], found, quantile)
            extra = told + (said - told) * unsure
            dated = reference + extra if extra > _LEAST_EVENT * reference else 0.0
        if max(again, dated) > now:
            now = max(again, dated)
            why = "dated events near" if dated >= again else "at this time the load has leapt before"
    opened = state["slots"][-1][0] if state["slots"] else present
    for text, leap in state["ahead"].items():
        if opened < int(text) and int(text) * SLOT_S < time_s + soon_s:
            soon = max(soon, leap * max(rate, _TINY_RPS))
    return now, max(now, soon), why
