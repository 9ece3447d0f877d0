"""Database advice on SQLite's event platform: no index, the naive rule and eventperf, in one run.

Scored on parameters that were not recorded. The naive rule makes one index per column found in a
WHERE, JOIN or ORDER BY. Also the cost of the recorder and of fingerprints.
"""

from __future__ import annotations

import argparse
import json
import random
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import Any

from sqlalchemy import create_engine

from eventperf.dbopt import DatabaseOptimizer, QueryRecorder, fingerprint

STATEMENTS: list[tuple[str, int, Any]] = [
    ("SELECT * FROM events WHERE id = ?", 200, lambda r: (r.randint(1, 300),)),
    (
        "SELECT id, name FROM events WHERE status = 'open' AND starts_at >= ? ORDER BY starts_at LIMIT 20",
        100,
        lambda r: (r.randint(0, 900),),
    ),
    (
        "SELECT count(*) FROM registrations WHERE event_id = ? AND status = 'ok'",
        60,
        lambda r: (r.randint(1, 300),),
    ),
    (
        "SELECT r.id, p.name FROM registrations r JOIN participants p ON p.id = r.participant_id "
        "WHERE r.event_id = ? ORDER BY r.registered_at DESC LIMIT 50",
        40,
        lambda r: (r.randint(1, 300),),
    ),
    (
        "SELECT event_id, status FROM registrations WHERE participant_id = ?",
        60,
        lambda r: (r.randint(1, 90_000),),
    ),
    ("SELECT id FROM participants WHERE lower(email) = ?", 10, lambda r: (f"u{r.randint(1, 90_000)}@x.org",)),
    ("SELECT country, count(*) FROM participants GROUP BY country", 5, lambda r: ()),
    (
        "SELECT id FROM registrations WHERE status = 'pending' AND registered_at < ? "
        "ORDER BY registered_at LIMIT 50",
        10,
        lambda r: (r.randint(10_000, 200_000),),
    ),
]
NAIVE = [
    "events (status)",
    "events (starts_at)",
    "registrations (event_id)",
    "registrations (status)",
    "registrations (participant_id)",
    "registrations (registered_at)",
    "participants (email)",
    "participants (country)",
]


def build(path: Path, scale: int) -> None:
    draw = random.Random(5)
    db = sqlite3.connect(path)
    db.executescript(
        "CREATE TABLE events (id INTEGER PRIMARY KEY, name TEXT, status TEXT, starts_at INT);"
        "CREATE TABLE participants (id INTEGER PRIMARY KEY, email TEXT, name TEXT, country TEXT);"
        "CREATE TABLE registrations (id INTEGER PRIMARY KEY, event_id INT, participant_id INT, status TEXT, "
        "registered_at INT);"
    )
    states = ["open", "closed", "draft"]
    db.executemany(
        "INSERT INTO events VALUES (?,?,?,?)", [(n, f"E{n}", states[n % 3], n * 3) for n in range(300)]
    )
    people = ((n, f"U{n}@x.org", f"Name {n}", ["DE", "FR", "KR", "US", "JP"][n % 5]) for n in range(scale))
    db.executemany("INSERT INTO participants VALUES (?,?,?,?)", people)
    rows = (
        (
            n,
            draw.randint(1, 300),
            draw.randint(1, scale),
            "pending" if n % 20 == 0 else "ok",
            draw.randint(0, 10**6),
        )
        for n in range(scale * 3)
    )
    db.executemany("INSERT INTO registrations VALUES (?,?,?,?,?)", rows)
    db.commit()
    db.close()


def score(path: Path, seed: int) -> float:
    """Return the calls-weighted seconds of all statements on held-out parameters."""
    draw = random.Random(seed)
    total = 0.0
    db = sqlite3.connect(path)
    for sql, calls, make in STATEMENTS:
        times = []
        for _ in range(5):
            began = time.perf_counter()
            db.execute(sql, make(draw)).fetchall()
            times.append(time.perf_counter() - began)
        total += calls * sorted(times)[2]
    db.close()
    return total


def copy(path: Path, name: str) -> Path:
    target = path.with_name(name)
    target.write_bytes(path.read_bytes())
    return target


def run(scale: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder, "base.db")
        build(base, scale)
        size = base.stat().st_size
        out: dict[str, Any] = {"rows": scale * 4, "none_s": score(base, 99)}
        naive = copy(base, "naive.db")
        with sqlite3.connect(naive) as db:
            for number, what in enumerate(NAIVE):
                db.execute(f"CREATE INDEX n{number} ON {what}")
            db.execute("ANALYZE")
        db.close()
        out |= {"naive_s": score(naive, 99), "naive_bytes": naive.stat().st_size - size}
        ours = copy(base, "ours.db")
        engine = create_engine(f"sqlite:///{ours}")
        recorder, draw = QueryRecorder(engine), random.Random(1)
        with engine.connect() as connection:
            for sql, calls, make in STATEMENTS:
                for _ in range(max(2, calls // 10)):
                    connection.exec_driver_sql(sql, make(draw)).fetchall()
        optimizer = DatabaseOptimizer(engine, source=recorder)
        advice = optimizer.advise()
        began = time.perf_counter()
        report = optimizer.apply(advice, dry_run=False)
        out |= {
            "advise_s": advice.seconds,
            "plans": advice.explains,
            "apply_s": time.perf_counter() - began,
            "indexes": [a.index for a in report.created],
            "reverted": [a.index for a in report.reverted],
            "eventperf_s": score(ours, 99),
            "eventperf_bytes": ours.stat().st_size - size,
        }
        engine.dispose()
    texts = [f"SELECT a FROM t{n} WHERE b = {n} AND c IN (1, 2)" for n in range(1000)]
    for label in ("fingerprints_cold_per_s", "fingerprints_cached_per_s"):
        began = time.perf_counter()
        for text in texts:
            fingerprint(text)
        out[label] = round(len(texts) / (time.perf_counter() - began))
    return out


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=int, default=100_000, help="participants")
    parser.add_argument("--json", metavar="FILE")
    args = parser.parse_args(argv)
    found = run(args.scale)
    for name, value in found.items():
        print(f"{name:<28}{value}")
    if args.json:
        Path(args.json).write_text(json.dumps(found, indent=2))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
