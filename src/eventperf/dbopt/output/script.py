"""Advice as a SQL script, for people who apply by hand."""

from __future__ import annotations

from eventperf._core.texts import one_line
from eventperf.dbopt.findings import Findings


def script(advice: Findings, *, drops: bool = False) -> str:
    """Return a script; drops are comments unless asked for, partitioning always is."""
    lines = [one_line(f"-- {len(advice.indexes)} indexes; {advice.level}, judged by: {advice.proof}")]
    for index in advice.indexes:
        lines += [one_line(f"-- {index.level}: {index.reason}"), f"{index.sql};"]
    for drop in advice.drops:
        sql = f"{drop.sql};" if drops else f"-- {one_line(drop.sql)};"
        lines += [one_line(f"-- {drop.kind}: {drop.evidence}"), sql]
    for partition in advice.partitions:
        lines += [one_line(f"-- partitioning {partition.table}: {partition.reason}")]
        lines += [
            f"-- {one_line(line)}" for statement in partition.ddl for line in f"{statement};".split("\n")
        ]
    return "\n".join(lines) + "\n"
