"""The event platform of the database benchmarks: 4.5 million rows at scale 1, and 40 statements with calls.

Primary keys only. Statements carry parameters (``:name``) drawn anew for recording and for scoring, and
write their calls per hour. Text for SQLite, PostgreSQL and MariaDB alike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, NamedTuple

EVENTS = 300
NOW = 1_790_000_000
DAY = 86_400
COUNTRIES = ["KR"] * 10 + ["JP", "JP", "US", "US", "DE", "FR", "VN", "TH", "IS"]
CATEGORIES = ("conference", "concert", "workshop", "meetup", "sports", "exhibition")

TABLES: dict[str, str] = {
    "organizers": "id INT PRIMARY KEY, name VARCHAR(40) NOT NULL, country VARCHAR(2) NOT NULL, "
    "verified INT NOT NULL",
    "events": "id INT PRIMARY KEY, organizer_id INT NOT NULL, title VARCHAR(60) NOT NULL, "
    "category VARCHAR(16) NOT NULL, city VARCHAR(20) NOT NULL, status VARCHAR(10) NOT NULL, "
    "starts_at INT NOT NULL, capacity INT NOT NULL",
    "participants": "id INT PRIMARY KEY, email VARCHAR(60) NOT NULL, family_name VARCHAR(20) NOT NULL, "
    "given_name VARCHAR(20) NOT NULL, country VARCHAR(2) NOT NULL, phone VARCHAR(20), "
    "created_at INT NOT NULL",
    "registrations": "id INT PRIMARY KEY, event_id INT NOT NULL, participant_id INT NOT NULL, "
    "status VARCHAR(12) NOT NULL, ticket VARCHAR(10) NOT NULL, price INT NOT NULL, "
    "registered_at INT NOT NULL, cancelled_at INT, code VARCHAR(12) NOT NULL",
    "payments": "id INT PRIMARY KEY, registration_id INT NOT NULL, provider VARCHAR(10) NOT NULL, "
    "state VARCHAR(10) NOT NULL, amount INT NOT NULL, paid_at INT, reference VARCHAR(16) NOT NULL",
    "check_ins": "id INT PRIMARY KEY, registration_id INT NOT NULL, event_id INT NOT NULL, "
    "gate INT NOT NULL, checked_in_at INT NOT NULL, staff_id INT",
    "page_views": "id INT PRIMARY KEY, event_id INT NOT NULL, participant_id INT, "
    "path VARCHAR(40) NOT NULL, viewed_at INT NOT NULL, duration_ms INT NOT NULL",
    "notifications": "id INT PRIMARY KEY, participant_id INT NOT NULL, event_id INT, "
    "kind VARCHAR(12) NOT NULL, state VARCHAR(8) NOT NULL, created_at INT NOT NULL, sent_at INT",
}
SIZES = {
    "participants": 300_000,
    "registrations": 1_200_000,
    "payments": 900_000,
    "check_ins": 700_000,
    "page_views": 1_000_000,
    "notifications": 400_000,
}
FAMILIES = ("Kim", "Lee", "Park", "Choi", "Jung", "Kang", "Cho", "Yoon", "Jang", "Lim", "Tanaka", "Smith")
GIVENS = ("Minjun", "Seoyeon", "Jiho", "Haeun", "Doyun", "Yuna", "Taro", "Anna", "Max", "Linh")


def event_of(draw: Random) -> int:
    """A few events are much larger than the rest."""
    return min(EVENTS, int(draw.paretovariate(0.6) * 1.5))


def rows(table: str, scale: float) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of one table; the same ones on every machine."""
    draw = Random(f"{table} 7")
    people = int(SIZES["participants"] * scale)
    sold = int(SIZES["registrations"] * scale)
    if table == "organizers":
        for n in range(1, 101):
            yield n, f"Organizer {n}", draw.choice(COUNTRIES), int(draw.random() < 0.9)
    elif table == "events":
        for n in range(1, EVENTS + 1):
            status = draw.choices(("open", "closed", "draft", "cancelled"), (30, 55, 10, 5))[0]
            starts = NOW + draw.randint(-300, 60) * DAY
            yield (
                n,
                draw.randint(1, 100),
                f"Event {n}",
                draw.choice(CATEGORIES),
                draw.choice(("Seoul", "Busan", "Jeju", "Tokyo")),
                status,
                starts,
                draw.choice((100, 1000, 5000)),
            )
    for n in range(1, int(SIZES.get(table, 0) * scale) + 1):
        at = NOW - draw.randint(0, 400 * DAY)
        if table == "participants":
            phone = f"010-{draw.randint(0, 10**8):08d}" if draw.random() < 0.8 else None
            yield (
                n,
                f"User{n}.{draw.randint(0, 99)}@mail.example",
                draw.choice(FAMILIES),
                draw.choice(GIVENS),
                draw.choice(COUNTRIES),
                phone,
                at,
            )
        elif table == "registrations":
            status = draw.choices(("confirmed", "cancelled", "waitlisted", "pending"), (84, 10, 4, 2))[0]
            yield (
                n,
                event_of(draw),
                draw.randint(1, people),
                status,
                draw.choice(("day", "day", "full", "vip")),
                draw.choice((0, 30, 90, 250)),
                at,
                at + DAY if status == "cancelled" else None,
                f"R{n * 7919 % 10**9:09d}",
            )
        elif table == "payments":
            state = draw.choices(("paid", "refunded", "failed", "open"), (93, 4, 2, 1))[0]
            yield (
                n,
                draw.randint(1, sold),
                draw.choice(("card", "card", "bank", "wallet")),
                state,
                draw.choice((30, 90, 250)),
                None if state == "open" else at,
                f"P{n * 104729 % 10**9:09d}",
            )
        elif table == "check_ins":
            staff = draw.randint(1, 200) if draw.random() < 0.3 else None
            yield n, draw.randint(1, sold), event_of(draw), draw.randint(1, 12), at, staff
        elif table == "page_views":
            who = draw.randint(1, people) if draw.random() < 0.4 else None
            path = draw.choice(("/", "/program", "/venue", "/register", "/faq"))
            yield n, event_of(draw), who, path, at, int(draw.expovariate(1 / 3000))
        elif table == "notifications":
            state = draw.choices(("sent", "queued", "failed"), (97, 2, 1))[0]
            yield (
                n,
                draw.randint(1, people),
                event_of(draw) if draw.random() < 0.8 else None,
                draw.choice(("mail", "mail", "push", "sms")),
                state,
                at,
                at + 60 if state == "sent" else None,
            )


