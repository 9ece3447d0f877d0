"""A table, two statements and hand-made plans, for tests of ``apply`` on every engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlalchemy import create_engine, text

from eventperf.dbopt import Advice, DatabaseOptimizer, QueryRecorder
from eventperf.dbopt.advice import IndexAdvice, Served
from eventperf.dbopt.schema.model import IndexSpec, Key, index_name

ROWS = 12_000
STATEMENTS = {
    "SELECT count(*) FROM sales WHERE event_id = :n AND sold_at > 5": ("event_id", "sold_at"),
    "SELECT id, price FROM sales WHERE buyer = :n ORDER BY sold_at": ("buyer", "sold_at"),
}


def prepared(url: str, folder: Path, *, parted: bool = False) -> tuple[Path, Path, list[str]]:
    """Fill a table (PostgreSQL: of two parts, if wished), record two statements, write plan and workload."""
    engine = create_engine(url)
    try:
        with engine.begin() as db:
            key = "" if parted else "PRIMARY KEY"
            db.execute(
                text(
                    f"CREATE TABLE sales (id INT {key}, event_id INT NOT NULL, buyer INT NOT NULL, "
                    "sold_at INT NOT NULL, price INT NOT NULL)"
                    + (" PARTITION BY RANGE (sold_at)" if parted else "")
                )
            )
            if parted:
                halves = f"(0) TO ({ROWS // 2})", f"({ROWS // 2}) TO ({ROWS})"
                for n, values in enumerate(halves):
                    db.execute(text(f"CREATE TABLE sales_{n} PARTITION OF sales FOR VALUES FROM {values}"))
            for start in range(0, ROWS, 2000):
                rows = ",".join(
                    f"({n},{n % 300},{n * 7919 % 4000},{n * 31 % ROWS},{n})"
                    for n in range(start, start + 2000)
                )
                db.execute(text(f"INSERT INTO sales VALUES {rows}"))
        with QueryRecorder(engine) as recorder, engine.connect() as db:
            for sql in STATEMENTS:
                for n in (3, 40, 77):
                    db.execute(text(sql), {"n": n}).all()
            workload = recorder.workload()
        with DatabaseOptimizer(engine) as optimizer:
            dialect = optimizer.dialect
            advice = Advice(dialect=dialect.name)
            for statement in workload:
                columns = next(c for sql, c in STATEMENTS.items() if c[0] in statement.fingerprint.text)
                advice.indexes.append(index(dialect, IndexSpec("sales", tuple(map(Key, columns))), statement))
        advice.save(folder / "plan.json")
        workload.save(folder / "load.json", values=True)
    finally:
        engine.dispose()
    return folder / "plan.json", folder / "load.json", sorted(i.name for i in advice.indexes)


def index(dialect: Any, spec: IndexSpec, statement: Any) -> IndexAdvice:
    name = index_name(spec, limit=dialect.identifier_limit)
    served = Served(
        fingerprint=statement.fingerprint.id,
        statement=statement.fingerprint.text,
        calls=statement.calls,
        share=0.5,
        cost_before=2.0,
        cost_after=1.0,
        plan_before="",
        plan_after="",
    )
    return IndexAdvice(
        name=name,
        spec=spec,
        sql=dialect.create_sql(spec, name),
        reason="a test",
        gain=0.5,
        size_bytes=1,
        write_cost=0.0,
        proof="none",
        serves=(served,),
    )


def plain_index(dialect: Any, spec: IndexSpec) -> IndexAdvice:
    """Return advice of an index that serves no known query."""
    name = index_name(spec, limit=dialect.identifier_limit)
    return IndexAdvice(
        name=name,
        spec=spec,
        sql=dialect.create_sql(spec, name),
        reason="a test",
        gain=0.5,
        size_bytes=1,
        write_cost=0.0,
        proof="none",
    )
