"""Conformance suites of :class:`eventperf.dbopt.Dialect` and of sources of statements.

Subclass them with fixtures of a real database, or of a real record:

class TestMyDialect(DialectSuite):
    @pytest.fixture
    def engine(self): ...       # SQLAlchemy engine of an empty database
    @pytest.fixture
    def dialect(self, engine): return MyDialect(engine)

class TestMySource(StatementSourceSuite):
    @pytest.fixture
    def source(self): ...
    def record(self, source, sql, seconds): ...   # one more execution in the record
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.dbopt import (
    IndexSpec,
    Key,
    OptimizerBusy,
    Sample,
    SourceUnavailable,
    StatementRefused,
    fingerprint,
)
from eventperf.dbopt.analysis.names import analyse
from eventperf.dbopt.protocols import Query, StatementSource
from eventperf.dbopt.schema.model import index_name
from eventperf.dbopt.statements.workload import Workload

ROWS = 4_000


class DialectSuite:
    """What every backend must do on a real database."""

    spec: IndexSpec = IndexSpec("visits", (Key("page"), Key("at")))

    @pytest.fixture
    def engine(self) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def dialect(self, engine: Any) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def rival(self, engine: Any) -> Any:
        """A second backend on the same database, as another process would have it."""
        raise NotImplementedError

    @pytest.fixture(autouse=True)
    def _tables(self, engine: Any) -> Iterator[None]:
        with engine.begin() as db:
            db.exec_driver_sql(
                "CREATE TABLE visits (id INTEGER PRIMARY KEY, page INT NOT NULL, at INT, note VARCHAR(40))"
            )
            for start in range(0, ROWS, 500):
                rows = ",".join(
                    f"({n}, {n % 200}, {n}, {'NULL' if n % 4 else repr('n')})"
                    for n in range(start, start + 500)
                )
                db.exec_driver_sql(f"INSERT INTO visits (id, page, at, note) VALUES {rows}")
        yield
        with engine.begin() as db:
            db.exec_driver_sql("DROP TABLE IF EXISTS visits")

    def create(self, dialect: Any) -> str:
        """Create the suite's index and return its name."""
        name = index_name(self.spec, limit=dialect.identifier_limit)
        dialect.execute_ddl(dialect.create_sql(self.spec, name), lock_timeout_s=2.0)
        return name

    def test_schema_tells_sizes_types_and_distribution(self, dialect: Any) -> None:
        dialect.refresh_statistics(dialect.schema().tables["visits"])
        table = dialect.schema().tables["visits"]
        assert table.primary_key == ("id",)
        assert ROWS * 0.8 <= table.rows <= ROWS * 1.2
        assert not table.columns["page"].nullable
        assert table.columns["note"].nullable
        assert 150 <= table.columns["page"].stats.distinct <= 260
        assert 0.6 <= table.columns["note"].stats.null_ratio <= 0.9

    def test_a_created_index_is_read_back_as_itself(self, dialect: Any) -> None:
        name = self.create(dialect)
        (found,) = [i for i in dialect.indexes("visits") if i.name == name]
        assert found.valid
        assert self.spec.is_prefix_of(found.spec)
        assert found.spec.is_prefix_of(self.spec)
        dialect.execute_ddl(dialect.drop_sql(name, "visits"), lock_timeout_s=2.0)
        assert name not in [i.name for i in dialect.indexes("visits")]

    def test_indexes_of_a_missing_table_are_none(self, dialect: Any) -> None:
        assert list(dialect.indexes("nowhere")) == []

    def test_refused_changes_are_told_with_their_statement(self, dialect: Any) -> None:
        with pytest.raises(StatementRefused) as error:
            dialect.execute_ddl("CREATE INDEX x ON nowhere (a)", lock_timeout_s=1.0)
        assert "nowhere" in error.value.statement
        assert not error.value.retryable

    def test_planning_changes_nothing(self, dialect: Any) -> None:
        before = dialect.indexes("visits")
        schema = dialect.schema()
        planner = dialect.planner(schema)
        workload = Workload(dialect.name)
        workload.add("SELECT at FROM visits WHERE page = 7 ORDER BY at")
        (statement,) = workload
        query = Query(
            statement=statement,
            analysis=analyse(statement.sql, schema),
            sample=statement.samples[0],
            weight=1.0,
        )
        plain, indexed = planner.plan(query, ()), planner.plan(query, (self.spec,))
        assert indexed.cost < plain.cost
        assert indexed.used == {self.spec}
        assert planner.plan(query, ()).cost == plain.cost
        assert planner.size(self.spec) > 0
        planner.close()
        assert dialect.indexes("visits") == before

    def test_measurements_see_the_plan_change(self, dialect: Any) -> None:
        samples = [Sample("SELECT at FROM visits WHERE page = :p1 ORDER BY at", (7,))]
        before = dialect.measure(samples, runs=2, timeout_s=5.0)
        name = self.create(dialect)
        dialect.refresh_statistics(dialect.schema().tables["visits"])
        after = dialect.measure(samples, runs=2, timeout_s=5.0)
        assert before is not None
        assert after is not None
        assert name not in before.indexes
        assert name in after.indexes
        assert before.plan != after.plan
        assert after.seconds > 0

    def test_a_statement_that_cannot_run_is_not_measured(self, dialect: Any) -> None:
        assert dialect.measure([Sample("SELECT nothing FROM nowhere", ())], runs=1, timeout_s=1.0) is None

    def test_one_optimizer_at_a_time(self, dialect: Any, rival: Any) -> None:
        with dialect.exclusive(), pytest.raises(OptimizerBusy), rival.exclusive():
            pass
        with rival.exclusive():
            pass

    def test_rows_are_bounded(self, dialect: Any) -> None:
        assert len(list(dialect.rows("SELECT id FROM visits", timeout_s=5.0, limit=10))) == 10


