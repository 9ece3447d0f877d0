"""Which existing indexes could go."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, Literal

from eventperf.dbopt.findings import DropAdvice
from eventperf.dbopt.protocols import Dialect
from eventperf.dbopt.schema.model import ExistingIndex, Schema, Table

_COUNTED_S: Final = 7 * 86_400.0  # a week has its weekend, its reports and its Monday


def drops(schema: Schema, dialect: Dialect, in_use: frozenset[str] = frozenset()) -> list[DropAdvice]:
    """Return existing indexes that could go, with the evidence; keys and constraints stay.

    Args:
        schema: Tables with their indexes.
        dialect: Writes the statements.
        in_use: Indexes in plans of the workload: never called unused, whatever the server counted.
    """
    out: list[DropAdvice] = []
    for table in schema.tables.values():
        for index, kind, evidence in _of(table, schema.counted_s, in_use):
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


def _of(
    table: Table, counted_s: float | None, in_use: frozenset[str]
) -> Iterator[tuple[ExistingIndex, Literal["duplicate", "prefix", "unused", "invalid"], str]]:
    """Yield what could go together: whoever follows all of it loses nothing that any piece rests on.

    What another piece names as the index that takes over stays, and so does the last support of a foreign
    key. Only then is asked what nobody used.
    """
    gone: set[str] = set()
    needed: set[str] = set()
    for index in table.indexes:
        left = [i for i in table.indexes if i.name not in gone]
        found = _redundant(index, left)
        if found is None or index.name in needed or not _may_go(index, left, table):
            continue
        gone.add(index.name)
        if found[2] is not None:
            needed.add(found[2])
        yield index, found[0], found[1]
    if counted_s is None or counted_s < _COUNTED_S:
        return  # a young server's counters are no evidence
    for index in table.indexes:
        left = [i for i in table.indexes if i.name not in gone]
        is_kept = index.primary or index.constraint or index.unique or not index.valid
        if index.scans != 0 or is_kept or index.name in gone | needed | in_use:
            continue
        if _may_go(index, left, table):
            gone.add(index.name)
            yield (
                index,
                "unused",
                f"no scan in the {counted_s / 86_400:.0f} days that the server's statistics cover; check "
                "replicas before dropping",
            )


def _redundant(
    index: ExistingIndex, others: Sequence[ExistingIndex]
) -> tuple[Literal["duplicate", "prefix", "invalid"], str, str | None] | None:
    """Return why an index is needless beside others, and the one that takes over."""
    if index.primary or index.constraint:
        return None
    if not index.valid:
        return "invalid", "a build that did not finish: never used, but every write maintains it", None
    for other in others:
        if other.name == index.name or not other.valid:
            continue
        if index.spec == other.spec and (other.unique or not index.unique):
            return "duplicate", f"the same as {other.name}: {other.spec.label()}", other.name
        if not index.unique and index.spec.is_prefix_of(other.spec) and index.spec != other.spec:
            return "prefix", f"every lookup through it can use {other.name}: {other.spec.label()}", other.name
    return None


def _may_go(index: ExistingIndex, left: Sequence[ExistingIndex], table: Table) -> bool:
    """Tell whether each foreign key keeps an index without this one: deletes of the parent's rows need it."""
    for columns, _, _ in table.foreign_keys:
        if _supports(index, columns) and not any(
            _supports(other, columns) for other in left if other.name != index.name
        ):
            return False
    return True


def _supports(index: ExistingIndex, columns: Sequence[str]) -> bool:
    lead = [k.name for k in index.spec.keys[: len(columns)]]
    return index.valid and not index.spec.where and set(lead) == set(columns)
