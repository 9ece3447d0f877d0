"""Loads of four kinds: late requests and cost of policies at several settings, drawn beside their peers."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

from scaling_weeks import POD_RPS, Kpa

from eventperf.scaling import LatencyPolicy, PodModel, PredictivePolicy, TargetTracking, Trace, backtest

STEP_S, DAY_S = 15.0, 86_400.0
PEAK_RPS = 100.0 * POD_RPS
_LEAST, _MOST = 0.001, 20.0  # percent of late requests that are drawn
_WIDTH, _HEIGHT, _LEFT, _TOP = 330, 250, 50, 30
_COLOURS = {"HPA": "#c0504d", "KPA": "#d99a2b", "LatencyPolicy": "#1f6fb2", "PredictivePolicy": "#2e8b57"}


def walk(random: Random, days: int) -> list[float]:
    """Minutes of a random walk that forgets within eight hours."""
    at, rates = 0.0, list[float]()
    for _ in range(days * 1440):
        at = 0.998 * at + random.gauss(0.0, 0.035)
        rates.append(math.exp(at) * random.lognormvariate(0.0, 0.02))
    return rates


def web(random: Random, days: int) -> list[float]:
    """Five minutes each of quiet night-and-day traffic: a wave, slow noise, now and then a busy hour."""
    slow, extra, rates = 0.0, 0.0, list[float]()
    for i in range(days * 288):
        wave = 0.35 + 0.65 * (0.5 - 0.5 * math.cos(2 * math.pi * (i / 288 - 1 / 6))) ** 1.3
        slow = 0.95 * slow + random.gauss(0.0, 0.04)
        extra = extra * math.exp(-1 / 8) + (random.uniform(0.3, 2.0) if random.random() < 0.0015 else 0.0)
        rates.append(wave * (math.exp(slow) * random.lognormvariate(0.0, 0.1) + extra))
    return rates


def spikes(random: Random, days: int) -> list[float]:
    """Minutes with a spike of some seven times the load every two hours, which fades in ten minutes."""
    sizes = [6.0 * random.lognormvariate(0.0, 0.25) for _ in range(days * 12)]
    return [
        (1.0 + 0.3 * math.sin(2 * math.pi * i / 1440) + sizes[i // 120] * math.exp(-(i % 120) / 10))
        * random.lognormvariate(0.0, 0.03)
        for i in range(days * 1440)
    ]


def bursts(random: Random, days: int) -> list[float]:
    """Five minutes each of next to nothing, and bursts of any size that last one to three of them."""
    left, size, rates = 0, 0.0, list[float]()
    for i in range(days * 288):
        day = 0.5 + 0.5 * math.sin(2 * math.pi * (i / 288 - 1 / 3))
        if not left and random.random() < 0.03 + 0.03 * day:
            left, size = random.choice((1, 1, 1, 2, 3)), min(random.paretovariate(1.2), 8.0)
        rates.append(0.25 * (0.5 + day) * random.lognormvariate(0.0, 0.5))
        if left:
            left, rates[-1] = left - 1, rates[-1] + size * random.lognormvariate(0.0, 0.3)
    return rates


TRACES: dict[str, tuple[Callable[[Random, int], list[float]], float]] = {
    "random walk": (walk, 60.0), "web traffic": (web, 300.0), "two-hourly spikes": (spikes, 60.0),
    "bursts on low load": (bursts, 300.0),
}  # fmt: skip


def made(name: str, days: int, seed: int) -> Trace:
    """Return the load in steps of 15 s, straight between the middles of bins, at most 100 replicas' work."""
    make, bin_s = TRACES[name]
    random = Random(seed)
    bins = make(random, days)
    scale, rates = PEAK_RPS / max(bins), list[float]()
    for step in range(int(len(bins) * bin_s / STEP_S)):
        place = min(max((step + 0.5) * STEP_S / bin_s - 0.5, 0.0), len(bins) - 1.001)
        low, share = int(place), place % 1.0
        rate = scale * (bins[low] * (1.0 - share) + bins[low + 1] * share)
        rates.append(max(0.0, random.gauss(rate, math.sqrt(rate / STEP_S))))
    return Trace(tuple(rates), STEP_S)


