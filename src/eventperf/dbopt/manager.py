"""``DatabaseOptimizer``: find what is slow, advise, prove, apply, measure, undo."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf._core.events import Hooks

from .advice import Advice, IndexAdvice
from .advising import Adviser
from .backends.connect import open_engine
from .changes.apply import Applier
from .changes.report import ApplyReport
from .changes.revert import Reverter
from .changes.verdict import measured_faster
from .errors import DatabaseError, SourceUnavailable
from .events import Advised, IndexChanged
from .health import HealthReport, examine
from .indexes.deadline import Deadline
from .options import Limits
from .protocols import Dialect, ReadsSome, StatementSource, TellsRights
from .schema.model import Schema, words_of
from .statements.recorder import NPlusOne, QueryRecorder
from .statements.workload import SlowQuery, Workload

if TYPE_CHECKING:
    from typing_extensions import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimizationResult:
    """What one ``optimize`` did; every figure is counted, none is assumed.

    Attributes:
        slow_queries_found: Statements in the ranking (at most 50).
        indexes_suggested: Indexes advised.
        indexes_created: Indexes that exist now because of this run.
        indexes_reverted: Created, measured and dropped again.
        rewrites_suggested: Statements with a better form.
        queries_optimized: Measured faster with a new plan; 0 in a dry run.
        partitioning_suggestions: Tables worth partitioning.
        advice: The advice itself.
        report: What apply did.
    """

    slow_queries_found: int
    indexes_suggested: int
    indexes_created: int
    indexes_reverted: int
    rewrites_suggested: int
    queries_optimized: int
    partitioning_suggestions: int
    advice: Advice
    report: ApplyReport

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        out = {name: getattr(self, name) for name in self.__slots__ if name not in ("advice", "report")}
        return {**out, "advice": self.advice.to_dict(), "report": self.report.to_dict()}


class DatabaseOptimizer:
    """Advice that a planner has proved, applied online and measured on real parameters.

    Reading needs no more than SELECT; nothing is written to the application's database without
    ``apply(dry_run=False)``. Nothing is opened before the first call.

    Args:
        engine_or_url: SQLAlchemy ``Engine`` or ``AsyncEngine``, a session, Flask-SQLAlchemy's ``db``, or a
            URL (``sqlite:///app.db``, ``postgresql+psycopg://...``, ``mysql+pymysql://...``).
        what_if: Engine or URL of a database where hypothetical or sampled objects may be made.
            SQLite needs none. Without one, advice for the servers rests on statistics, and says so.
        ddl: Privileged, direct connection (not through a pooler) for ``apply``.
        source: Where statements come from when a call names no workload: a ``Workload``, a
            ``QueryRecorder``, any ``StatementSource``, or ``None`` for the server's own record.
        limits: Bounds of advice and changes.
        clock: Time, for tests.

    Example:
        >>> from sqlalchemy import create_engine, text
        >>> engine = create_engine("sqlite://")
        >>> with engine.begin() as db:
        ...     _ = db.execute(text("CREATE TABLE visits (id INTEGER PRIMARY KEY, page INT, at INT)"))
        ...     for n in range(2000):
        ...         _ = db.execute(text(f"INSERT INTO visits (page, at) VALUES ({n % 50}, {n})"))
        >>> recorder = QueryRecorder(engine)
        >>> with engine.connect() as db:
        ...     for n in range(20):
        ...         _ = db.execute(text("SELECT at FROM visits WHERE page = :p ORDER BY at"), {"p": n}).all()
        >>> advice = DatabaseOptimizer(engine, source=recorder).advise()
        >>> [i.spec.label() for i in advice.indexes]
        ['visits (page, at)']
    """

    def __init__(
        self,
        engine_or_url: Any,
        *,
        what_if: Any = None,
        ddl: Any = None,
        source: Workload | QueryRecorder | StatementSource | None = None,
        limits: Limits | None = None,
        clock: Clock | None = None,
    ) -> None:
        if source is not None and not isinstance(source, (Workload, QueryRecorder, StatementSource)):
            allowed = "a Workload, a QueryRecorder, a StatementSource or None"
            raise ConfigurationError("source", type(source).__name__, allowed)
        if limits is not None and not isinstance(limits, Limits):
            raise ConfigurationError("limits", type(limits).__name__, "Limits(...)")
        self._opened = open_engine(engine_or_url, "engine_or_url")
        self._what_if = open_engine(what_if, "what_if", beside=self._opened) if what_if is not None else None
        self._ddl = open_engine(ddl, "ddl", beside=self._opened) if ddl is not None else None
        for name, other in (("what_if", self._what_if), ("ddl", self._ddl)):
            if other is not None and other.dialect != self._opened.dialect:
                raise ConfigurationError(
                    name, other.dialect, f"a database of the same kind ({self._opened.dialect})"
                )
        self._source = source
        self._limits = limits or Limits()
        self._clock = clock or SystemClock()
        self._dialect: Dialect | None = None
        self._lock = threading.Lock()
        self.hooks: Hooks = Hooks()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections that were opened here; engines that were handed in stay open."""
        with self._lock:
            if self._dialect is not None:
                self._dialect.close()
                self._dialect = None
            for opened in (self._opened, self._what_if, self._ddl):
                if opened is not None:
                    opened.close()

    def __repr__(self) -> str:
        return f"<DatabaseOptimizer of {self._opened.shown}>"

    def on(self, listener: Callable[[Any], object], *types: type) -> Callable[[], None]:
        """Call ``listener`` with every event (of ``types``); returns a function that ends it."""
        return self.hooks.subscribe(listener, *types)

    @property
    def dialect(self) -> Dialect:
        """The engine's backend."""
        with self._lock:
            if self._dialect is None:
                self._dialect = self._opened.backend(what_if=self._what_if, ddl=self._ddl)
            return self._dialect

    # --- what is slow --------------------------------------------------------------------------

    def workload(self, since: Duration | None = "24h") -> Workload:
        """Return the statements of the configured source, or of the server's own record."""
        if isinstance(self._source, QueryRecorder):
            return self._source.workload()
        if isinstance(self._source, Workload):
            return self._source
        period = None if since is None else seconds(since, name="since")
        if self._source is not None:
            return Workload.from_source(self._source, period)
        return self.dialect.source(period)

    def n_plus_one(self) -> list[NPlusOne]:
        """Return the loops that the :class:`QueryRecorder` in ``source`` saw; of another source, none."""
        return self._source.n_plus_one() if isinstance(self._source, QueryRecorder) else []

    def slow_queries(
        self, since: Duration = "24h", limit: int = 50, *, redact: bool = True
    ) -> list[SlowQuery]:
        """Return the statements that cost most (calls x time), most first.

        Args:
            since: How far back, where the source knows times; cumulative sources say what they cover.
            limit: At most this many.
            redact: Show no literals.
        """
        if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
            raise ConfigurationError("limit", limit, "a whole number of at least 1")
        period = seconds(since, name="since")
        return self.workload(period).slow_queries(limit, redact=redact)

    # --- advice --------------------------------------------------------------------------------

    def advise(
        self,
        workload: Workload | QueryRecorder | None = None,
        *,
        budget: Duration | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> Advice:
        """Return indexes, drops, rewrites and partitions for a workload; changes nothing.

        Args:
            workload: Statements; the configured source when not given.
            budget: Time for the search, else ``limits.advise_budget``; what was found by then is returned,
                and so it is on Ctrl-C (a second one ends the call).
            progress: Called with a line of text as the work goes on.
        """
        began = self._clock.monotonic()
        tell = progress or _silent
        limit_s = seconds(self._limits.advise_budget if budget is None else budget, name="budget")
        given = workload.workload() if isinstance(workload, QueryRecorder) else workload
        given = given if given is not None else self.workload()
        tell("reading the schema and its statistics")
        dialect = self.dialect
        if given.dialect != dialect.name:
            read = f'a workload of {dialect.name}; texts: Workload.from_sql(..., dialect="{dialect.name}")'
            raise ConfigurationError("workload", given.dialect, read)
        schema = _schema(dialect, given)
        planner = dialect.planner(schema)
        try:
            with Deadline(self._clock, began + limit_s, tell) as deadline:
                advice = Adviser(dialect, schema, planner, self._limits, deadline, tell).advise(given)
        finally:
            planner.close()
        advice.warnings += self._rights()
        advice.seconds = self._clock.monotonic() - began
        if self.hooks.active:
            self.hooks.emit(
                Advised(
                    indexes=len(advice.indexes),
                    rewrites=len(advice.rewrites),
                    gain=advice.gain,
                    level=advice.level,
                    is_complete=advice.is_complete,
                    seconds=advice.seconds,
                )
            )
        return advice

    def _rights(self) -> list[str]:
        """Warn of a connection that may do more than read."""
        excess = self.dialect.excess() if isinstance(self.dialect, TellsRights) else None
        if excess is None:
            return []
        return [f"{excess}: advice needs to read only, for which this is enough: {'; '.join(self.grants())}"]

    def grants(self, role: str = "eventperf") -> list[str]:
        """Return the statements that make a role with the least that advice needs; none run here.

        SQLite has no roles: the list is empty, and a file that may only be read is enough.
        """
        if not role or "\0" in role:
            raise ConfigurationError("role", role, "the name of a role")
        dialect = self.dialect
        return list(dialect.grants(role)) if isinstance(dialect, TellsRights) else []

    def health(self) -> HealthReport:
        """Look at all tables and indexes: what could go, what is missing, what is large. Changes nothing."""
        dialect = self.dialect
        notes: list[str] = []
        slow: list[SlowQuery] = []
        try:
            slow = self.workload().slow_queries(10)
        except SourceUnavailable as error:
            notes.append(str(error))
        out = examine(dialect.schema(), dialect, slow)
        out.notes += notes
        return out

    # --- changes -------------------------------------------------------------------------------

    def apply(
        self,
        advice: Advice,
        *,
        dry_run: bool = True,
        verify: bool = True,
        workload: Workload | None = None,
        progress: Callable[[str], None] | None = None,
    ) -> ApplyReport:
        """Create the advised indexes online, measure their queries, and drop those that do not help.

        Args:
            advice: From :meth:`advise`, or :meth:`Advice.load`. Drops in it are never applied.
            dry_run: Only say what would be done.
            verify: Measure before and after on recorded parameters; revert what did not help.
            workload: Parameters for the measurements, when the advice came from a file.
            progress: Called with a line of text as the work goes on.

        Raises:
            OptimizerBusy: Another optimizer is applying changes to this database.
            DatabaseError: The advice is for another engine.
        """
        dialect = self.dialect
        if advice.dialect != dialect.name:
            raise DatabaseError(f"this advice is for {advice.dialect}, the database is {dialect.name}")
        # SQL in a plan file is for people; what runs is built from the checked definition.
        advice.indexes = [_rebuilt(i, dialect) for i in advice.indexes]
        known = workload or advice.workload
        if known is None and isinstance(self._source, (Workload, QueryRecorder)):
            known = self.workload()
        applier = Applier(dialect, dialect.schema(), known, self._limits, self._clock)
        return self._told(applier.run(advice, dry_run=dry_run, verify=verify, progress=progress or _silent))

    def revert(
        self,
        report: ApplyReport | None = None,
        *,
        dry_run: bool = False,
        progress: Callable[[str], None] | None = None,
    ) -> ApplyReport:
        """Drop the indexes that an ``apply`` created, online; what enforces something is never dropped.

        Args:
            report: Of that ``apply``, or :meth:`ApplyReport.load`; every index with a name of ours
                (``ix_ep_...``) when not given. Without it nothing is dropped where Django or Alembic migrates
                the database, whose migrations make indexes of these names too.
            dry_run: Only say what would be done.
            progress: Called with a line of text as the work goes on.

        Returns:
            What was dropped is in ``reverted``, what is no longer there in ``skipped``.

        Raises:
            OptimizerBusy: Another optimizer is applying changes to this database.
        """
        if report is not None and not isinstance(report, ApplyReport):
            raise ConfigurationError("report", type(report).__name__, "the ApplyReport of an apply, or None")
        dialect = self.dialect
        reverter = Reverter(dialect, dialect.schema(), None, self._limits, self._clock)
        return self._told(reverter.revert(report, dry_run=dry_run, progress=progress or _silent))

    def _told(self, report: ApplyReport) -> ApplyReport:
        """Tell the listeners what became of each index."""
        if self.hooks.active and not report.dry_run:
            for outcome in ("created", "reverted", "failed", "skipped"):
                for a in getattr(report, outcome):
                    self.hooks.emit(
                        IndexChanged(
                            outcome=outcome,
                            name=a.name,
                            table=a.table,
                            reason=a.reason,
                            speedup=a.speedup,
                            seconds=a.seconds,
                        )
                    )
        return report

    def optimize(self, *, dry_run: bool = True, since: Duration = "24h") -> OptimizationResult:
        """Find slow queries, advise, apply the best and measure; a dry run changes nothing."""
        workload = self.workload(since)
        advice = self.advise(workload)
        report = self.apply(advice, dry_run=dry_run)
        return OptimizationResult(
            slow_queries_found=len(workload.slow_queries()),
            indexes_suggested=len(advice.indexes),
            indexes_created=len(report.created),
            indexes_reverted=len(report.reverted),
            rewrites_suggested=len(advice.rewrites),
            queries_optimized=measured_faster(report.measured, self._limits),
            partitioning_suggestions=len(advice.partitions),
            advice=advice,
            report=report,
        )

    # --- async twins ---------------------------------------------------------------------------

    async def aslow_queries(self, since: Duration = "24h", limit: int = 50) -> list[SlowQuery]:
        """:meth:`slow_queries` in a worker thread."""
        import asyncio

        return await asyncio.to_thread(self.slow_queries, since, limit)

    async def aadvise(self, workload: Workload | QueryRecorder | None = None) -> Advice:
        """:meth:`advise` in a worker thread."""
        import asyncio

        return await asyncio.to_thread(self.advise, workload)

    async def aapply(self, advice: Advice, *, dry_run: bool = True, verify: bool = True) -> ApplyReport:
        """:meth:`apply` in a worker thread."""
        import asyncio

        return await asyncio.to_thread(self.apply, advice, dry_run=dry_run, verify=verify)

    async def aoptimize(self, *, dry_run: bool = True) -> OptimizationResult:
        """:meth:`optimize` in a worker thread."""
        import asyncio

        return await asyncio.to_thread(self.optimize, dry_run=dry_run)


def _schema(dialect: Dialect, workload: Workload) -> Schema:
    """Read the schema; what no statement names is not sampled."""
    if not isinstance(dialect, ReadsSome):
        return dialect.schema()
    texts = (text for s in workload for text in (s.fingerprint.text, s.sql))
    return dialect.schema_of(words_of(texts))


def _silent(line: str) -> None:
    return None


def _rebuilt(index: IndexAdvice, dialect: Dialect) -> IndexAdvice:
    from dataclasses import replace

    return replace(index, sql=dialect.create_sql(index.spec, index.name))


__all__ = ["DatabaseOptimizer", "OptimizationResult"]