class StatementSourceSuite:
    """What every source of statements must do, on a real record."""

    @pytest.fixture
    def source(self) -> Any:
        raise NotImplementedError

    @pytest.fixture
    def unreadable(self) -> Any:
        """A source whose record is not there; ``None`` where that cannot be."""
        raise NotImplementedError

    def record(self, source: Any, sql: str, seconds: float) -> None:
        """Put one execution into the record, of about ``seconds`` where it can be chosen."""
        raise NotImplementedError

    def one(self, source: Any, sql: str, since: float | None = None) -> Any:
        """Return the statement of ``sql`` as a workload collects it."""
        name = fingerprint(sql, source.dialect).id
        workload = Workload.from_source(source, since)
        assert name in workload, f"not read: {sql}"
        return workload[name]

    def test_it_is_a_source(self, source: Any) -> None:
        assert isinstance(source, StatementSource)
        assert source.dialect in ("sqlite", "postgres", "mysql")

    def test_executions_that_differ_in_values_are_one_statement(self, source: Any) -> None:
        for n in (3, 4, 5):
            self.record(source, f"SELECT {n} + 1 AS total", 0.01)
        found = self.one(source, "SELECT 1 + 1 AS total")
        assert found.calls == 3
        assert found.error is None

    def test_times_are_seconds_of_all_executions_together(self, source: Any) -> None:
        for _ in range(3):
            self.record(source, "SELECT 7 AS times", 0.01)
        found = self.one(source, "SELECT 7 AS times")
        if found.total_s is not None:
            assert 0 <= (found.max_s or 0.0) <= found.total_s < 60

    def test_reading_takes_nothing_away(self, source: Any) -> None:
        self.record(source, "SELECT 8 AS again", 0.01)
        first = self.one(source, "SELECT 8 AS again")
        second = self.one(source, "SELECT 8 AS again")
        assert (first.calls, first.total_s) == (second.calls, second.total_s)

    def test_a_period_is_taken_and_what_is_covered_is_told(self, source: Any) -> None:
        self.record(source, "SELECT 9 AS lately", 0.01)
        assert self.one(source, "SELECT 9 AS lately", since=86_400.0).calls >= 1
        assert Workload.from_source(source, 86_400.0).since.strip()

    def test_several_lines_and_quotes_arrive_whole(self, source: Any) -> None:
        sql = "SELECT 'it''s; -- # whole'\n  AS quoted,\n  1 AS one"
        self.record(source, sql, 0.01)
        assert self.one(source, sql).calls == 1

    def test_a_record_that_is_not_there_is_named_with_the_cure(self, unreadable: Any) -> None:
        if unreadable is None:
            pytest.skip("this record is always there")
        with pytest.raises((SourceUnavailable, ConfigurationError)) as error:
            Workload.from_source(unreadable)
        assert str(error.value)
