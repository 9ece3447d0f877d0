"""Find what a SQLite database is asked for, prove an index, apply it, measure it."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from sqlalchemy import create_engine, text
from sqlalchemy.engine import Engine

from eventperf.dbopt import DatabaseOptimizer, QueryRecorder

SCHEMA = """
CREATE TABLE registrations (id INTEGER PRIMARY KEY, event_id INTEGER NOT NULL, email TEXT NOT NULL,
                            status TEXT NOT NULL, created_at INTEGER NOT NULL)
"""
PAGE = text(
    "SELECT id, email FROM registrations WHERE event_id = :event AND status = 'paid' "
    "ORDER BY created_at DESC LIMIT 20"
)


def build(engine: Engine, rows: int = 60_000) -> None:
    draw = random.Random(7)
    values = [
        {"e": draw.randrange(300), "m": f"p{n}@example.com", "s": draw.choice(["paid", "open"]), "c": n}
        for n in range(rows)
    ]
    with engine.begin() as connection:
        connection.execute(text(SCHEMA))
        connection.execute(
            text("INSERT INTO registrations (event_id, email, status, created_at) VALUES (:e, :m, :s, :c)"),
            values,
        )


def serve(engine: Engine, pages: int = 60) -> None:
    draw = random.Random(11)
    with engine.connect() as connection:
        for _ in range(pages):
            connection.execute(PAGE, {"event": draw.randrange(300)}).all()


def main(folder: Path) -> None:
    engine = create_engine(f"sqlite:///{folder / 'events.db'}")
    build(engine)
    with QueryRecorder(engine) as recorder:
        serve(engine)
        optimizer = DatabaseOptimizer(engine, source=recorder)
        for slow in optimizer.slow_queries(limit=3):
            print(f"{slow.calls} calls, {slow.mean_s * 1000:.2f} ms each: {slow.sample}")
        advice = optimizer.advise()
        print(advice)
        print(advice.to_sql())
        report = optimizer.apply(advice, dry_run=False)
        print(report)
    engine.dispose()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
