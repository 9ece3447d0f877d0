"""A Flask + SQLAlchemy site finds its N+1 loops and its missing index, and writes the Alembic migration."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from flask import Flask, abort
from sqlalchemy import Engine, ForeignKey, String, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from eventperf.dbopt import DatabaseOptimizer, QueryRecorder, lint_metadata


class Base(DeclarativeBase):
    pass


class Event(Base):
    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))
    talks: Mapped[list[Talk]] = relationship(back_populates="event")


class Talk(Base):
    __tablename__ = "talks"
    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"))
    title: Mapped[str] = mapped_column(String(40))
    starts_at: Mapped[int]
    event: Mapped[Event] = relationship(back_populates="talks")


def create_app(engine: Engine) -> Flask:
    app = Flask("programme")

    @app.get("/events")
    def overview() -> Any:
        with Session(engine) as session:
            events = session.scalars(select(Event).limit(20))
            return {event.name: len(event.talks) for event in events}  # one statement per event

    @app.get("/events/<int:event_id>")
    def programme(event_id: int) -> Any:
        with Session(engine) as session:
            event = session.get(Event, event_id) or abort(404)
            query = select(Talk.title).where(Talk.event_id == event_id).order_by(Talk.starts_at).limit(10)
            return {"event": event.name, "talks": list(session.scalars(query))}

    return app


def build(engine: Engine) -> None:
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all(Event(id=n, name=f"Event {n}") for n in range(1, 301))
        session.flush()
        session.add_all(
            Talk(event_id=n % 300 + 1, title=f"Talk {n}", starts_at=n * 7919 % 10_000) for n in range(30_000)
        )
        session.commit()


def main(folder: Path) -> None:
    engine = create_engine(f"sqlite:///{folder / 'site.db'}")
    build(engine)
    for finding in lint_metadata(Base):
        print(f"{finding.rule}: {finding.statement}")
    client = create_app(engine).test_client()
    with QueryRecorder(engine) as recorder:
        client.get("/events")
        for n in range(1, 60):
            client.get(f"/events/{n}")
    for loop in recorder.n_plus_one():
        print(f"{Path(loop.caller).name}: {loop.most} statements; {loop.fix}")
    with DatabaseOptimizer(engine, source=recorder) as optimizer:
        advice = optimizer.advise()
        print(advice)
        print(advice.to_migration("alembic", down_revision=None))
    engine.dispose()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        main(Path(name))
