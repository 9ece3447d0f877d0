"""The event platform of the demo: its tables, with the keys a careful team would have, and its data.

Primary keys, foreign keys with an index each, unique constraints: nothing is left out on purpose, and
nothing is added for the demo's own queries.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from sqlalchemy import (
    Column,
    Engine,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    UniqueConstraint,
    event,
    insert,
)

NOW = 1_790_000_000
"""The demo's present, in seconds since the epoch: data and queries refer to it, so that a seed fixes both."""

DAY = 86_400
CATEGORIES = ("conference", "concert", "workshop", "meetup", "sports", "exhibition")
STATUSES = ("confirmed", "confirmed", "confirmed", "confirmed", "confirmed", "waitlisted", "cancelled")
CITIES = ("Seoul", "Busan", "Incheon", "Daegu", "Daejeon", "Gwangju", "Suwon", "Ulsan")
FAMILY = [
    "Kim",
    "Lee",
    "Park",
    "Choi",
    "Jung",
    "Kang",
    "Cho",
    "Yoon",
    "Jang",
    "Lim",
    "Han",
    "Oh",
    "Seo",
    "Shin",
    "Kwon",
    "Hwang",
    "Ahn",
    "Song",
    "Ryu",
    "Hong",
]
GIVEN = [
    "Minjun",
    "Seojun",
    "Doyun",
    "Yejun",
    "Siwoo",
    "Jiho",
    "Hajun",
    "Seoyeon",
    "Seoyun",
    "Jiwoo",
    "Hayun",
    "Minseo",
    "Jiyu",
    "Sua",
    "Eunwoo",
]

metadata: MetaData = MetaData()
events: Table = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("title", String(120), nullable=False),
    Column("category", String(20), nullable=False),
    Column("city", String(40), nullable=False),
    Column("starts_at", Integer, nullable=False),
    Column("capacity", Integer, nullable=False),
)
participants: Table = Table(
    "participants",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("email", String(80), nullable=False, unique=True),
    Column("family_name", String(40), nullable=False),
    Column("given_name", String(40), nullable=False),
    Column("city", String(40), nullable=False),
)
registrations: Table = Table(
    "registrations",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("event_id", Integer, ForeignKey("events.id"), nullable=False),
    Column("participant_id", Integer, ForeignKey("participants.id"), nullable=False),
    Column("status", String(12), nullable=False),
    Column("registered_at", Integer, nullable=False),
    UniqueConstraint("event_id", "participant_id", name="uq_registrations_event_participant"),
    Index("ix_registrations_participant", "participant_id"),
)
check_ins: Table = Table(
    "check_ins",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("registration_id", Integer, ForeignKey("registrations.id"), nullable=False, unique=True),
    Column("event_id", Integer, ForeignKey("events.id"), nullable=False),
    Column("checked_in_at", Integer, nullable=False),
    Column("gate", Integer, nullable=False),
    Index("ix_check_ins_event", "event_id"),
)


@dataclass(frozen=True, slots=True)
class Size:
    """How much data there is."""

    events: int
    participants: int
    registrations: int
    check_ins: int

    @classmethod
    def at(cls, scale: float) -> Size:
        """Return the size at ``scale``; 1 is 300 events and 300,000 participants."""
        people = max(300, round(300_000 * scale))
        return cls(max(12, round(300 * min(1.0, scale * 4))), people, people * 3 // 2, people // 4)


def tune_sqlite(engine: Engine) -> None:
    """Give SQLite the settings a web application gives it: WAL, a cache, patience with other writers."""

    @event.listens_for(engine, "connect")
    def _connected(connection: Any, _: Any) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "cache_size=-65536", "busy_timeout=10000"):
            connection.execute(f"PRAGMA {pragma}")


def build(engine: Engine, size: Size, seed: int) -> None:
    """Create the tables and fill them; the same seed gives the same rows on every engine."""
    metadata.create_all(engine)
    for table, rows in _rows(size, Random(seed)):
        _load(engine, table, rows)
    with engine.connect() as connection:
        connection.exec_driver_sql(
            "ANALYZE" if engine.dialect.name != "mysql" else f"ANALYZE TABLE {_names()}"
        )
        connection.commit()


def _names() -> str:
    return ", ".join(table.name for table in metadata.sorted_tables)


def _rows(size: Size, random: Random) -> Iterator[tuple[Table, list[tuple[Any, ...]]]]:
    draw, choice = random.random, random.choice
    yield (
        events,
        [
            (
                i,
                f"{choice(CITIES)} {choice(CATEGORIES)} no. {i}",
                choice(CATEGORIES),
                choice(CITIES),
                NOW + int((draw() - 0.4) * 60 * DAY),
                int(200 + 8000 * draw() ** 3),
            )
            for i in range(1, size.events + 1)
        ],
    )
    yield (
        participants,
        [
            (i, f"user{i}@example.com", choice(FAMILY), choice(GIVEN), choice(CITIES))
            for i in range(1, size.participants + 1)
        ],
    )
    # The last tenth of the participants have not registered yet: they do while the load runs.
    old = size.participants * 9 // 10
    seen: set[tuple[int, int]] = set()
    rows: list[tuple[Any, ...]] = []
    while len(rows) < size.registrations:
        pair = (hot(draw(), size.events), 1 + int(draw() * old))
        if pair in seen:
            continue
        seen.add(pair)
        rows.append((len(rows) + 1, *pair, choice(STATUSES), NOW - int(30 * DAY * draw() ** 2)))
    yield registrations, rows
    confirmed = [row for row in rows if row[3] == "confirmed"][: size.check_ins]
    yield (
        check_ins,
        [
            (i, row[0], row[1], NOW - int(6 * 3600 * draw()), 1 + int(draw() * 8))
            for i, row in enumerate(confirmed, 1)
        ],
    )


def hot(u: float, events_: int) -> int:
    """Return an event for a uniform draw: a few events draw most of the crowd."""
    return 1 + int(events_ * u**2)


def _load(engine: Engine, table: Table, rows: Sequence[tuple[Any, ...]]) -> None:
    names = [column.name for column in table.columns]
    with engine.connect() as connection:
        raw = connection.connection.driver_connection
        if engine.dialect.name == "sqlite":
            marks = ", ".join("?" * len(names))
            raw.executemany(f"INSERT INTO {table.name} ({', '.join(names)}) VALUES ({marks})", rows)  # type: ignore[union-attr]
            raw.commit()  # type: ignore[union-attr]
        elif engine.dialect.driver == "psycopg":
            _copy(raw, table.name, names, rows)
        else:
            for i in range(0, len(rows), 5000):
                part = [dict(zip(names, row, strict=True)) for row in rows[i : i + 5000]]
                connection.execute(insert(table), part)
            connection.commit()


def _copy(raw: Any, table: str, names: Sequence[str], rows: Sequence[tuple[Any, ...]]) -> None:
    text = io.StringIO()
    for row in rows:
        text.write("\t".join(map(str, row)) + "\n")
    with raw.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(names)}) FROM STDIN") as copy:
        copy.write(text.getvalue())
    raw.commit()
