"""Rounds of measurements: every round of a statement runs what its first one ran."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from eventperf._core.clock import Clock
from eventperf.dbopt.findings import IndexAdvice
from eventperf.dbopt.protocols import Measurement
from eventperf.dbopt.statements.workload import Sample, Statement

from .verdict import Compared, calmer, together, undecided

#: How often a sample is run in one round.
RUNS: Final = 5
#: So many more rounds are run of queries in which noise hides what an index does.
_MORE: Final = 3
#: Where later rounds are bounded they have these seconds, too.
_LEAST_S: Final = 0.05


class Rounds:
    """What is run of each statement, chosen in its first round with the time-out of each sample.

    Args:
        measure: Runs samples: ``(samples, runs=, timeout_s=)``.
        clock: Time.
        timeout_s: Longest single run.
        samples: Most samples of one statement.
        runs: How often a sample is run in one round.
        worst: A later round is stopped when it takes so many times what the first one took.
    """

    def __init__(
        self,
        measure: Callable[..., Measurement | None],
        clock: Clock,
        *,
        timeout_s: float,
        samples: int,
        runs: int = RUNS,
        worst: float = math.inf,
    ) -> None:
        self._measure, self._clock, self._runs, self._worst = measure, clock, runs, worst
        self._timeout_s, self._samples = timeout_s, samples
        self._chosen: dict[str, list[tuple[Sample, float]]] = {}

    def run(self, statement: Statement, end: float, share_s: float = 0.0) -> Measurement | None:
        """Measure the samples that stand for a statement, the dearest first; ``None``: it does not run.

        Args:
            statement: Its samples are chosen the first time: one, and more while its share of time lasts.
            end: Monotonic time after which no further sample is chosen.
            share_s: Seconds for the choice.
        """
        name = statement.fingerprint.id
        chosen = self._chosen.get(name)
        todo = chosen or [(s, self._timeout_s) for s in statement.probes(self._samples)]
        found: list[Measurement] = []
        done: list[tuple[Sample, float]] = []
        began = self._clock.monotonic()
        for sample, timeout in todo:
            now = self._clock.monotonic()
            if chosen is None and found and (now >= end or now - began >= share_s):
                break
            within = timeout if chosen is not None else max(0.001, min(timeout, end - now))
            one = self._measure([sample], runs=self._runs, timeout_s=within)
            if one is None:
                return None
            found.append(one)
            if chosen is None:
                within = min(within, self._worst * one.seconds + _LEAST_S)
            done.append((sample, within))
        self._chosen[name] = done
        return together(found)


def compare(
    before: Mapping[str, Measurement], after: Mapping[str, Measurement], calls: Mapping[str, int]
) -> dict[str, Compared]:
    """Return what was measured in both rounds, side by side."""
    return {
        i: Compared(fingerprint=i, calls=calls.get(i, 1), before=before[i], after=m)
        for i, m in after.items()
        if i in before
    }


def judged_by(index: IndexAdvice, compared: Mapping[str, Compared]) -> list[Compared]:
    """Return the queries that an index is judged by: those it is for, and those whose plan uses it."""
    serves = {s.fingerprint for s in index.serves}
    return [c for c in compared.values() if c.fingerprint in serves or index.name in c.after.indexes]


def until_decided(
    indexes: Iterable[IndexAdvice],
    after: Mapping[str, Measurement],
    look: Callable[[Mapping[str, Measurement]], Mapping[str, Compared]],
    again: Callable[[str, int], Measurement | None],
) -> dict[str, Measurement]:
    """Run again what noise hides, a few rounds at most; later rounds can only take noise away.

    Args:
        indexes: What is to be judged.
        after: The first round with them.
        look: Compares a round with the one before them.
        again: Runs a query of this name in the round of this number; ``None`` when time is up.
    """
    found, every = dict(after), list(indexes)
    for number in range(1, _MORE + 1):
        judged = look(found)
        for name in sorted(_open(every, judged)):
            more = again(name, number)
            if more is None:
                return found
            if more.plan == found[name].plan:
                found[name] = calmer(found[name], more)
    return found


def _open(indexes: Sequence[IndexAdvice], judged: Mapping[str, Compared]) -> set[str]:
    return {name for index in indexes for name in undecided(index.name, judged_by(index, judged))}
