"""Database advice measured: ``bench_dbopt.py PART [options]``; without a part, all of them at a small scale.

events-postgres, events-sqlite, events-mariadb: an event platform, scored on parameters not recorded.
tpch-postgres, tpch-sqlite, tpch-mariadb: indexes, then accepted rewrites.
joins-postgres, joins-sqlite, tpcds-postgres, tpcds-sqlite: many joins, against one index per foreign key.
advising: 1,000 statements over 50 tables. texts: fingerprints and the recorder.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import dbopt_events as platform
import dbopt_peers as peers
from dbopt_beds import Asking, Bed
from dbopt_table import Table, regressions
from sqlalchemy import create_engine, text

from eventperf.dbopt import DatabaseOptimizer, Limits, QueryRecorder, Workload, fingerprint
from eventperf.dbopt.protocols import Measurement

HELD_OUT, SEEN = "held-out", "seen"


def parameters(
    ask: platform.Ask, number: int, purpose: str, scale: float, count: int = 3
) -> list[Mapping[str, Any]]:
    """Return parameter sets of one statement: the same for every set of indexes."""
    draw = Random(f"{purpose} {number}")
    return [ask.make(draw, scale) for _ in range(count)]


def weighted(found: Sequence[Measurement]) -> float:
    return sum(a.calls * m.seconds for a, m in zip(platform.ASKS, found, strict=True))


def record(bed: Bed, scale: float) -> Workload:
    """Run the hour through a recorder with seen parameters, each statement a few times."""
    draw = Random("writes")
    with QueryRecorder(bed.engine) as recorder, bed.engine.connect() as db:
        for number, ask in enumerate(platform.ASKS):
            for values in parameters(ask, number, SEEN, scale, count=5):
                db.execute(text(ask.sql), values).all()
        for number in range(5):
            for write in platform.WRITES:
                db.execute(text(write.sql), _only(write.sql, platform.write_values(number, draw, scale)))
        db.rollback()
        workload = recorder.workload()
    asks = [*platform.ASKS, *platform.WRITES]
    every = {fingerprint(a.sql, workload.dialect).id: a.calls for a in asks}
    for statement in workload:  # the recorder saw 5 of each; an hour has more
        factor = every[statement.fingerprint.id] / statement.calls
        statement.calls = every[statement.fingerprint.id]
        statement.total_s = None if statement.total_s is None else statement.total_s * factor
    return workload


def _only(sql: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in values.items() if f":{k}" in sql}


def events(kind: str, scale: float) -> Table:
    """D1 (PostgreSQL), D4 (SQLite), D5 (MariaDB)."""
    out = Table(f"event platform, {kind}, scale {scale:g}")
    print(out.title, flush=True)
    with Bed(kind, platform.TABLES) as bed:
        began = time.perf_counter()
        for table in platform.TABLES:
            bed.fill(table, platform.rows(table, scale))
        bed.analyse()
        out.note(f"loaded in {time.perf_counter() - began:.0f} s")
        base = bed.size()
        asked: list[Asking] = [
            (a.sql, parameters(a, n, HELD_OUT, scale)) for n, a in enumerate(platform.ASKS)
        ]
        workload = record(bed, scale)
        scores: dict[str, tuple[list[Measurement], int, float]] = {}

        def judge(name: str, make: Callable[[], float]) -> None:
            advising = make()
            bed.analyse()
            found = bed.score(asked)
            writes = bed.time_writes(
                (w.sql, _only(w.sql, values))
                for n in range(500)
                for values in [platform.write_values(n, Random(n), scale)]
                for w in platform.WRITES
            )
            scores[name] = (found, bed.size() - base, writes)
            out.add(
                set=name,
                sum_s=sum(m.seconds for m in found),
                weighted_s=weighted(found),
                mb=(bed.size() - base) / 1e6,
                writes_s=writes,
                advising_s=advising,
                slower=len(regressions(scores["no index"][0], found)),
            )
            if name != "eventperf":
                bed.strip()

        judge("no index", lambda: 0.0)
        for name, make in rivals(bed, kind, scale).items():
            judge(name, make)
        if kind == "postgres":  # the bytes of the target as its budget
            judge("eventperf, 200 MB", lambda: ours(bed, workload, out, max_bytes=int(200e6 * scale)))
        judge("eventperf", lambda: ours(bed, workload, out))
        verdicts(kind, out, scores, bed)
        for n in regressions(scores["no index"][0], scores["eventperf"][0]):
            a, b = scores["no index"][0][n], scores["eventperf"][0][n]
            out.note(f"slower: {a.seconds:.4f} -> {b.seconds:.4f} s: {platform.ASKS[n].sql[:90]}")
        ranked = sorted(range(len(asked)), key=lambda n: -scores["eventperf"][0][n].seconds)[:6]
        for n in ranked:
            out.note(f"slowest now: {scores['eventperf'][0][n].seconds:.4f} s: {platform.ASKS[n].sql[:90]}")
    return out


def rivals(bed: Bed, kind: str, scale: float) -> dict[str, Callable[[], float]]:
    """Return what makes each rival's indexes, and tells its seconds of advising."""

    def made(advise: Callable[[], Sequence[Any]]) -> Callable[[], float]:
        def make() -> float:
            began = time.perf_counter()
            found = advise()
            took = time.perf_counter() - began
            bed.create(i if isinstance(i, str) else f"{i[0]} ({', '.join(i[1])})" for i in found)
            return took

        return make

    seen = [(a, parameters(a, n, SEEN, scale)[0]) for n, a in enumerate(platform.ASKS)]
    plain = [peers.Asked(_pyformat(a.sql), v, a.calls) for a, v in seen]
    out = {"naive rule": made(lambda: peers.naive(plain, bed.columns))}
    if kind == "sqlite":
        texts = [_inlined(a.sql, v) for a, v in seen]
        if peers.expert(bed.path, texts[:1]) is not None:
            out["sqlite .expert"] = made(lambda: peers.expert(bed.path, texts) or [])
    if kind == "postgres":
        for name, rule in (
            ("single columns (index_advisor)", peers.single_columns),
            ("pairs (dexter)", peers.pairs),
            ("Extend, width 2", peers.extend),
        ):
            out[name] = made(lambda rule=rule: _with_hypopg(bed, lambda w: rule(plain, bed.columns, w)))
    out["by hand"] = made(lambda: platform.HAND_MADE)
    return out


