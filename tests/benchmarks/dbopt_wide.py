"""Statements of many joins (T1, T2): TPC-DS and a catalogue of works, after ``advise``.

Every advised index is made as it is: nothing is measured afterwards and taken back, as ``apply`` would.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dbopt_joins
import dbopt_tpcds
from dbopt_beds import Bed
from dbopt_table import Table, regressions

from eventperf.dbopt import DatabaseOptimizer, Workload
from eventperf.dbopt.protocols import Measurement

_CAP_S = 5.0
_BUDGETS = (None, 5.0, 300.0)


class _Catalogue:
    """The catalogue of works as a bed wants it."""

    def __init__(self, scale: float) -> None:
        self._data = dbopt_joins.Data(scale)

    def tables(self) -> Mapping[str, str]:
        return dbopt_joins.TABLES

    def foreign_keys(self) -> list[str]:
        return dbopt_joins.FOREIGN_KEYS

    def rows(self, table: str, kind: str) -> Iterator[Sequence[Any]]:
        return self._data.rows(table)

    def queries(self, kind: str) -> dict[str, str]:
        return {f"S{n:02d}": sql for n, sql in enumerate(dbopt_joins.statements())}

    def close(self) -> None:
        """Nothing is open."""


def wide(what: str, scale: float) -> Table:
    """Measure without indexes, with one per foreign key, and with what is advised under several budgets."""
    name, _, kind = what.partition("-")
    out = Table(f"{'TPC-DS' if name == 'tpcds' else 'many joins'}, {kind}, scale {scale:g}")
    print(out.title, flush=True)
    source = dbopt_tpcds.Generator(scale) if name == "tpcds" else _Catalogue(scale)
    with Bed(kind, source.tables()) as bed:
        for table in source.tables():
            bed.fill(table, source.rows(table, kind))
        bed.analyse()
        queries = {n: sql for n, sql in source.queries(kind).items() if _runs(bed, sql)}
        out.note(f"{len(queries)} statements of {len(source.queries(kind))} run on {kind}")
        keys = source.foreign_keys()
        source.close()
        base, sets = bed.size(), {"none": _score(bed, queries)}
        out.add(set="none", sum_s=_sum(sets["none"]), capped=sum(m.capped for m in sets["none"]))
        workload = Workload({"postgres": "postgres", "sqlite": "sqlite"}[kind], since="as in the benchmark")
        for sql, found in zip(queries.values(), sets["none"], strict=True):
            workload.add(sql, calls=1, total_s=found.seconds)
        bed.create(keys)
        bed.analyse()
        sets["foreign keys"] = _score(bed, queries)
        _tell(out, "foreign keys", sets, bed.size() - base, len(keys))
        for budget in _BUDGETS:
            bed.strip()
            bed.analyse()
            label = f"eventperf, {budget or 30:g} s"
            made = _advised(bed, workload, budget, out)
            bed.create(made)
            bed.analyse()
            sets[label] = _score(bed, queries)
            _tell(out, label, sets, bed.size() - base, len(made))
            for n in regressions(sets["none"], sets[label]):
                a, b = sets["none"][n], sets[label][n]
                out.note(f"slower: {list(queries)[n]}: {a.seconds:.3f} -> {b.seconds:.3f} s")
        _judge(out, sets)
    return out


def _advised(bed: Bed, workload: Workload, budget: float | None, out: Table) -> list[str]:
    began = time.perf_counter()
    with DatabaseOptimizer(bed.engine, what_if=bed.what_if) as optimizer:
        advice = optimizer.advise(workload, budget=budget)
    took = time.perf_counter() - began
    out.note(f"{len(advice.indexes)} indexes, {advice.explains} plans, {took:.1f} s; {advice.trial}")
    over = took / (budget or 30.0)
    out.target(f"T2 a budget of {budget or 30:g} s is kept to", "<= 1.05", over, over <= 1.05)
    return [i.sql.replace(" CONCURRENTLY", "") for i in advice.indexes]


def _runs(bed: Bed, sql: str) -> bool:
    try:
        with bed.engine.connect() as db:
            db.exec_driver_sql("EXPLAIN " + (sql if bed.kind == "sqlite" else sql.replace("%", "%%")))
    except Exception:  # a statement that this engine cannot run is left out
        return False
    return True


def _score(bed: Bed, queries: Mapping[str, str]) -> list[Measurement]:
    return bed.score([(sql, [{}]) for sql in queries.values()], cap_s=_CAP_S)


def _sum(found: Iterable[Measurement]) -> float:
    return sum(m.seconds for m in found)


def _tell(out: Table, label: str, sets: Mapping[str, Sequence[Measurement]], size: int, indexes: int) -> None:
    none, found = sets["none"], sets[label]
    ratios = [math.log(a.seconds / max(b.seconds, 1e-6)) for a, b in zip(none, found, strict=True)]
    out.add(
        set=label,
        sum_s=_sum(found),
        geomean=math.exp(sum(ratios) / len(ratios)),
        indexes=indexes,
        mb=size / 1e6,
        capped=sum(m.capped for m in found),
        slower=len(regressions(none, found)),
    )


def _judge(out: Table, sets: Mapping[str, Sequence[Measurement]]) -> None:
    none, keys = _sum(sets["none"]), _sum(sets["foreign keys"])
    mine = sets["eventperf, 30 s"]
    ratio = _sum(mine) / none
    out.target("T1 sum against no index", "<= 0.6", ratio, ratio <= 0.6)
    ratio = _sum(mine) / min(none, keys)
    out.target("T1 sum against the better of none and foreign keys", "<= 0.9", ratio, ratio <= 0.9)
    worse = len(regressions(sets["none"], mine))
    out.target("T1 statements > 1.2 x slower with a new plan", "0", worse, worse == 0)
    if "eventperf, 300 s" in sets:
        gain = (none - _sum(mine)) / max(none - _sum(sets["eventperf, 300 s"]), 1e-9)
        out.target("T2 gain of 30 s in that of 300 s", ">= 0.85", gain, gain >= 0.85)
