"""What a calendar says: outright, by cron, in files; and that many entries stay a small record."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from eventperf._core.errors import ConfigurationError
from eventperf.scaling import (
    AutoScaler,
    Behavior,
    Calendar,
    CalendarEvent,
    CalendarPolicy,
    CallableMetrics,
    Observation,
    Sample,
    ScalingDecision,
    SimulatedTarget,
    TargetState,
    TargetTracking,
    decide,
)
from eventperf.scaling.calendar import MOST_ENTRIES
from eventperf.testing import FakeClock

NINE = datetime(2026, 11, 30, 9, tzinfo=ZoneInfo("Asia/Seoul")).timestamp()  # a Monday


def after(policy: Any, calendar: Calendar, time_s: float, *, replicas: int = 4, most: int = 100) -> int:
    seen = Observation(
        at_s=time_s, state=TargetState(replicas=replicas, ready=replicas), min_replicas=2, max_replicas=most,
        samples={"rps": Sample(value=100.0)}, calendar=calendar.around(time_s),
    )  # fmt: skip
    decision = decide(seen, policy, Behavior(), at=time_s, target="t")
    record = ScalingDecision.from_json(decision.to_json())
    assert record.observation is not None
    assert decide(record.observation, policy, Behavior(), at=time_s, target="t") == decision
    return decision.after


@pytest.mark.parametrize("policy", [TargetTracking(rps=28), CalendarPolicy(capacity_rps=40)])
@pytest.mark.parametrize("field", ["replicas", "min_replicas"])
def test_what_is_said_outright_is_ready_in_time_under_any_policy(policy: Any, field: str) -> None:
    event = CalendarEvent(at=50_000.0, kind="opening", until=54_000.0, **{field: 40})  # type: ignore[arg-type]
    calendar = Calendar([event])
    assert after(policy, calendar, 49_000.0) < 10
    assert after(policy, calendar, 49_850.0) == 40
    assert after(policy, calendar, 53_990.0, replicas=40) == 40
    assert after(policy, calendar, 49_850.0, most=30) == 30


def test_requests_said_outright_are_ready_without_anything_learned() -> None:
    calendar = Calendar([CalendarEvent(at=50_100.0, kind="opening", rps=1500.0)])
    assert after(CalendarPolicy(capacity_rps=40), calendar, 49_500.0) < 10
    assert after(CalendarPolicy(capacity_rps=40), calendar, 50_000.0) >= 1600 / 40


def test_the_reason_names_the_event() -> None:
    clock = FakeClock()
    event = CalendarEvent(at=clock.time() + 60, kind="opening", min_replicas=7, id="e9")
    scaler = AutoScaler(
        SimulatedTarget(2), CallableMetrics(rps=lambda: 10.0), TargetTracking(rps=50), max_replicas=9,
        calendar=[event], clock=clock,
    )  # fmt: skip
    decision = scaler.tick()
    assert decision.after == 7
    assert "the calendar asks for 7 for e9" in decision.reason


def test_an_event_that_lasts_all_day_is_not_forgotten() -> None:
    long = CalendarEvent(at=0.0, kind="fair", min_replicas=9, until=80_000.0)
    assert after(TargetTracking(rps=50), Calendar([long]), 79_000.0) == 9


def test_cron_follows_its_time_zone_and_lasts_as_long_as_it_says() -> None:
    calendar = Calendar.cron("0 9 * * mon-fri", min_replicas=40, duration="2h", timezone="Asia/Seoul")
    policy = TargetTracking(rps=50)
    assert after(policy, calendar, NINE - 60) == 40
    assert after(policy, calendar, NINE + 7190, replicas=40) == 40
    saturday = NINE + 5 * 86_400
    assert after(policy, calendar, saturday) < 10
    both = calendar + Calendar([CalendarEvent(at=saturday, kind="fair", min_replicas=12)])
    assert [after(policy, both, t) for t in (NINE, saturday)] == [40, 12]


def test_cron_keeps_to_the_hour_when_clocks_change() -> None:
    calendar = Calendar.cron("0 9 * * *", min_replicas=5, timezone="Europe/Paris")
    paris = ZoneInfo("Europe/Paris")
    for day in (datetime(2026, 3, 28, 9, tzinfo=paris), datetime(2026, 3, 29, 9, tzinfo=paris)):
        assert day.timestamp() in [e.at for e in calendar.around(day.timestamp())]


TOML = """
[[events]]
at = 2026-11-30T09:00:00+09:00
until = 2026-11-30T10:00:00+09:00
kind = "opening"
expected = 800
replicas = 30

[[cron]]
cron = "0 12 * * *"
min_replicas = 6
timezone = "Asia/Seoul"
"""

ICS = "\r\n".join(
    """BEGIN:VCALENDAR
