"""What is advised, with its grounds; plain data that can be reviewed, stored and applied later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eventperf._core.errors import ConfigurationError

from .errors import AdviceMismatch
from .schema.model import IndexSpec

if TYPE_CHECKING:
    from .statements.workload import Workload

FORMAT = "eventperf-advice-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """One query an index serves.

    Attributes:
        fingerprint: The query's name.
        statement: Its normalised text.
        calls: How often it ran.
        share: Its share of the workload's time today.
        cost_before: Planner cost today.
        cost_after: Planner cost with all advised indexes.
        plan_before: The plan today.
        plan_after: The plan with all advised indexes.
        callers: Where the application sends it from.
    """

    fingerprint: str
    statement: str
    calls: int
    share: float
    cost_before: float
    cost_after: float
    plan_before: str
    plan_after: str
    callers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexAdvice:
    """One index to create.

    Attributes:
        name: The name it gets.
        spec: What it is.
        sql: The statement that creates it, in the engine's online form.
        reason: Why, in one sentence.
        gain: Share of the workload's time it saves beside the others, 0 to 1.
        size_bytes: Estimated size.
        write_cost: Share of the workload's time that writers lose.
        proof: Who judged it: a real planner, or statistics alone.
        serves: The queries whose plan uses it.
        rejected: Runners-up ``(index, why not)``.
    """

    name: str
    spec: IndexSpec
    sql: str
    reason: str
    gain: float
    size_bytes: int
    write_cost: float
    proof: str
    serves: tuple[Served, ...] = ()
    rejected: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DropAdvice:
    """One index that could go; never dropped unasked."""

    name: str
    table: str
    kind: Literal["duplicate", "prefix", "unused", "invalid"]
    evidence: str
    sql: str
    size_bytes: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RewriteAdvice:
    """One statement that could be written better.

    Attributes:
        fingerprint: The statement's name.
        rule: Which rule.
        before: The statement.
        after: The rewritten one, or ``None`` where only advice can be given.
        is_safe: The conditions of equivalence hold in this schema (and equal results were seen).
        verdict: Why it is equivalent, or what could differ.
        cost_before: Planner cost.
        cost_after: Planner cost of the rewritten one.
        seconds_before: Measured on the recorded parameters, where they are known; at most the time-out.
        seconds_after: The same for the rewritten one.
        advice: What to do, in one sentence.
        callers: Where the application sends it from.
    """

    fingerprint: str
    rule: str
    before: str
    after: str | None
    is_safe: bool
    verdict: str
    advice: str
    cost_before: float | None = None
    cost_after: float | None = None
    seconds_before: float | None = None
    seconds_after: float | None = None
    callers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class PartitionAdvice:
    """One table that could be partitioned.

    Attributes:
        table: Its name.
        column: The partition key.
        reason: Why.
        ddl: Statements for this engine.
        prunes: Queries that would read fewer partitions, with the share they would read.
        reads_all: Queries that would have to look into every partition.
        breaks: Keys and foreign keys that do not survive as they are.
        proof: Who says which partitions are read.
        is_proven: The engine's own plans on a partitioned copy say so.
        parts: How many partitions, without the one for the rest.
    """

    table: str
    column: str
    reason: str
    ddl: tuple[str, ...]
    prunes: tuple[tuple[str, float], ...]
    reads_all: tuple[str, ...] = ()
    breaks: tuple[str, ...] = ()
    proof: str = ""
    is_proven: bool = False
    parts: int = 0


@dataclass(slots=True, kw_only=True)
class Advice:
    """Everything advised for one workload; print it for a table.

    Attributes:
        dialect: The engine it is for.
        indexes: To create, the most gain first.
        drops: Existing indexes that could go.
        rewrites: Statements to write better.
        partitions: Tables to partition.
        warnings: What could not be judged, and why a query got nothing.
        proof: Who judged.
        gain: Share of the workload's time that all indexes together save.
        explains: Plans asked for.
        seconds: Time the search took.
        is_complete: ``False`` when the time budget ended the search.
        unserved: Queries without an index, by fingerprint, with the reason.
        since: The period of the workload.
    """

    dialect: str
    indexes: list[IndexAdvice] = field(default_factory=list)
    drops: list[DropAdvice] = field(default_factory=list)
    rewrites: list[RewriteAdvice] = field(default_factory=list)
    partitions: list[PartitionAdvice] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    proof: str = ""
    gain: float = 0.0
    explains: int = 0
    seconds: float = 0.0
    is_complete: bool = True
    unserved: dict[str, str] = field(default_factory=dict)
    since: str = ""
    statements: int = 0
    workload: Workload | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data; :meth:`from_dict` reads it back. No parameter values are in it."""
        out: dict[str, Any] = {"format": FORMAT}
        for name in ("dialect", "proof", "gain", "explains", "seconds", "is_complete", "since", "statements"):
            out[name] = getattr(self, name)
        out["indexes"] = [_index_dict(i) for i in self.indexes]
        for name in ("drops", "rewrites", "partitions"):
            out[name] = [asdict(item) for item in getattr(self, name)]
        out["unserved"], out["warnings"] = dict(self.unserved), list(self.warnings)
        return out

    def save(self, path: str | Path) -> None:
        """Write :meth:`to_dict` as JSON, for review and a later ``apply``."""
        Path(path).write_text(json.dumps(self.to_dict(), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: str | Path) -> Advice:
        """Read a plan file.

        Raises:
            ConfigurationError: No such file.
            AdviceMismatch: Not a plan file of this library.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except OSError as error:
            raise ConfigurationError("path", str(path), f"a readable plan file ({error.strerror})") from error
        try:
            data = json.loads(text)
        except ValueError as error:
            raise AdviceMismatch(f"{path} is not JSON: {error}") from error
        return cls.from_dict(data)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Advice:
        """Build from :meth:`to_dict`'s data."""
        if not isinstance(data, Mapping) or data.get("format") != FORMAT:
            raise AdviceMismatch(
                f"not a plan of format {FORMAT}: write one with `eventperf db advise --json`"
            )
        known = ("dialect", "proof", "gain", "explains", "seconds", "is_complete", "since", "statements")
        try:
            out = cls(**{name: data[name] for name in known})
            out.indexes = [_index_from(row) for row in data["indexes"]]
            out.drops = [DropAdvice(**row) for row in data["drops"]]
            out.rewrites = [RewriteAdvice(**{**r, "callers": tuple(r["callers"])}) for r in data["rewrites"]]
            out.partitions = [_partition_from(row) for row in data["partitions"]]
        except (KeyError, TypeError) as error:
            raise AdviceMismatch(f"the plan is incomplete: {error}") from error
        out.unserved, out.warnings = dict(data.get("unserved", {})), list(data.get("warnings", ()))
        return out

    def to_sql(self, *, drops: bool = False) -> str:
        """Return a script for people who apply by hand; drops are comments unless asked for."""
        lines = [f"-- {len(self.indexes)} indexes; judged by: {self.proof}"]
        for index in self.indexes:
            lines += [f"-- {index.reason}", f"{index.sql};"]
        for drop in self.drops:
            lines += [f"-- {drop.kind}: {drop.evidence}", f"{'' if drops else '-- '}{drop.sql};"]
        for partition in self.partitions:
            lines += [f"-- partitioning {partition.table}: {partition.reason}"]
            lines += [f"-- {line}" for statement in partition.ddl for line in f"{statement};".splitlines()]
        return "\n".join(lines) + "\n"

    def to_html(self) -> str:
        """Return one self-contained page."""
        from .output.report import html_page

        return html_page(self)

    def to_migration(self, kind: Literal["django", "alembic"], **options: Any) -> str:
        """Return a migration file for Django or Alembic.

        Args:
            kind: Which tool.
            options: ``app_label``, ``dependency``, ``models`` (table to model name) and ``fields`` (table and
                column to field name) for Django, which ``eventperf.contrib.django.migration_options`` finds;
                ``revision`` and ``down_revision`` for Alembic.
        """
        from .output.alembic import migration

        return migration(self, kind, **options)

    def __str__(self) -> str:
        from .output.report import text_table

        return text_table(self)


def _index_dict(index: IndexAdvice) -> dict[str, Any]:
    out = {
        name: getattr(index, name)
        for name in ("name", "sql", "reason", "gain", "size_bytes", "write_cost", "proof")
    }
    out["spec"] = index.spec.to_dict()
    out["serves"] = [asdict(s) for s in index.serves]
    out["rejected"] = [list(r) for r in index.rejected]
    return out


def _index_from(row: Mapping[str, Any]) -> IndexAdvice:
    serves = tuple(Served(**{**s, "callers": tuple(s["callers"])}) for s in row["serves"])
    return IndexAdvice(
        **{
            **row,
            "spec": IndexSpec.from_dict(row["spec"]),
            "serves": serves,
            "rejected": tuple((a, b) for a, b in row["rejected"]),
        }
    )


def _partition_from(row: Mapping[str, Any]) -> PartitionAdvice:
    return PartitionAdvice(
        **{
            **row,
            "ddl": tuple(row["ddl"]),
            "prunes": tuple((a, b) for a, b in row["prunes"]),
            "reads_all": tuple(row["reads_all"]),
            "breaks": tuple(row["breaks"]),
        }
    )
