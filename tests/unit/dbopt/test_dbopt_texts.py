"""Texts: fingerprints, binding, repair, workload files, the recorder."""

from __future__ import annotations

import datetime as dt
import decimal
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import ForeignKey, create_engine, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship

from eventperf.dbopt import DatabaseOptimizer, QueryRecorder, Workload, fingerprint
from eventperf.dbopt.analysis.names import analyse
from eventperf.dbopt.schema.model import Column, IndexSpec, Key, Schema, Table, index_name
from eventperf.dbopt.statements.fingerprint import parse, statements
from eventperf.dbopt.statements.lex import bind, render, tokens
from eventperf.errors import ConfigurationError


@given(st.text(), st.sampled_from(["sqlite", "postgres", "mysql"]))
def test_the_lexer_keeps_every_character(text: str, dialect: str) -> None:
    assert "".join(t.text for t in tokens(text, dialect)) == text


@pytest.mark.parametrize(
    ("dialect", "text"),
    [
        ("postgres", "SELECT a FROM t WHERE substr(b,$1,$2) IN ($3)"),
        ("postgres", "select $1*($2-a)*($3+b) from t where d < date $4 and e > d + interval $5"),
        ("sqlite", "SELECT a FROM t WHERE b = ?1 AND c = @c AND d = :d"),
        ("mysql", "SELECT count ( * ) FROM EVENTS WHERE ID IN (...) LIMIT ?"),
        ("mysql", "INSERT INTO t VALUES (...) /* , ... */"),
    ],
)
def test_recorded_texts_parse_whole(dialect: str, text: str) -> None:
    parsed = parse(text, dialect)
    assert parsed.tree is not None
    assert not parsed.is_cut


@pytest.mark.parametrize(
    "text",
    [
        "SELECT a FROM t WHERE b = 1 AND c = 'unfinis",
        "SELECT a FROM t JOIN u ON t.id = u.id WHERE x IN (1, 2,",
        "SELECT a FROM t WHERE id IN (SELECT x FROM u WHERE y = 1 AND z.",
    ],
)
def test_cut_texts_lose_their_last_clause_and_say_so(text: str) -> None:
    parsed = parse(text, "mysql")
    assert parsed.tree is not None
    assert parsed.is_cut


@pytest.mark.parametrize(
    "condition",
    [
        "ip <<= inet '10.7.57.0/24'",
        "ip >>= '10.7.57.1' AND name ~>=~ 'x'",
        "v <=> '[1,2]' < 0.5",
        "a*-1 = b AND c <@> d < 3",
        "note = 'a <<= b' AND ip <<= $1",
    ],
)
def test_operators_unknown_to_the_parser_are_not_taken_for_a_cut(condition: str) -> None:
    parsed = parse(f"SELECT id FROM t WHERE {condition} ORDER BY id", "postgres")
    assert parsed.tree is not None
    assert (parsed.is_cut, parsed.unread) == (False, None)
    assert "ORDER BY id" in parsed.sql  # nothing was left out
    assert "'a OPERATOR" not in parsed.sql


def test_what_the_parser_does_not_know_is_named_and_not_taken_for_a_cut() -> None:
    parsed = parse("SELECT a FROM t WHERE b = 1 GROUP BY a %%% 7 ) c HAVING count(*) > 1", "sqlite")
    assert parsed.tree is not None
    assert not parsed.is_cut
    assert parsed.unread


def test_session_settings_in_a_logged_text_are_left_out() -> None:
    assert list(statements("use db; SET timestamp=1; SELECT 1", "mysql")) == ["SELECT 1"]


def test_equal_statements_have_one_fingerprint() -> None:
    one = fingerprint("SELECT * FROM T WHERE a IN (1,2,3) -- hm\n AND b = -5")
    two = fingerprint('select * from t where "a" in (?) and b = :b')
    assert one == two
    assert fingerprint("SELECT 'A'") == fingerprint("SELECT 'b'")
    assert fingerprint("SELECT a FROM t") != fingerprint("SELECT b FROM t")


