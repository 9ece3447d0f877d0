"""A target and a source as a third party writes them, from ``protocols.py`` and its page alone."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from eventperf.scaling import AutoScaler, MetricSource, ReplicaTarget, Sample, TargetState, TargetTracking
from eventperf.scaling.errors import ScalingError, TargetConflict
from eventperf.testing.scaling import MetricSourceSuite, ReplicaTargetSuite


class SqliteFleet:
    """Replicas as a row that an agent on each machine follows: the number is what is asked for."""

    def __init__(self, database: sqlite3.Connection, service: str) -> None:
        self._database, self._service = database, service
        self._seen: int | None = None

    @property
    def name(self) -> str:
        return f"fleet/{self._service}"

    def read(self) -> TargetState:
        row = self._database.execute(
            "SELECT wanted, running FROM fleet WHERE service = ?", (self._service,)
        ).fetchone()
        if row is None:
            raise ScalingError(f"no service {self._service}")
        self._seen = row[0]
        return TargetState(replicas=row[0], ready=min(row), starting=max(0, row[0] - row[1]))

    def scale(self, replicas: int, /, *, reason: str = "") -> None:
        if isinstance(replicas, bool) or not isinstance(replicas, int) or replicas < 0:
            raise ScalingError(f"not a number of replicas: {replicas!r}")
        done = self._database.execute(
            "UPDATE fleet SET wanted = ?, running = min(running, ?) WHERE service = ? AND wanted IN (?, ?)",
            (replicas, replicas, self._service, self._seen, replicas),
        )
        if not done.rowcount:
            raise TargetConflict("somebody else changed it since it was read")
        self._seen = replicas


class SqliteLoad:
    """Requests of the last minute, as rows of a log."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database

    def read(self) -> Mapping[str, Sample]:
        (count,) = self._database.execute("SELECT count(*) FROM hits").fetchone()
        return {"rps": Sample(value=count / 60), "cpu": Sample(error="the log does not tell")}


@pytest.fixture
def database(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    found = sqlite3.connect(tmp_path / "fleet.db", isolation_level=None)
    found.execute("CREATE TABLE fleet (service TEXT PRIMARY KEY, wanted INTEGER, running INTEGER)")
    found.execute("INSERT INTO fleet VALUES ('web', 2, 2)")
    found.execute("CREATE TABLE hits (id INTEGER)")
    found.execute("BEGIN")  # one commit, not one a row
    found.executemany("INSERT INTO hits VALUES (?)", [(n,) for n in range(18_000)])
    found.execute("COMMIT")
    yield found
    found.close()


class TestSqliteFleet(ReplicaTargetSuite):
    @pytest.fixture
    def target(self, database: sqlite3.Connection) -> ReplicaTarget:
        return SqliteFleet(database, "web")

    @pytest.fixture
    def change_outside(self, database: sqlite3.Connection) -> Callable[[int], None]:
        def change(replicas: int) -> None:
            database.execute("UPDATE fleet SET wanted = ?", (replicas,))

        return change


class TestSqliteLoad(MetricSourceSuite):
    @pytest.fixture
    def source(self, database: sqlite3.Connection) -> MetricSource:
        return SqliteLoad(database)


def test_both_drive_a_scaler(database: sqlite3.Connection) -> None:
    scaler = AutoScaler(
        SqliteFleet(database, "web"), SqliteLoad(database), TargetTracking(rps=50), max_replicas=10
    )
    decision = scaler.tick()
    assert (decision.after, decision.applied) == (6, True)
    assert database.execute("SELECT wanted FROM fleet").fetchone() == (6,)