def _pyformat(sql: str) -> str:
    return re.sub(r":(\w+)", r"%(\1)s", sql.replace("%", "%%"))


def _inlined(sql: str, values: Mapping[str, Any]) -> str:
    def literal(found: Any) -> str:
        value = values[found[1]]
        return f"'{value}'" if isinstance(value, str) else str(value)

    return re.sub(r":(\w+)", literal, sql)


def _with_hypopg(bed: Bed, work: Callable[[peers.WhatIf], Any]) -> Any:
    raw = bed.engine.raw_connection()
    try:
        db: Any = raw.driver_connection
        db.execute("CREATE EXTENSION IF NOT EXISTS hypopg")
        found = work(peers.WhatIf(db))
        db.execute("SELECT hypopg_reset()")
        db.commit()
        return found
    finally:
        raw.close()


def ours(bed: Bed, workload: Workload, out: Table, *, max_bytes: int | None = None) -> float:
    """Advise and apply as a user would; return the seconds of advising."""
    limits = Limits(max_applied=100, verify_budget="60s", max_index_bytes=max_bytes)
    with DatabaseOptimizer(bed.engine, what_if=bed.what_if, limits=limits) as optimizer:
        advice = optimizer.advise(workload)
        report = optimizer.apply(advice, dry_run=False)
        out.note(
            f"{len(advice.indexes)} advised after {advice.explains} plans in {advice.seconds:.2f} s by "
            f"{advice.proof}; {len(report.created)} kept, {len(report.reverted)} reverted, "
            f"{len(report.failed)} failed"
        )
        for item in [*report.reverted, *report.failed]:
            out.note(f"  not kept: {item.index}: {item.reason}")
        for item in report.created:
            out.note(f"  kept: {item.index}")
        for rewrite in advice.rewrites:
            mark = "safe" if rewrite.is_safe else "to check"
            out.note(f"  rewrite ({rewrite.rule}, {mark}): {rewrite.before[:70]}")
        if advice.partitions:
            out.note(f"  partitions: {', '.join(p.table for p in advice.partitions)}")
        return advice.seconds


