"""Executions that were kept: which of them stand for all."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple


class Sample(NamedTuple):
    """One execution: text with ``:pN`` parameters, their values and the time it took where they are known."""

    sql: str
    values: tuple[Any, ...] | None = None
    seconds: float | None = None


def dear(sample: Sample) -> tuple[bool, float]:
    """Order samples: those with values first, the dearest of them before all."""
    return sample.values is None, -(sample.seconds or 0.0)


def merged(samples: Sequence[Sample], others: Iterable[Sample], most: int) -> list[Sample]:
    """Return samples of both, those with values first; the dearest is never the one too many."""
    known = {repr(s[:2]) for s in samples}
    fresh = [s for s in others if repr(s[:2]) not in known]
    every = sorted([*samples, *fresh], key=lambda s: s.values is None)
    kept = every[:most]
    dearest = min(every, key=dear, default=None)
    if dearest is not None and dearest.seconds is not None and dearest not in kept:
        kept[-1] = dearest
    return kept


def probes(samples: Iterable[Sample], most: int) -> list[Sample]:
    """Return few samples that stand for all: of each text the dearest, the cheapest, the median.

    What is slow for some parameters only is slow in the dearest; where no times are known the first,
    the last and the middle one stand for the rest.

    >>> [s.seconds for s in probes([Sample("q", (n,), n / 10) for n in range(16)], 9)]
    [1.5, 0.0, 0.7]
    """
    texts: dict[str, list[Sample]] = {}
    for sample in samples:
        texts.setdefault(sample.sql, []).append(sample)
    ranked = sorted((sorted(t, key=dear) for t in texts.values()), key=lambda t: dear(t[0]))
    rounds = [t[0] for t in ranked]
    rounds += [t[-1] for t in ranked if len(t) > 1]
    rounds += [t[len(t) // 2] for t in ranked if len(t) > 2]
    return rounds[:most]