class Ask(NamedTuple):
    """One statement of the application."""

    calls: int
    sql: str
    make: Callable[[Random, float], dict[str, Any]]


def _event(draw: Random, scale: float) -> dict[str, Any]:
    return {"e": draw.randint(1, EVENTS)}


def _person(draw: Random, scale: float) -> dict[str, Any]:
    return {"p": draw.randint(1, int(SIZES["participants"] * scale))}


def _registration(draw: Random, scale: float) -> dict[str, Any]:
    return {"r": draw.randint(1, int(SIZES["registrations"] * scale))}


def _since(draw: Random, scale: float) -> dict[str, Any]:
    return {"t": NOW - draw.randint(1, 30) * DAY}


def _event_since(draw: Random, scale: float) -> dict[str, Any]:
    return {**_event(draw, scale), **_since(draw, scale)}


def _nothing(draw: Random, scale: float) -> dict[str, Any]:
    return {}


def _family(draw: Random, scale: float) -> dict[str, Any]:
    return {"f": draw.choice(FAMILIES), "g": draw.choice(GIVENS)}


def _country(draw: Random, scale: float) -> dict[str, Any]:
    return {"c": draw.choice(COUNTRIES)}


def _code(draw: Random, scale: float) -> dict[str, Any]:
    return {"code": f"R{draw.randint(1, int(SIZES['registrations'] * scale)) * 7919 % 10**9:09d}"}


def _reference(draw: Random, scale: float) -> dict[str, Any]:
    return {"ref": f"P{draw.randint(1, int(SIZES['payments'] * scale)) * 104729 % 10**9:09d}"}


def _mail(draw: Random, scale: float) -> dict[str, Any]:
    return {
        "m": f"user{draw.randint(1, int(SIZES['participants'] * scale))}.{draw.randint(0, 99)}@mail.example"
    }


def _mail_head(draw: Random, scale: float) -> dict[str, Any]:
    return {"m": f"User{draw.randint(1000, int(SIZES['participants'] * scale))}%"}


def _status(draw: Random, scale: float) -> dict[str, Any]:
    return {**_event(draw, scale), "s": draw.choice(("confirmed", "cancelled", "waitlisted", "pending"))}


def _day(draw: Random, scale: float) -> dict[str, Any]:
    start = NOW - draw.randint(1, 300) * DAY
    return {"a": start, "b": start + DAY}


def _phone(draw: Random, scale: float) -> dict[str, Any]:
    return {"n": f"010-{draw.randint(0, 10**8):08d}"}


