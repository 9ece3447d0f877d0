"""Somebody holds an exclusive lock: what only reads says which table it left out, and goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import create_engine, text

from dbopt_plans import plain_index
from eventperf.cli.main import main
from eventperf.dbopt import Advice, DatabaseOptimizer, Workload
from eventperf.dbopt.schema.model import IndexSpec, Key

pytestmark = pytest.mark.integration


@pytest.fixture(params=["postgres", "mariadb"])
def url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_url"))


@pytest.fixture
def locked(url: str) -> Iterator[Any]:
    """Two tables, and a session that keeps one of them for itself until the test is over."""
    engine = create_engine(url)
    with engine.begin() as db:
        db.execute(text("CREATE TABLE held (id INT PRIMARY KEY, a INT)"))
        db.execute(text("CREATE INDEX held_a ON held (a)"))
        db.execute(text("CREATE VIEW seen AS SELECT a FROM held WHERE id > 3"))
        db.execute(text("CREATE TABLE free (id INT PRIMARY KEY, a INT)"))
    mine = "LOCK TABLE held IN ACCESS EXCLUSIVE MODE" if "postgres" in url else "LOCK TABLES held WRITE"
    with engine.connect() as db:
        db.execute(text(mine))
        yield db
        if "postgres" not in url:
            db.execute(text("UNLOCK TABLES"))
        db.rollback()
    engine.dispose()


@pytest.mark.timeout(120)
def test_what_reads_goes_on_without_the_locked_table_and_names_it(
    url: str, locked: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", "--json", "--database", url]) == 0
    found = {f["about"]: f for f in json.loads(capsys.readouterr().out)}
    assert "1 tables can be read" in found["schema"]["said"]
    assert found["lock"]["said"].startswith("held was left out: it is locked exclusively by ")
    workload = Workload.from_sql(
        "SELECT id FROM free WHERE a = 1; SELECT id FROM held WHERE a = 1",
        "postgres" if "postgres" in url else "mysql",
    )
    with DatabaseOptimizer(url) as optimizer:
        health = optimizer.health()
        assert [t.name for t in health.tables] == ["free"]
        assert any(n.startswith("held was left out") for n in health.notes)
        advised = optimizer.advise(workload)
        assert list(advised.tables) == ["free"]
        assert list(advised.unserved.values()) == [
            "free is empty: no plan costs anything; ask again when it has rows"
        ]
        assert any(w.startswith("held was left out") for w in advised.warnings)
        plan = Advice(dialect=optimizer.dialect.name)
        plan.indexes = [plain_index(optimizer.dialect, IndexSpec("held", (Key("a"),)))]
        (skipped,) = optimizer.apply(plan, dry_run=False).skipped
        assert skipped.reason.startswith("its table is locked by ")
