"""An event site's busiest hour, told in a second: what the pictures of the console are taken of."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random
from typing import Any

from sqlalchemy import Engine, create_engine, text

from eventperf.cache import CacheManager
from eventperf.contrib.console import Console
from eventperf.dbopt import DatabaseOptimizer, QueryRecorder
from eventperf.queues import Limit, QueueManager
from eventperf.scaling import (
    AutoScaler,
    Calendar,
    CalendarEvent,
    CalendarPolicy,
    CallableMetrics,
    SimulatedTarget,
)
from eventperf.testing import FakeClock

MINUTES = 60
OPENS = 40  # the minute in which the tickets go on sale


def load(minute: int) -> float:
    """Return requests a second: an evening's tide, and the rush when tickets go on sale."""
    rush = 900.0 * math.exp(-(minute - OPENS) / 9) if minute >= OPENS else 0.0
    return 220.0 + 60.0 * math.sin(minute / 9) + rush


def stage(folder: Path) -> Console:
    """Return a console over everything that happened in the hour before."""
    clock, dice = FakeClock(time=1_782_928_800.0), Random(4)
    start = clock.time()
    calendar = Calendar(
        [CalendarEvent(at=start + 60 * OPENS, kind="on sale", id="Summer festival", min_replicas=20)]
    )
    now = {"rps": load(0)}
    scaler = AutoScaler(
        SimulatedTarget(4, name="prod/deployment/web"), CallableMetrics(rps=lambda: now["rps"]),
        CalendarPolicy(capacity_rps=50), min_replicas=3, max_replicas=24, calendar=calendar, clock=clock,
    )  # fmt: skip
    queues = QueueManager("memory://", clock=clock, limits=[Limit(queue="low", concurrency=4)])
    _jobs(queues, clock, dice)
    for minute in range(MINUTES):
        now["rps"] = load(minute)
        scaler.tick()
        for _ in range(int(now["rps"] / 60) + dice.randrange(3)):
            kind, queue = dice.choice(
                (("confirm", "high"), ("ticket", "normal"), ("ticket", "normal"), ("badge", "low"))
            )
            queues.enqueue(kind, {"order": dice.randrange(10**6)}, queue=queue, tags=["summer-festival"])
        clock.advance(0.1 + dice.random() * now["rps"] / 400)
        queues.worker().run(burst=True)
        clock.advance(60 - (clock.time() - start) % 60)
    for n in range(7):
        queues.enqueue("badge", {"order": n}, queue="low", delay=f"{10 + n}m")
        queues.enqueue("ticket", {"order": n}, tags=["summer-festival"])
    queues.cron("nightly report", "30 3 * * *", "badge", queue="low", timezone="Europe/Berlin")
    cache = CacheManager(namespace="site")
    engine = _shop(folder, dice)
    recorder = QueryRecorder(engine, frames=1)
    _visits(engine, dice)
    console = Console(
        queues=queues, cache=cache, optimizer=DatabaseOptimizer(engine, source=recorder), scaler=scaler,
        title="Box office", may=lambda *asked: True, clock=clock,
    )  # fmt: skip
    for n in range(4_000):
        cache.get_or_load(f"event:{int(dice.paretovariate(0.9)) % 300}", lambda n=n: {"seats": n})
    return console


def _jobs(queues: QueueManager, clock: FakeClock, dice: Random) -> None:
    @queues.job("confirm")
    def confirm(ctx: Any, data: Any) -> None:
        clock.advance(0.02 + dice.random() / 20)

    @queues.job("ticket", attempts=1)
    def ticket(ctx: Any, data: Any) -> None:
        clock.advance(0.1 + dice.random() / 5)
        if dice.random() < 0.01:
            raise ConnectionError("the mail server answered 421: too many connections from this address")

    @queues.job("badge")
    def badge(ctx: Any, data: Any) -> None:
        clock.advance(0.3 + dice.random())


def _shop(folder: Path, dice: Random) -> Engine:
    engine = create_engine(f"sqlite:///{folder}/shop.db")
    with engine.begin() as db:
        db.execute(
            text("CREATE TABLE events (id INTEGER PRIMARY KEY, title TEXT, venue_id INT, starts_at INT)")
        )
        db.execute(
            text("CREATE TABLE tickets (id INTEGER PRIMARY KEY, event_id INT, buyer TEXT, state TEXT)")
        )
        events = [{"v": n % 40, "s": n} for n in range(2_000)]
        db.execute(text("INSERT INTO events (title, venue_id, starts_at) VALUES ('x', :v, :s)"), events)
        sold = [{"e": dice.randrange(2_000), "b": f"b{n}", "s": dice.choice("psr")} for n in range(20_000)]
        db.execute(text("INSERT INTO tickets (event_id, buyer, state) VALUES (:e, :b, :s)"), sold)
        db.execute(text("ANALYZE"))
    return engine


VIEWS = """
def calendar(db, text, venue):
    first = text("SELECT id FROM events WHERE venue_id = :v ORDER BY starts_at LIMIT 12")
    found = db.execute(first, {"v": venue})
    for (event,) in found.all():
        db.execute(text("SELECT count(*) FROM tickets WHERE event_id = :e AND state = 's'"), {"e": event})


def tickets(db, text, buyer):
    db.execute(text("SELECT * FROM tickets WHERE buyer = :b"), {"b": buyer}).all()
"""


def _visits(engine: Engine, dice: Random) -> None:
    views: dict[str, Any] = {}
    exec(compile(VIEWS, "shop/views.py", "exec"), views)  # so that the lines are those of a shop
    for n in range(12):
        with engine.connect() as db:
            views["calendar"](db, text, dice.randrange(40))
        with engine.connect() as db:
            views["tickets"](db, text, f"b{n * 400}")