ASKS: list[Ask] = [
    Ask(900, "SELECT * FROM events WHERE id = :e", _event),
    Ask(
        400,
        "SELECT id, title, starts_at FROM events WHERE status = 'open' AND starts_at >= :t "
        "ORDER BY starts_at LIMIT 20",
        _since,
    ),
    Ask(
        60,
        "SELECT id, title FROM events WHERE organizer_id = :o ORDER BY starts_at DESC",
        lambda r, s: {"o": r.randint(1, 100)},
    ),
    Ask(300, "SELECT count(*) FROM registrations WHERE event_id = :e AND status = 'confirmed'", _event),
    Ask(80, "SELECT count(*) FROM registrations WHERE event_id = :e AND status = :s", _status),
    Ask(
        120,
        "SELECT r.id, p.family_name, p.given_name, r.registered_at FROM registrations r "
        "JOIN participants p ON p.id = r.participant_id WHERE r.event_id = :e "
        "ORDER BY r.registered_at DESC LIMIT 50",
        _event,
    ),
    Ask(
        500,
        "SELECT r.id, r.status, e.title, e.starts_at FROM registrations r JOIN events e ON e.id = r.event_id "
        "WHERE r.participant_id = :p ORDER BY r.registered_at DESC",
        _person,
    ),
    Ask(200, "SELECT id, event_id, participant_id, status FROM registrations WHERE code = :code", _code),
    Ask(250, "SELECT id FROM participants WHERE lower(email) = :m", _mail),
    Ask(20, "SELECT id, email FROM participants WHERE email LIKE :m LIMIT 20", _mail_head),
    Ask(
        30,
        "SELECT id, email FROM participants WHERE family_name = :f AND given_name = :g ORDER BY id LIMIT 30",
        _family,
    ),
    Ask(15, "SELECT id, email FROM participants WHERE phone = :n", _phone),
    Ask(3, "SELECT country, count(*) FROM participants GROUP BY country ORDER BY 2 DESC", _nothing),
    Ask(
        4,
        "SELECT count(*) FROM participants WHERE country = :c AND created_at >= :t",
        lambda r, s: {**_country(r, s), **_since(r, s)},
    ),
    Ask(
        40,
        "SELECT id, participant_id FROM registrations WHERE status = 'pending' AND registered_at < :t "
        "ORDER BY registered_at LIMIT 100",
        _since,
    ),
    Ask(10, "SELECT count(*) FROM registrations WHERE registered_at >= :a AND registered_at < :b", _day),
    Ask(
        12,
        "SELECT event_id, count(*) FROM registrations WHERE registered_at >= :t GROUP BY event_id "
        "ORDER BY 2 DESC LIMIT 10",
        _since,
    ),
    Ask(
        25,
        "SELECT ticket, count(*), sum(price) FROM registrations WHERE event_id = :e AND status = 'confirmed' "
        "GROUP BY ticket",
        _event,
    ),
    Ask(
        18,
        "SELECT id, participant_id, cancelled_at FROM registrations WHERE event_id = :e "
        "AND cancelled_at IS NOT NULL ORDER BY cancelled_at DESC LIMIT 20",
        _event,
    ),
    Ask(
        150,
        "SELECT 1 FROM registrations WHERE event_id = :e AND participant_id = :p AND status <> 'cancelled'",
        lambda r, s: {**_event(r, s), **_person(r, s)},
    ),
    Ask(220, "SELECT id, state, amount FROM payments WHERE registration_id = :r", _registration),
    Ask(90, "SELECT id, registration_id FROM payments WHERE reference = :ref", _reference),
    Ask(
        30,
        "SELECT id, registration_id, amount FROM payments WHERE state = 'open' ORDER BY id LIMIT 100",
        _nothing,
    ),
    Ask(
        6,
        "SELECT provider, count(*), sum(amount) FROM payments WHERE paid_at >= :a AND paid_at < :b "
        "GROUP BY provider",
        _day,
    ),
    Ask(
        8,
        "SELECT sum(p.amount) FROM payments p JOIN registrations r ON r.id = p.registration_id "
        "WHERE r.event_id = :e AND p.state = 'paid'",
        _event,
    ),
    Ask(
        5,
        "SELECT id FROM payments WHERE state IN ('failed', 'refunded') AND paid_at >= :t ORDER BY paid_at",
        _since,
    ),
    Ask(300, "SELECT id FROM check_ins WHERE registration_id = :r", _registration),
    Ask(
        100,
        "SELECT gate, count(*) FROM check_ins WHERE event_id = :e AND checked_in_at >= :t GROUP BY gate",
        _event_since,
    ),
    Ask(45, "SELECT max(checked_in_at) FROM check_ins WHERE event_id = :e", _event),
    Ask(
        9,
        "SELECT count(*) FROM check_ins WHERE staff_id = :n AND checked_in_at >= :t",
        lambda r, s: {"n": r.randint(1, 200), **_since(r, s)},
    ),
    Ask(
        20,
        "SELECT r.id FROM registrations r WHERE r.event_id = :e AND r.status = 'confirmed' AND NOT EXISTS "
        "(SELECT 1 FROM check_ins c WHERE c.registration_id = r.id) ORDER BY r.id LIMIT 50",
        _event,
    ),
    Ask(60, "SELECT count(*) FROM page_views WHERE event_id = :e AND viewed_at >= :t", _event_since),
    Ask(
        10,
        "SELECT path, avg(duration_ms) FROM page_views WHERE event_id = :e AND viewed_at >= :t GROUP BY path",
        _event_since,
    ),
    Ask(
        70,
        "SELECT event_id, viewed_at FROM page_views WHERE participant_id = :p "
        "ORDER BY viewed_at DESC LIMIT 10",
        _person,
    ),
    Ask(
        4,
        "SELECT id, path, duration_ms FROM page_views WHERE viewed_at >= :t AND duration_ms > 25000",
        _since,
    ),
    Ask(
        180,
        "SELECT id, kind FROM notifications WHERE participant_id = :p AND state = 'sent' "
        "ORDER BY created_at DESC LIMIT 20",
        _person,
    ),
    Ask(
        240,
        "SELECT id, participant_id, kind FROM notifications WHERE state = 'queued' "
        "ORDER BY created_at LIMIT 50",
        _nothing,
    ),
    Ask(
        5,
        "SELECT kind, state, count(*) FROM notifications WHERE created_at >= :a AND created_at < :b "
        "GROUP BY kind, state",
        _day,
    ),
    Ask(
        7,
        "SELECT o.name, count(*) FROM organizers o JOIN events e ON e.organizer_id = o.id "
        "JOIN registrations r ON r.event_id = e.id WHERE o.id = :o AND r.registered_at >= :t GROUP BY o.name",
        lambda r, s: {"o": r.randint(1, 100), **_since(r, s)},
    ),
    Ask(
        6,
        "SELECT p.id, count(*) FROM participants p JOIN registrations r ON r.participant_id = p.id "
        "WHERE p.country = 'IS' AND r.registered_at >= :t GROUP BY p.id ORDER BY 2 DESC LIMIT 20",
        _since,
    ),
]
"""What the application sends in an hour; writers come on top."""

