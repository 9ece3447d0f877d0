"""Measured proof before anything is advised: statements run without and with the chosen set on a copy.

An estimate ranks, a measurement proves. What makes a statement slower than noise explains is given up, or its
runner-up takes its place if that one gains by the same measure. A copy that is too small to tell times is not
asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, runtime_checkable

from eventperf._core.clock import Clock
from eventperf.dbopt.errors import StatementRefused
from eventperf.dbopt.findings import IndexAdvice, Served
from eventperf.dbopt.options import Limits
from eventperf.dbopt.protocols import Ground, Measurement, Query, TellsHarm

from .blame import Blame
from .rounds import RUNS, Rounds, compare, judged_by, until_decided
from .verdict import Compared, Verdict, is_slower, judge

#: Most statements that are run, the dearest of those that an index is for first, and samples of each.
_MOST: Final = 500
_SAMPLES: Final = 3
#: Parts of the time: for the round before, and for this and building; the rest is for the rounds after.
_BEFORE: Final = 0.3
_BUILT: Final = 0.6
#: Where indexes can be set aside they are built first, and each statement is run as often in one round: what
#: is undecided is run again. Parts of the time that is left: to run them with the set, and then without.
_RUNS: Final = 2
_BUILT_FIRST: Final = 0.4
_WITH: Final = 0.5
_WITHOUT: Final = 0.6
#: The round that is bounded by the first one: after what it was before, or before what it is after.
_WORST: Final = 4.0
_BEST: Final = 20.0
#: So many others are tried in place of one that is given up.
_RUNNERS_UP: Final = 2


@runtime_checkable
class SetsAside(Protocol):
    """A copy where built indexes are taken out of plans, and brought back, at once."""

    def aside(self, names: frozenset[str], /) -> None:
        """Have the measurements that follow do without exactly these."""
        ...


@dataclass(slots=True)
class Proof:
    """What a copy showed.

    Attributes:
        place: Where it was measured, in words.
        compared: Statements without and with what is left of the set.
        verdicts: What was shown of each index of the set by name, where anything was.
        given_up: Why an index is not advised.
        instead: What takes its place, by its name.
        silent: Why nothing was shown of an index, by its name.
    """

    place: str = ""
    compared: dict[str, Compared] = field(default_factory=dict)
    verdicts: dict[str, Verdict] = field(default_factory=dict)
    given_up: dict[str, str] = field(default_factory=dict)
    instead: dict[str, IndexAdvice] = field(default_factory=dict)
    silent: dict[str, str] = field(default_factory=dict)


def harms(verdict: Verdict, mine: Iterable[Compared], limits: Limits) -> bool:
    """Tell whether an index is given up: it was shown to make a statement slower, for no larger gain."""
    return not verdict.keep and verdict.speedup is not None and any(is_slower(c, limits) for c in mine)


def _is_idle(index: IndexAdvice, verdict: Verdict, mine: Sequence[Compared]) -> bool:
    """Tell whether all that an index is for was run and not helped: ``apply`` would take it back."""
    is_whole = {s.fingerprint for s in index.serves} <= {c.fingerprint for c in mine}
    is_used = any(index.name in c.after.indexes for c in mine)
    return is_whole and not verdict.keep and (verdict.speedup is not None or not is_used)


def affected(
    indexes: Sequence[IndexAdvice], queries: Iterable[Query], unfit: Callable[[str], str | None]
) -> tuple[list[Query], dict[str, str]]:
    """Return the statements that tell what indexes do, dearest first, and why an index has none.

    Args:
        indexes: The chosen set.
        queries: The workload.
        unfit: Why times on a table's copy say nothing.
    """
    tables = {i.spec.table for i in indexes}
    served = {s.fingerprint for i in indexes for s in i.serves}
    why: dict[str, str] = {}
    able: list[Query] = []
    for query in queries:
        if not query.tables & tables:
            continue
        unusable = next(filter(None, map(unfit, sorted(query.tables))), None)
        if not query.statement.is_read or not query.statement.measurable:
            unusable = "no parameters are known for the queries it serves"
        if unusable is None:
            able.append(query)
        else:
            why[query.id] = unusable
    able.sort(key=lambda q: (q.id not in served, -q.weight))
    able = able[:_MOST]
    known = {q.id for q in able}
    silent = {
        i.name: next(
            (why[s.fingerprint] for s in i.serves if s.fingerprint in why), "dearer queries came first"
        )
        for i in indexes
        if not any(s.fingerprint in known for s in i.serves)
    }
    return able, silent


class Prover:
    """One proof on one copy; also the switch by which blame is found there.

    Args:
        ground: The copy.
        limits: What counts as slower, and the longest single run.
        clock: Time.
        end: Monotonic time to end at.
        stop: Whether to end now, asked between steps.
        tell: Receives lines of progress.
    """

    def __init__(
        self,
        ground: Ground,
        limits: Limits,
        clock: Clock,
        end: float,
        stop: Callable[[], bool],
        tell: Callable[[str], None],
    ) -> None:
        self._ground, self._limits, self._clock, self._stop = ground, limits, clock, stop
        self._began, self._end, self._tell = clock.monotonic(), end, tell
        timeout_s = limits.statement_timeout_s
        self._aside = ground if isinstance(ground, SetsAside) else None
        self._absent: frozenset[str] = frozenset()
        self.is_quick: bool = self._aside is not None
        runs, worst = (_RUNS, _BEST) if self.is_quick else (RUNS, _WORST)
        self._rounds = Rounds(
            ground.measure, clock, timeout_s=timeout_s, samples=_SAMPLES, runs=runs, worst=worst
        )
        self._queries: dict[str, Query] = {}
        self._before: dict[str, Measurement] = {}
        self._refused: dict[str, str] = {}
        self._recorded: set[str] = set()

    def prove(
        self,
        indexes: Sequence[IndexAdvice],
        queries: Iterable[Query],
        runners_up: Callable[[IndexAdvice], Iterable[IndexAdvice]],
    ) -> Proof:
        """Measure a set, and find what it is better without."""
        able, silent = affected(indexes, queries, self._ground.unfit)
        out = Proof(self._ground.place, silent=silent)
        wanted = [i for i in indexes if i.name not in silent]
        if not wanted:
            return out
        self._queries = {q.id: q for q in able}
        self._tell(f"running {len(able)} statements on {out.place}, without and with {len(wanted)} indexes")
        if not self.is_quick:
            self._before = self._measured(self._queries, self._until(_BEFORE))
        took = self._built(wanted, out)
        made = [i for i in wanted if i.name in took]
        if not made:
            return out
        if self.is_quick:
            after = self._measured(self._queries, self._within(_WITH))
            self._before = self._without(made, after)
        else:
            after = self._measured(self._before, self._end)
        after = until_decided(made, after, self._compare, self._again)
        self._judge(made, after, took, out)
        self._replace(made, out, runners_up)
        return out

    # --- steps ---------------------------------------------------------------------------------

    def _until(self, part: float) -> float:
        return self._began + part * (self._end - self._began)

    def _within(self, part: float) -> float:
        return self._clock.monotonic() + part * self._left()

    def _left(self) -> float:
        return self._end - self._clock.monotonic()

    def _measured(self, names: Iterable[str], end: float) -> dict[str, Measurement]:
        out: dict[str, Measurement] = {}
        todo = list(names)
        for number, name in enumerate(todo):
            left = end - self._clock.monotonic()
            if left <= 0 or self._stop():
                break
            found = self._rounds.run(self._queries[name].statement, end, left / (len(todo) - number))
            if found is not None:
                out[name] = found
            elif name not in self._refused:
                self._refused[name] = self._why(self._queries[name].statement.sql)
        return out

    def _without(
        self, made: Sequence[IndexAdvice], after: Mapping[str, Measurement]
    ) -> dict[str, Measurement]:
        """Run what uses a set without it: first what changed most, by what its callers recorded.

        What was stopped, or had no time left, took as long as they recorded if that is longer than with it:
        what an index is for must not be forgotten beside what it makes slower.
        """
        names = frozenset(i.name for i in made)
        users = {n: m for n, m in after.items() if m.indexes & names}
        known = {n: self._queries[n].statement for n in users}
        recorded = {n: (s.total_s or 0.0) / max(1, s.calls) for n, s in known.items()}
        changed = {n: known[n].calls * abs(recorded[n] - m.seconds) for n, m in users.items()}
        self._set_aside(names)
        try:
            found = self._measured(sorted(users, key=lambda n: -changed[n]), self._within(_WITHOUT))
        finally:
            self._set_aside(frozenset())
        for name, now in users.items():
            run = found.get(name)
            if run is not None and run.capped:
                found[name] = replace(run, seconds=max(run.seconds, recorded[name]))
            elif run is None and recorded[name] > now.seconds:
                self._recorded.add(name)
                found[name] = replace(now, seconds=recorded[name], plan="", indexes=frozenset())
        return found

    def _silence(self, index: IndexAdvice) -> str:
        """Say why no query of an index gave a time."""
        names = (s.fingerprint for s in index.serves)
        found = next((self._refused[n] for n in names if n in self._refused), None)
        return found or "no time was left to run its queries"

    def _why(self, sql: str) -> str:
        """Say why a statement gave no time."""
        harm = self._ground.harm(sql) if isinstance(self._ground, TellsHarm) else None
        return "its queries could not be run there" if harm is None else f"its queries are not run: {harm}"

    def _again(self, name: str, number: int) -> Measurement | None:
        if self._left() <= 0 or self._stop():
            return None
        return self._rounds.run(self._queries[name].statement, self._end)

    def _compare(self, after: Mapping[str, Measurement]) -> dict[str, Compared]:
        return compare(self._before, after, {i: q.statement.calls for i, q in self._queries.items()})

    def _built(self, wanted: Sequence[IndexAdvice], out: Proof) -> dict[str, float]:
        """Build indexes; return the seconds of each that is there."""
        took: dict[str, float] = {}
        end = self._until(_BUILT_FIRST if self.is_quick else _BUILT)
        for index in wanted:
            left, began = end - self._clock.monotonic(), self._clock.monotonic()
            if left <= 0 or self._stop():
                out.silent[index.name] = "no time was left to build it"
                continue
            try:
                self._ground.build(index.spec, index.name, timeout_s=left)
            except StatementRefused as error:
                out.silent[index.name] = f"it could not be built there: {error.reason}"
                continue
            took[index.name] = self._clock.monotonic() - began
        return took

    def _judge(
        self,
        made: Sequence[IndexAdvice],
        after: Mapping[str, Measurement],
        took: Mapping[str, float],
        out: Proof,
    ) -> None:
        blame = Blame(made, self._compare(after).values(), self._limits, self, took)
        blamed = blame.find(lambda c: self._again(c.fingerprint, 0), self._tell)
        out.given_up.update(blamed)
        if blamed:
            after = {**after, **self._measured(_users(after, blamed), self._end)}
        judged = self._compare(after)
        for index in made:
            mine = judged_by(index, judged)
            if index.name in blamed:
                continue
            if not mine:
                out.silent[index.name] = self._silence(index)
                continue
            verdict = judge(index.name, mine, self._limits)
            if harms(verdict, mine, self._limits) or _is_idle(index, verdict, mine):
                out.given_up[index.name] = verdict.reason
                self.off(index)
            elif run := [c for c in mine if c.fingerprint not in self._recorded]:
                out.verdicts[index.name] = judge(index.name, run, self._limits)
            else:
                out.silent[index.name] = "no time was left to run its queries without it"
        gone = out.given_up.keys() - blamed.keys()
        again = self._measured(_users(after, gone), self._end)
        found = {i: c for i, c in judged.items() if not c.after.indexes & gone} | self._compare(again)
        out.compared = {i: c for i, c in found.items() if i not in self._recorded}

    def _replace(
        self,
        made: Sequence[IndexAdvice],
        out: Proof,
        runners_up: Callable[[IndexAdvice], Iterable[IndexAdvice]],
    ) -> None:
        """Try others in place of what was given up."""
        for index in [i for i in made if i.name in out.given_up]:
            serves = [s.fingerprint for s in index.serves if s.fingerprint in self._before]
            for other in list(runners_up(index))[:_RUNNERS_UP]:
                if self._left() <= 0 or self._stop():
                    return
                try:
                    self._ground.build(other.spec, other.name, timeout_s=self._left())
                except StatementRefused:
                    continue
                every = [n for n in self._before if other.spec.table in self._queries[n].tables]
                now = self._measured(dict.fromkeys((*serves, *every)), self._end)
                now = until_decided([other], now, self._compare, self._again)
                judged = self._compare(now)
                verdict = judge(other.name, judged_by(other, judged), self._limits)
                is_whole = len(now) == len({*serves, *every})
                if is_whole and verdict.keep and not any(is_slower(c, self._limits) for c in judged.values()):
                    out.instead[index.name], out.verdicts[other.name] = other, verdict
                    out.compared.update(judged)
                    break
                self.off(other)

    # --- the switch ----------------------------------------------------------------------------

    def _set_aside(self, names: frozenset[str]) -> None:
        assert self._aside is not None
        self._aside.aside(names)
        self._absent = names

    def off(self, index: IndexAdvice, /) -> None:
        """Set an index aside, or drop it of the copy."""
        if self.is_quick:
            self._set_aside(self._absent | {index.name})
        else:
            self._ground.drop(index.name, index.spec.table)

    def on(self, index: IndexAdvice, /) -> None:
        """Bring it back, or build it again."""
        if self.is_quick:
            self._set_aside(self._absent - {index.name})
            return
        self._ground.build(index.spec, index.name, timeout_s=max(0.1, self._left()))


def _users(after: Mapping[str, Measurement], names: Iterable[str]) -> list[str]:
    gone = frozenset(names)
    return [i for i, m in after.items() if m.indexes & gone]


# --- in words ----------------------------------------------------------------------------------


def with_proof(index: IndexAdvice, proof: Proof) -> IndexAdvice:
    """Return an index with what the copy showed of it; its gain and costs stay planned."""
    verdict = proof.verdicts.get(index.name)
    serves = tuple(_with_times(s, proof.compared.get(s.fingerprint)) for s in index.serves)
    if verdict is None:
        return replace(index, serves=serves)
    is_shown = verdict.keep and verdict.speedup is not None
    return replace(
        index,
        serves=serves,
        reason=f"{index.reason} On {proof.place}: {verdict.reason}.",
        level="measured" if is_shown else index.level,
        speedup=verdict.speedup if is_shown else None,
    )


def _with_times(served: Served, compared: Compared | None) -> Served:
    if compared is None:
        return served
    return replace(served, seconds_before=compared.before.seconds, seconds_after=compared.after.seconds)


def told(proof: Proof, indexes: Iterable[IndexAdvice]) -> str:
    """Return what was measured, where, and what was not and why."""
    by_name = {i.name: i.spec.label() for i in indexes}
    out: list[str] = []
    if proof.compared:
        count = len(proof.compared)
        out.append(f"Measured on {proof.place}: {count} statement{'s' * (count != 1)}, before and after.")
    for name, why in proof.given_up.items():
        other = proof.instead.get(name)
        instead = "" if other is None else f"; {other.spec.label()} takes its place"
        out.append(f"Given up there: {by_name[name]}: {why}{instead}.")
    reasons: dict[str, list[str]] = {}
    for name, why in proof.silent.items():
        reasons.setdefault(why, []).append(by_name.get(name, name))
    for why, names in reasons.items():
        out.append(
            f"Not measured, {len(names)} of {len(by_name)} ({names[0]}{' ...' * (len(names) > 1)}): {why}."
        )
    return " ".join(out)
