"""Conformance suite of :class:`eventperf.dbopt.Dialect`: subclass it with fixtures of a real database.

class TestMyDialect(DialectSuite):
    @pytest.fixture
    def engine(self): ...       # SQLAlchemy engine of an empty database
    @pytest.fixture
    def dialect(self, engine): return MyDialect(engine)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from eventperf.dbopt import IndexSpec, Key, OptimizerBusy, Sample, StatementRefused
from eventperf.dbopt.analysis.names import analyse
from eventperf.dbopt.protocols import Query
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
