"""What is advised, with its grounds: plain data, for renderers and for review."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from .schema.model import IndexSpec
from .statements.workload import Workload

Level = Literal["estimated", "planned", "measured", "verified"]


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
        seconds_before: Measured on a copy without the advised indexes; ``None`` where it was not run.
        seconds_after: The same with all of them.
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
    seconds_before: float | None = None
    seconds_after: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexAdvice:
    """One index to create.

    Attributes:
        name: The name it gets.
        spec: What it is.
        sql: The statement that creates it, in the engine's online form.
        reason: Why, in one sentence.
        gain: Share of the workload's cost it saves beside the others, 0 to 1: planner cost, weighed by time.
        size_bytes: Estimated size.
        write_cost: Share of the workload's cost that writers lose.
        proof: Who judged it: a real planner, or statistics alone.
        level: ``estimated`` from statistics, ``planned`` by a real planner on a copy, ``measured`` on a
            copy, or ``verified`` here.
        speedup: How many times faster its queries are by that measurement; ``gain`` stays planned.
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
    level: Level = "estimated"
    speedup: float | None = None
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
        after: The rewritten one, with the constants of the text that was analysed, to be run and compared;
            ``None`` where only advice can be given. What is printed, written or saved has ``?`` for them.
        is_safe: Its condition is enforced by the engine, and both forms gave the same rows, and some, on made
            tables and on the real ones. Without such a comparison, or with an empty one, it is not safe.
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
class Findings:
    """Everything advised for one workload.

    Attributes:
        dialect: The engine it is for.
        indexes: To create, the most gain first.
        drops: Existing indexes that could go.
        rewrites: Statements to write better.
        partitions: Tables to partition.
        warnings: What could not be judged, and why a query got nothing.
        proof: Who judged.
        level: How well its figures are proved; see :class:`IndexAdvice`.
        copied: What of the application's data was copied for the proof.
        trial: What was run on a copy, where, and what was not and why; empty where nothing could be.
        gain: Share of the workload's cost that all indexes together save; planned, not measured.
        explains: Plans asked for.
        seconds: Time the search took.
        is_complete: ``False`` when the time budget ended the search.
        unserved: Queries without an index, by fingerprint, with the reason.
        since: The period of the workload.
        tables: Rows and bytes of the tables that its statements touch.
    """

    dialect: str
    indexes: list[IndexAdvice] = field(default_factory=list)
    drops: list[DropAdvice] = field(default_factory=list)
    rewrites: list[RewriteAdvice] = field(default_factory=list)
    partitions: list[PartitionAdvice] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    proof: str = ""
    level: Level = "estimated"
    copied: list[str] = field(default_factory=list)
    trial: str = ""
    gain: float = 0.0
    explains: int = 0
    seconds: float = 0.0
    is_complete: bool = True
    unserved: dict[str, str] = field(default_factory=dict)
    since: str = ""
    statements: int = 0
    tables: dict[str, tuple[int, int]] = field(default_factory=dict)
    workload: Workload | None = field(default=None, repr=False, compare=False)
