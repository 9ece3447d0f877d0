"""Advice and reports as terminal text."""

from __future__ import annotations

from collections.abc import Sequence

from eventperf._core.durations import show
from eventperf._core.texts import one_line
from eventperf.dbopt.findings import Findings, IndexAdvice
from eventperf.dbopt.statements.lex import without_values

from .labels import label


def size(value: float) -> str:
    """Return bytes for people.

    >>> size(2_500_000)
    '2.5 MB'
    """
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return columns aligned with blanks."""
    cells = [headings, *([one_line(str(cell)) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(headings))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def text_table(advice: Findings) -> str:
    """Return advice as text."""
    out = Lines()
    out.add(
        f"{advice.statements} statements, {advice.since}; {advice.level} by {advice.proof} "
        f"({advice.explains} plans in {show(advice.seconds)})"
        f"{'' if advice.is_complete else '; stopped early'}"
    )
    if advice.indexes and advice.level == "estimated":
        out.add("", "Not proved: no planner was asked. Give a what_if database before applying any of it.")
    if advice.copied:
        out.add("", f"Copied for the proof: {'; '.join(advice.copied)}")
    if advice.indexes:
        out.add(
            "", f"Indexes: {len(advice.indexes)}, saving {100 * advice.gain:.0f} % of the workload's time"
        )
        out.add(*_index_table(advice.indexes).split("\n"))
        for number, index in enumerate(advice.indexes, 1):
            out.add("", *_explain(number, index))
    else:
        out.add("", "No index is worth adding.")
    for drop in advice.drops:
        out.add("", f"Could be dropped ({drop.kind}): {drop.name} on {drop.table}: {drop.evidence}")
    for rewrite in advice.rewrites:
        mark = "safe" if rewrite.is_safe else "check"
        out.add("", f"Rewrite ({mark}, {rewrite.rule}): {rewrite.advice}")
        out.block(rewrite.before, "  ", "  ")
        if rewrite.after:
            out.block(without_values(rewrite.after, advice.dialect), "  -> ", "     ")
        out.add(f"  {rewrite.verdict}")
    for part in advice.partitions:
        out.add("", f"Partition {part.table} by {part.column}: {part.reason}")
    if advice.unserved:
        out.add("", "Queries without a new index:")
        out.add(*(f"  {named(advice, name)}: {reason}" for name, reason in advice.unserved.items()))
    for warning in advice.warnings:
        out.add("", f"Warning: {warning}")
    return str(out)


class Lines:
    """Lines of a report; what is put into one stays in it, whatever names it holds."""

    def __init__(self) -> None:
        self._lines: list[str] = []

    def add(self, *lines: str) -> None:
        """Add whole lines."""
        self._lines += [one_line(line) for line in lines]

    def block(self, text: str, first: str, more: str) -> None:
        """Add a statement of several lines, indented."""
        for number, line in enumerate(text.split("\n")):
            self.add(f"{more if number else first}{line}")

    def __str__(self) -> str:
        return "\n".join(self._lines)


def _index_table(indexes: Sequence[IndexAdvice]) -> str:
    rows = [
        [
            str(n), i.spec.label(), f"{100 * i.gain:.1f} %", size(i.size_bytes),
            f"{100 * i.write_cost:.2f} %", str(len(i.serves)),
        ]
        for n, i in enumerate(indexes, 1)
    ]  # fmt: skip
    return table(["#", "index", "gain", "size", "writes", "queries"], rows)


def named(advice: Findings, fingerprint: str) -> str:
    """Return a query's name with its text, where the workload is at hand."""
    if advice.workload is None or fingerprint not in advice.workload:
        return fingerprint
    return f"{fingerprint} {label(advice.workload[fingerprint].fingerprint.text, 90)}"


def _explain(number: int, index: IndexAdvice) -> list[str]:
    lines = [f"{number}. {index.sql}", f"   {index.reason}"]
    for served in index.serves[:3]:
        lines.append(f"   serves {served.fingerprint} ({served.calls} calls): {label(served.statement)}")
        lines.append(f"     before: {' / '.join(s.strip() for s in served.plan_before.splitlines())[:150]}")
        lines.append(f"     after:  {' / '.join(s.strip() for s in served.plan_after.splitlines())[:150]}")
    lines += [f"   not chosen: {other}: {why}" for other, why in index.rejected[:3]]
    return lines
