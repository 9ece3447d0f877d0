"""Every backend against the published suite, on real databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from eventperf.dbopt.backends.mysql.dialect import MysqlDialect
from eventperf.dbopt.backends.postgres.dialect import PostgresDialect
from eventperf.dbopt.backends.sqlite.dialect import SqliteDialect
from eventperf.testing.dbopt import DialectSuite


def opened(url: str) -> Iterator[Any]:
    engine = create_engine(url)
    yield engine
    engine.dispose()


class TestSqlite(DialectSuite):
    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[Any]:
        yield from opened(f"sqlite:///{tmp_path}/db.sqlite")

    @pytest.fixture
    def dialect(self, engine: Any) -> SqliteDialect:
        return SqliteDialect(engine)

    @pytest.fixture
    def rival(self, engine: Any) -> SqliteDialect:
        return SqliteDialect(engine)


@pytest.mark.integration
class TestPostgres(DialectSuite):
    @pytest.fixture
    def engine(self, postgres_url: str) -> Iterator[Any]:
        yield from opened(postgres_url)

    @pytest.fixture
    def dialect(self, engine: Any) -> PostgresDialect:
        return PostgresDialect(engine, what_if=engine)

    @pytest.fixture
    def rival(self, engine: Any) -> PostgresDialect:
        return PostgresDialect(engine)


@pytest.mark.integration
class TestMariadb(DialectSuite):
    @pytest.fixture
    def engine(self, mariadb_url: str) -> Iterator[Any]:
        yield from opened(mariadb_url)

    @pytest.fixture
    def dialect(self, engine: Any) -> MysqlDialect:
        return MysqlDialect(engine)

    @pytest.fixture
    def rival(self, engine: Any) -> MysqlDialect:
        return MysqlDialect(engine)
