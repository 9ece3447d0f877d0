"""What the recorder says about code: which line, and what would be better."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import ForeignKey, String, create_engine, select, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from eventperf.dbopt import QueryRecorder
from eventperf.dbopt.statements.loaders import ONCE, general

ROWS = 8


class Base(DeclarativeBase):
    pass


class Event(Base):
    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    notes: Mapped[str] = mapped_column(String(50), deferred=True)
    tickets: Mapped[list[Ticket]] = relationship(back_populates="event")


class Ticket(Base):
    __tablename__ = "tickets"
    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"))
    event: Mapped[Event] = relationship(back_populates="tickets")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Any]:
    made = create_engine(f"sqlite:///{tmp_path / 'orm.db'}")
    Base.metadata.create_all(made)
    with Session(made) as session:
        session.add_all(Event(id=n, notes="x", tickets=[Ticket(id=n)]) for n in range(ROWS))
        session.commit()
    yield made
    made.dispose()


def children(session: Session) -> object:
    return [event.tickets for event in session.scalars(select(Event))]


def parents(session: Session) -> object:
    return [ticket.event for ticket in session.scalars(select(Ticket))]


def deferred(session: Session) -> object:
    return [event.notes for event in session.scalars(select(Event))]


def one_by_one(session: Session) -> object:
    return [session.get(Event, n) for n in range(ROWS)]


def expired(session: Session) -> object:
    events = session.scalars(select(Event)).all()
    session.commit()
    return [event.id for event in events]


@pytest.mark.parametrize(
    ("loop", "fix"),
    [
        (children, "options(selectinload(Event.tickets))"),
        (parents, "options(joinedload(Ticket.event))"),
        (deferred, "options(undefer(Event.notes))"),
        (one_by_one, "fetch all rows in one statement (WHERE key IN (...)), or join them in the first one"),
        (
            expired,
            "Event objects expire at each commit: expire_on_commit=False, or one SELECT that loads all",
        ),
    ],
)
def test_each_loop_is_named_with_the_option_that_ends_it(
    engine: Any, loop: Callable[[Session], object], fix: str
) -> None:
    with QueryRecorder(engine) as recorder, Session(engine) as session:
        loop(session)
    (group,) = recorder.n_plus_one()
    assert group.fix == fix
    assert group.most == ROWS
    lines = loop.__code__
    nearest, *above = group.caller.split(" < ")
    assert nearest.rpartition(":")[0] == lines.co_filename
    assert lines.co_firstlineno < int(nearest.rpartition(":")[2]) <= lines.co_firstlineno + 4
    assert len(above) == 2, "the loop may be theirs"


@pytest.mark.parametrize(
    "values", [lambda n: {"n": 7}, lambda n: None, lambda n: {"n": 7, "blob": b"x" * 100}]
)
def test_a_loop_whose_values_are_equal_in_all_rounds_is_to_be_done_once(values: Callable[[int], Any]) -> None:
    recorder = QueryRecorder(dialect="sqlite")
    for _ in range(3):
        scope = Scope()
        for n in range(6):
            recorder.observe("SELECT a FROM t WHERE b = :n", values(n), 0.001, "app.py:9", scope=scope)
    (loop,) = recorder.n_plus_one()
    assert (loop.fix, loop.runs, loop.queries) == (ONCE, 3, 18)
    assert ONCE in "".join(recorder.workload().notes)
    (statement,) = recorder.workload()
    assert statement.looped == 0, "it may wait for a change: an index still serves it"


class Strange:
    def __eq__(self, other: object) -> bool:
        raise ValueError("which of them?")

    __hash__ = None  # type: ignore[assignment]


@pytest.mark.parametrize("place", [1, 4, 5, 7])
@pytest.mark.parametrize("other", [{"n": 8}, {"n": Strange()}, None], ids=repr)
def test_one_round_with_other_values_makes_it_a_loop_for_a_loader(place: int, other: Any) -> None:
    recorder, scope = QueryRecorder(dialect="sqlite"), Scope()
    for n in range(8):
        values = other if n == place else {"n": 7}
        recorder.observe("SELECT a FROM t WHERE b = :n", values, 0.001, "app.py:9", scope=scope)
    (loop,) = recorder.n_plus_one()
    assert loop.fix == general()


def test_values_changed_in_place_and_literals_in_the_text_are_other_values() -> None:
    recorder, values = QueryRecorder(dialect="sqlite"), [0]
    one, two = Scope(), Scope()
    for n in range(6):
        values[0] = n
        recorder.observe("SELECT a FROM t WHERE b = ?", values, 0.001, "app.py:9", scope=one)
        recorder.observe(f"SELECT c FROM t WHERE b = {n}", None, 0.001, "app.py:9", scope=two)
    assert {loop.fix for loop in recorder.n_plus_one()} == {general()}


def test_a_loop_of_batches_is_not_told_to_fetch_a_batch() -> None:
    """Most loops of pretix are of this kind, and "fetch all rows with IN" is what each round does."""
    recorder, scope = QueryRecorder(dialect="postgres"), Scope()
    for n in range(6):
        for asked in ("SELECT a FROM t WHERE b IN (:n, :m)", "SELECT a FROM t WHERE b = :n"):
            recorder.observe(asked, {"n": n, "m": n + 1}, 0.001, "app.py:9", scope=scope)
    fixes = {loop.statement: loop.fix for loop in recorder.n_plus_one()}
    assert fixes.pop("select a from t where b = ?") == general()
    (fix,) = fixes.values()
    assert fix.startswith("it has IN (...) already")
    assert all(statement.looped == 0 for statement in recorder.workload()), "a guess still"


def test_of_large_values_nothing_is_held_or_told() -> None:
    recorder, scope = QueryRecorder(dialect="sqlite"), Scope()
    for _ in range(6):
        recorder.observe("SELECT a FROM t WHERE b = ?", (b"x" * 9_000,), 0.001, "app.py:9", scope=scope)
    (loop,) = recorder.n_plus_one()
    assert loop.fix == general()


class Scope:
    """A transaction of somebody else's."""


