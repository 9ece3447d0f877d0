"""What the room needs of a database: its schema and changes, its planner, its record of statements."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from .analysis.names import Analysis
from .schema.model import Column, ExistingIndex, IndexSpec, Schema, Table
from .statements.source import Recorded, Recording, StatementSource
from .statements.workload import Sample, Statement, Workload

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(slots=True, kw_only=True)
class Query:
    """A statement of the workload, ready to be planned.

    Attributes:
        statement: What was recorded.
        analysis: What it asks of each table.
        sample: The execution that is planned.
        weight: What running it costs the application today; gains are shares of it.
        planning: What planning it costs beside that, where the planner tells. Every index adds to it.
        id: The fingerprint's name.
        tables: All tables it reads or writes.
        looked_up: Columns it looks rows up by, each with its table.
    """

    statement: Statement
    analysis: Analysis
    sample: Sample
    weight: float = 0.0
    planning: float = 0.0
    id: str = field(init=False, repr=False)  # a search asks a million times
    tables: frozenset[str] = field(init=False, repr=False)
    looked_up: frozenset[tuple[str, str]] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.id = self.statement.fingerprint.id
        self.tables = self.analysis.tables
        self.looked_up = frozenset(
            (use.table, column)
            for use in self.analysis.uses
            for column in (*(p.column for p in use.predicates), *(j[0] for j in use.joins))
        )


def columns_of(query: Query, schema: Schema) -> dict[str, frozenset[str]]:
    """Return what a copy must hold for a query: what it reads and writes, and what existing indexes hold."""
    out: dict[str, set[str]] = {name: set() for name in query.analysis.tables}
    for use in query.analysis.uses:
        out[use.table] |= use.columns
    if query.analysis.written is not None:
        out[query.analysis.written[0]] |= query.analysis.written[1]
    for name, table in ((n, schema.tables[n]) for n in out):
        out[name] |= {c for i in table.indexes for c in i.spec.columns} | {*table.primary_key}
    return {n: frozenset(columns & schema.tables[n].columns.keys()) for n, columns in out.items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What a planner would do.

    Attributes:
        cost: In the planner's own unit; only ratios on one planner mean something.
        text: The plan for people.
        used: The hypothetical indexes in it.
        existing: Names of the real indexes in it.
        planning_s: Seconds that it took to make, where the planner tells.
    """

    cost: float
    text: str
    used: frozenset[IndexSpec] = frozenset()
    existing: frozenset[str] = frozenset()
    planning_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurement:
    """One statement measured on the real database.

    Attributes:
        seconds: Best of the runs, the mean over all samples.
        plan: The plan's shape, without figures, to compare before and after.
        indexes: Names of the indexes in it.
        runs: How often it ran.
        capped: It was stopped at the time-out; ``seconds`` is that bound.
        spread: How far the middle run is from the best, the mean over all samples: what is closer is noise.
    """

    seconds: float
    plan: str
    indexes: frozenset[str]
    runs: int
    capped: bool = False
    spread: float = 0.0

    @classmethod
    def of(cls, runs: Sequence[Sequence[float]], plan: str, indexes: frozenset[str], capped: bool) -> Self:
        """Return what the seconds of each sample's runs amount to."""
        best, middle = [min(r) for r in runs], [sorted(r)[len(r) // 2] for r in runs]
        return cls(
            seconds=sum(best) / len(best),
            plan=plan,
            indexes=indexes,
            runs=sum(map(len, runs)),
            capped=capped,
            spread=sum(middle) / len(middle) - sum(best) / len(best),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What an engine's indexes can be, and how its figures are read.

    Attributes:
        include: Columns may be carried along that are not ordered.
        partial: An index may have a condition.
        expression: An index may be on an expression.
        descending: Keys have a direction of their own.
        trigram: GIN indexes of trigrams can be made.
        pattern_classes: LIKE needs an operator class where the collation is not bytewise.
        pattern_ops: The database's own collation is such a one.
        appends_primary_key: Every index ends with the primary key.
        prefix_for_text: Long texts are indexed by their beginning.
        hidden_indexes: An index can be taken out of all plans without dropping it.
        max_key_bytes: Most bytes of one entry of an index; a longer value is refused, or the index is.
        refuses_long_values: The value is: a write that succeeds today would fail.
        collations: A key may name a collation.
        orders_nulls: A key may have its NULLs at the other end.
        inverted: Indexes of what a value contains (GIN, GiST) can be made.
        counts_scans: The server counts how often an index is used.
        seconds_per_cost: About what one unit of its planner's cost takes.
        returns_early: Its driver returns before the last row is read: measured times are too low.
    """

    include: bool = False
    partial: bool = False
    expression: bool = False
    descending: bool = True
    trigram: bool = False
    pattern_classes: bool = False
    pattern_ops: bool = False
    appends_primary_key: bool = False
    prefix_for_text: bool = False
    hidden_indexes: bool = False
    max_key_bytes: int | None = None
    refuses_long_values: bool = False
    collations: bool = False
    orders_nulls: bool = False
    inverted: bool = False
    counts_scans: bool = False
    seconds_per_cost: float = 1e-5
    returns_early: bool = False


class Planner(Protocol):
    """Judges sets of indexes that do not exist, without touching the application's tables.

    ``is_real`` tells whether a real planner answers, or statistics alone; ``is_cheapest``, whether a plan's
    cost is what the planner took it for, so that more indexes never make a statement dearer. Where plans are
    priced here, the engine's choice may turn out the worse one. ``notes`` says what could not be judged.
    """

    explains: int
    is_real: bool
    is_cheapest: bool
    method: str
    notes: list[str]

    def plan(self, query: Query, specs: Sequence[IndexSpec], /) -> Plan:
        """Return the plan of ``query`` as if exactly ``specs`` existed beside the real indexes."""
        ...

    def size(self, spec: IndexSpec, /) -> int:
        """Return the estimated bytes of an index."""
        ...

    def close(self) -> None:
        """Remove what was made for planning; a second call does nothing."""
        ...


class Dialect(Protocol):
    """One engine: catalog, DDL, measurement. Conformance: ``eventperf.testing.dbopt.DialectSuite``."""

    name: str
    identifier_limit: int
    capabilities: Capabilities

    def schema(self) -> Schema:
        """Read tables, indexes and statistics; needs no more than SELECT."""
        ...

    def planner(self, schema: Schema, /) -> Planner:
        """Return a planner for ``schema``."""
        ...

    def source(self, since: Any, /) -> Workload:
        """Read the engine's own record of statements, or raise ``SourceUnavailable``."""
        ...

    def create_sql(self, spec: IndexSpec, name: str, /) -> str:
        """Return the engine's online form of CREATE INDEX."""
        ...

    def drop_sql(self, name: str, table: str, /) -> str:
        """Return the engine's online form of DROP INDEX."""
        ...

    def indexes(self, table: str, /) -> Sequence[ExistingIndex]:
        """Return the indexes of one table as they are now; empty when the table is gone."""
        ...

    def execute_ddl(self, statement: str, *, lock_timeout_s: float) -> None:
        """Run one change; raise ``StatementRefused`` when the database does."""
        ...

    def refresh_statistics(self, table: Table, /) -> None:
        """Bring the planner's statistics of a table up to date."""
        ...

    def exclusive(self) -> AbstractContextManager[None]:
        """Hold the advisory lock; raise ``OptimizerBusy`` when another optimizer does."""
        ...

    def measure(self, samples: Sequence[Sample], *, runs: int, timeout_s: float) -> Measurement | None:
        """Run SELECTs with their values and read their plan; ``None`` when they cannot be run."""
        ...

    def rows(self, sql: str, *, timeout_s: float, limit: int) -> Iterator[tuple[Any, ...]]:
        """Run one SELECT (``sql`` has no parameters) and yield its rows."""
        ...

    def close(self) -> None:
        """Close what was opened here."""
        ...


# --- what only some engines can do: asked for once, by isinstance -------------------------------


@dataclass(frozen=True, slots=True)
class PartitionPlan:
    """One way to partition one table by ranges of one column.

    Attributes:
        table: The table.
        column: The partition key.
        unit: What one partition holds: a day, a month, or a number of values.
        parts: ``(name, from, to)``, the upper bound not included, as SQL literals.
    """

    table: Table
    column: Column
    unit: str
    parts: tuple[tuple[str, str, str], ...]


@runtime_checkable
class Partitions(Protocol):
    """An engine whose tables can be partitioned by ranges."""

    def partition_ddl(self, plan: PartitionPlan, /) -> Iterator[str]:
        """Yield the statements that partition the table; nothing runs them here."""
        ...

    def partition_breaks(self, plan: PartitionPlan, schema: Schema, /) -> Iterator[str]:
        """Yield what this engine does not let a partitioned table keep, beyond the keys."""
        ...

    def pruning(
        self, plan: PartitionPlan, schema: Schema, queries: Sequence[Query], /
    ) -> dict[str, int] | None:
        """Return how many partitions each query's plan reads; ``None`` without a place to try it.

        Queries without known parameters are left out: their partitions are chosen when they run.
        """
        ...


@runtime_checkable
class HidesIndexes(Protocol):
    """An engine that can take an index out of every plan at once, and drop it later."""

    def hide_sql(self, name: str, table: str, /) -> str:
        """Return the statement that hides an index."""
        ...

    def show_sql(self, name: str, table: str, /) -> str:
        """Return the statement that brings it back into plans."""
        ...


@runtime_checkable
class BuildsInSteps(Protocol):
    """An engine where one index of a partitioned parent is several statements."""

    def steps(self, spec: IndexSpec, name: str, /) -> list[tuple[str, str | None]]:
        """Return what is left to do, each with what removes its remains; empty for other tables."""
        ...


@runtime_checkable
class Expects(Protocol):
    """A planner that prepares itself for statements before the first is planned."""

    def expect(self, queries: Iterable[Query], /) -> None:
        """Note what will be planned: what is asked of each table."""
        ...


@runtime_checkable
class TellsCopies(Protocol):
    """A planner that works on copies of the application's data."""

    def copied(self) -> list[str]:
        """Return what was copied: each table with its columns and rows, in words."""
        ...


@runtime_checkable
class ReadsSome(Protocol):
    """An engine that samples tables to know them: those that no statement names need not be."""

    def schema_of(self, words: frozenset[str], /) -> Schema:
        """Read the schema; of tables whose names are not among ``words`` (lower case) no values."""
        ...


class Ground(Protocol):
    """A copy of the application's data where indexes are really built and statements really run.

    ``place`` says what it is, ``copied`` what of the application's data was put there for it.
    """

    place: str
    copied: Sequence[str]

    def unfit(self, table: str, /) -> str | None:
        """Return why times on this table's copy say nothing; ``None`` when they do."""
        ...

    def build(self, spec: IndexSpec, name: str, /, *, timeout_s: float) -> None:
        """Build an index, with the statistics that ``apply`` refreshes; raise ``StatementRefused``."""
        ...

    def drop(self, name: str, table: str, /) -> None:
        """Drop one that was built here."""
        ...

    def measure(self, samples: Sequence[Sample], *, runs: int, timeout_s: float) -> Measurement | None:
        """Run SELECTs as :meth:`Dialect.measure` does."""
        ...


@runtime_checkable
class Grounds(Protocol):
    """A planner that has a place where real indexes can be built, or can make one."""

    def ground(self, *, timeout_s: float) -> AbstractContextManager[Ground]:
        """Return the place; at the end nothing is left of what was built. Raise ``StatementRefused``."""
        ...


@runtime_checkable
class Scratch(Protocol):
    """A backend with a database where temporary tables may be made."""

    def scratch(self) -> AbstractContextManager[Any]:
        """Yield a connection to it; ``None`` when none was given."""
        ...


@runtime_checkable
class Promises(Protocol):
    """An engine that tells what it enforces, beyond what a schema says."""

    def promised(self, schema: Schema, names: Collection[str], /) -> Schema:
        """Return the schema with what is enforced of these tables, and nothing else.

        Keys that hold for every row, NULLs that cannot be, collations by name. What is not known is not
        promised.
        """
        ...


@runtime_checkable
class TellsRights(Protocol):
    """An engine whose roles may do more than advice needs."""

    def excess(self) -> str | None:
        """Return what the connection may do beyond reading, in words; ``None``: nothing to warn of."""
        ...

    def grants(self, role: str, /) -> Sequence[str]:
        """Return the statements that make a role which may read what advice needs, and nothing else."""
        ...


@runtime_checkable
class TellsHarm(Protocol):
    """An engine that runs only such recorded statements as can do no harm."""

    def harm(self, sql: str, /) -> str | None:
        """Return why a statement is not run, in words; ``None`` when it may be."""
        ...


@runtime_checkable
class TellsCost(Protocol):
    """An engine that tells what it takes a statement to cost, on the real database and without running it."""

    def cost(self, sql: str, values: Sequence[Any] | None, /) -> float | None:
        """Return the cost; ``None`` when the engine refuses the statement."""
        ...


__all__ = [
    "BuildsInSteps",
    "Capabilities",
    "Dialect",
    "Expects",
    "Ground",
    "Grounds",
    "HidesIndexes",
    "Measurement",
    "PartitionPlan",
    "Partitions",
    "Plan",
    "Planner",
    "Promises",
    "Query",
    "ReadsSome",
    "Recorded",
    "Recording",
    "Scratch",
    "StatementSource",
    "TellsCopies",
    "TellsCost",
    "TellsHarm",
    "TellsRights",
]