def verdicts(kind: str, out: Table, scores: Mapping[str, Any], bed: Bed) -> None:
    mine, size, writes = scores["eventperf"]
    none = scores["no index"][0]
    total = sum(m.seconds for m in mine)
    worse = len(regressions(none, mine))
    if kind == "postgres":
        ours_too = ("no index", "eventperf", "eventperf, 200 MB", "by hand")
        rivals_ = {n: s for n, s in scores.items() if n not in ours_too}
        best = min(rivals_.values(), key=lambda s: sum(m.seconds for m in s[0]))
        by_weight = min(weighted(s[0]) for s in rivals_.values())
        ratio = total / sum(m.seconds for m in best[0])
        out.target("D1 sum against the best peer", "<= 0.45", ratio, ratio <= 0.45)
        ratio = weighted(mine) / by_weight
        out.target("D1 calls-weighted against the best peer", "<= 0.35", ratio, ratio <= 0.35)
        out.target("D1 bytes, MB", "<= 200", size / 1e6, size <= 200e6)
        out.target(
            "D1 writes against the best peer's set", "<= 1.0", writes / best[2], writes <= best[2] * 1.1
        )
        out.target("D1 statements > 1.2 x slower with a new plan", "0", worse, worse == 0)
    elif kind == "sqlite" and "sqlite .expert" in scores:
        found, bytes_, _ = scores["sqlite .expert"]
        ratio = total / sum(m.seconds for m in found)
        out.target("D4 sum against .expert", "<= 0.6", ratio, ratio <= 0.6)
        out.target("D4 bytes against .expert", "<= 0.4", size / bytes_, size <= 0.4 * bytes_)
        out.target("D4 statements > 1.2 x slower with a new plan", "0", worse, worse == 0)
    elif kind == "mariadb":
        found, bytes_, _ = scores["by hand"]
        ratio = total / sum(m.seconds for m in found)
        out.target("D5 sum against a hand-made set", "<= 1.05", ratio, ratio <= 1.05)
        out.target("D5 bytes against a hand-made set", "<= 0.7", size / bytes_, size <= 0.7 * bytes_)
        took = _timed(bed.hide)
        out.target("D5 revert of all indexes, out of every plan, s", "<= 1", took, took <= 1)
        print(f"D5 all of them dropped after {_timed(bed.strip):.2f} s more")


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def tpch(kind: str, scale: float) -> Table:
    """D2 (PostgreSQL), D4 (SQLite), D6 (all three)."""
    import dbopt_tpch

    out = Table(f"TPC-H, {kind}, SF {scale:g}")
    print(out.title, flush=True)
    generator = dbopt_tpch.Generator(scale)
    cap = 10.0
    with Bed(kind, dbopt_tpch.TABLES) as bed:
        for table in dbopt_tpch.TABLES:
            bed.fill(table, generator.rows(table, kind))
        queries = generator.queries(kind)
        bed.analyse()
        base = bed.size()
        asked: list[Asking] = [(sql, [{}]) for sql in queries.values()]
        none = bed.score(asked, cap_s=cap)
        out.add(set="no index", sum_s=sum(m.seconds for m in none), capped=sum(m.capped for m in none))
        dialect = {"sqlite": "sqlite", "postgres": "postgres", "mariadb": "mysql"}[kind]
        workload = Workload(dialect, since="as in the benchmark")
        for (sql, _), found in zip(asked, none, strict=True):
            workload.add(sql, calls=1, total_s=found.seconds)
        with DatabaseOptimizer(
            bed.engine, what_if=bed.what_if, limits=Limits(advise_budget="60s")
        ) as optimizer:
            rewritten(optimizer.advise(workload).rewrites, queries, none, bed, out, cap, generator.answer)
        generator.close()
        most = int(850e6 * scale) if kind == "postgres" else None  # the bytes of the target as the budget
        advising = ours(bed, workload, out, max_bytes=most)
        bed.analyse()
        found = bed.score(asked, cap_s=cap)
        size = bed.size() - base
        speedups = [a.seconds / max(b.seconds, 1e-6) for a, b in zip(none, found, strict=True)]
        mean = math.exp(sum(map(math.log, speedups)) / len(speedups))
        worse = regressions(none, found)
        out.add(
            set="eventperf",
            sum_s=sum(m.seconds for m in found),
            geomean=mean,
            mb=size / 1e6,
            advising_s=advising,
        )
        for n in worse:
            out.note(f"slower: {list(queries)[n]}: {none[n].seconds:.3f} -> {found[n].seconds:.3f} s")
        if kind == "postgres":
            out.target("D2 geometric mean of speed-ups", ">= 5", mean, mean >= 5)
            out.target("D2 bytes, MB", "<= 85", size / 1e6, size <= 85e6)
        out.target(
            f"{'D4' if kind == 'sqlite' else 'D2'} statements > 1.2 x slower", "0", len(worse), not worse
        )
    return out


