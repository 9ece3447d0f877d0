"""What dated events bring: a shape for each kind, learned by robust regression from the first event on. Pure.

Around an event time is cut into slots of five minutes. In each of them events of a kind bring some requests
per second for each expected person, on top of the load that was there when replicas for the slot had to be
started. What came beyond what was said is shared out among the events near by how little is known of each (a
Kalman filter with one variance for each figure). Close to its date the first event of a kind is taken as it
is; later ones move the mean no further than three deviations, unless two in a row agree: then the site has
changed, and is learned anew.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from statistics import NormalDist
from typing import Any

from eventperf.scaling.model import CalendarEvent

SLOT_S = 300.0
EVERY, SAID = "*", "="
"""Keys of what a slot brings without any event, and of requests per second that a calendar says outright."""

_FIRST, _LAST = -6, 36  # slots around an event that it may explain
_NEAR = ("|0", "|-1", "|1", "|0%", "|-1%", "|1%")
_NEAR_DOUBT, _FAR_DOUBT, _EVERY_DOUBT = 30.0, 0.1, 0.1  # shares of the load at the time
_NOISE, _SIZE_NOISE, _DRIFT = 0.05, 0.3, 0.1
_SURPRISE, _AGREE = 3.0, 2
_DOUBT, _DOUBT_EVENTS, _DOUBT_GAIN = 0.3, 2.0, 0.1
_MOST_DOUBT, _TOLD = 1.2, 0.15
_MOST_KINDS, _MOST_SHAPES = 64, 1024
_LEAST_SIZE = 1e-6  # less is nothing, and its square is none


def features(number: int, reference: float, events: Sequence[CalendarEvent]) -> list[list[Any]]:
    """Return ``[key, size]`` of what the events may bring to slot ``number``; equal keys are summed.

    The size is the expected persons, or the load at the time where nobody counted: those have keys of their
    own, for what a person brings is no share of a load.
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
            key = f"{event.kind}|{offset}" if event.expected is not None else f"{event.kind}|{offset}%"
            sums[key] = sums.get(key, 0.0) + (reference if event.expected is None else event.expected)
    if sums:
        sums[EVERY] = reference
    found = [[key, size] for key, size in sums.items() if size > _LEAST_SIZE]
    return [*found, [SAID, told]] if told > 0.0 else found


def explained(shapes: Mapping[str, Any], found: Sequence[Sequence[Any]]) -> float:
    """Return the leap in requests per second that these features bring, on average."""
    total = 0.0
    for key, size in found:
        total += size if key == SAID else size * shapes[key][0] if key in shapes else 0.0
    return float(total)


def learn(
    shapes: Mapping[str, Any], found: Sequence[Sequence[Any]], reference: float, leap: float, said: float,
    number: int = 0,
) -> dict[str, Any]:  # fmt: skip
    """Return the shapes after slot ``number``: ``{key: [per person, variance, outliers in a row, number]}``.

    Beyond 1,024 figures those that were not met for longest go.

    >>> round(learn({}, [["opening|0", 1000.0]], 100.0, 1500.0, 0.0)["opening|0"][0], 2)
    1.5
    """
    new = dict(shapes)
    if any(key == SAID for key, _ in found):
        return new  # what was said outright is not told from what was learned
    noise = (_NOISE * reference) ** 2 + (_SIZE_NOISE * said) ** 2
    surprise, first = leap - said, {key for key, _ in found if key not in shapes and key.endswith(_NEAR)}
    for key, size in found:
        mean, variance, streak, *_ = new.get(key) or (0.0, (_first_doubt(key) * reference / size) ** 2, 0)
        new[key] = [mean, variance + (_DRIFT * mean) ** 2, streak, number]
    most = _SURPRISE * math.sqrt(noise + sum(new[key][1] * size * size for key, size in found))
    sign = 0 if first else (surprise > most) - (surprise < -most)
    changed = [pair for pair in found if pair[0] != EVERY and new[pair[0]][2] * sign >= _AGREE - 1]
    if sign and changed:
        for key, size in changed:  # the site has changed: what was learned is as doubtful as at first
            new[key] = [new[key][0], max(new[key][1], (_first_doubt(key) * reference / size) ** 2), 0, number]
        sign = 0
    elif sign:
        surprise = sign * most
    total = noise + sum(new[key][1] * size * size for key, size in found)
    for key, size in found:
        mean, variance, streak, _ = new[key]
        gain = variance * size / total if total > 0.0 else 0.0
        streak = streak + sign if sign and streak * sign >= 0 else sign
        mean, variance = max(0.0, mean + gain * surprise), variance * (1.0 - gain * size)
        if key in first:  # taken as it is, but its count may be as far off as any
            variance += (_SIZE_NOISE * mean) ** 2
        new[key] = [mean, variance, streak, number]
    if len(new) > _MOST_SHAPES:
        kept = sorted(new, key=lambda key: (-new[key][3] if len(new[key]) > 3 else 0, key))[:_MOST_SHAPES]
        return {key: new[key] for key in kept}
    return new


def _first_doubt(key: str) -> float:
    """Return how much one event may bring before any was seen, as a share of the load."""
    return _EVERY_DOUBT if key == EVERY else _NEAR_DOUBT if key.endswith(_NEAR) else _FAR_DOUBT


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
    """Return by what factor these events may bring more than is said, at ``quantile``.

    The error of a forecast from a regression: how far sizes are off, once for this event and once more for
    the few that it was learned from.
    """
    square = (doubts.get(_kind(shapes, found)) or (_DOUBT**2,))[0]
    known = [(size * shapes[key][0], size * size * shapes[key][1]) for key, size in found if key in shapes]
    if (brings := sum(mean for mean, _ in known)) > 1e-9:  # less than a request in years has no square
        square *= 1.0 + sum(variance for _, variance in known) / (brings * _SIZE_NOISE) ** 2
    return math.exp(min(_MOST_DOUBT, _deviations(quantile) * math.sqrt(square)))


@lru_cache(maxsize=64)
def _deviations(quantile: float) -> float:
    return NormalDist().inv_cdf(quantile)
