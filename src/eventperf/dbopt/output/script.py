"""Advice as a SQL script, for people who apply by hand."""

from __future__ import annotations

from eventperf.dbopt.findings import Findings


def script(advice: Findings, *, drops: bool = False) -> str:
    """Return a script; drops are comments unless asked for, partitioning always is."""
    lines = [f"-- {len(advice.indexes)} indexes; {advice.level}, judged by: {advice.proof}"]
    for index in advice.indexes:
        lines += [f"-- {index.level}: {index.reason}", f"{index.sql};"]
    for drop in advice.drops:
        lines += [f"-- {drop.kind}: {drop.evidence}", f"{'' if drops else '-- '}{drop.sql};"]
    for partition in advice.partitions:
        lines += [f"-- partitioning {partition.table}: {partition.reason}"]
        lines += [f"-- {line}" for statement in partition.ddl for line in f"{statement};".splitlines()]
    return "\n".join(lines) + "\n"
