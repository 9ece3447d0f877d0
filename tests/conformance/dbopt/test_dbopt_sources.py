"""Our own sources of statements against the published suite, on real records."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from eventperf.dbopt.backends.mysql.sources import SlowLogFile, SlowLogTable
from eventperf.dbopt.backends.postgres.sources import PgStatStatements
from eventperf.testing.dbopt import StatementSourceSuite


class TestSlowLogFile(StatementSourceSuite):
    @pytest.fixture
    def source(self, tmp_path: Path) -> SlowLogFile:
        self.path = tmp_path / "slow.log"
        self.path.touch()
        return SlowLogFile(self.path)

    @pytest.fixture
    def unreadable(self, tmp_path: Path) -> SlowLogFile:
        return SlowLogFile(tmp_path / "nowhere.log")

    def record(self, source: SlowLogFile, sql: str, seconds: float) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(
                f"# Time: 260101 10:00:00\n# User@Host: app[app] @ localhost []\n"
                f"# Query_time: {seconds:.6f}  Lock_time: 0.000010  Rows_sent: 1  Rows_examined: 9\n"
                f"SET timestamp={int(time.time())};\n{sql};\n"
            )


@pytest.mark.integration
class TestSlowLogTable(StatementSourceSuite):
    @pytest.fixture
    def engine(self, mariadb_url: str) -> Iterator[Any]:
        engine = create_engine(mariadb_url)
        with engine.begin() as db:
            db.exec_driver_sql("TRUNCATE mysql.slow_log")
        yield engine
        engine.dispose()

    @pytest.fixture
    def source(self, engine: Any) -> SlowLogTable:
        self.engine = engine
        return SlowLogTable(engine)

    @pytest.fixture
    def unreadable(self) -> None:
        return None

    def record(self, source: SlowLogTable, sql: str, seconds: float) -> None:
        with self.engine.connect() as db:
            db.exec_driver_sql("SET SESSION long_query_time = 0")
            db.exec_driver_sql(sql).all()
            db.exec_driver_sql("SET SESSION long_query_time = 10")


@pytest.mark.integration
class TestPgStatStatements(StatementSourceSuite):
    @pytest.fixture
    def engine(self, postgres_url: str) -> Iterator[Any]:
        engine = create_engine(postgres_url)
        with engine.begin() as db:
            db.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
            db.exec_driver_sql("SELECT pg_stat_statements_reset()")
        yield engine
        with engine.begin() as db:
            db.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        engine.dispose()

    @pytest.fixture
    def source(self, engine: Any) -> PgStatStatements:
        self.engine = engine
        return PgStatStatements(engine)

    @pytest.fixture
    def unreadable(self, engine: Any) -> PgStatStatements:
        with engine.begin() as db:
            db.exec_driver_sql("DROP EXTENSION IF EXISTS pg_stat_statements")
        return PgStatStatements(engine)

    def record(self, source: PgStatStatements, sql: str, seconds: float) -> None:
        with self.engine.connect() as db:
            db.exec_driver_sql(sql).all()
