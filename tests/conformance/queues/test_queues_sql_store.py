"""The SQL backend against the suite of job stores, on each kind of database."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import uuid4

import pytest

from eventperf.queues import QueueManager
from eventperf.testing.queues import JobStoreSuite, Make
from servers import MariaDBServer, PostgresServer


def _maker(url: str) -> Make:
    namespace = f"t-{uuid4().hex[:8]}"
    return lambda **options: QueueManager(url, namespace=namespace, **options)


def _with_tables(url: str) -> str:
    with QueueManager(url) as queues:
        queues.backend.create_schema()  # type: ignore[attr-defined]
    return url


@pytest.fixture(scope="module")
def sqlite_jobs(tmp_path_factory: pytest.TempPathFactory) -> str:
    return f"sqlite:///{tmp_path_factory.mktemp('queues') / 'jobs.db'}"


@pytest.fixture(scope="module")
def postgres_jobs(postgres_server: PostgresServer) -> Iterator[str]:
    with postgres_server.fresh_database() as url:
        yield _with_tables(url)


@pytest.fixture(scope="module")
def mariadb_jobs(mariadb_server: MariaDBServer) -> Iterator[str]:
    with mariadb_server.fresh_database() as url:
        yield _with_tables(url)


class TestSqliteStore(JobStoreSuite):
    @pytest.fixture
    def make(self, sqlite_jobs: str) -> Make:
        return _maker(sqlite_jobs)


@pytest.mark.integration
class TestPostgresStore(JobStoreSuite):
    @pytest.fixture
    def make(self, postgres_jobs: str) -> Make:
        return _maker(postgres_jobs)


@pytest.mark.integration
class TestMariaDBStore(JobStoreSuite):
    @pytest.fixture
    def make(self, mariadb_jobs: str) -> Make:
        return _maker(mariadb_jobs)
