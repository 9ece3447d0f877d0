"""The host application of the demo: what an event platform's pages and buttons do.

:class:`Site` is written as most teams write it. Its ``cache`` and ``queues`` are what the demo switches
on: the pages, the SQL and the side work are the same in every stage.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import IntegrityError

from eventperf.cache import CacheManager
from eventperf.queues import QueueManager

from .check import Ledger
from .dataset import DAY, NOW

PROVIDER_S = 0.015
"""Time the mail provider takes to accept one message. Simulated: the demo sends no mail."""

BOUNDED_S = 2.0
"""Two pages count over all events; the site accepts that these figures are up to this old."""

EVENT = "SELECT id, title, category, city, starts_at, capacity FROM events WHERE id = :event"
SEATS = "SELECT status, COUNT(*) AS n FROM registrations WHERE event_id = :event GROUP BY status"
LISTING = """SELECT e.id, e.title, e.starts_at,
(SELECT COUNT(*) FROM registrations r WHERE r.event_id = e.id AND r.status = 'confirmed') AS registered
FROM events e WHERE e.category = :category AND e.starts_at > :now ORDER BY e.starts_at LIMIT 10"""
MINE = """SELECT r.id, r.status, r.registered_at, e.title, e.starts_at FROM registrations r
JOIN events e ON e.id = r.event_id WHERE r.participant_id = :person ORDER BY e.starts_at"""
SEARCH = """SELECT id, family_name, given_name, email FROM participants
WHERE family_name = :family AND given_name = :given AND city = :city ORDER BY id LIMIT 20"""
LATEST = """SELECT r.id, r.registered_at, r.status, p.family_name, p.given_name FROM registrations r
JOIN participants p ON p.id = r.participant_id
WHERE r.event_id = :event AND r.status = 'confirmed' ORDER BY r.registered_at DESC LIMIT 20"""
GATES = """SELECT gate, COUNT(*) AS n FROM check_ins
WHERE event_id = :event AND checked_in_at > :since GROUP BY gate ORDER BY gate"""
BUSIEST = """SELECT event_id, COUNT(*) AS n FROM check_ins
WHERE checked_in_at > :since GROUP BY event_id ORDER BY n DESC LIMIT 10"""
CITIES_OF = """SELECT p.city, COUNT(*) AS n FROM registrations r
JOIN participants p ON p.id = r.participant_id
WHERE r.event_id = :event AND r.registered_at > :since GROUP BY p.city"""
ATTENDEES = """SELECT p.family_name, p.given_name, p.email, r.status FROM registrations r
JOIN participants p ON p.id = r.participant_id WHERE r.event_id = :event ORDER BY r.registered_at LIMIT 500"""
REGISTER = """INSERT INTO registrations (id, event_id, participant_id, status, registered_at)
VALUES (:id, :event, :person, 'confirmed', :now)"""
CHECK_IN = """INSERT INTO check_ins (id, registration_id, event_id, checked_in_at, gate)
VALUES (:id, :registration, :event, :now, 1)"""
FIND_PASS = "SELECT id FROM registrations WHERE event_id = :event AND participant_id = :person"

READS = ("event_page", "event_list", "my_registrations", "find_participant", "dashboard", "busiest_events")
QUEUE_OF = {"notification_sending": "high", "analytics_processing": "normal", "data_export": "low"}
"""Side work, and the queue it goes to."""

Row = dict[str, Any]
Work = list[tuple[str, Row]]


class Database:
    """One statement at a time, counted."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.statements: int = 0
        self._mu = threading.Lock()

    def rows(self, connection: Connection, sql: str, **values: Any) -> list[Row]:
        with self._mu:
            self.statements += 1
        return [dict(row) for row in connection.execute(text(sql), values).mappings()]

    def read(self, sql: str, **values: Any) -> list[Row]:
        with self.engine.connect() as connection:
            return self.rows(connection, sql, **values)

    @contextmanager
    def write(self, sql: str, **values: Any) -> Iterator[Connection]:
        """Execute, let the caller add to the transaction, commit."""
        with self._mu:
            self.statements += 1
        with self.engine.begin() as connection:
            connection.execute(text(sql), values)
            yield connection


