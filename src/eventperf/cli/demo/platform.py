"""The demo's application: the endpoints of an event platform, written as a web application writes them.

The same code serves every phase; a phase only switches the cache and the queue on.
"""

from __future__ import annotations

import csv
import io
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

from sqlalchemy import Engine, event, text

from eventperf.cache import CacheManager

from .check import Ledger, Watch
from .dataset import DAY, NOW

MAIL_S = 0.015
"""How long the simulated mail relay takes to accept one message."""

Rows = list[dict[str, Any]]


class QueryMeter:
    """Counts the statements of each thread and the time they take, independent of the recorder."""

    def __init__(self, engine: Engine) -> None:
        self._here = threading.local()
        self._engine = engine
        event.listen(engine, "before_cursor_execute", self._before)
        event.listen(engine, "after_cursor_execute", self._after)

    def take(self) -> tuple[int, float]:
        """Return this thread's statements and seconds since it asked last."""
        here = self._here
        found = getattr(here, "calls", 0), getattr(here, "seconds", 0.0)
        here.calls, here.seconds = 0, 0.0
        return found

    def _before(self, *_: Any) -> None:
        self._here.began = time.perf_counter()

    def _after(self, *_: Any) -> None:
        here = self._here
        here.calls = getattr(here, "calls", 0) + 1
        here.seconds = getattr(here, "seconds", 0.0) + time.perf_counter() - here.began