BEGIN:VEVENT
UID:a
SUMMARY:Opening\\, a
  big one
DTSTART;TZID="Asia/Seoul":20261130T090000
DURATION:PT1H
RRULE:FREQ=WEEKLY;BYDAY=MO,WE;COUNT=4
EXDATE;TZID=Asia/Seoul:20261202T090000
X-EVENTPERF-REPLICAS:30
X-EVENTPERF-EXPECTED:800
BEGIN:VALARM
DTSTART:20000101T000000Z
END:VALARM
END:VEVENT
BEGIN:VEVENT
UID:a
RECURRENCE-ID:20261207T000000Z
SUMMARY:Opening\\, a big one
DTSTART:20261207T030000Z
END:VEVENT
BEGIN:VEVENT
STATUS:CANCELLED
DTSTART:20261130T000000Z
END:VEVENT
END:VCALENDAR""".splitlines()
)


def test_a_toml_file_is_read_and_read_again_when_it_changes(tmp_path: Path) -> None:
    file = tmp_path / "events.toml"
    file.write_text(TOML)
    calendar = Calendar.from_file(file, refresh_s=60)
    found = {e.kind: e for e in calendar.around(NINE)}
    assert (found["opening"].at, found["opening"].until) == (NINE, NINE + 3600)
    assert (found["opening"].expected, found["opening"].replicas) == (800, 30)
    assert 3 * 3600 + NINE in [e.at for e in calendar.around(NINE + 3 * 3600)]
    file.write_text(TOML.replace("replicas = 30", "replicas = 31 # more"))
    assert max(e.replicas or 0 for e in calendar.around(NINE + 61)) == 31
    file.write_text("[[events")
    assert max(e.replicas or 0 for e in calendar.around(NINE + 122)) == 31
    assert calendar.error is not None


def test_an_icalendar_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "events.ics"
    file.write_text(ICS, newline="")
    calendar = Calendar.from_file(file)
    day = 86_400.0
    (first,) = calendar.around(NINE)
    assert (first.at, first.kind, first.until) == (NINE, "Opening, a big one", NINE + 3600)
    assert (first.replicas, first.expected) == (30, 800)
    assert calendar.around(NINE + 2 * day) == (), "excepted"
    assert [e.at for e in calendar.around(NINE + 7 * day)] == []
    moved = datetime(2026, 12, 7, 3, tzinfo=timezone.utc).timestamp()
    assert [e.at for e in calendar.around(moved)] == [moved], "moved"
    assert [e.at for e in calendar.around(NINE + 9 * day)] == [NINE + 9 * day]


@pytest.mark.parametrize(
    ("name", "text", "named"),
    [
        ("a.toml", "[[events]]\nkind = 'x'", "at"),
        ("a.toml", "[[events]]\nat = 1\nkind = 'x'\nreplica = 3", "replica"),
        ("a.toml", "[[events]]\nat = 2026-11-30T09:00:00\nkind = 'x'", "time zone"),
        ("a.toml", "[[cron]]\ncron = '0 9 * *'", "cron"),
        ("a.toml", "[[cron]]\ncron = '0 9 * * *'\nrelpicas = 3", "relpicas"),
        ("a.toml", "events = 5", "events: got 5"),
        ("a.toml", "cron = ['0 9 * * *']", r"cron\[0\]"),
        ("a.toml", "[cron]\ncron = '0 9 * * *'", r"\[\[cron\]\]"),
        ("a.json", '{"event": []}', "events"),
        ("a.json", '[{"at": 5, "kind": "x", "until": 4}]', "until"),
        ("a.ics", "hello", "VCALENDAR"),
        ("a.ics", ICS.replace("BYDAY=MO,WE", "BYSETPOS=1"), "RRULE"),
        ("a.ics", ICS.replace("BYDAY=MO,WE", "INTERVAL=0"), "INTERVAL as a whole number"),
        ("a.ics", ICS.replace("DTSTART", "X-DTSTART"), "DTSTART"),
        ("a.ics", ICS.replace("20261130T090000", "tomorrow"), "tomorrow"),
        ("a.ics", ICS.replace("Asia/Seoul", "Asia/Soul"), "Asia/Soul"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(tmp_path: Path, name: str, text: str, named: str) -> None:
    file = tmp_path / name
    file.write_text(text)
    with pytest.raises(ConfigurationError, match=named):
        Calendar.from_file(file)


@pytest.mark.parametrize("field", ["replicas", "min_replicas", "rps", "until"])
@pytest.mark.parametrize("value", [-1, True, "3", float("nan")])
def test_numbers_that_are_none_are_refused(field: str, value: Any) -> None:
    with pytest.raises(ConfigurationError):
        CalendarEvent(at=0.0, kind="x", **{field: value})


@pytest.mark.parametrize("number", [Decimal("800"), Fraction(1600, 2), 800])
def test_any_number_of_python_is_a_count_or_a_time(number: Any) -> None:
    event = CalendarEvent(at=number, kind="opening", expected=number, rps=number, until=number + 60)
    assert (event.at, event.expected, event.rps, event.until) == (800.0, 800.0, 800.0, 860.0)
    json.dumps([event.at, event.expected, event.rps, event.until])


def test_plain_data_may_hold_dates() -> None:
    nine = datetime.fromtimestamp(NINE, timezone.utc)
    for at in (NINE, nine, nine.isoformat()):
        (event,) = Calendar.from_dicts([{"at": at, "kind": "opening"}]).around(NINE)
        assert event.at == NINE
    for entry, said in (
        ({"at": "2026-11-30T09:00:00", "kind": "opening"}, "no time zone"),
        ({"at": None, "kind": "opening"}, r"events\[0\]\.at"),
        ("opening", r"events\[0\]"),
    ):
        with pytest.raises(ConfigurationError, match=said):
            Calendar.from_dicts([entry])  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("make", "argument"),
    [
        (lambda: Calendar(None), "events"),  # type: ignore[arg-type]
        (lambda: Calendar([], refresh_s=float("nan")), "refresh_s"),
        (lambda: Calendar([], refresh_s="soon"), "refresh_s"),
        (lambda: Calendar.cron("", min_replicas=1), "cron"),
    ],
)
def test_what_makes_no_calendar_is_refused_at_once(make: Any, argument: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.argument == argument


def ics(*lines: str) -> str:
    return "\n".join(["BEGIN:VCALENDAR", "BEGIN:VEVENT", "SUMMARY:x", *lines, "END:VEVENT", "END:VCALENDAR"])


def test_dates_beside_a_rule_are_read(tmp_path: Path) -> None:
    file = tmp_path / "x.ics"
    file.write_text(ics("UID:1", "DTSTART:20261129T000000Z", "RDATE:20261130T000000Z,20261130T010000Z"))
    assert [event.at - NINE for event in Calendar.from_file(file).around(NINE)] == [0.0, 3600.0]


def test_an_answer_that_is_no_list_of_events_is_told() -> None:
    calendar = Calendar(lambda: [{"at": 5}])  # type: ignore[arg-type, list-item, return-value]
    assert calendar.around(0.0) == ()
    assert "CalendarEvent" in (calendar.error or "")


def test_five_thousand_entries_are_a_small_record_that_says_the_same() -> None:
    events = [
        CalendarEvent(
            at=i * 3.6, kind=("opening", "start")[i % 2], expected=2.0, id=str(i),
            min_replicas=i // 100 if i % 10 == 0 else None,
        )
        for i in range(5000)
    ]  # fmt: skip
    found = Calendar(events).around(9000.0)
    assert len(found) <= MOST_ENTRIES
    assert len(json.dumps([(e.at, e.kind, e.expected) for e in found])) < 20_000
    near = [e for e in events if 9000 <= e.at < 9000 + 3600]
    said = [e for e in found if 9000 <= e.at < 9000 + 3600]
    assert sum(e.expected or 0 for e in said) == sum(e.expected or 0 for e in near)
    for t in (9000.0, 9400.0):
        assert max(e.floor(t) for e in found) == max(e.floor(t) for e in events)


@pytest.mark.parametrize(
    "kind",
    [lambda i: "a", lambda i: f"kind-{i}", lambda i: f"{i}".rjust(100, "x")],
    ids=["one", "each", "long"],
)
def test_a_record_stays_small_whatever_the_calendar_holds(kind: Any) -> None:
    clock = FakeClock()
    events = [
        CalendarEvent(at=clock.time() + 7.0 * i, kind=kind(i), expected=100, id=f"event-{i}".rjust(100, "y"))
        for i in range(5000)
    ]
    scaler = AutoScaler(
        SimulatedTarget(2), CallableMetrics(rps=lambda: 300.0, cpu=lambda: 0.5), CalendarPolicy(),
        max_replicas=100, calendar=events, clock=clock,
    )  # fmt: skip
    largest = 0
    for _ in range(48):  # four hours, a look in each slot
        clock.advance(300.0)
        largest = max(largest, len(scaler.tick().to_json()))
    assert largest < 500_000


def test_texts_of_any_length_are_refused_or_cut() -> None:
    with pytest.raises(ConfigurationError, match="kind"):
        CalendarEvent(at=0.0, kind="x" * 101)
    with pytest.raises(ConfigurationError, match="id"):
        CalendarEvent(at=0.0, kind="x", id="y" * 101)