def test_values_reach_their_parameters_in_every_style() -> None:
    assert bind("a = ? AND b = ?", (1, 2)).values == (1, 2)
    assert bind("a = %s AND b = '%%'", (1,), "mysql").sql == "a = :p1 AND b = '%'"
    assert bind("a = %(x)s OR b = %(x)s", {"x": 7}, "postgres").values == (7, 7)
    assert bind("a = $2 AND b = $1", (1, 2), "postgres").values == (2, 1)
    assert bind("a::text = ':no'", None, "postgres").parameters == 0
    assert render("a = :p2 AND b LIKE '5%' AND c = :p1", (1, 2), "format", "postgres") == (
        "a = %s AND b LIKE '5%%' AND c = %s",
        (2, 1),
    )


def test_a_saved_workload_names_no_data_unless_asked(tmp_path: Path) -> None:
    workload = Workload("postgres")
    values = (dt.datetime(2026, 1, 2), decimal.Decimal("1.5"), uuid.UUID(int=3), b"\x00", None, "secret")
    sql = "SELECT 1 FROM t WHERE a=%s AND b=%s AND c=%s AND d=%s AND e=%s AND f=%s AND g='hidden'"
    workload.add(sql, samples=[values])
    workload.save(tmp_path / "plain.json")
    text = (tmp_path / "plain.json").read_text()
    assert "secret" not in text
    assert "hidden" not in text
    workload.save(tmp_path / "full.json", values=True)
    loaded = Workload.load(tmp_path / "full.json")
    assert [s.samples for s in loaded] == [s.samples for s in workload]
    assert (
        Workload.load(tmp_path / "plain.json").slow_queries()[0].fingerprint
        == next(iter(workload)).fingerprint.id
    )
    with pytest.raises(ConfigurationError):
        Workload.load(__file__)


def test_weights_stand_in_comments(tmp_path: Path) -> None:
    file = tmp_path / "load.sql"
    file.write_text(
        "-- calls: 1_000\nSELECT 1 FROM a WHERE x = ';';\n-- calls: 5\nSELECT 2 FROM b;\nSELECT 3 FROM c"
    )
    assert [s.calls for s in Workload.from_sql_file(file)] == [1000, 5, 1]


def test_snapshots_subtract_and_survive_a_reset() -> None:
    early, late = Workload(), Workload()
    early.add("SELECT a FROM t", calls=10, total_s=1.0)
    early.add("SELECT b FROM t", calls=90, total_s=9.0)
    late.add("SELECT a FROM t", calls=15, total_s=1.5)
    late.add("SELECT b FROM t", calls=4, total_s=0.4)
    got = {s.sql: (s.calls, round(s.total_s or 0, 3)) for s in late.minus(early)}
    assert got == {"SELECT a FROM t": (5, 0.5), "SELECT b FROM t": (4, 0.4)}
    assert sum(s.calls for s in early.merge(late)) == 119


class Base(DeclarativeBase):
    pass


class Event(Base):
    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    seats: Mapped[list[Seat]] = relationship(back_populates="event")


class Seat(Base):
    __tablename__ = "seats"
    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[int] = mapped_column(ForeignKey("events.id"))
    event: Mapped[Event] = relationship(back_populates="seats")


def test_lazy_loads_in_a_loop_are_found_with_their_fix() -> None:
    engine = create_engine("sqlite://")
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Event(id=i, seats=[Seat()]) for i in range(8)])
        session.commit()
    with QueryRecorder(engine) as recorder, Session(engine) as session:
        for event in session.scalars(select(Event)):
            assert len(event.seats) == 1
        (loop,) = recorder.n_plus_one()
        workload = recorder.workload()
    assert (loop.queries, loop.runs, loop.most) == (8, 1, 8)
    assert loop.fix == "options(selectinload(Event.seats))"
    assert loop.caller.startswith(__file__)
    assert sum(s.calls for s in workload) == 9
    engine.dispose()


