"""Proof where indexes can be set aside: they are built once, and what took long before is not forgotten."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from eventperf.dbopt import Limits
from eventperf.dbopt.analysis.names import analyse
from eventperf.dbopt.changes.proving import Proof, Prover
from eventperf.dbopt.findings import IndexAdvice, Served
from eventperf.dbopt.protocols import Measurement, Query
from eventperf.dbopt.schema.model import Column, IndexSpec, Key, Schema, Table
from eventperf.dbopt.statements.fingerprint import Fingerprint
from eventperf.dbopt.statements.workload import Sample, Statement
from eventperf.testing import FakeClock

SCHEMA = Schema(
    dialect="postgres",
    tables={
        "t": Table(name="t", columns={c: Column(name=c, type="int") for c in "abc"}, rows=1000, size_bytes=9)
    },
)
Took = Callable[[str, frozenset[str]], "tuple[float, str]"]


class Copy:
    """Statements take what they are told to, by the indexes that are there; so does the clock."""

    place, copied = "a copy", ()

    def __init__(self, clock: FakeClock, took: Took) -> None:
        self.clock, self.took = clock, took
        self.built, self.gone = list[str](), frozenset[str]()
        self.runs = list[tuple[str, frozenset[str]]]()

    def unfit(self, table: str, /) -> str | None:
        return None

    def build(self, spec: IndexSpec, name: str, /, *, timeout_s: float) -> None:
        self.built.append(name)

    def drop(self, name: str, table: str, /) -> None:
        raise AssertionError("nothing is dropped where it can be set aside")

    def aside(self, names: frozenset[str], /) -> None:
        self.gone = names

    def measure(self, samples: Sequence[Sample], *, runs: int, timeout_s: float) -> Measurement:
        there = frozenset(self.built) - self.gone
        name = samples[0].sql[-1]
        self.runs.append((name, there))
        seconds, used = self.took(name, there)
        capped = seconds > timeout_s
        seconds = min(seconds, timeout_s)
        self.clock.advance(seconds)
        return Measurement(
            seconds=seconds, plan=used, indexes=frozenset(used.split()), runs=runs, capped=capped
        )


def query(number: str, total_s: float) -> Query:
    text = f"SELECT 1 FROM t WHERE a = {number}"
    statement = Statement(fingerprint=Fingerprint(number, text), calls=1, total_s=total_s)
    statement.samples.append(Sample(text, ()))
    return Query(statement=statement, analysis=analyse(text, SCHEMA), sample=Sample(text, ()), weight=total_s)


def index(name: str, *serves: str) -> IndexAdvice:
    served = tuple(
        Served(
            fingerprint=n,
            statement="",
            calls=1,
            share=0.1,
            cost_before=2,
            cost_after=1,
            plan_before="",
            plan_after="",
        )
        for n in serves
    )
    spec = IndexSpec("t", (Key(name),))
    return IndexAdvice(
        name=name,
        spec=spec,
        sql="",
        reason="",
        gain=0.1,
        size_bytes=1,
        write_cost=0.0,
        proof="",
        serves=served,
    )


def proved(
    took: Took, recorded: dict[str, float], *indexes: IndexAdvice, seconds: float = 60.0
) -> tuple[Proof, Copy]:
    clock = FakeClock()
    copy = Copy(clock, took)
    place: Any = copy
    prover = Prover(place, Limits(), clock, clock.monotonic() + seconds, lambda: False, lambda line: None)
    return prover.prove(list(indexes), [query(n, s) for n, s in recorded.items()], lambda i: ()), copy


def test_each_index_is_built_once_and_the_one_to_blame_is_found_by_setting_it_aside() -> None:
    def took(name: str, there: frozenset[str]) -> tuple[float, str]:
        if name == "2":
            return (0.9, "a b") if "b" in there else (0.1, "a" if "a" in there else "")
        return (0.1, "a") if "a" in there else (1.0, "")

    proof, copy = proved(took, {"1": 1.0, "2": 0.1}, index("a", "1", "2"), index("b", "2"))
    assert list(proof.given_up) == ["b"]
    assert proof.verdicts["a"].keep
    assert copy.built == ["a", "b"]
    assert copy.gone == {"b"}, "what is left runs without it"


def test_what_an_index_is_for_counts_as_recorded_where_no_time_is_left_to_run_it_without() -> None:
    def took(name: str, there: frozenset[str]) -> tuple[float, str]:
        if not there:
            return (30.0 if name == "1" else 0.05), ""
        return (0.1, "a")

    proof, _ = proved(took, {"1": 30.0, "2": 0.05}, index("a", "1"), seconds=1.0)
    assert proof.given_up == {}, "30 s are won for 50 ms lost"
    assert "1" not in proof.compared or proof.compared["1"].before.seconds == 30.0


def test_what_changed_most_runs_first_without_the_set() -> None:
    def took(name: str, there: frozenset[str]) -> tuple[float, str]:
        return (0.2, "a") if there else (0.1, "")

    _, copy = proved(took, {"1": 0.1, "2": 9.0, "3": 0.25}, index("a", "1", "2", "3"))
    without = [name for name, there in copy.runs if not there]
    assert without[:3] == ["2", "1", "3"]