def rewritten(
    rewrites: Sequence[Any],
    queries: Mapping[str, str],
    none: Sequence[Measurement],
    bed: Bed,
    out: Table,
    cap: float,
    truth: Callable[[str], Sequence[Any]],
) -> None:
    """Run every emitted rewrite without indexes: its time, and its result against the original's."""
    ids = {fingerprint(sql, bed_dialect(bed)).id: name for name, sql in queries.items()}
    wrong = slower = 0
    times = {name: m.seconds for name, m in zip(queries, none, strict=True)}
    for rewrite in rewrites:
        if rewrite.after is None or rewrite.fingerprint not in ids:
            continue
        name = ids[rewrite.fingerprint]
        (after,) = bed.score([(rewrite.after, [{}])], cap_s=cap)
        before = times[name]
        slower += after.seconds > 1.2 * before and after.seconds - before > 0.002
        # Originals that do not end are compared with what duckdb says.
        wanted = _result(bed, queries[name]) if before < cap else _cells(truth(name))
        same = _same(_result(bed, rewrite.after), wanted)
        wrong += not same
        times[name] = min(before, after.seconds)
        out.note(
            f"rewrite {name} ({rewrite.rule}): {before:.3f} -> {after.seconds:.3f} s, "
            f"{'equal' if same else 'WRONG'}"
        )
    out.target("D6 rewrites with another result", "0", wrong, wrong == 0)
    out.target("D6 rewrites that are slower", "0", slower, slower == 0)
    if bed.kind == "sqlite":
        worst = max(times[q] for q in ("Q17", "Q20", "Q22"))
        out.target("D6 slowest of Q17, Q20, Q22 without indexes, s", "< 1", worst, worst < 1)
    if bed.kind == "postgres":
        both = times["Q17"] + times["Q20"]
        out.target("D2 Q17 + Q20 with rewrites, without indexes, s", "<= 0.5", both, both <= 0.5)


def bed_dialect(bed: Bed) -> str:
    return {"sqlite": "sqlite", "postgres": "postgres", "mariadb": "mysql"}[bed.kind]


def _result(bed: Bed, sql: str) -> list[list[Any]]:
    with bed.engine.connect() as db:
        text_ = sql if bed.kind == "sqlite" else sql.replace("%", "%%")
        return _cells(db.exec_driver_sql(text_).all())


def _cells(rows: Sequence[Sequence[Any]]) -> list[list[Any]]:
    found = [[float(v) if _is_number(v) else str(v) for v in row] for row in rows]
    return sorted(found, key=lambda row: [f"{v:.3g}" if isinstance(v, float) else v for v in row])


def _same(one: Sequence[Sequence[Any]], two: Sequence[Sequence[Any]]) -> bool:
    """Tell whether rows agree; sums of floats and of decimals differ in their last digits."""
    pairs = [(x, y) for a, b in zip(one, two, strict=False) for x, y in zip(a, b, strict=True)]
    close = (
        math.isclose(x, y, rel_tol=1e-6) if isinstance(x, float) and isinstance(y, float) else x == y
        for x, y in pairs
    )
    return len(one) == len(two) and all(close)


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def wide(what: str, scale: float) -> Table:
    """T1: many joins."""
    import dbopt_wide

    return dbopt_wide.wide(what, scale)


