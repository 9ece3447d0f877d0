"""What dated events bring: a shape for each kind, learned by robust regression from the first event on. Pure.

Around an event time is cut into slots of five minutes. In each of them events of a kind bring some requests
per second for each expected person, on top of the load that was there when replicas for the slot had to be
started. What came beyond what was said is shared out among the events that are near by how little is known of
each. The first event is taken as it is; later ones move the mean, the less the more there were, and no further
than the usual spread, unless two in a row agree: then the site has changed, and is learned anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

from eventperf.scaling.model import CalendarEvent

SLOT_S = 300.0
EVERY, SAID = "*", "="
"""Keys of what a slot brings without any event, and of requests per second that a calendar says outright."""

_FIRST, _LAST = -6, 36  # slots around an event that it may explain
_NEAR = ("|0", "|-1", "|1")
_NEAR_DOUBT, _FAR_DOUBT, _EVERY_DOUBT, _NOISE = 1.0, 0.1, 0.05, 0.05  # shares of the load at the time
_LEAST_GAIN, _LEAST_SPREAD, _FIRST_SPREAD = 0.2, 0.1, 0.5
_DOUBT, _DOUBT_EVENTS, _DOUBT_GAIN = 0.3, 2.0, 0.1
_MOST_DOUBT, _TOLD = 1.2, 0.15
_MOST_KINDS = 64


def features(number: int, reference: float, events: Sequence[CalendarEvent]) -> list[list[Any]]:
    """Return ``[key, size]`` of what the events may bring to slot ``number``; equal keys are summed.

    The size is the expected persons, or the load at the time where nobody counted.
    """
    sums: dict[str, float] = {}
    told = 0.0
    for event in events:
        offset = number - math.floor(event.at / SLOT_S)
        if event.replicas is not None:
            continue
        if event.rps is not None:
            told += event.rps if offset == 0 else 0.0
        elif _FIRST <= offset <= _LAST:
            key = f"{event.kind}|{offset}"
            sums[key] = sums.get(key, 0.0) + (reference if event.expected is None else event.expected)
    if sums:
        sums[EVERY] = reference
    found = [[key, size] for key, size in sums.items() if size > 0]
    return [*found, [SAID, told]] if told > 0.0 else found


def explained(shapes: Mapping[str, Any], found: Sequence[Sequence[Any]]) -> float:
    """Return the leap in requests per second that these features bring, on average."""
    return float(sum(size * shapes[key][0] for key, size in found if key in shapes))


def learn(
    shapes: Mapping[str, Any], found: Sequence[Sequence[Any]], reference: float, leap: float, said: float
) -> dict[str, Any]:
    """Return the shapes after one more slot: ``{key: [per person, spread, events, outliers in a row]}``.

    >>> learn({}, [["opening|0", 1000.0]], 100.0, 1500.0, 0.0)["opening|0"][0]
    1.496...
    """
    told = sum(size for key, size in found if key == SAID)
    if told:
        return dict(shapes)  # what was said outright is not split from what was learned
    doubts = [(key, size, _doubt(shapes.get(key), key, size, reference)) for key, size in found]
    total = (_NOISE * reference) ** 2 + sum(d * d for _, _, d in doubts)
    new = dict(shapes)
    for key, size, doubt in doubts:
        share = doubt * doubt / total
        old = new.get(key)
        mean = old[0] if old else 0.0
        new[key] = _moved(old, mean + share * (leap - said) / size)
    return new


def _doubt(known: Sequence[float] | None, key: str, size: float, reference: float) -> float:
    """Return by how many requests per second this key may be off."""
    if known:
        return size * max(known[1], _LEAST_SPREAD * known[0])
    share = _EVERY_DOUBT if key == EVERY else _NEAR_DOUBT if key.endswith(_NEAR) else _FAR_DOUBT
    return share * reference


def _moved(old: Sequence[float] | None, sample: float) -> list[float]:
    sample = max(0.0, sample)
    if old is None:
        return [sample, _FIRST_SPREAD * sample, 1, 0]
    mean, spread, count, streak = old
    off = sample - mean
    most = 2.0 * spread + _LEAST_SPREAD * mean
    sign = (off > most) - (off < -most)
    streak = streak + sign if streak * sign >= 0 and sign else sign
    if abs(streak) >= 2:
        return [sample, _FIRST_SPREAD * sample, 1, 0]
    step = max(-most, min(most, off))
    gain = max(_LEAST_GAIN, 1.0 / (count + 1.0))
    return [mean + gain * step, spread + gain * (1.25 * abs(step) - spread), count + 1, streak]


def _kind(shapes: Mapping[str, Any], found: Sequence[Sequence[Any]]) -> str:
    """Return the kind that brings most to a slot."""
    most, name = 0.0, EVERY
    for key, size in found:
        brings = size * shapes[key][0] if key in shapes else 0.0
        if brings > most and key != EVERY:
            most, name = brings, key.rpartition("|")[0]
    return name


def learn_doubt(
    doubts: Mapping[str, Any], shapes: Mapping[str, Any], found: Sequence[Sequence[Any]], reference: float,
    leap: float, said: float,
) -> Mapping[str, Any]:  # fmt: skip
    """Return how far events of each kind came out above what was said: ``{kind: [mean square, slots]}``."""
    if said <= _TOLD * reference:
        return doubts
    kind = _kind(shapes, found)
    square, count = doubts.get(kind) or (_DOUBT**2, _DOUBT_EVENTS)
    above = min(_MOST_DOUBT, max(0.0, math.log(max(leap, 1e-9) / said)))
    gain = max(_DOUBT_GAIN, 1.0 / (count + 1.0))
    kept = doubts if kind in doubts or len(doubts) < _MOST_KINDS else {}
    return {**kept, kind: [square + gain * (2.0 * above * above - square), count + 1.0]}


def surplus(
    doubts: Mapping[str, Any], shapes: Mapping[str, Any], found: Sequence[Sequence[Any]], quantile: float
) -> float:
    """Return by what factor these events may bring more than is said, at ``quantile``."""
    square = (doubts.get(_kind(shapes, found)) or (_DOUBT**2,))[0]
    return math.exp(min(_MOST_DOUBT, NormalDist().inv_cdf(quantile) * math.sqrt(square)))
