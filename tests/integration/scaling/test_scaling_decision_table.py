"""Decision records in real databases."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa

from eventperf.cli.main import main
from eventperf.errors import ConfigurationError
from eventperf.scaling import (
    AutoScaler,
    CallableMetrics,
    ScalingDecision,
    SimulatedTarget,
    SqlDecisionLog,
    TargetTracking,
)
from eventperf.testing.clock import FakeClock

pytestmark = pytest.mark.integration


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'decisions.db'}"
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def table(url: str) -> Iterator[str]:
    name = "eventperf_decisions_test"
    yield name
    engine = sa.create_engine(url)
    with engine.begin() as connection:
        connection.execute(sa.text(f"DROP TABLE IF EXISTS {name}"))
    engine.dispose()


def scaler(log: SqlDecisionLog, load: float = 350.0, name: str = "simulated") -> AutoScaler:
    metrics = CallableMetrics(rps=lambda: load)
    return AutoScaler(
        SimulatedTarget(2, name=name),
        metrics,
        TargetTracking(rps=50),
        max_replicas=9,
        log=log,
        clock=FakeClock(),
    )


def test_records_come_back_equal_and_replay(url: str, table: str) -> None:
    with SqlDecisionLog(url, table=table) as log:
        web = scaler(log)
        first = web.tick()
        log.write(replace(first, target="other", at=first.at + 60, reason="ä ☃ 'quoted'"))
        assert log.find(target="simulated") == [first]
        assert [d.target for d in log.find()] == ["simulated", "other"]
        assert [d.target for d in log.find(since=first.at + 1)] == ["other"]
        assert log.find()[1].reason == "ä ☃ 'quoted'"
        assert web.replay(log.find(limit=10, target="simulated")[0]) == first
        assert log.forget(first.at + 1) == 1
        assert len(log.find()) == 1


def test_steady_ticks_are_left_out_unless_asked_for(url: str, table: str) -> None:
    with SqlDecisionLog(url, table=table) as log:
        scaler(log, load=100.0).tick()
        assert len(log) == 1
        scaler(log).tick()
        assert [d.action for d in log.find()] == ["up"]
    with SqlDecisionLog(url, table=table, steady=True) as log:
        scaler(log, load=100.0).tick()
        assert [d.action for d in log.find()] == ["up", "none"]


def test_records_of_many_pods_fit(url: str, table: str) -> None:
    with SqlDecisionLog(url, table=table) as log:
        decision = replace(scaler(log).tick(), reason="r" * 60_000, memory={"long": "m" * 200_000})
        log.write(decision)
        assert log.find()[-1] == decision


def test_threads_of_a_fleet_write_together(url: str, table: str) -> None:
    with SqlDecisionLog(url, table=table) as log:
        scalers = [scaler(log, name=f"web-{n}") for n in range(20)]
        threads = [threading.Thread(target=s.tick) for s in scalers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(log.find()) == 20


def test_a_database_that_is_away_is_left_alone_and_catches_up(tmp_path: Path) -> None:
    clock, path = FakeClock(), tmp_path / "later" / "decisions.db"
    log = SqlDecisionLog(f"sqlite:///{path}", retry=30, clock=clock)
    assert scaler(log).tick().applied  # the log fails, the decision stands
    with pytest.raises(sa.exc.OperationalError):
        clock.advance(31)
        log.write(log.last)  # type: ignore[arg-type]
    path.parent.mkdir()
    log.write(log.last)  # type: ignore[arg-type]  # still within the retry time: waits
    assert not path.exists()
    clock.advance(31)
    scaler(log).tick()
    assert len(log.find()) == 4
    log.close()


def test_what_waits_is_stored_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "later" / "decisions.db"
    log = SqlDecisionLog(f"sqlite:///{path}", retry=3600)
    scaler(log).tick()
    path.parent.mkdir()
    log.close()
    with SqlDecisionLog(f"sqlite:///{path}") as again:
        assert len(again.find()) == 1


def test_an_engine_of_the_host_is_used_and_stays_open(tmp_path: Path) -> None:
    engine = sa.create_engine(f"sqlite:///{tmp_path / 'host.db'}")
    log = SqlDecisionLog(engine)
    scaler(log).tick()
    log.close()
    with engine.connect() as connection:
        row = connection.execute(sa.text("SELECT * FROM eventperf_decisions")).mappings().one()
    engine.dispose()
    assert (row["action"], row["replicas_before"], row["replicas_after"]) == ("up", 2, 4)
    assert row["replicas_wanted"] == 7
    assert math.isfinite(row["at"])
    assert ScalingDecision.from_json(row["record"]).applied


def test_the_command_reads_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path / 'decisions.db'}"
    with SqlDecisionLog(url) as log:
        scaler(log).tick()
    assert main(["scale", "explain", url, "--why-not", "7"]) == 0
    assert "why 4 and not 7: scale-up rate took" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("engine", lambda: SqlDecisionLog("no url:s3cret@")),
        ("engine", lambda: SqlDecisionLog(7)),  # type: ignore[arg-type]
        ("table", lambda: SqlDecisionLog("sqlite://", table="")),
        ("retry", lambda: SqlDecisionLog("sqlite://", retry="soon")),
    ],
)
def test_bad_table_arguments_are_named(argument: str, make: object) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()  # type: ignore[operator]
    assert caught.value.argument == argument
    assert "s3cret" not in str(caught.value)
