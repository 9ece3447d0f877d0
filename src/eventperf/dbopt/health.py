"""The state of tables and indexes, on one page: what could go, what is missing, what is large."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from eventperf._pages.html import Html, markup, page, tag
from eventperf._pages.svg import bars

from .findings import DropAdvice
from .indexes.drops import drops
from .output.report import Lines, few, size, table
from .protocols import Dialect
from .schema.model import Schema, Table
from .statements.workload import SlowQuery


@dataclass(frozen=True, slots=True, kw_only=True)
class TableHealth:
    """One table.

    Attributes:
        name: Its name.
        rows: About how many rows it has.
        size_bytes: The table itself.
        index_bytes: Its indexes, ``None`` where the engine does not say.
        indexes: How many.
    """

    name: str
    rows: int
    size_bytes: int
    index_bytes: int | None
    indexes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """Something about a table that costs time."""

    kind: str
    about: str
    evidence: str


@dataclass(slots=True, kw_only=True)
class HealthReport:
    """What :meth:`DatabaseOptimizer.health` found; print it for tables.

    Attributes:
        dialect: The engine.
        tables: All tables, the largest first.
        drops: Indexes that could go, with the evidence; never dropped unasked.
        faults: What is missing or wrong.
        slow: Statements that cost most, where there is a record of them.
        notes: What could not be looked at.
    """

    dialect: str
    tables: list[TableHealth] = field(default_factory=list)
    drops: list[DropAdvice] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    slow: list[SlowQuery] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def is_healthy(self) -> bool:
        """Whether nothing was found."""
        return not self.drops and not self.faults

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "is_healthy": self.is_healthy}

    def to_html(self) -> str:
        """Return one self-contained page."""
        return page(
            "Database health",
            tag("h1", "Database health"),
            tag("p", f"{self.dialect}, {len(self.tables)} tables.", class_="muted"),
            tag("p", "Nothing was found.") if self.is_healthy else tag("h2", "Findings"),
            *(tag("p", tag("b", f.kind), f" {f.about}: {f.evidence}") for f in self.faults),
            *(_drop(d) for d in self.drops),
            *self._plots(),
            *(tag("p", note, class_="muted") for note in self.notes),
        )

    def _plots(self) -> list[Html]:
        largest = self.tables[:15]
        sizes = [(t.name, [float(t.size_bytes)]) for t in largest]
        out = [tag("h2", "Largest tables"), bars(sizes, title="bytes per table", show=size)]
        if any(t.index_bytes for t in largest):
            indexes = [(t.name, [float(t.index_bytes or 0)]) for t in largest]
            out += [tag("h2", "Their indexes"), bars(indexes, title="index bytes", show=size)]
        if self.slow:
            items = [(s.sample, [s.total_s or 0.0]) for s in self.slow[:10]]
            seconds = bars(items, title="seconds per statement", show=lambda v: f"{v:.3g} s")
            out += [tag("h2", "Statements that cost most"), seconds]
        return out

    def __str__(self) -> str:
        rows = [
            [t.name, f"{t.rows:,}", size(t.size_bytes), _bytes(t.index_bytes), str(t.indexes)]
            for t in self.tables[:30]
        ]
        out = Lines()
        out.add(*table(["table", "rows", "size", "indexes take", "indexes"], rows).split("\n"))
        if len(self.tables) > len(rows):
            out.add(f"... and {len(self.tables) - len(rows)} smaller tables (--json has all)")
        out.add(*few([f"{f.kind}: {f.about}: {f.evidence}" for f in self.faults], 30))
        told = [f"could be dropped ({d.kind}): {d.name} on {d.table}: {d.evidence}" for d in self.drops]
        out.add(*few(told, 30))
        if self.is_healthy:
            out.add("nothing was found")
        out.add(*(f"note: {n}" for n in self.notes))
        return str(out)


def _bytes(value: int | None) -> str:
    return "" if value is None else size(value)


def examine(schema: Schema, dialect: Dialect, slow: Sequence[SlowQuery] = ()) -> HealthReport:
    """Judge a schema; reads nothing more."""
    out = HealthReport(dialect=dialect.name, slow=list(slow))
    out.tables = sorted(map(_table, schema.tables.values()), key=lambda t: (-t.size_bytes, t.name))
    out.drops = drops(schema, dialect)
    for name in sorted(schema.tables):
        out.faults += _faults(schema.tables[name], dialect)
    out.notes += schema.notes
    if not dialect.capabilities.counts_scans:
        out.notes.append("this engine does not count scans of an index: unused ones are not found")
    return out


def _table(known: Table) -> TableHealth:
    sizes = [i.size_bytes for i in known.indexes]
    total = sum(s or 0 for s in sizes)
    return TableHealth(
        name=known.name,
        rows=known.rows,
        size_bytes=known.size_bytes,
        index_bytes=total if sizes and None not in sizes else None,
        indexes=len(known.indexes),
    )


def _faults(known: Table, dialect: Dialect) -> list[Fault]:
    out = []
    if not known.primary_key:
        out.append(Fault(kind="no primary key", about=known.name, evidence="rows cannot be told apart"))
    leads = [tuple(k.name for k in i.spec.keys) for i in known.indexes if i.valid and not i.spec.where]
    leads.append(known.primary_key)
    for columns, target, _ in known.foreign_keys:
        if not any(set(lead[: len(columns)]) == set(columns) for lead in leads):
            out.append(
                Fault(
                    kind="foreign key without index",
                    about=f"{known.name} ({', '.join(columns)})",
                    evidence=f"each delete in {target} reads all {known.rows:,} rows",
                )
            )
    return out


__all__ = ["Fault", "HealthReport", "TableHealth"]


def _drop(drop: DropAdvice) -> Html:
    bytes_ = f" ({size(drop.size_bytes)})" if drop.size_bytes else ""
    said = f" {drop.name} on {drop.table}: {drop.evidence}{bytes_}"
    return markup(tag("p", tag("b", f"{drop.kind} index"), said), tag("pre", f"{drop.sql};"))
