"""Create advised indexes on a live database: locked, online, measured, and undone where they fail."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

from eventperf._core.clock import Clock
from eventperf.dbopt.errors import StatementRefused
from eventperf.dbopt.findings import Findings, IndexAdvice
from eventperf.dbopt.options import Limits
from eventperf.dbopt.protocols import BuildsInSteps, Dialect, HidesIndexes, Measurement, TellsHarm
from eventperf.dbopt.schema.model import Schema
from eventperf.dbopt.statements.workload import Statement, Workload

from .blame import Blame
from .report import Applied, ApplyReport
from .rounds import Rounds, compare, judged_by, until_decided
from .verdict import Compared, judge

OUR_PREFIX = "ix_ep_"
#: Most samples of one query that are run.
_SAMPLES = 9


class Applier:
    """One run of ``apply``."""

    def __init__(
        self, dialect: Dialect, schema: Schema, workload: Workload | None, limits: Limits, clock: Clock
    ) -> None:
        self._dialect, self._schema, self._limits, self._clock = dialect, schema, limits, clock
        self._workload = workload
        self._harmful: dict[str, str] = {}
        timeout_s = limits.statement_timeout_s
        self._rounds = Rounds(dialect.measure, clock, timeout_s=timeout_s, samples=_SAMPLES)
        self._steps = dialect if isinstance(dialect, BuildsInSteps) else None
        self._hides = dialect if isinstance(dialect, HidesIndexes) else None

    def run(
        self, advice: Findings, *, dry_run: bool, verify: bool, progress: Callable[[str], None]
    ) -> ApplyReport:
        """Apply, measure and revert; see :meth:`DatabaseOptimizer.apply`."""
        report = ApplyReport(dry_run=dry_run)
        if dry_run:
            todo = self._todo(advice, report)
            report.planned = [i.sql for i in todo]
            return report
        with self._dialect.exclusive():
            try:
                self._change(advice, report, verify, progress)
            except KeyboardInterrupt:
                report.is_complete = False
                report.warnings.append("interrupted: what was created stays, the rest was not begun")
                for index in advice.indexes:
                    self._drop_half(index, report)
        return report

    def _change(
        self, advice: Findings, report: ApplyReport, verify: bool, progress: Callable[[str], None]
    ) -> None:
        self._clean(advice, report)
        todo = self._todo(advice, report)
        report.planned = [i.sql for i in todo]
        if verify:
            self._set_aside(todo, report)
        before = self._measure(todo, report, progress, "before") if verify else {}
        made = self._create(todo, report, progress)
        if verify and made:
            self._verify(made, before, report, progress)

    # --- steps ---------------------------------------------------------------------------------

    def _clean(self, advice: Findings, report: ApplyReport) -> None:
        """Remove what a killed run left half-made; only ever our own names."""
        for table in dict.fromkeys(i.spec.table for i in advice.indexes):
            known = self._schema.table(table)
            if known is None or known.is_partitioned:
                continue  # an index on a partitioned parent is invalid until all parts are attached
            for index in self._dialect.indexes(known.name):
                if not index.valid and index.name.startswith(OUR_PREFIX):
                    try:
                        self._ddl(self._dialect.drop_sql(index.name, known.name))
                    except StatementRefused as error:
                        report.warnings.append(f"half-made {index.name} could not be removed: {error.reason}")
                    else:
                        report.cleaned.append(index.name)

    def _todo(self, advice: Findings, report: ApplyReport) -> list[IndexAdvice]:
        todo: list[IndexAdvice] = []
        for index in advice.indexes:
            table = self._schema.table(index.spec.table)
            if table is None:
                report.skipped.append(_applied(index, _why_not_here(self._schema, index.spec.table)))
                continue
            there = self._dialect.indexes(table.name)
            same = next((i for i in there if i.valid and index.spec.is_prefix_of(i.spec)), None)
            taken = next((i for i in there if i.name == index.name), None)
            if same is not None:
                reason = "it exists" if same.name == index.name else f"{same.name} already serves it"
                report.skipped.append(_applied(index, reason))
            elif taken is not None and (taken.valid or not table.is_partitioned):
                reason = "another index has this name" if taken.valid else "its half-made index is in the way"
                report.skipped.append(_applied(index, reason))
            elif len(todo) >= self._limits.max_applied:
                report.skipped.append(_applied(index, f"max_applied is {self._limits.max_applied}"))
            else:
                todo.append(index)
        return todo

    def _create(
        self, todo: Sequence[IndexAdvice], report: ApplyReport, progress: Callable[[str], None]
    ) -> list[IndexAdvice]:
        made: list[IndexAdvice] = []
        for number, index in enumerate(todo, 1):
            progress(f"creating index {number} of {len(todo)}: {index.spec.label()}")
            began = self._clock.monotonic()
            try:
                is_parted = self._build_parts(index, progress)
                if not is_parted:
                    self._ddl(index.sql, partial(self._drop_half, index, report))
            except _PartRefused as error:
                reason = f"{error.reason}; the parts that are built stay, the next run goes on from there"
                report.failed.append(_applied(index, reason))
                continue
            except StatementRefused as error:
                report.failed.append(_applied(index, error.reason))
                if not self._drop_half(index, report):
                    # One half-made index may stay behind a lock, never a second one.
                    rest = todo[number:]
                    report.skipped += [_applied(i, "an earlier index could not be finished") for i in rest]
                    break
                continue
            took = self._clock.monotonic() - began
            made.append(index)
            report.created.append(_applied(index, "created; not measured", seconds=took))
        for name in sorted({i.spec.table for i in made}):
            table = self._schema.table(name)
            if table is not None:
                progress(f"refreshing statistics of {name}")
                try:
                    self._dialect.refresh_statistics(table)
                except StatementRefused as error:
                    report.warnings.append(f"statistics of {name} were not refreshed: {error.reason}")
        return made

    def _build_parts(self, index: IndexAdvice, progress: Callable[[str], None]) -> bool:
        """Build an index of a partitioned parent part by part; ``False`` for every other table."""
        todo = self._steps.steps(index.spec, index.name) if self._steps is not None else []
        for number, (statement, remove) in enumerate(todo, 1):
            progress(f"step {number} of {len(todo)}: {statement}")
            tidy = partial(self._ddl, remove) if remove is not None else _nothing
            try:
                self._ddl(statement, tidy)
            except StatementRefused as error:
                with contextlib.suppress(StatementRefused):  # the next run drops it
                    tidy()
                raise _PartRefused(error.statement, error.reason) from error
        return bool(todo)

    def _hide(self, index: IndexAdvice) -> None:
        """Take an index out of every plan at once, where the engine can, before the drop does its work."""
        if self._hides is not None:
            self._ddl(self._hides.hide_sql(index.name, index.spec.table))

    def _drop_half(self, index: IndexAdvice, report: ApplyReport) -> bool:
        """Remove what a failed build left; tell whether nothing is left."""
        for there in self._dialect.indexes(index.spec.table):
            if there.name == index.name and not there.valid:
                try:
                    self._ddl(self._dialect.drop_sql(index.name, index.spec.table))
                except StatementRefused as error:
                    report.warnings.append(f"half-made {index.name} stays until the next run: {error.reason}")
                    return False
                report.cleaned.append(index.name)
        return True

    def _ddl(self, statement: str, tidy: Callable[[], object] = lambda: None) -> None:
        """Run one change; give way and come back when its lock is not to be had.

        Raises:
            StatementRefused: The first refusal: what a later attempt meets may be the remains of that one.
        """
        first: StatementRefused | None = None
        for attempt in range(1, self._limits.lock_attempts + 1):
            try:
                self._dialect.execute_ddl(statement, lock_timeout_s=self._limits.lock_timeout_s)
            except StatementRefused as error:
                first = first or error
                if not error.retryable or attempt == self._limits.lock_attempts or tidy() is False:
                    raise first from error
                self._clock.sleep(0.1 * 2**attempt)
            else:
                return

    # --- measuring -----------------------------------------------------------------------------

    def _measure(
        self, indexes: Sequence[IndexAdvice], report: ApplyReport, progress: Callable[[str], None], when: str
    ) -> dict[str, Measurement]:
        """Measure every SELECT on the tables of ``indexes`` that has known parameters, costliest first."""
        out: dict[str, Measurement] = {}
        budget = self._limits.verify_budget_s / 2
        end = self._clock.monotonic() + budget
        wanted = self._statements(indexes)
        for number, statement in enumerate(wanted, 1):
            left = end - self._clock.monotonic()
            if left <= 0:  # what was begun is measured to its end
                report.warnings.append(
                    f"{len(wanted) - number + 1} queries were not measured {when}: time was up"
                )
                break
            progress(f"measuring {when}: query {number} of {len(wanted)}")
            found = self._rounds.run(statement, end, left / (len(wanted) - number + 1))
            if found is not None:
                out[statement.fingerprint.id] = found
                report.statements[statement.fingerprint.id] = statement.fingerprint.text
        return out

    def _set_aside(self, indexes: Sequence[IndexAdvice], report: ApplyReport) -> None:
        """Measure nothing that might do more than read, and say so."""
        if not isinstance(self._dialect, TellsHarm):
            return
        for statement in self._statements(indexes):
            texts = dict.fromkeys(s.sql for s in statement.measurable)
            reason = next(filter(None, map(self._dialect.harm, texts)), None)
            if reason is not None:
                self._harmful[statement.fingerprint.id] = reason
                report.warnings.append(f"{statement.fingerprint.id} is not measured: {reason}")

    def _statements(self, indexes: Sequence[IndexAdvice]) -> list[Statement]:
        if self._workload is None:
            return []
        ids = list(dict.fromkeys(s.fingerprint for i in indexes for s in i.serves))
        known = [self._workload[i] for i in ids if i in self._workload and i not in self._harmful]
        usable = [s for s in known if s.is_read and s.measurable]
        return sorted(usable, key=lambda s: -(s.total_s or s.calls * 1e-6))

    def _verify(
        self,
        made: Sequence[IndexAdvice],
        before: dict[str, Measurement],
        report: ApplyReport,
        progress: Callable[[str], None],
    ) -> None:
        after = self._measure(made, report, progress, "after")
        after = self._until_decided(made, before, after, progress)
        report.measured = self._compare(before, after)
        blamed = self._blamed(made, before, after, report, progress)
        if blamed:
            after = after | self._measure(made, report, progress, "without what does harm")
        judged = self._compare(before, after)
        unverified = []
        kept: list[Applied] = []
        doomed: list[tuple[IndexAdvice, Applied]] = []
        for index, applied in zip(made, list(report.created), strict=True):
            if index.name in blamed:
                doomed.append((index, _applied(index, blamed[index.name], None, applied.seconds)))
                continue
            mine = judged_by(index, judged)
            verdict = judge(index.name, mine, self._limits)
            outcome = _applied(index, verdict.reason, verdict.speedup, applied.seconds)
            if verdict.keep:
                kept.append(outcome)
                if verdict.speedup is None:
                    unverified.append(index.name)
            else:
                doomed.append((index, outcome))
        if unverified:
            report.warnings.append(
                f"not verified, kept on the word of the advice ({made[0].proof}): {', '.join(unverified)}; "
                "parameters of their queries are not known here: record some with QueryRecorder, or drop them"
            )
        undone = self._undo(doomed, kept, report, gone=blamed if self._hides is None else ())
        report.created = kept
        if undone:
            again = self._measure(undone, report, progress, "after the revert")
            report.measured |= {
                i: replace(c, reverted=again[i]) for i, c in report.measured.items() if i in again
            }

    def _until_decided(
        self,
        made: Sequence[IndexAdvice],
        before: Mapping[str, Measurement],
        after: Mapping[str, Measurement],
        progress: Callable[[str], None],
    ) -> dict[str, Measurement]:
        end = self._clock.monotonic() + self._limits.verify_budget_s / 2

        def again(name: str, number: int) -> Measurement | None:
            if self._workload is None or self._clock.monotonic() >= end:
                return None
            progress(f"measuring query {name} again, round {number}: noise hides what its index does")
            return self._rounds.run(self._workload[name], end)

        return until_decided(made, after, partial(self._compare, before), again)

    def _blamed(
        self,
        made: Sequence[IndexAdvice],
        before: dict[str, Measurement],
        after: dict[str, Measurement],
        report: ApplyReport,
        progress: Callable[[str], None],
    ) -> dict[str, str]:
        """Return the indexes that make a query slower beside others, with the reason.

        They are out of every plan by then. What one index alone does to a query is judged later.
        """
        compared = self._compare(before, after)
        took = {a.name: a.seconds for a in report.created}
        blame = Blame(made, compared.values(), self._limits, self, took)
        end = self._clock.monotonic() + self._limits.verify_budget_s

        def measure(compared: Compared) -> Measurement | None:
            left = end - self._clock.monotonic()
            if left <= 0 or self._workload is None:
                return None
            return self._rounds.run(self._workload[compared.fingerprint], end)

        blamed = blame.find(measure, progress)
        report.warnings += blame.warnings
        return blamed

    def off(self, index: IndexAdvice, /) -> None:
        """Take an index out of every plan: hidden where the engine can, else dropped."""
        if self._hides is not None:
            self._hide(index)
        else:
            self._ddl(self._dialect.drop_sql(index.name, index.spec.table))

    def on(self, index: IndexAdvice, /) -> None:
        """Bring an index back into plans."""
        if self._hides is not None:
            self._ddl(self._hides.show_sql(index.name, index.spec.table))
        elif not self._build_parts(index, lambda line: None):
            self._ddl(index.sql)

    @property
    def is_quick(self) -> bool:
        """Whether that costs a change of the catalogue only."""
        return self._hides is not None

    def _undo(
        self,
        doomed: list[tuple[IndexAdvice, Applied]],
        kept: list[Applied],
        report: ApplyReport,
        gone: Collection[str] = (),
    ) -> list[IndexAdvice]:
        """Take the indexes out of every plan, all of them before the first is dropped; return the dropped."""
        undone: list[IndexAdvice] = []
        for index, _ in doomed:
            with contextlib.suppress(StatementRefused):  # the drop says why
                self._hide(index)
        for index, outcome in doomed:
            if index.name in gone:
                undone.append(index)
                report.reverted.append(outcome)
                continue
            try:
                self._ddl(self._dialect.drop_sql(index.name, index.spec.table))
            except StatementRefused as error:
                report.warnings.append(f"{index.name} should be dropped ({outcome.reason}): {error.reason}")
                kept.append(outcome)
            else:
                undone.append(index)
                report.reverted.append(outcome)
        return undone

    def _compare(
        self, before: Mapping[str, Measurement], after: Mapping[str, Measurement]
    ) -> dict[str, Compared]:
        calls = {i: self._workload[i].calls for i in after} if self._workload is not None else {}
        return compare(before, after, calls)


class _PartRefused(StatementRefused):
    """A step of a partitioned parent's index was refused."""


def _why_not_here(schema: Schema, table: str) -> str:
    who = schema.locked.get(table)
    return "its table is gone" if who is None else f"its table is locked by {who}; run it again later"


def _nothing() -> None:
    return None


def _applied(index: IndexAdvice, reason: str, speedup: float | None = None, seconds: float = 0.0) -> Applied:
    return Applied(
        name=index.name,
        index=index.spec.label(),
        table=index.spec.table,
        sql=index.sql,
        reason=reason,
        speedup=speedup,
        level=index.level if speedup is None else "verified",
        seconds=seconds,
    )
