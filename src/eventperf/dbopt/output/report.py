"""Advice and reports as terminal text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from eventperf._core.durations import show
from eventperf._core.texts import one_line
from eventperf.dbopt.findings import Findings, IndexAdvice, Served
from eventperf.dbopt.statements.lex import without_values

from .labels import label

_FEW: Final = 12
_LOOP: Final = " is an N+1 loop, "


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
    if advice.trial:
        out.add("", advice.trial)
    if advice.copied:
        out.add("", f"Copied for the proof: {'; '.join(few(advice.copied))}")
    if advice.indexes:
        out.add(
            "",
            f"Indexes: {len(advice.indexes)}, saving {100 * advice.gain:.0f} % of the workload's "
            f"{whose_cost(advice)}",
        )
        out.add(*_index_table(advice.indexes).split("\n"))
        for number, index in enumerate(advice.indexes, 1):
            out.add("", *_explain(number, index))
    else:
        out.add("", "No index is worth adding.")
    for loop in (w for w in advice.warnings if _LOOP in w):  # no index helps as much as one statement
        out.add("", f"Warning: {loop}")
    _add_drops(out, advice)
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
        out.add("", f"Queries without a new index: {len(advice.unserved)}")
        by_reason: dict[str, list[str]] = {}
        for name, reason in advice.unserved.items():
            by_reason.setdefault(reason, []).append(name)
        for reason, names in sorted(by_reason.items(), key=lambda each: -len(each[1])):
            out.add(f"  {reason}: {len(names)}" if len(names) > 1 else f"  {reason}:")
            out.add(*(f"    {line}" for line in few([named(advice, n) for n in names])))
    for warning in (w for w in advice.warnings if _LOOP not in w):
        out.add("", f"Warning: {warning}")
    return str(out)


def whose_cost(advice: Findings) -> str:
    """Return what a gain is a share of: nothing was measured."""
    return "planner cost (planned, not measured)" if advice.level != "estimated" else "estimated cost"


def measured(served: Served) -> str | None:
    """Return what a query took on a copy, in words; ``None`` where it was not run there."""
    if served.seconds_before is None or served.seconds_after is None:
        return None
    return f"measured on a copy: {show(served.seconds_before)} before, {show(served.seconds_after)} after"


def few(items: Sequence[str], most: int = _FEW) -> list[str]:
    """Return the first of many, and how many more there are.

    >>> few(["a", "b", "c", "d"], 3)
    ['a', 'b', '... and 2 more (--json has all)']
    """
    if len(items) <= most:
        return list(items)
    return [*items[: most - 1], f"... and {len(items) - most + 1} more (--json has all)"]


def _add_drops(out: Lines, advice: Findings) -> None:
    """Add what could go: what the workload's tables have in words, the rest counted."""
    mine = [d for d in advice.drops if d.table in advice.tables]
    others = [d for d in advice.drops if d.table not in advice.tables]
    told = [f"Could be dropped ({d.kind}): {d.name} on {d.table}: {d.evidence}" for d in mine]
    for line in few(told):
        out.add("", line)
    if others:
        names = ", ".join(few([f"{d.name} ({d.kind})" for d in others], 4))
        out.add("", f"Could be dropped on tables that this workload never touched: {len(others)}: {names}")


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
            str(n), i.spec.label(), f"{100 * i.gain:.1f} %", i.level,
            "" if i.speedup is None else f"{i.speedup:.1f}x", size(i.size_bytes),
            f"{100 * i.write_cost:.2f} %", str(len(i.serves)),
        ]
        for n, i in enumerate(indexes, 1)
    ]  # fmt: skip
    return table(["#", "index", "planned gain", "proof", "measured", "size", "writes", "queries"], rows)


def named(advice: Findings, fingerprint: str) -> str:
    """Return a query's name with its text, where the workload is at hand."""
    if advice.workload is None or fingerprint not in advice.workload:
        return fingerprint
    return f"{fingerprint} {label(advice.workload[fingerprint].fingerprint.text, 90)}"


def steps(plan: str, other: str, width: int = 150) -> str:
    """Return a plan on one line; of a long one the steps that the other does not have, indexes first.

    >>> steps("Limit\\n  Sort\\n    Index Scan using ix on t", "Limit\\n  Sort\\n    Seq Scan on t", 30)
    '… / Index Scan using ix on t'
    """
    every = [s.strip() for s in plan.splitlines()]
    whole = " / ".join(every)
    if len(whole) <= width:
        return whole
    theirs = {s.strip() for s in other.splitlines()}
    ranked = sorted(every, key=lambda s: (s in theirs, "index" not in s.lower()))
    kept = [ranked[0]]  # a step is never cut: its end names the index
    for step in ranked[1:]:
        if step in theirs or len(" / ".join([*kept, step])) > width:
            break
        kept.append(step)
    return " / ".join(["…", *kept])


def _explain(number: int, index: IndexAdvice) -> list[str]:
    lines = [f"{number}. {index.sql}", f"   {index.reason}"]
    for served in index.serves[:3]:
        lines.append(f"   serves {served.fingerprint} ({served.calls} calls): {label(served.statement)}")
        lines.append(f"     before: {steps(served.plan_before, served.plan_after)}")
        lines.append(f"     after:  {steps(served.plan_after, served.plan_before)}")
        if (took := measured(served)) is not None:
            lines.append(f"     {took}")
    lines += [f"   not chosen: {other}: {why}" for other, why in index.rejected[:3]]
    return lines
