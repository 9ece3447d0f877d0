"""Which of several new indexes makes a query slower: found by taking them away, not by names in its plan.

A plan of many joins names a dozen indexes, and one of them may have led the planner astray. Where the engine
can hide an index this costs two changes of its catalogue; elsewhere it is dropped, and built again when it is
not to blame, as long as that is quickly done.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Final, Protocol

from eventperf.dbopt.errors import StatementRefused
from eventperf.dbopt.findings import IndexAdvice
from eventperf.dbopt.options import Limits
from eventperf.dbopt.protocols import Measurement

from .verdict import OUTWEIGHS, Compared, is_slower

_NOT_FOUND: Final = "{}: what makes it slower was not found"


def culprits(suspects: Sequence[str], is_cured: Callable[[frozenset[str]], bool]) -> frozenset[str]:
    """Return a smallest set of suspects without which the query is cured; empty when none cures it.

    Args:
        suspects: The least useful first.
        is_cured: Measures the query without these indexes.

    >>> sorted(culprits("abcd", lambda without: {"b", "c"} <= without))
    ['b', 'c']
    """
    away: list[str] = []
    for name in suspects:
        away.append(name)
        if is_cured(frozenset(away)):
            break
    else:
        return frozenset()
    needed = frozenset(away)
    for name in away[:-1]:
        if is_cured(needed - {name}):
            needed -= {name}
    return needed


class Switch(Protocol):
    """Takes indexes out of every plan, and brings them back.

    ``is_quick`` tells whether that costs a change of the catalogue only.
    """

    @property
    def is_quick(self) -> bool: ...

    def off(self, index: IndexAdvice, /) -> None:
        """Take it out; raise ``StatementRefused`` when the database does."""
        ...

    def on(self, index: IndexAdvice, /) -> None:
        """Bring it back."""
        ...


class Absent:
    """The new indexes that are out of every plan at the moment.

    Args:
        made: The new indexes by name.
        switch: How the engine takes one out.
    """

    def __init__(self, made: Mapping[str, IndexAdvice], switch: Switch) -> None:
        self._made, self._switch = made, switch
        self.names: frozenset[str] = frozenset()

    def set(self, names: frozenset[str]) -> None:
        """Make exactly ``names`` absent."""
        for name in sorted(names - self.names):
            self._switch.off(self._made[name])
            self.names |= {name}
        for name in sorted(self.names - names):
            self._switch.on(self._made[name])
            self.names -= {name}

    def restore(self, kept: frozenset[str]) -> None:
        """Bring back all but ``kept``, whatever the database refuses."""
        for name in sorted(self.names - kept):
            with suppress(StatementRefused):
                self._switch.on(self._made[name])
                self.names -= {name}


class Blame:
    """Finds the indexes that make queries slower beside others.

    Args:
        made: The new indexes.
        compared: What was measured before and after.
        limits: What counts as slower, and how long indexes may be built again for the search.
        switch: How the engine takes an index out of plans.
        took: Seconds that each build took.
    """

    def __init__(
        self,
        made: Sequence[IndexAdvice],
        compared: Iterable[Compared],
        limits: Limits,
        switch: Switch,
        took: Mapping[str, float],
    ) -> None:
        self._made = {i.name: i for i in made}
        self._compared, self._limits, self._switch, self._took = list(compared), limits, switch, took
        self._blamed: dict[str, str] = {}
        self._absent = Absent(self._made, switch)
        self.warnings: list[str] = []

    def find(
        self, measure: Callable[[Compared], Measurement | None], progress: Callable[[str], None]
    ) -> dict[str, str]:
        """Return who is to blame with the reason, and leave those out of every plan; all others are there.

        Args:
            measure: Runs a query again; ``None`` when it cannot, or time is up.
            progress: Told what is tried.
        """
        slower = [c for c in self._compared if is_slower(c, self._limits)]
        try:
            for compared in sorted(slower, key=_loss, reverse=True):
                suspects = self._suspects(compared)
                if len(suspects) > 1 and self._may_try(suspects, compared):
                    progress(f"looking for what makes query {compared.fingerprint} slower")
                    self._try(compared, suspects, measure)
        finally:
            self._absent.restore(frozenset(self._blamed))
        for name in self._absent.names - self._blamed.keys():
            self._blamed[name] = "it was taken away for a measurement and could not be brought back"
        return self._blamed

    def _try(
        self,
        compared: Compared,
        suspects: Sequence[str],
        measure: Callable[[Compared], Measurement | None],
    ) -> None:
        def is_cured(without: frozenset[str]) -> bool:
            self._absent.set(frozenset(self._blamed) | without)
            now = measure(compared)
            return now is not None and not is_slower(replace(compared, after=now), self._limits)

        try:
            found = culprits(suspects, is_cured)
        except StatementRefused as error:
            self.warnings.append(
                f"{compared.fingerprint}: what makes it slower was not found: {error.reason}"
            )
            return
        if not found:
            self.warnings.append(f"{compared.fingerprint}: what makes it slower was not found: time was up")
        for name in found:
            by = f"query {compared.fingerprint} became {1 / compared.speedup:.1f}x slower by it"
            self._blamed[name] = f"{by}; measured without it, beside the others"
        self._absent.restore(frozenset(self._blamed))

    def _suspects(self, compared: Compared) -> list[str]:
        """Return the new indexes in a query's plan, the least useful to others first."""
        names = [n for n in compared.after.indexes if n in self._made and n not in self._blamed]
        return sorted(names, key=lambda n: (self._gain(n, compared), n))

    def _gain(self, name: str, without: Compared) -> float:
        others = (c for c in self._compared if name in c.after.indexes and c is not without)
        return sum(-_loss(c) for c in others)

    def _may_try(self, suspects: Sequence[str], compared: Compared) -> bool:
        """Tell whether it is worth it: one that gains far more stays anyhow, and builds may take long."""
        if self._gain(suspects[0], compared) >= OUTWEIGHS * _loss(compared):
            return False
        if self._switch.is_quick:
            return True
        again = sum(self._took.get(n, 0.0) for n in suspects)
        if again > self._limits.verify_budget_s:
            self.warnings.append(
                f"{compared.fingerprint}: which of {len(suspects)} indexes makes it slower was not tried: "
                f"to build them again takes {again:.0f} s, more than verify_budget"
            )
            return False
        return True


def _loss(compared: Compared) -> float:
    return compared.calls * (compared.after.seconds - compared.before.seconds)