class Site:
    """The application, in one of its stages.

    Args:
        cache: Pages are cached, and dropped by tag when a write has been committed.
        queues: Side work is enqueued; without it the visitor waits for it.
        outbox: Side work is written down in the visitor's own transaction, for a relay to enqueue.
        ids: Where new rows take their ids from.
    """

    def __init__(
        self,
        engine: Engine,
        ledger: Ledger,
        ids: count[int],
        *,
        cache: CacheManager | None,
        queues: QueueManager | None,
        outbox: bool = False,
    ) -> None:
        self.db: Database = Database(engine)
        self.ledger = ledger
        self._ids = ids
        self._cache, self._queues, self._outbox = cache, queues, outbox
        self.event_page: Callable[[int], Row] = self._event_page
        self.event_list: Callable[[str], Row] = self._event_list
        self.my_registrations: Callable[[int], Row] = self._my_registrations
        self.dashboard: Callable[[int], Row] = self._dashboard
        self.busiest_events: Callable[[], Row] = self._busiest_events
        if cache is not None:
            self._switch_on(cache)
        if queues is not None:
            for job, queue in QUEUE_OF.items():
                queues.job(job, queue=queue)(self._handler(job))

    def _switch_on(self, cache: CacheManager) -> None:
        event, person = "event:{event_id}", "person:{person_id}"
        self.event_page = cache.cached(ttl="10m", key="page:" + event, tags=[event])(self._event_page)
        self.dashboard = cache.cached(ttl="10m", key="dashboard:" + event, tags=[event])(self._dashboard)
        self.my_registrations = cache.cached(ttl="10m", key="mine:" + person, tags=[person])(
            self._my_registrations
        )
        self.event_list = cache.cached(ttl=BOUNDED_S, key="list:{category}")(self._event_list)
        self.busiest_events = cache.cached(ttl=BOUNDED_S, key="busiest")(self._busiest_events)

    # -- pages -----------------------------------------------------------------------------------------

    def _event_page(self, event_id: int) -> Row:
        found = self.db.read(EVENT, event=event_id)[0]
        seats = {row["status"]: row["n"] for row in self.db.read(SEATS, event=event_id)}
        return {**found, "registered": sum(seats.values()), "seats": seats}

    def _event_list(self, category: str) -> Row:
        rows = self.db.read(LISTING, category=category, now=NOW)
        return {"events": rows, "computed_at": time.monotonic()}

    def _my_registrations(self, person_id: int) -> Row:
        rows = self.db.read(MINE, person=person_id)
        return {"registered": len(rows), "registrations": rows}

    def find_participant(self, family: str, given: str, city: str) -> Row:
        return {"found": self.db.read(SEARCH, family=family, given=given, city=city)}

    def _dashboard(self, event_id: int) -> Row:
        seats = {row["status"]: row["n"] for row in self.db.read(SEATS, event=event_id)}
        latest = self.db.read(LATEST, event=event_id)
        gates = self.db.read(GATES, event=event_id, since=NOW - DAY)
        checked_in = sum(row["n"] for row in gates)
        return {"registered": sum(seats.values()), "checked_in": checked_in, "latest": latest, "gates": gates}

    def _busiest_events(self) -> Row:
        return {"events": self.db.read(BUSIEST, since=NOW - 2 * 3600), "computed_at": time.monotonic()}

    # -- buttons ---------------------------------------------------------------------------------------

    def register(self, event_id: int, person_id: int) -> bool:
        """Register a participant; false when they already are. Told to the ledger once it is committed."""
        new = next(self._ids)
        work: Work = [
            ("notification_sending", {"to": person_id, "event": event_id}),
            ("analytics_processing", {"event": event_id}),
        ]
        if new % 20 == 0:
            work.append(("data_export", {"event": event_id}))
        if not self._commit(work, REGISTER, id=new, event=event_id, person=person_id, now=NOW):
            return False
        self._dropped(f"event:{event_id}", f"person:{person_id}")
        self.ledger.registered(event_id, person_id)
        self._aside(work)
        return True

    def check_in(self, event_id: int, person_id: int) -> bool:
        """Check a participant in; false without a registration, or when they are in already."""
        found = self.db.read(FIND_PASS, event=event_id, person=person_id)
        if not found:
            return False
        work: Work = [("notification_sending", {"to": person_id, "event": event_id})]
        values = {"id": next(self._ids), "registration": found[0]["id"], "event": event_id, "now": NOW}
        if not self._commit(work, CHECK_IN, **values):
            return False
        self._dropped(f"event:{event_id}")
        self.ledger.checked_in(event_id)
        self._aside(work)
        return True

    def _commit(self, work: Work, sql: str, **values: Any) -> bool:
        """Write; false when the row is there already. With an outbox the side work is committed with it."""
        written: list[str] = []
        try:
            with self.db.write(sql, **values) as connection:
                if self._outbox and self._queues is not None:
                    for job, data in work:
                        written.append(job)
                        self._queues.enqueue(job, self._promise(job, data), session=connection)
        except BaseException as error:
            for job in written:
                self.ledger.withdrawn(job)
            if isinstance(error, IntegrityError):
                return False
            raise
        return True

    def _dropped(self, *tags: str) -> None:
        if self._cache is not None:
            self._cache.invalidate_tags(*tags)

    # -- side work -------------------------------------------------------------------------------------

    def _promise(self, job: str, data: Row) -> Row:
        return {**data, "n": self.ledger.promised(job), "at": time.monotonic()}

    def _aside(self, work: Work) -> None:
        if self._outbox:
            return  # the commit took it
        for job, data in work:
            promised = self._promise(job, data)
            if self._queues is None:
                self.do(job, promised)
                self.ledger.done(job, promised["n"])
            else:
                self._queues.enqueue(job, promised)

    def _handler(self, job: str) -> Callable[[Any, Row], None]:
        def handle(ctx: Any, data: Row) -> None:
            self.ledger.waited(QUEUE_OF[job], time.monotonic() - data["at"])
            self.do(job, data)
            self.ledger.done(job, data["n"])

        return handle

    def do(self, job: str, data: Row) -> None:
        """Do one piece of side work."""
        if job == "notification_sending":
            time.sleep(PROVIDER_S)
        elif job == "analytics_processing":
            self.db.read(CITIES_OF, event=data["event"], since=NOW - DAY)
        else:
            rows = self.db.read(ATTENDEES, event=data["event"])
            "\n".join(";".join(map(str, row.values())) for row in rows)
