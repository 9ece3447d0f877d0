"""Take indexes back that ``apply`` made: ours by their name, online, under the same lock."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Final

from eventperf.dbopt.errors import StatementRefused

from .apply import OUR_PREFIX, Applier
from .report import Applied, ApplyReport

#: Tables by which a database tells what migrates it.
_TOOLS: Final = {"django_migrations": "Django", "alembic_version": "Alembic"}


class Reverter(Applier):
    """One run of ``revert``."""

    def revert(
        self, done: ApplyReport | None, *, dry_run: bool, progress: Callable[[str], None]
    ) -> ApplyReport:
        """Drop what ``done`` created, or every index of ours; see :meth:`DatabaseOptimizer.revert`."""
        report = ApplyReport(dry_run=dry_run)
        found = self._all_of_ours(report) if done is None else self._listed(done, report)
        report.planned = [self._dialect.drop_sql(a.name, a.table) for a in found]
        if dry_run:
            return report
        with self._dialect.exclusive():
            for made in found:
                with contextlib.suppress(StatementRefused):  # the drop says why
                    if self._hides is not None:
                        self._ddl(self._hides.hide_sql(made.name, made.table))
            for number, (made, statement) in enumerate(zip(found, report.planned, strict=True), 1):
                progress(f"dropping index {number} of {len(found)}: {made.name}")
                try:
                    self._ddl(statement)
                except StatementRefused as error:
                    report.failed.append(_with(made, error.reason))
                else:
                    report.reverted.append(_with(made, "dropped"))
        return report

    def _all_of_ours(self, report: ApplyReport) -> list[Applied]:
        """Return every index of ours, none where a migration may have made it: its tool would not know."""
        found = self._ours()
        there = {name.rpartition(".")[2] for name in self._schema.tables}
        tool = next((t for table, t in _TOOLS.items() if table in there), None)
        if tool is None:
            return found
        why = (
            f"a migration of {tool} may have made it: undo that migration, or give the report of the apply "
            "that made it"
        )
        report.skipped += [_with(made, why) for made in found]
        return []

    def _ours(self) -> list[Applied]:
        """Return every index here that has a name of ours and enforces nothing."""
        return [
            Applied(name=i.name, index=i.spec.label(), table=name, sql="", reason="")
            for name in sorted(self._schema.tables)
            for i in self._dialect.indexes(name)
            if i.name.startswith(OUR_PREFIX) and not (i.unique or i.primary or i.constraint)
        ]

    def _listed(self, done: ApplyReport, report: ApplyReport) -> list[Applied]:
        """Return what is still there of the created ones; a report is data, and names what it likes."""
        there = {(a.table, a.name): a for a in self._ours()}
        out = []
        for made in done.created:
            ours = there.get((made.table, made.name))
            if ours is not None:
                out.append(ours)
            elif made.name.startswith(OUR_PREFIX):
                report.skipped.append(_with(made, "it is not there"))
            else:
                report.skipped.append(
                    _with(made, f"only names that begin with {OUR_PREFIX} are ours to drop")
                )
        return out


def _with(made: Applied, reason: str) -> Applied:
    return Applied(name=made.name, index=made.index, table=made.table, sql=made.sql, reason=reason)