def test_observe_feeds_statements_of_other_drivers() -> None:
    recorder = QueryRecorder(dialect="postgres")
    for number in range(3):
        recorder.observe("SELECT * FROM t WHERE id = %s", (number,), 0.25, "views.py:7")
    (slow,) = recorder.workload().slow_queries()
    assert (slow.calls, slow.total_s, slow.callers) == (3, 0.75, ("views.py:7",))
    assert [s.values for s in next(iter(recorder.workload())).measurable] == [(0,), (1,), (2,)]


def table(name: str, columns: str) -> Table:
    return Table(
        name=name, columns={c: Column(name=c, type="text") for c in columns.split()}, primary_key=("id",)
    )


SCHEMA = Schema(
    tables={
        t.name: t
        for t in (
            table("events", "id venue_id name status starts_at"),
            table("venues", "id city"),
            table("checkins", "id event_id at"),
        )
    },
    views={"open_events": "CREATE VIEW open_events AS SELECT * FROM events WHERE status = 'open'"},
)


@pytest.mark.parametrize(
    ("sql", "table_name", "column", "kind"),
    [
        ("SELECT 1 FROM events e WHERE e.name = 'x'", "events", "name", "eq"),
        (
            "SELECT 1 FROM events JOIN venues ON venue_id = venues.id WHERE city IN ('a')",
            "venues",
            "city",
            "in",
        ),
        ("WITH w AS (SELECT * FROM venues WHERE city > 'b') SELECT * FROM w", "venues", "city", "range"),
        ("SELECT * FROM (SELECT id, city c FROM venues) d WHERE d.c LIKE 'Se%'", "venues", "city", "prefix"),
        ("SELECT * FROM open_events WHERE starts_at IS NULL", "events", "starts_at", "null"),
        ("SELECT * FROM open_events o", "events", "status", "eq"),
        ("SELECT 1 FROM EVENTS WHERE LOWER(NAME) = 'x'", "events", "name", "function"),
        ("DELETE FROM checkins WHERE at BETWEEN 1 AND 2", "checkins", "at", "range"),
        ("SELECT 1 FROM events WHERE name NOT LIKE 'x%'", "events", "name", "other"),
    ],
)
def test_predicates_belong_to_their_table(sql: str, table_name: str, column: str, kind: str) -> None:
    found = analyse(sql, SCHEMA)
    assert found.error is None
    (use,) = [u for u in found.uses if u.table == table_name]
    assert (column, kind) in [(p.column, p.kind) for p in use.predicates]


def test_joins_are_seen_through_using_natural_and_correlation() -> None:
    for sql in (
        "SELECT 1 FROM checkins c JOIN (SELECT id event_id FROM events) e USING (event_id)",
        "SELECT 1 FROM events e WHERE EXISTS (SELECT 1 FROM checkins c WHERE c.event_id = e.id)",
        "SELECT 1 FROM checkins a NATURAL JOIN checkins b",
    ):
        uses = [u for u in analyse(sql, SCHEMA).uses if u.table == "checkins"]
        assert any(j[0] == "event_id" for u in uses for j in u.joins), sql


def test_long_names_stay_apart_within_the_limit() -> None:
    long = "x" * 80
    names = {index_name(IndexSpec(long, (Key(long), Key(f"c{n}"))), limit=63) for n in range(50)}
    assert len(names) == 50
    assert max(map(len, names)) <= 63


def test_texts_read_for_another_engine_are_refused_with_the_word_that_helps(tmp_path: Path) -> None:
    """``from_sql`` reads SQLite's unless told, and most databases are not."""
    engine = create_engine(f"sqlite:///{tmp_path / 'a.db'}")
    given = Workload.from_sql("SELECT 1", dialect="postgres")
    with DatabaseOptimizer(engine) as optimizer, pytest.raises(ConfigurationError, match='dialect="sqlite"'):
        optimizer.advise(given)
    engine.dispose()
