"""Advice and reports as terminal text."""

from __future__ import annotations

from collections.abc import Sequence

from eventperf._core.durations import show
from eventperf.dbopt.findings import Findings, IndexAdvice

from .text import label


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
    widths = [max(len(str(r[i])) for r in [headings, *rows]) for i in range(len(headings))]
    lines = [
        "  ".join(str(c).ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in [headings, *rows]
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def text_table(advice: Findings) -> str:
    """Return advice as text."""
    out = [
        f"{advice.statements} statements, {advice.since}; {advice.level} by {advice.proof} "
        f"({advice.explains} plans in {show(advice.seconds)})"
        f"{'' if advice.is_complete else '; stopped early'}"
    ]
    if advice.indexes and advice.level == "estimated":
        out.append("\nNot proved: no planner was asked. Give a what_if database before applying any of it.")
    if advice.copied:
        out.append(f"\nCopied for the proof: {'; '.join(advice.copied)}")
    if advice.indexes:
        out.append(
            f"\nIndexes: {len(advice.indexes)}, saving {100 * advice.gain:.0f} % of the workload's time"
        )
        rows = [
            [
                str(n),
                i.spec.label(),
                f"{100 * i.gain:.1f} %",
                size(i.size_bytes),
                f"{100 * i.write_cost:.2f} %",
                str(len(i.serves)),
            ]
            for n, i in enumerate(advice.indexes, 1)
        ]
        out.append(table(["#", "index", "gain", "size", "writes", "queries"], rows))
        for number, index in enumerate(advice.indexes, 1):
            out += ["", *_explain(number, index)]
    else:
        out.append("\nNo index is worth adding.")
    for drop in advice.drops:
        out.append(f"\nCould be dropped ({drop.kind}): {drop.name} on {drop.table}: {drop.evidence}")
    for rewrite in advice.rewrites:
        mark = "safe" if rewrite.is_safe else "check"
        out.append(f"\nRewrite ({mark}, {rewrite.rule}): {rewrite.advice}\n  {rewrite.before}")
        if rewrite.after:
            out.append(f"  -> {rewrite.after}")
        out.append(f"  {rewrite.verdict}")
    for part in advice.partitions:
        out.append(f"\nPartition {part.table} by {part.column}: {part.reason}")
    if advice.unserved:
        out.append("\nQueries without a new index:")
        out += [f"  {named(advice, name)}: {reason}" for name, reason in advice.unserved.items()]
    out += [f"\nWarning: {w}" for w in advice.warnings]
    return "\n".join(out)


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
