"""Advice as a SQL script, for people who apply by hand."""

from __future__ import annotations

from eventperf.dbopt.findings import Findings

from .text import one_line


def script(advice: Findings, *, drops: bool = False) -> str:
    """Return a script; drops are comments unless asked for, partitioning always is."""
    lines = [f"-- {len(advice.indexes)} indexes; {advice.level}, judged by: {advice.proof}"]
    for index in advice.indexes:
        lines += [f"-- {index.level}: {one_line(index.reason)}", f"{index.sql};"]
    for drop in advice.drops:
        sql = f"{drop.sql};" if drops else f"-- {one_line(drop.sql)};"
        lines += [f"-- {drop.kind}: {one_line(drop.evidence)}", sql]
    for partition in advice.partitions:
        lines += [one_line(f"-- partitioning {partition.table}: {partition.reason}")]
        lines += [
            f"-- {one_line(line)}" for statement in partition.ddl for line in f"{statement};".split("\n")
        ]
    return "\n".join(lines) + "\n"
