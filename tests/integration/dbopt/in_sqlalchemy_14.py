"""An application of SQLAlchemy 1.4, as it was written then: ``python in_sqlalchemy_14.py URL``.

Its engine commits each statement by itself, its models have one table name in two schemas (none on SQLite).
Prints one JSON line of what the library found and did.
"""

from __future__ import annotations

import contextlib
import json
import sys
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import declarative_base, relationship, sessionmaker

from eventperf import CacheManager
from eventperf.contrib.sqlalchemy import follow
from eventperf.dbopt import DatabaseOptimizer, QueryRecorder
from eventperf.errors import ConfigurationError
from eventperf.queues import QueueManager
from eventperf.queues.outbox import Relay, create_table

Base: Any = declarative_base()


def jobs(url: str, engine: Any) -> list[int]:
    """Return how many jobs a relay carries that left with a commit, how many arrived and were left."""
    create_table(engine)
    with QueueManager("memory://") as queues:
        with sessionmaker(engine)() as db:
            queues.enqueue("mail", 1, session=db)
            db.commit()
            queues.enqueue("mail", 2, session=db)
            db.rollback()
        with engine.begin() as connection:
            queues.enqueue("mail", 3, session=connection)
        with engine.connect() as connection, contextlib.suppress(ConfigurationError):
            queues.enqueue("mail", 4, session=connection)  # would be there at once, whatever follows
        with Relay(queues, url) as relay:
            return [relay.run(burst=True), sum(row.waiting for row in queues.status()), relay.waiting()]


def main(url: str, scratch: str) -> None:
    engine: Any = sa.create_engine(url)
    schemas = ("events", "registrations") if engine.dialect.name == "postgresql" else (None, None)

    class Event(Base):
        __tablename__ = "items" if schemas[0] else "events"
        __table_args__ = {"schema": schemas[0]}  # noqa: RUF012
        id = sa.Column(sa.Integer, primary_key=True)
        name = sa.Column(sa.String(80))

    class Registration(Base):
        __tablename__ = "items"
        __table_args__ = {"schema": schemas[1]}  # noqa: RUF012
        id = sa.Column(sa.Integer, primary_key=True)
        event_id = sa.Column(sa.ForeignKey(Event.id))
        state = sa.Column(sa.Integer)
        event = relationship(Event)

    for schema in schemas:
        if schema:
            engine.execute(f"CREATE SCHEMA {schema}")
    Base.metadata.create_all(engine)
    Session = sessionmaker(engine)
    with Session() as db:
        db.bulk_insert_mappings(Event, [{"id": n, "name": f"event {n}"} for n in range(500)])
        rows = [{"event_id": n % 500, "state": n % 7} for n in range(20_000)]
        db.bulk_insert_mappings(Registration, rows)
        db.commit()
    engine.execute("ANALYZE")

    cache = CacheManager()
    follow(cache, Session)

    @cache.cached(ttl="1m", follows=[Event])
    def name_of(event: int) -> str:
        with Session() as db:
            return str(db.get(Event, event).name)

    names = [name_of(1)]
    with Session() as db:
        db.query(Event).filter(Event.id == 1).update({"name": "moved"})
        db.commit()
    names.append(name_of(1))
    engine.execute(f"UPDATE {Event.__table__.fullname} SET name = 'again' WHERE id = 1")
    names.append(name_of(1))

    recorder = QueryRecorder(engine)
    with Session() as db:
        for event in range(20):
            mine = db.query(Registration).filter(Registration.event_id == event, Registration.state == 1)
            mine.order_by(Registration.id).limit(20).all()
        for registration in db.query(Registration).limit(30):
            registration.event.name  # noqa: B018
    recorder.close()
    with DatabaseOptimizer(engine, source=recorder, what_if=scratch or None) as optimizer:
        advice = optimizer.advise()
        report = optimizer.apply(advice, dry_run=False)
        there = [index["name"] for index in sa.inspect(engine).get_indexes("items", schema=schemas[1])]
        optimizer.revert(dry_run=False)
    left = [index["name"] for index in sa.inspect(engine).get_indexes("items", schema=schemas[1])]
    told = {
        "sqlalchemy": sa.__version__,
        "names": names,
        "jobs": jobs(url, engine),
        "level": advice.level,
        "loops": [warning for warning in advice.warnings if "N+1" in warning],
        "failed": [str(one) for one in report.failed],
        "created": [one.name for one in report.created],
        "there": there,
        "left": left,
    }
    print(json.dumps(told))


if __name__ == "__main__":
    main(*sys.argv[1:3])
