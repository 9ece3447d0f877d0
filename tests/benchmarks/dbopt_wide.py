"""Statements of many joins (T1, T2): TPC-DS and a catalogue of works, after ``advise``.

Every advised index is made as it is: nothing is measured afterwards and taken back, as ``apply`` would.
"""

from __future__ import annotations

import itertools
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
from eventperf.dbopt.statements.workload import Sample

_CAP_S = 5.0
_ROUNDS = 3
#: Budgets, and whether ``what_if`` is given: an empty database on PostgreSQL, on SQLite none is needed.
_RUNS = ((None, True), (5.0, True), (120.0, True), (None, False))


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
        base, sets = bed.size(), {"none": _score(bed, queries)[1]}
        out.add(set="none", sum_s=_sum(sets["none"]), capped=sum(m.capped for m in sets["none"]))
        workload = Workload({"postgres": "postgres", "sqlite": "sqlite"}[kind], since="as in the benchmark")
        for sql, found in zip(queries.values(), sets["none"], strict=True):
            workload.add(sql, calls=1, total_s=found.seconds)
        bed.create(keys)
        bed.analyse()
        sets["none"], sets["foreign keys"] = _score(bed, queries)
        _tell(out, "foreign keys", sets["none"], sets["foreign keys"], bed.size() - base, len(keys))
        for budget, is_given in _RUNS:
            if kind == "sqlite" and not is_given:
                continue
            bed.strip()
            bed.analyse()
            label = f"eventperf, {budget or 30:g} s{'' if is_given else ', no what_if'}"
            what_if = (bed.empty or bed.what_if) if is_given else None
            made = _advised(bed, workload, budget, what_if, out)
            bed.create(made)
            bed.analyse()
            before, after = _score(bed, queries)
            before = before or sets["none"]
            _tell(out, label, before, after, bed.size() - base, len(made))
            worse = regressions(before, after)
            for n in worse:
                a, b = before[n].seconds, after[n].seconds
                out.note(f"slower: {list(queries)[n]}: {a:.3f} -> {b:.3f} s")
            sets[label] = after
            _judge(out, label, before, after, _sum(sets["foreign keys"]) / _sum(sets["none"]))
        if "eventperf, 120 s" in sets:
            none, mine, long = (_sum(sets[n]) for n in ("none", "eventperf, 30 s", "eventperf, 120 s"))
            gain = (none - mine) / max(none - long, 1e-9)
            out.target("T2 gain of 30 s in that of 120 s", ">= 0.85", gain, gain >= 0.85)
    return out


def _advised(bed: Bed, workload: Workload, budget: float | None, what_if: Any, out: Table) -> list[str]:
    began = time.perf_counter()
    with DatabaseOptimizer(bed.engine, what_if=what_if) as optimizer:
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


def _score(bed: Bed, queries: Mapping[str, str]) -> tuple[list[Measurement], list[Measurement]]:
    """Measure without and with the indexes that are there; on PostgreSQL in turn, so that load hits both."""
    if bed.kind != "postgres":
        return [], bed.score([(sql, [{}]) for sql in queries.values()], cap_s=_CAP_S)
    import psycopg

    from eventperf.dbopt.backends.postgres.running import measured

    listed = (
        "SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class c ON c.oid = indrelid "
        "WHERE NOT indisprimary AND relnamespace = 'public'::regnamespace"
    )
    best: dict[tuple[str, bool], Measurement] = {}
    raw = bed.engine.raw_connection()
    try:
        db: Any = raw.driver_connection
        names = [name for (name,) in db.execute(listed).fetchall()]
        kinds = (False, True) if names else (True,)
        for (name, sql), _, is_with in itertools.product(queries.items(), range(_ROUNDS), kinds):
            if not is_with:
                db.execute(f"DROP INDEX {', '.join(names)}")  # rolled back below
            found = measured(psycopg, db, [Sample(sql)], runs=1, timeout_s=_CAP_S)
            db.rollback()
            if found is None:
                raise RuntimeError(f"PostgreSQL cannot run {name}")
            known = best.get((name, is_with), found)
            best[name, is_with] = min(known, found, key=lambda m: m.seconds)
    finally:
        raw.close()
    return [best[n, False] for n in queries if names], [best[n, True] for n in queries]


def _sum(found: Iterable[Measurement]) -> float:
    return sum(m.seconds for m in found)


def _tell(
    out: Table,
    label: str,
    none: Sequence[Measurement],
    found: Sequence[Measurement],
    size: int,
    indexes: int,
) -> None:
    ratios = [math.log(a.seconds / max(b.seconds, 1e-6)) for a, b in zip(none, found, strict=True)]
    out.add(
        set=label,
        none_s=_sum(none),
        sum_s=_sum(found),
        geomean=math.exp(sum(ratios) / len(ratios)),
        indexes=indexes,
        mb=size / 1e6,
        capped=sum(m.capped for m in found),
        slower=len(regressions(none, found)),
    )


def _judge(
    out: Table, label: str, none: Sequence[Measurement], mine: Sequence[Measurement], keys: float
) -> None:
    """Judge a set; ``keys`` is the share of the time that one index per foreign key leaves."""
    what = label.removeprefix("eventperf, ")
    ratio = _sum(mine) / _sum(none)
    out.target(f"T1 {what}: sum against no index", "<= 0.6", ratio, ratio <= 0.6)
    ratio /= min(1.0, keys)
    out.target(f"T1 {what}: against the better of none and foreign keys", "<= 0.9", ratio, ratio <= 0.9)
    worse = len(regressions(none, mine))
    out.target(f"T1 {what}: statements > 1.2 x slower with a new plan", "0", worse, worse == 0)