def advising(kind: str, scale: float) -> Table:
    """D3: 1,000 statements over 50 tables."""
    out = Table("1,000 statements over 50 tables, SQLite")
    print(out.title, flush=True)
    engine = create_engine("sqlite://")
    columns = [f"c{n}" for n in range(10)]
    lines = []
    try:
        with engine.begin() as db:
            for t in range(50):
                typed = ", ".join(f"{c} INT" for c in columns)
                db.execute(text(f"CREATE TABLE t{t} (id INTEGER PRIMARY KEY, {typed})"))
                rows = [{c: n * (7 + i) % (5 + 60 * i) for i, c in enumerate(columns)} for n in range(2000)]
                marks = ", ".join(f":{c}" for c in columns)
                db.execute(text(f"INSERT INTO t{t} ({', '.join(columns)}) VALUES ({marks})"), rows)
        for n in range(1000):
            t, a, b, c = n % 50, n % 10, (n // 50) % 9, (n // 7) % 10
            b += b >= a
            tail = f"c{c}" if n % 2 else f"c{c} DESC"
            lines.append(
                f"-- calls: {n + 1}\nSELECT c{c} FROM t{t} WHERE c{a} = 3 AND c{b} > 9 ORDER BY {tail}, id;"
            )
        workload = Workload.from_sql("\n".join(lines))
        with DatabaseOptimizer(engine) as optimizer:
            advice = optimizer.advise(workload, budget="5m")
    finally:
        engine.dispose()
    out.add(
        fingerprints=len(workload),
        indexes=len(advice.indexes),
        plans=advice.explains,
        advising_s=advice.seconds,
    )
    out.target("D3 1,000 fingerprints over 50 tables, s", "<= 60", advice.seconds, advice.seconds <= 60)
    return out


def texts(kind: str, scale: float) -> Table:
    """D7: fingerprints; and what the recorder adds to a statement."""
    out = Table("fingerprints and the recorder")
    print(out.title, flush=True)
    every = [_inlined(a.sql, a.make(Random(n), 1.0)) for n in range(25) for a in platform.ASKS]
    for label in ("new", "known"):
        rounds = 1 if label == "new" else 20
        began = time.perf_counter()
        for _ in range(rounds):
            for sql in every:
                fingerprint(sql, "postgres")
        rate = rounds * len(every) / (time.perf_counter() - began)
        out.add(fingerprints=label, per_s=rate)
    out.target("D7 known fingerprints a second", ">= 20,000", rate, rate >= 20_000)
    cost = min(recorder_cost() for _ in range(3))
    out.add(recorder="added to a statement", microseconds=cost)
    out.target("recorder, microseconds a statement", "<= 10", cost, cost <= 10)
    return out


def recorder_cost(statements: int = 20_000) -> float:
    """Return the microseconds of CPU that a recorder adds to a statement (memory SQLite, one row)."""
    engine = create_engine("sqlite://")
    ask = text("SELECT :n")

    def drive() -> float:
        with engine.connect() as db:
            began = time.process_time()
            for n in range(statements):
                db.execute(ask, {"n": n}).all()
            return time.process_time() - began

    try:
        drive()
        bare = min(drive() for _ in range(3))
        with QueryRecorder(engine):
            drive()
            recorded = min(drive() for _ in range(3))
    finally:
        engine.dispose()
    return (recorded - bare) / statements * 1e6


PARTS: dict[str, tuple[Callable[[str, float], Table], str, float]] = {
    "events-postgres": (events, "postgres", 0.1),
    "events-sqlite": (events, "sqlite", 0.1),
    "events-mariadb": (events, "mariadb", 0.1),
    "tpch-postgres": (tpch, "postgres", 0.02),
    "tpch-sqlite": (tpch, "sqlite", 0.02),
    "tpch-mariadb": (tpch, "mariadb", 0.02),
    "joins-postgres": (wide, "joins-postgres", 0.3),
    "joins-sqlite": (wide, "joins-sqlite", 0.3),
    "tpcds-postgres": (wide, "tpcds-postgres", 0.05),
    "tpcds-sqlite": (wide, "tpcds-sqlite", 0.05),
    "advising": (advising, "", 1.0),
    "texts": (texts, "", 1.0),
}


def main(argv: list[str] | None = None) -> int:
    """Run the parts; 0 also where targets are missed, as a shared machine decides some of them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="*", choices=[*PARTS, []], help="default: all, at a small scale")
    parser.add_argument("--scale", type=float, help="1 is the full size of the events, TPC-H wants 0.1")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)
    found = []
    for part in args.part or list(PARTS):
        run, kind, small = PARTS[part]
        try:
            table = run(kind, args.scale or small)
        except ImportError as error:
            print(f"{part} was left out: {error}", file=sys.stderr)
            continue
        table.show()
        found.append(
            {
                "part": part,
                "title": table.title,
                "rows": table.rows,
                "targets": table.targets,
                "notes": table.notes,
            }
        )
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2, default=str))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