class Platform:
    """The endpoints. ``cache`` and ``enqueue`` are ``None`` until a phase switches them on."""

    def __init__(self, engine: Engine, watch: Watch, ledger: Ledger) -> None:
        self.engine, self.watch, self.ledger = engine, watch, ledger
        self.cache: CacheManager | None = None
        self.enqueue: Callable[[str, dict[str, Any]], object] | None = None
        self.reads: dict[str, Callable[..., Any]] = dict(self._plain())
        with engine.connect() as db:
            self._registration_ids = count(
                db.execute(text("SELECT MAX(id) FROM registrations")).scalar_one() + 1
            )
            self._check_in_ids = count(db.execute(text("SELECT MAX(id) FROM check_ins")).scalar_one() + 1)

    def _plain(self) -> dict[str, Callable[..., Any]]:
        return {
            "event page": self.event_page,
            "event list": self.event_list,
            "my registrations": self.my_registrations,
            "participant search": self.search,
            "organiser dashboard": self.dashboard,
            "top events": self.top_events,
        }

    def use_cache(self, cache: CacheManager) -> None:
        """Put the reads behind the cache; writes then drop the tags of what they changed."""
        self.cache = cache
        of_event = ["event:{event_id}"]
        self.reads = {
            "event page": cache.cached(ttl="1m", key="page:{event_id}", tags=of_event)(self.event_page),
            "event list": cache.cached(ttl="1m", key="list:{category}:{day}", tags=["events"])(
                self.event_list
            ),
            "my registrations": cache.cached(
                ttl="1m", key="mine:{participant_id}", tags=["participant:{participant_id}"]
            )(self.my_registrations),
            "participant search": cache.cached(
                ttl="1m", key="search:{family}:{given}", tags=["participants"]
            )(self.search),
            "organiser dashboard": cache.cached(ttl="1m", key="board:{event_id}", tags=of_event)(
                self.dashboard
            ),
            "top events": cache.cached(ttl="2s", key="top")(self.top_events),
        }

    # -- reads -------------------------------------------------------------------------------------

    def _rows(self, sql: str, **values: Any) -> Rows:
        with self.engine.connect() as db:
            return [dict(row) for row in db.execute(text(sql), values).mappings()]

    def event_page(self, event_id: int) -> dict[str, Any]:
        """One event with how many registered and how many came."""
        found = self._rows(
            "SELECT id, title, city, starts_at, capacity FROM events WHERE id = :id", id=event_id
        )[0]
        sql = "SELECT COUNT(*) AS n FROM registrations WHERE event_id = :id AND status = 'confirmed'"
        found["registered"] = self._rows(sql, id=event_id)[0]["n"]
        found["came"] = self._rows("SELECT COUNT(*) AS n FROM check_ins WHERE event_id = :id", id=event_id)[
            0
        ]["n"]
        return found

    def event_list(self, category: str, day: int) -> Rows:
        """The next events of a category."""
        sql = (
            "SELECT id, title, city, starts_at FROM events WHERE category = :category AND starts_at >= :since "
            "ORDER BY starts_at LIMIT 20"
        )
        return self._rows(sql, category=category, since=NOW + day * DAY)

    def my_registrations(self, participant_id: int) -> Rows:
        """What one participant is registered for."""
        sql = (
            "SELECT r.id, r.status, e.title, e.starts_at FROM registrations r JOIN events e ON e.id = r.event_id "
            "WHERE r.participant_id = :id ORDER BY e.starts_at"
        )
        return self._rows(sql, id=participant_id)

    def search(self, family: str, given: str) -> Rows:
        """Participants by name, as the desk at the gate types it."""
        sql = (
            "SELECT id, email, family_name, given_name FROM participants WHERE family_name = :family "
            "AND given_name = :given AND city = 'Seoul' ORDER BY id LIMIT 20"
        )
        return self._rows(sql, family=family, given=given)

    def dashboard(self, event_id: int) -> dict[str, Any]:
        """Counts of one event for its organiser, and who registered last."""
        by_status = self._rows(
            "SELECT status, COUNT(*) AS n FROM registrations WHERE event_id = :id GROUP BY status",
            id=event_id,
        )
        by_gate = self._rows(
            "SELECT gate, COUNT(*) AS n FROM check_ins WHERE event_id = :id GROUP BY gate", id=event_id
        )
        latest = self._rows(
            "SELECT id, participant_id, registered_at FROM registrations WHERE event_id = :id "
            "ORDER BY registered_at DESC LIMIT 10",
            id=event_id,
        )
        confirmed = sum(row["n"] for row in by_status if row["status"] == "confirmed")
        return {"registered": confirmed, "came": sum(row["n"] for row in by_gate), "latest": latest}

    def top_events(self) -> Rows:
        """The events with most registrations of the last hours."""
        sql = (
            "SELECT e.id, e.title, COUNT(*) AS n FROM registrations r JOIN events e ON e.id = r.event_id "
            "WHERE r.registered_at >= :since AND r.status = 'confirmed' GROUP BY e.id, e.title ORDER BY n DESC LIMIT 10"
        )
        return self._rows(sql, since=NOW - 3 * 3600)

    # -- requests ----------------------------------------------------------------------------------

    def handle(self, endpoint: str, arguments: tuple[Any, ...]) -> None:
        """Serve one request, and hold the answer against what had been committed when it was asked."""
        if endpoint == "register":
            self._register(*arguments)
        elif endpoint == "check-in":
            self._check_in(*arguments)
        elif endpoint == "export":
            self._side_work("report_generation", {"event_id": arguments[0]})
        elif endpoint in ("event page", "organiser dashboard"):
            floors = self.watch.floor("registered", arguments[0]), self.watch.floor("came", arguments[0])
            answer = self.reads[endpoint](*arguments)
            self.watch.compare(floors[0], answer["registered"])
            self.watch.compare(floors[1], answer["came"])
        elif endpoint == "my registrations":
            floor = self.watch.floor("mine", arguments[0])
            self.watch.compare(floor, len(self.reads[endpoint](*arguments)))
        else:
            self.reads[endpoint](*arguments)

    def _register(self, event_id: int, participant_id: int) -> None:
        with self.engine.begin() as db:
            db.execute(
                text("INSERT INTO registrations VALUES (:id, :event, :participant, 'confirmed', :at)"),
                {
                    "id": next(self._registration_ids),
                    "event": event_id,
                    "participant": participant_id,
                    "at": NOW,
                },
            )
        if self.cache is not None:
            self.cache.invalidate_tags(f"event:{event_id}", f"participant:{participant_id}")
        self.watch.committed("registered", event_id)
        self.watch.committed("mine", participant_id)
        self._side_work("notification_sending", {"participant_id": participant_id})

    def _check_in(self, registration_id: int, event_id: int, gate: int) -> None:
        with self.engine.begin() as db:
            db.execute(
                text("INSERT INTO check_ins VALUES (:id, :registration, :event, :at, :gate)"),
                {
                    "id": next(self._check_in_ids),
                    "registration": registration_id,
                    "event": event_id,
                    "at": NOW,
                    "gate": gate,
                },
            )
        if self.cache is not None:
            self.cache.invalidate_tags(f"event:{event_id}")
        self.watch.committed("came", event_id)
        self._side_work("analytics_processing", {"event_id": event_id})

    # -- side work ---------------------------------------------------------------------------------

    def _side_work(self, kind: str, data: dict[str, Any]) -> None:
        order = {**data, "key": self.ledger.promise(kind), "asked_at": time.time()}
        if self.enqueue is not None:
            self.enqueue(kind, order)
        else:
            self.work(kind, order)

    def work(self, kind: str, order: dict[str, Any]) -> None:
        """Do one piece of side work, inline or as a job, and write its effect into the ledger."""
        began = time.time()
        if kind == "notification_sending":
            time.sleep(MAIL_S)  # the mail relay; simulated, and labelled so
        elif kind == "report_generation":
            sql = (
                "SELECT r.id, r.status, p.email, p.family_name, p.given_name FROM registrations r "
                "JOIN participants p ON p.id = r.participant_id WHERE r.event_id = :id ORDER BY r.id LIMIT 2000"
            )
            page = io.StringIO()
            csv.writer(page).writerows(list(row.values()) for row in self._rows(sql, id=order["event_id"]))
        else:
            self._rows(
                "SELECT gate, MIN(checked_in_at) AS first_at, MAX(checked_in_at) AS last_at FROM check_ins "
                "WHERE event_id = :id GROUP BY gate",
                id=order["event_id"],
            )
        self.ledger.effect(order["key"], kind, order["asked_at"], began, time.time())
