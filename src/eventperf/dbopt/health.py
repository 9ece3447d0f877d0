"""The state of tables and indexes, on one page: what could go, what is missing, what is large."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from .findings import DropAdvice
from .indexes.drops import drops
from .output.report import bars, page, size, table
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
        e = html.escape
        body = [f"<h1>Database health</h1><p class=muted>{e(self.dialect)}, {len(self.tables)} tables.</p>"]
        body.append("<h2>Findings</h2>" if not self.is_healthy else "<p>Nothing was found.</p>")
        body += [f"<p><b>{e(f.kind)}</b> {e(f.about)}: {e(f.evidence)}</p>" for f in self.faults]
        body += [
            f"<p><b>{e(d.kind)} index</b> {e(d.name)} on {e(d.table)}: {e(d.evidence)}"
            f"{f' ({size(d.size_bytes)})' if d.size_bytes else ''}</p><pre>{e(d.sql)};</pre>"
            for d in self.drops
        ]
        largest = self.tables[:15]
        body.append("<h2>Largest tables</h2>")
        body.append(bars([(t.name, float(t.size_bytes)) for t in largest], size, "bytes per table"))
        if any(t.index_bytes for t in largest):
            body.append("<h2>Their indexes</h2>")
            body.append(bars([(t.name, float(t.index_bytes or 0)) for t in largest], size, "index bytes"))
        if self.slow:
            items = [(s.sample, s.total_s or 0.0) for s in self.slow[:10]]
            body.append("<h2>Statements that cost most</h2>")
            body.append(bars(items, lambda v: f"{v:.3g} s", "seconds per statement"))
        body += [f"<p class=muted>{e(n)}</p>" for n in self.notes]
        return page("Database health", "".join(body))

    def __str__(self) -> str:
        rows = [
            [t.name, f"{t.rows:,}", size(t.size_bytes), _bytes(t.index_bytes), str(t.indexes)]
            for t in self.tables[:30]
        ]
        out = [table(["table", "rows", "size", "indexes take", "indexes"], rows)]
        out += [f"{f.kind}: {f.about}: {f.evidence}" for f in self.faults]
        out += [f"could be dropped ({d.kind}): {d.name} on {d.table}: {d.evidence}" for d in self.drops]
        if self.is_healthy:
            out.append("nothing was found")
        return "\n".join([*out, *(f"note: {n}" for n in self.notes)])


def _bytes(value: int | None) -> str:
    return "" if value is None else size(value)


def examine(schema: Schema, dialect: Dialect, slow: Sequence[SlowQuery] = ()) -> HealthReport:
    """Judge a schema; reads nothing more."""
    out = HealthReport(dialect=dialect.name, slow=list(slow))
    out.tables = sorted(map(_table, schema.tables.values()), key=lambda t: (-t.size_bytes, t.name))
    out.drops = drops(schema, dialect)
    for name in sorted(schema.tables):
        out.faults += _faults(schema.tables[name], dialect)
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