def measure(days: int, seed: int = 1) -> list[dict[str, Any]]:
    """Return a row for each setting of each policy on each trace."""
    tried: list[tuple[str, str, Callable[[], Any]]] = []
    for share in (0.5, 0.6, 0.7, 0.8, 0.9):
        tried.append(("HPA", f"{share:.0%}", lambda s=share: TargetTracking(rps=s * POD_RPS)))
        tried.append(("KPA", f"{share:.0%}", lambda s=share: Kpa(s)))
    for kind in (LatencyPolicy, PredictivePolicy):
        tried += [
            (kind.__name__, f"{safety:g}", lambda k=kind, s=safety: k(safety=s, window=STEP_S))
            for safety in (0.95, 0.97, 0.985, 0.995)
        ]
    rows = []
    for name in TRACES:
        trace = made(name, days, seed)
        for policy, setting, make in tried:
            score = backtest(
                make(), trace, pod=PodModel(lag=5.0), interval=STEP_S, compare=False, min_replicas=2,
                max_replicas=400, seed=seed,
            ).score  # fmt: skip
            rows.append({
                "trace": name, "policy": policy, "setting": setting, "cost": score.cost,
                "late_percent": 100.0 * score.violations, "flaps_per_day": score.flaps / days,
            })  # fmt: skip
    return rows


def drawn(rows: list[dict[str, Any]]) -> str:
    """Return one SVG: late requests over cost for each trace; lower and further left is better."""
    names = list(dict.fromkeys(row["trace"] for row in rows))
    height = (len(names) + 1) // 2 * _HEIGHT
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{2 * _WIDTH}" height="{height + 24}" '
        'font-family="sans-serif" font-size="11"><rect width="100%" height="100%" fill="white"/>'
    ]
    for number, name in enumerate(names):
        parts += _panel(name, [r for r in rows if r["trace"] == name], number)
    for number, (policy, colour) in enumerate(_COLOURS.items()):
        x, y = 60 + 140 * number, height + 14
        parts.append(
            f'<circle cx="{x}" cy="{y - 4}" r="4" fill="{colour}"/><text x="{x + 8}" y="{y}">{policy}</text>'
        )
    return "".join([*parts, "</svg>\n"])


def _panel(name: str, rows: list[dict[str, Any]], number: int) -> list[str]:
    left, top = number % 2 * _WIDTH + _LEFT, number // 2 * _HEIGHT + _TOP
    width, height = _WIDTH - _LEFT - 15, _HEIGHT - _TOP - 35
    low, high = 1.0, max(2.0, max(row["cost"] for row in rows))

    def place(row: dict[str, Any]) -> tuple[float, float]:
        late = min(max(row["late_percent"], _LEAST), _MOST)
        share = math.log(late / _LEAST) / math.log(_MOST / _LEAST)
        return left + (row["cost"] - low) / (high - low) * width, top + (1.0 - share) * height

    parts = [
        f'<text x="{left}" y="{top - 10}" font-weight="bold">{name}</text>'
        f'<rect x="{left}" y="{top}" width="{width}" height="{height}" fill="none" stroke="#999"/>'
    ]
    for late in (0.001, 0.01, 0.1, 1.0, 10.0):
        _, y = place({"cost": low, "late_percent": late})
        text = f"{late:g} %" if late > _LEAST else "0"
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{text}</text>')
        parts.append(f'<path d="M{left} {y:.1f}h{width}" stroke="#eee"/>')
    for tenths in range(10, int(10 * high) + 1, max(1, round(2 * (high - low)))):
        x, _ = place({"cost": tenths / 10, "late_percent": 1.0})
        parts.append(f'<text x="{x:.1f}" y="{top + height + 14}" text-anchor="middle">{tenths / 10:g}</text>')
    for policy, colour in _COLOURS.items():
        spots = sorted(place(row) for row in rows if row["policy"] == policy)
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in spots)
        parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-opacity="0.5"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in spots]
    return parts