CODE = """
from sqlalchemy import text


def ask(db):
    return db.execute(text("SELECT 1")).all()


async def aask(db):
    return (await db.execute(text("SELECT 1"))).all()
"""


@pytest.mark.parametrize("folder", ["eventperf", "sqlalchemy", "django/db", "asyncio"])
def test_code_in_a_folder_that_is_called_like_a_library_is_still_the_caller(
    folder: str, tmp_path: Path
) -> None:
    place = tmp_path / folder / "shop.py"
    place.parent.mkdir(parents=True)
    place.write_text(CODE)
    spec = importlib.util.spec_from_file_location("shop", place)
    assert spec is not None
    assert spec.loader is not None
    shop = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(shop)
    engine = create_engine("sqlite://")
    with QueryRecorder(engine) as recorder, engine.connect() as db:
        shop.ask(db)
    engine.dispose()
    (statement,) = recorder.workload()
    assert list(statement.callers) == [f"{place}:6"]

    async def drive() -> list[str]:
        aengine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path / 'a.db'}")
        try:
            with QueryRecorder(aengine) as seen:
                async with aengine.connect() as db:
                    await shop.aask(db)
            (found,) = seen.workload()
            return list(found.callers)
        finally:
            await aengine.dispose()

    assert asyncio.run(drive()) == [f"{place}:10"]


def test_a_loop_is_counted_within_one_connection_only(engine: Any) -> None:
    with QueryRecorder(engine, threshold=3) as recorder:
        for _ in range(5):
            with engine.connect() as db:
                db.execute(text("SELECT 1"))
                db.execute(text("SELECT 1"))
    assert recorder.n_plus_one() == []
