"""Which existing indexes could go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from eventperf.dbopt.findings import DropAdvice
from eventperf.dbopt.protocols import Dialect
from eventperf.dbopt.schema.model import ExistingIndex, Schema


def drops(schema: Schema, dialect: Dialect, in_use: frozenset[str] = frozenset()) -> list[DropAdvice]:
    """Return existing indexes that could go, with the evidence; keys and constraints stay.

    Args:
        schema: Tables with their indexes.
        dialect: Writes the statements.
        in_use: Indexes in plans of the workload: never called unused, whatever the server counted.
    """
    out: list[DropAdvice] = []
    for table in schema.tables.values():
        gone: set[str] = set()
        for index in table.indexes:
            found = _grounds(index, [i for i in table.indexes if i.name not in gone])
            if found is None or (found[0] == "unused" and index.name in in_use):
                continue
            gone.add(index.name)
            kind, evidence = found
            sql = dialect.drop_sql(index.name, table.name)
            out.append(
                DropAdvice(
                    name=index.name,
                    table=table.name,
                    kind=kind,
                    evidence=evidence,
                    sql=sql,
                    size_bytes=index.size_bytes,
                )
            )
    return out


Grounds = tuple[Literal["duplicate", "prefix", "unused", "invalid"], str]


def _grounds(index: ExistingIndex, others: Sequence[ExistingIndex]) -> Grounds | None:
    if index.primary or index.constraint:
        return None
    if not index.valid:
        return "invalid", "a build that did not finish: never used, but every write maintains it"
    for other in others:
        if other.name == index.name or not other.valid:
            continue
        if index.spec == other.spec and (other.unique or not index.unique):
            return "duplicate", f"the same as {other.name}: {other.spec.label()}"
        if not index.unique and index.spec.is_prefix_of(other.spec) and index.spec != other.spec:
            return "prefix", f"every lookup through it can use {other.name}: {other.spec.label()}"
    if index.scans == 0 and not index.unique:
        return "unused", "no scan since the server's statistics began; check replicas before dropping"
    return None