WRITES: list[Ask] = [
    Ask(
        80,
        "INSERT INTO registrations VALUES (:id, :e, :p, 'confirmed', 'day', 30, :t, NULL, :code)",
        _nothing,
    ),
    Ask(60, "UPDATE registrations SET status = 'cancelled', cancelled_at = :t WHERE id = :r", _nothing),
    Ask(200, "INSERT INTO page_views VALUES (:id, :e, :p, '/', :t, 1200)", _nothing),
    Ask(90, "INSERT INTO check_ins VALUES (:id, :r, :e, 3, :t, NULL)", _nothing),
]


def write_values(number: int, draw: Random, scale: float) -> dict[str, Any]:
    """Return values for all of WRITES; ids are new ones."""
    return {
        "id": 50_000_000 + number,
        "t": NOW + number,
        "code": f"N{number}",
        **_event(draw, scale),
        **_person(draw, scale),
        **_registration(draw, scale),
    }


HAND_MADE = [
    "registrations (event_id, status, registered_at)",
    "registrations (participant_id, registered_at)",
    "registrations (code)",
    "registrations (status, registered_at)",
    "registrations (registered_at, event_id)",
    "registrations (event_id, registered_at)",
    "participants (family_name, given_name)",
    "participants (phone)",
    "participants (email)",
    "participants (country, created_at)",
    "payments (registration_id)",
    "payments (reference)",
    "payments (state, paid_at)",
    "payments (paid_at)",
    "check_ins (registration_id)",
    "check_ins (event_id, checked_in_at, gate)",
    "check_ins (staff_id, checked_in_at)",
    "page_views (event_id, viewed_at)",
    "page_views (participant_id, viewed_at)",
    "page_views (viewed_at)",
    "notifications (participant_id, state, created_at)",
    "notifications (state, created_at)",
    "notifications (created_at)",
    "events (organizer_id)",
]
"""What somebody who knows the statements and reads plans would create."""
