"""Measured proof: the statements that an advised set serves run on a copy before anything is advised."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from eventperf.dbopt import Advice, DatabaseOptimizer, Limits, Workload
from eventperf.dbopt.backends.sqlite import ground
from eventperf.dbopt.backends.sqlite.ground import CopyGround
from eventperf.dbopt.errors import StatementRefused
from eventperf.dbopt.protocols import Measurement
from eventperf.dbopt.statements.workload import Sample

LOAD = (
    "-- calls: 500\nSELECT at FROM visit WHERE page = 7 ORDER BY at;\n"
    "-- calls: 300\nSELECT at FROM visit WHERE page = 8 AND kind = 3;\n"
    "-- calls: 200\nSELECT sum(at) FROM visit WHERE page > 290"
)
#: Changes what a measurement took, by the indexes of its plan: tests depend on no machine.
Bend = Callable[[Sequence[Sample], Measurement], float]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "app.db"
    with sqlite3.connect(made) as db:
        db.execute("CREATE TABLE visit (id INTEGER PRIMARY KEY, page INT, kind INT, at INT, note TEXT)")
        rows = [(n % 300, n % 7, n, "x" * 60) for n in range(9000)]
        db.executemany("INSERT INTO visit (page, kind, at, note) VALUES (?, ?, ?, ?)", rows)
    db.close()
    return made


@pytest.fixture
def optimizer(file: Path) -> Iterator[DatabaseOptimizer]:
    with DatabaseOptimizer(f"sqlite:///{file}") as opened:
        yield opened


def bent(monkeypatch: pytest.MonkeyPatch, bend: Bend) -> list[frozenset[str]]:
    """Let ``bend`` say how long everything takes on the copy; return the indexes that each run used."""
    real, seen = CopyGround.measure, list[frozenset[str]]()

    def measure(self: CopyGround, samples: Sequence[Sample], **kwargs: Any) -> Measurement | None:
        found = real(self, samples, **kwargs)
        assert found is not None
        seen.append(found.indexes)
        return replace(found, seconds=bend(samples, found), spread=0.0)

    monkeypatch.setattr(CopyGround, "measure", measure)
    return seen


def faster(samples: Sequence[Sample], found: Measurement) -> float:
    return 0.01 if found.indexes else 0.1


def test_what_is_faster_on_a_copy_is_called_measured_and_says_each_figure(
    optimizer: DatabaseOptimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bent(monkeypatch, faster)
    advice = optimizer.advise(Workload.from_sql(LOAD))
    assert advice.indexes
    assert {i.level for i in advice.indexes} == {"measured"}
    assert all(i.speedup == pytest.approx(10.0) for i in advice.indexes)
    served = [s for i in advice.indexes for s in i.serves]
    assert {(s.seconds_before, s.seconds_after) for s in served} == {(0.1, 0.01)}
    assert advice.level == "planned", "what all of it gains is planned"
    assert advice.trial == "Measured on a copy of the file: 3 statements, before and after."
    text = str(advice)
    assert "measured on a copy: 100ms before, 10ms after" in text
    assert "On a copy of the file: its queries are 10.0x faster." in text
    assert "planner cost (planned, not measured)" in text
    assert "measured on a copy: 100ms before, 10ms after" in advice.to_html()
    assert any("the whole file" in line for line in advice.copied)
    again = Advice.from_dict(advice.to_dict())
    assert (again.trial, again.indexes) == (advice.trial, advice.indexes)


def test_the_database_itself_is_left_alone(optimizer: DatabaseOptimizer, file: Path) -> None:
    before = file.read_bytes()
    assert optimizer.advise(Workload.from_sql(LOAD)).trial.startswith("Measured on a copy of the file")
    assert file.read_bytes() == before
    assert [p.name for p in file.parent.iterdir()] == ["app.db"]


def test_an_index_that_makes_a_statement_slower_is_given_up_and_its_runner_up_takes_its_place(
    optimizer: DatabaseOptimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = planned(optimizer, LOAD.partition(";")[0])
    bent(monkeypatch, lambda samples, found: 0.5 if first.name in found.indexes else faster(samples, found))
    advice = optimizer.advise(Workload.from_sql(LOAD.partition(";")[0]))
    (other,) = advice.indexes
    assert other.name != first.name
    assert (other.level, other.speedup) == ("measured", pytest.approx(10.0))
    assert f"Given up there: {first.spec.label()}: query " in advice.trial
    assert f"became 5.0x slower; {other.spec.label()} takes its place." in advice.trial
    told = dict(other.rejected)[first.spec.label()]
    assert told.startswith("on a copy of the file: query ")


def test_without_a_better_runner_up_nothing_is_advised(
    optimizer: DatabaseOptimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    bent(monkeypatch, lambda samples, found: 0.5 if found.indexes else 0.1)
    advice = optimizer.advise(Workload.from_sql(LOAD.partition(";")[0]))
    assert advice.indexes == []
    assert "Given up there" in str(advice)


def test_one_bad_statement_does_not_cost_an_index_that_gains_ten_times_as_much(
    optimizer: DatabaseOptimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bend(samples: Sequence[Sample], found: Measurement) -> float:
        if "> 290" in samples[0].sql:
            return 0.02 if found.indexes else 0.01
        return faster(samples, found)

    bent(monkeypatch, bend)
    advice = optimizer.advise(Workload.from_sql(LOAD))
    assert advice.indexes
    assert "Given up" not in advice.trial


def test_a_difference_within_noise_gives_nothing_up_and_is_called_noise(
    optimizer: DatabaseOptimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = CopyGround.measure

    def measure(self: CopyGround, samples: Sequence[Sample], **kwargs: Any) -> Measurement | None:
        found = real(self, samples, **kwargs)
        assert found is not None
        return replace(found, seconds=0.2 if found.indexes else 0.1, spread=0.5)

    monkeypatch.setattr(CopyGround, "measure", measure)
    (index,) = optimizer.advise(Workload.from_sql(LOAD.partition(";")[0])).indexes
    assert (index.level, index.speedup) == ("planned", None)
    assert "On a copy of the file: too noisy to judge: 100ms before, 200ms after" in index.reason


def test_of_a_set_only_what_does_the_harm_is_given_up(
    optimizer: DatabaseOptimizer, monkeypatch: pytest.MonkeyPatch, file: Path
) -> None:
    with sqlite3.connect(file) as db:
        db.execute("CREATE TABLE other (id INTEGER PRIMARY KEY, a INT, b INT, note TEXT)")
        rows = [(n % 311, n % 5, "y" * 60) for n in range(9000)]
        db.executemany("INSERT INTO other (a, b, note) VALUES (?, ?, ?)", rows)
    db.close()
    load = f"{LOAD.partition(';')[0]};\n-- calls: 400\nSELECT note FROM other WHERE a = 3"
    bad = next(i.name for i in planned(optimizer, load) if i.spec.table == "other")
    bent(monkeypatch, lambda s, found: 0.9 if "other" in s[0].sql and found.indexes else faster(s, found))
    advice = optimizer.advise(Workload.from_sql(load))
    assert [i.spec.table for i in advice.indexes] == ["visit"]
    assert bad not in {i.name for i in advice.indexes}
    assert {i.level for i in advice.indexes} == {"measured"}


def test_nothing_is_run_when_the_budget_says_so(file: Path) -> None:
    with DatabaseOptimizer(f"sqlite:///{file}", limits=Limits(measure_budget=0)) as optimizer:
        advice = optimizer.advise(Workload.from_sql(LOAD))
    assert advice.indexes
    assert {i.level for i in advice.indexes} == {"planned"}
    assert (advice.trial, advice.copied) == ("", [])


def test_a_file_too_large_to_copy_is_said_to_be(
    optimizer: DatabaseOptimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ground, "_MOST_BYTES", 4096)
    advice = optimizer.advise(Workload.from_sql(LOAD))
    assert "Not measured on a copy: the file has " in advice.trial
    assert {i.level for i in advice.indexes} == {"planned"}
    assert advice.copied == []


def test_a_proof_that_fails_takes_no_advice_with_it(
    optimizer: DatabaseOptimizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: CopyGround, spec: Any, name: str, *, timeout_s: float) -> None:
        raise StatementRefused("CREATE INDEX", "disk is full")

    monkeypatch.setattr(CopyGround, "build", refuse)
    advice = optimizer.advise(Workload.from_sql(LOAD))
    assert advice.indexes
    assert "it could not be built there: disk is full." in advice.trial

    def fail(self: CopyGround, samples: Sequence[Sample], **kwargs: Any) -> Measurement | None:
        raise sqlite3.DatabaseError("malformed")

    monkeypatch.setattr(CopyGround, "measure", fail)
    advice = optimizer.advise(Workload.from_sql(LOAD))
    assert advice.indexes
    assert advice.trial == "Not measured on a copy: DatabaseError."


def test_statements_without_parameters_are_said_not_to_be_measured(optimizer: DatabaseOptimizer) -> None:
    load = Workload()
    load.add("SELECT at FROM visit WHERE page = ? ORDER BY at", calls=50)
    advice = optimizer.advise(load)
    (index,) = advice.indexes
    assert index.level == "planned"
    assert "Not measured, 1 of 1" in advice.trial
    assert "no parameters are known for the queries it serves" in advice.trial


def planned(optimizer: DatabaseOptimizer, load: str) -> list[Any]:
    """Return what is advised without measurements."""
    limits, optimizer._limits = optimizer._limits, Limits(measure_budget=0)
    try:
        return optimizer.advise(Workload.from_sql(load)).indexes
    finally:
        optimizer._limits = limits
