"""Entries that follow the database: after a commit and only then, whatever wrote."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from eventperf.cache import CacheManager, CacheOptions, depends, row
from eventperf.cache.following import _seen, tables_in, tables_written
from eventperf.cache.transactions import writes
from eventperf.contrib.sqlalchemy import follow
from eventperf.errors import ConfigurationError


class Base(DeclarativeBase):
    pass


class Event(Base):
    __tablename__ = "events"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


class Seat(Base):
    __tablename__ = "seats"
    id: Mapped[int] = mapped_column(primary_key=True)
    place: Mapped[str]


class Ticket(Base):
    __tablename__ = "tickets"
    id: Mapped[int] = mapped_column(primary_key=True)
    event_id: Mapped[int] = mapped_column(sa.ForeignKey("events.id"))
    guest: Mapped[int] = mapped_column(sa.ForeignKey("seats.id"), nullable=True, server_default="1")
    price: Mapped[int] = mapped_column(default=0)


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.integration)])
def engine(request, tmp_path) -> Iterator[sa.Engine]:
    url = (
        f"sqlite:///{tmp_path}/follow.db"
        if request.param == "sqlite"
        else request.getfixturevalue("postgres_url")
    )
    made = sa.create_engine(url)
    Base.metadata.drop_all(made)
    Base.metadata.create_all(made)
    with Session(made) as session:
        session.add_all([Event(id=n, name="old") for n in (1, 2)] + [Seat(id=1, place="old")])
        session.commit()
    yield made
    Base.metadata.drop_all(made)
    made.dispose()


class Site:
    """An application's cached reads."""

    def __init__(self, cache: CacheManager, engine: sa.Engine) -> None:
        self.cache, self.engine = cache, engine
        self.loads: list[str] = []

        @cache.cached(follows=[Event])
        def names() -> list[str]:
            return self.read("names", "SELECT name FROM events ORDER BY id")

        @cache.cached(follows=["seats"])
        def places() -> list[str]:
            return self.read("places", "SELECT place FROM seats")

        @cache.cached
        def event(pk: int) -> list[str]:
            depends(*row(Event, pk))
            return self.read(f"event {pk}", f"SELECT name FROM events WHERE id = {pk}")

        @cache.cached(follows="auto")
        def page(pk: int) -> list[list[str]]:
            self.loads.append("page")
            return [event(pk), self.read("page's", "SELECT place FROM seats")]

        self.names, self.places, self.event, self.page = names, places, event, page

    def read(self, what: str, sql: str) -> list[str]:
        self.loads.append(what)
        with self.engine.connect() as connection:
            return list(connection.scalars(sa.text(sql)))

    def loaded(self) -> list[str]:
        """Read everything twice; return what had to be loaded."""
        self.loads.clear()
        for _ in range(2):
            self.names(), self.places(), self.event(1), self.event(2), self.page(1)
        return self.loads[:]


ALL = ["names", "places", "event 1", "event 2", "page", "page's"]
OF_EVENTS = ["names", "event 1", "event 2", "page", "page's"]


def core_update(session: Session) -> None:
    session.connection().execute(sa.update(Event.__table__).values(name="core"))


def text(statement: str) -> Callable[[Session], object]:
    return lambda session: session.execute(sa.text(statement))


WRITES: dict[str, Callable[[Session], object]] = {
    "text": text("UPDATE \"events\" SET name = 'text' -- seats"),
    "cte": text("WITH x AS (SELECT 1) UPDATE events SET name = 'cte' WHERE id IN (SELECT 1)"),
    "bulk": lambda s: s.execute(sa.update(Event).where(Event.id == 1).values(name="bulk")),
    "core": core_update,
    "delete": lambda s: s.execute(sa.delete(Event).where(Event.id == 2)),
    "mappings": lambda s: s.bulk_update_mappings(Event, [{"id": 1, "name": "mapping"}]),
}


@pytest.fixture
def site(engine) -> Iterator[Site]:
    with CacheManager(ttl=600) as cache:
        stop = follow(cache, engine)
        made = Site(cache, engine)
        assert made.loaded() == ALL
        assert made.loaded() == []
        yield made
        stop()


@pytest.mark.parametrize("how", WRITES)
def test_a_commit_forgets_what_follows_the_table_and_nothing_else(site, how):
    with Session(site.engine) as session:
        WRITES[how](session)
        with_others = threading.Thread(target=lambda: seen.append(site.cache.get(site.names.key())))
        seen: list[object] = []
        with_others.start()
        with_others.join()
        assert seen == [["old", "old"]]  # nothing is forgotten before the commit
        session.commit()
    assert site.loaded() == OF_EVENTS
    assert site.loaded() == []


def test_the_unit_of_work_knows_its_rows(site):
    with Session(site.engine) as session:
        session.get(Event, 2).name = "new"
        session.commit()
    assert site.loaded() == ["names", "event 2"]
    with Session(site.engine) as session:
        session.add(Event(id=3, name="third"))
        session.delete(session.get(Event, 1))
        session.commit()
    assert site.loaded() == ["names", "event 1", "page", "page's"]
    with Session(site.engine) as session:
        session.get(Event, 2).id = 1  # both of its names
        session.commit()
    assert site.loaded() == ["names", "event 1", "event 2", "page", "page's"]


def test_a_bulk_statement_after_a_failed_flush_forgets_all_rows(site):
    with Session(site.engine) as session:
        session.add(Event(id=1, name="twice"))
        with pytest.raises(sa.exc.IntegrityError):
            session.flush()
        session.rollback()
        session.execute(sa.update(Event).values(name="all"))
        session.commit()
    assert site.loaded() == OF_EVENTS


def test_a_bulk_statement_after_a_flush_without_work_forgets_all_rows(site):
    with Session(site.engine) as session:
        one = session.get(Event, 1)
        one.name = one.name  # dirty, and nothing to write
        session.add(other := Event(id=9, name="never"))
        session.expunge(other)
        session.flush()
        session.execute(sa.update(Event).values(name="all"))
        session.commit()
    assert site.loaded() == OF_EVENTS


def test_a_bulk_statement_after_a_flush_forgets_all_rows(site):
    with Session(site.engine) as session:
        session.get(Event, 2).name = "new"
        session.flush()
        session.bulk_update_mappings(Event, [{"id": 1, "name": "mapping"}])
        session.commit()
    assert site.loaded() == OF_EVENTS


def test_copies_of_the_engine_with_other_options_are_followed(site):
    copy = site.engine.execution_options(logging_token="copy")
    with Session(copy) as session:
        session.get(Event, 2).name = "new"
        session.commit()
    assert site.loaded() == ["names", "event 2"]


def test_a_commit_of_which_nobody_knows_whether_it_was_made_forgets_too(site, monkeypatch):
    from sqlalchemy.engine.default import DefaultDialect

    plain = DefaultDialect.do_commit

    def commit_then_break(self, connection):
        plain(self, connection)
        raise ConnectionResetError

    with CacheManager() as cache:
        engine = sa.create_engine(site.engine.url)
        with monkeypatch.context() as patch:
            patch.setattr(DefaultDialect, "do_commit", commit_then_break)
            follow(cache, engine)
        cache.set("k", 1, tags=["table:seats"])
        with pytest.raises(ConnectionResetError), engine.begin() as connection:
            connection.execute(sa.text("UPDATE seats SET place = 'reached'"))
        assert not cache.exists("k")
        engine.dispose()


def test_an_insert_forgets_what_it_links_to_and_whatever_else_changes_rows_forgets_all_links(site):
    cache, names = (
        site.cache,
        {f"of {n}": ("event_id", n) for n in (1, 2)} | {f"guest {n}": ("guest", n) for n in (1, 2)},
    )

    def gone(*writes: Callable[[Session], object]) -> list[str]:
        for name, (column, value) in names.items():
            cache.get_or_load(name, lambda c=column, v=value: depends(*row(Ticket, **{c: v})))
        cache.get_or_load("ticket 1", lambda: depends(*row(Ticket, 1)))
        with Session(site.engine) as session:
            for write in writes:
                write(session)
            session.commit()
        return [name for name in (*names, "ticket 1") if not cache.exists(name)]

    assert gone() == []
    assert gone(lambda s: s.add(Ticket(id=1, event_id=1, guest=1))) == ["of 1", "guest 1", "ticket 1"]
    assert gone(lambda s: s.add(Ticket(id=3, event_id=2, guest=1))) == ["of 2", "guest 1"]
    assert gone(lambda s: s.add(Ticket(id=2, event_id=2))) == ["of 2", "guest 1"]  # by the server's default
    expression = Ticket(id=4, event_id=sa.select(sa.literal(2)).scalar_subquery(), guest=1)
    assert gone(lambda s: s.add(expression)) in (["of 2", "guest 1"], ["of 1", "of 2", "guest 1", "guest 2"])
    assert gone(lambda s: setattr(s.get(Ticket, 1), "price", 7)) == [*names, "ticket 1"]
    assert gone(lambda s: s.delete(s.get(Ticket, 2))) == [*names]
    assert gone(text("INSERT INTO tickets (id, event_id, price) VALUES (9, 1, 0)")) == [*names, "ticket 1"]
    assert gone(lambda s: s.bulk_insert_mappings(Ticket, [{"id": 10, "event_id": 2}])) == [*names, "ticket 1"]


@pytest.mark.parametrize(
    ("key", "link"),
    [((), {"price": 1}), ((), {"event_id": 1, "guest": 1}), ((1,), {"event_id": 1}), ((), {"none": 1})]
    + [((), {"event_id": value}) for value in ("1", True, None, 1.0)],
)
def test_a_link_that_nobody_would_tell_is_refused(key, link):
    with pytest.raises(ConfigurationError):
        row(Ticket, *key, **link)
    with pytest.raises(ConfigurationError, match="tickets"):
        row("tickets", event_id=1)


def test_a_rollback_forgets_nothing(site):
    with Session(site.engine) as session:
        session.get(Event, 1).name = "never"
        session.flush()
        session.execute(sa.text("DELETE FROM seats"))
        session.rollback()
        session.execute(sa.text("SELECT 1"))
        session.commit()
    with site.engine.connect() as connection:
        connection.execute(sa.text("DELETE FROM events"))
    assert site.loaded() == []


def test_a_released_savepoint_waits_for_the_commit(site):
    with Session(site.engine) as session:
        with session.begin_nested():
            session.execute(sa.text("UPDATE seats SET place = 'new'"))
        assert site.cache.exists(site.places.key())
        session.commit()
    assert site.loaded() == ["places", "page", "page's"]


def test_connections_that_commit_by_themselves_and_blocks_of_core_count(site):
    with site.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("UPDATE seats SET place = 'auto'"))
    assert site.loaded() == ["places", "page", "page's"]
    with site.engine.begin() as connection:
        connection.execute(sa.insert(Seat), [{"id": 2, "place": "b"}, {"id": 3, "place": "c"}])
    assert site.loaded() == ["places", "page", "page's"]


def test_what_nobody_can_tell_forgets_all_that_follows_a_table(site):
    statement = "REINDEX" if site.engine.dialect.name == "sqlite" else "DO $$ BEGIN END $$"
    with site.engine.begin() as connection:
        connection.execute(sa.text(statement))
    assert site.loaded() == ALL


def test_a_load_that_began_before_the_commit_is_not_kept(site):
    def commit_meanwhile() -> str:
        depends("table:events")
        with Session(site.engine) as session:
            old = session.get(Event, 1).name
        with Session(site.engine) as session:
            session.get(Event, 1).name = "new"
            session.commit()
        return old

    done: list[str] = []
    other = threading.Thread(target=lambda: done.append(site.cache.get_or_load("k", commit_meanwhile)))
    other.start()
    other.join()
    assert done == ["old"]
    assert not site.cache.exists("k")


def test_whoever_joins_after_the_commit_does_not_get_what_was_read_before(site):
    began, go_on = threading.Event(), threading.Event()

    def load() -> str:
        depends("table:events")
        began.set()
        go_on.wait(10)
        return "old"

    first = threading.Thread(target=site.cache.get_or_load, args=("k", load))
    first.start()
    assert began.wait(10)
    with site.engine.begin() as connection:
        connection.execute(sa.text("UPDATE events SET name = 'new'"))
    assert site.cache.get_or_load("k", lambda: "new") == "new"
    go_on.set()
    first.join()
    assert site.cache.get("k", "new") == "new"


def test_readers_beside_writers_and_rollbacks_never_see_less_than_was_committed(site):
    committed = [0]
    stop = threading.Event()
    wrong: list[object] = []

    @site.cache.cached(follows="auto")
    def number() -> int:
        with site.engine.connect() as connection:
            return int(connection.scalar(sa.text("SELECT max(id) FROM seats")))

    def read() -> None:
        while not stop.is_set():
            least = committed[0]
            if (seen := number()) < least or seen > 1_000:
                wrong.append((seen, least))

    with site.engine.begin() as connection:
        connection.execute(sa.text("DELETE FROM seats"))
        connection.execute(sa.insert(Seat), {"id": 0, "place": ""})
    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    for n in range(1, 60):
        with Session(site.engine) as session:
            session.add(Seat(id=n + 1_000, place="never"))
            session.flush()
            session.rollback()
            session.add(Seat(id=n, place="new"))
            session.commit()
        committed[0] = n
    stop.set()
    for reader in readers:
        reader.join()
    assert wrong == []
    assert number() == 59


def elsewhere(site: Site) -> list[str]:
    """Return what another thread has to load: this one is inside a transaction that has written."""
    found: list[list[str]] = []
    thread = threading.Thread(target=lambda: found.append(site.loaded()))
    thread.start()
    thread.join(30)
    return found[0]


def test_the_site_of_the_tutorial_stays_right_under_racing_writers(tmp_path, monkeypatch):
    page = (Path(__file__).parents[3] / "docs/tutorial/event-site.md").read_text()
    code = re.findall(r"```python\n(.*?)```", page, re.S)
    assert "invalidate" not in "".join(code)
    monkeypatch.chdir(tmp_path)
    site: dict[str, Any] = {}
    for snippet in code[:3]:
        exec(snippet, site)
    floor, stale, done = [0], [], threading.Event()

    def write() -> None:
        for n in range(1, 201):
            with site["engine"].connect() as db:
                db.execute(sa.text(f"UPDATE events SET name = '{n if n % 3 else 10_000}' WHERE id = 42"))
                if n % 3 == 0:
                    db.rollback()
                    continue
                db.commit()
            floor[0] = n
        done.set()

    def read() -> None:
        while not done.is_set():
            committed = floor[0]
            seen = int(site["event_name"](42))
            if not committed <= seen < 10_000:
                stale.append((committed, seen))

    with site["engine"].begin() as db:
        db.execute(sa.text("UPDATE events SET name = '0' WHERE id = 42"))
    threads = [threading.Thread(target=what) for what in (write, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert stale == []
    assert site["event_name"](42) == "200"
    hits = site["cache"].stats().hits
    assert hits > 0
    site["cache"].close()
    site["engine"].dispose()


@pytest.mark.parametrize("word", ["COMMIT", "commit;", "/* done */ END"])
@pytest.mark.parametrize("how", [sa.text, str])
def test_a_commit_that_is_a_statement_is_one(site, word, how):
    with site.engine.connect() as connection:
        run = connection.execute if how is sa.text else connection.exec_driver_sql
        run(how("UPDATE events SET name = 'new'"))
        assert elsewhere(site) == []
        run(how(word))
        assert elsewhere(site) == OF_EVENTS


def test_a_transaction_begun_by_a_statement_is_told_at_its_end(site):
    engine = site.engine.execution_options(isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.exec_driver_sql("BEGIN")
        connection.exec_driver_sql("UPDATE events SET name = 'new'")
        assert elsewhere(site) == []
        connection.exec_driver_sql("COMMIT")
        assert elsewhere(site) == OF_EVENTS
        connection.exec_driver_sql("UPDATE events SET name = 'newer'")
        assert elsewhere(site) == OF_EVENTS


def test_what_a_definition_may_have_committed_is_told_at_once_and_at_the_end(site):
    """MySQL commits before a definition, PostgreSQL does not."""
    with site.engine.connect() as connection:
        connection.execute(sa.text("UPDATE events SET name = 'new'"))
        connection.execute(sa.text("ANALYZE events"))
        assert set(OF_EVENTS) <= set(elsewhere(site))
        connection.commit()
        assert set(OF_EVENTS) <= set(elsewhere(site))


@pytest.mark.parametrize(
    ("statement", "tables"),
    [
        ("UPDATE OR IGNORE events SET a = 1", {"events"}),
        ("UPDATE OR REPLACE events SET a = 1", {"events"}),
        ("update low_priority ignore events set a = 1", {"events"}),
        ("UPDATE ONLY events SET a = 1", {"events"}),
        ("DELETE LOW_PRIORITY QUICK IGNORE FROM events", {"events"}),
        ("INSERT OR IGNORE INTO events VALUES (1)", {"events"}),
        ("INSERT LOW_PRIORITY IGNORE INTO events VALUES (1)", {"events"}),
        ("UPDATE or_more SET a = 1", {"or_more"}),
    ],
)
def test_words_before_a_table_are_no_table(statement, tables):
    assert tables <= (tables_written(statement) or set())


@pytest.mark.parametrize(
    "statement",
    [
        # on MySQL a quote behind a backslash is text
        r"SELECT 'it\'s', n FROM seats WHERE a = 'b' UNION SELECT 1, n FROM events",
        "SELECT n /* FROM x */ FROM seats JOIN events USING (n) WHERE a = '/*' AND b = 1",
        f"SELECT n FROM seats JOIN events USING (n) WHERE n IN ({'1, ' * 9000}1)",
    ],
)
def test_no_table_is_lost_behind_odd_texts(statement: str) -> None:
    assert {"seats", "events"} <= (tables_in(statement) or set())
    assert {"seats", "events"} <= (_seen(statement) or set()), "without sqlglot"


def test_a_row_of_comments_is_read_in_one_way() -> None:
    """Read in every way that they can be joined, 30 of them took minutes."""
    assert writes("/**/" * 10_000 + "UPDATE t SET a = 1")
    assert not writes("/**/" * 10_000 + "SELECT 1")


def test_a_statement_that_changed_no_row_forgets_nothing(site):
    with site.engine.begin() as connection:
        connection.execute(sa.text("UPDATE events SET name = 'none' WHERE id = -1"))
        connection.execute(sa.text("DELETE FROM events WHERE id = -1"))
    assert site.loaded() == []


def test_sessions_of_every_kind_lead_to_their_engine(engine):
    with CacheManager() as cache:
        maker = sessionmaker(engine)
        for given in (engine, maker, maker(), scoped_session(maker), engine.connect()):
            follow(cache, given)()
        for wrong in (None, 7, sessionmaker(), "sqlite://"):
            with pytest.raises((ConfigurationError, sa.exc.UnboundExecutionError)):
                follow(cache, wrong)


def test_tasks_follow_too(tmp_path):
    pytest.importorskip("aiosqlite")

    async def main() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/tasks.db")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
        with CacheManager() as cache:
            follow(cache, engine)
            await cache.aset("k", 1, tags=["table:events"])
            async with AsyncSession(engine) as session:
                session.add(Event(id=1, name="new"))
                await session.flush()
                assert await asyncio.create_task(cache.aget("k")) == 1
                await session.commit()
            assert await cache.aget("k") is None
        await engine.dispose()

    asyncio.run(main())


@pytest.mark.integration
@pytest.mark.parametrize("l1", [True, False])
def test_what_is_said_while_loading_holds_in_redis_for_other_processes(redis_url, l1):
    options = CacheOptions(use_l1=l1)
    with CacheManager(redis_url, namespace="follow", timeout=5, options=options) as cache:
        other = CacheManager(redis_url, namespace="follow", timeout=5, l1=None)

        def load() -> str:
            depends("event:1")
            return "value"

        def load_many(keys: list[str]) -> dict[str, str]:
            depends("event:1")
            return dict.fromkeys(keys, "value")

        def load_and_invalidate() -> str:
            depends("event:1")
            other.invalidate_tags("event:1")
            return "old"

        assert cache.get_or_load("k", load, tags=["t"]) == "value"
        assert cache.get_or_load_many(["m"], load_many) == {"m": "value"}
        assert other.get_many(["k", "m"]) == {"k": "value", "m": "value"}
        other.invalidate_tags("event:1")
        assert other.get_many(["k", "m"]) == {}
        assert cache.get_or_load("r", load_and_invalidate) == "old"
        assert not other.exists("r")
        cache.clear()
        other.close()


DJANGO = """
import sys, types
import django
from django.conf import settings
from eventperf.cache import CacheManager, depends, row
caches = types.ModuleType("shop_caches"); caches.cache = cache = CacheManager(ttl=600)
sys.modules["shop_caches"] = caches
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}, SECRET_KEY="x",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "eventperf.contrib.django"],
    USE_TZ=True, EVENTPERF_FOLLOW="shop_caches.cache",
)
django.setup()
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db import connection, transaction
call_command("migrate", verbosity=0)
User.objects.create(pk=1, username="old")
loads = []

@cache.cached(follows=[User])
def users(): loads.append("users"); return list(User.objects.values_list("username", flat=True))

@cache.cached(follows=["auth_group"])
def groups(): loads.append("groups"); return Group.objects.count()

@cache.cached
def user(pk): depends(*row(User, pk)); loads.append("user"); return User.objects.get(pk=pk).username

@cache.cached(follows="auto")
def page(): loads.append("page"); return users(), Group.objects.count()

def loaded():
    loads.clear()
    for _ in range(2): users(), groups(), user(1), page()
    return loads[:]

def bulk(): User.objects.filter(pk=1).update(username="bulk")
def save(): one = User.objects.get(pk=1); one.username = "saved"; one.save()
def raw():
    with connection.cursor() as cursor: cursor.execute("UPDATE auth_user SET username = 'raw' WHERE id = 1")
def many(): User.objects.bulk_create([User(username=f"n{User.objects.count()}")])

assert loaded() == ["users", "groups", "user", "page"], loads
assert loaded() == []
for write in (bulk, save, raw, many):
    write()
    assert loaded() == ["users", "user", "page"], (write, loads)
    with transaction.atomic():
        with transaction.atomic(): write()
        assert cache.exists(users.key()) and cache.exists(user.key(1))
    assert loaded() == ["users", "user", "page"], (write, loads)
    try:
        with transaction.atomic(): write(); raise KeyError
    except KeyError: pass
    with transaction.atomic():
        try:
            with transaction.atomic(): write(); raise KeyError
        except KeyError: pass
    assert loaded() == [], (write, loads)
Group.objects.create(name="g")
assert loaded() == ["groups", "page"], loads
told, plain = [], cache.invalidate_tags
cache.invalidate_tags = lambda *tags: told.append(tags) or plain(*tags)
User.objects.filter(pk=-1).update(username="none"); User.objects.filter(pk=-1).delete()
assert told == [], "no row was changed"
with transaction.atomic():
    for n in range(50): bulk()
    try:
        with transaction.atomic(): Group.objects.update(name="h"); raise KeyError
    except KeyError: pass
    Group.objects.update(name="i")
    for n in range(50): bulk()
assert len(told) == 2, told
assert loaded() == ["users", "groups", "user", "page"], loads
del cache.invalidate_tags
from eventperf.contrib.django import follow
try: follow("shop_caches.cache")
except Exception as error: assert "EVENTPERF_FOLLOW" in str(error), error
else: raise AssertionError
print("right")
"""


def test_django_follows_what_the_setting_says():
    done = subprocess.run([sys.executable, "-c", DJANGO], capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("right"), done.stderr


DJANGO_ROWS = """
import json, sys
import django
from django.conf import settings
from eventperf.cache import CacheManager, depends, row
settings.configure(
    DATABASES={"default": json.loads(sys.argv[1])}, SECRET_KEY="x", USE_TZ=True,
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth", "eventperf.contrib.django"],
    MIGRATION_MODULES={"contenttypes": None, "auth": None},
)
django.setup()
from django.contrib.auth.models import Group, User
from django.core.management import call_command
from django.db import connection
from django.db.models import F
from eventperf.contrib.django import follow
call_command("migrate", run_syncdb=True, verbosity=0)
follow(cache := CacheManager(ttl=600))
Link = User.groups.through
for n in (1, 2): User.objects.create(username=f"u{n}"); Group.objects.create(name=f"g{n}")
entries = {
    "user 1": row(User, 1), "user 2": row(User, 2), "groups of 1": row(Link, user_id=1),
    "groups of 2": row(Link, user=2), "users of 1": row(Link, group=1), "all": ["table:auth_user_groups"],
}
knows_new_keys = connection.vendor == "postgresql"

def gone(write):
    for name, tags in entries.items(): cache.get_or_load(name, lambda t=tags: depends(*t))
    write()
    return [name for name in entries if not cache.exists(name)]

def raw(sql, *params):
    with connection.cursor() as cursor: cursor.execute(sql, params)

def save(): one = User.objects.get(pk=2); one.username = "saved"; one.save()
def is_(write, *names):
    found = gone(write)
    assert found == list(names), (found, names)

users, links = ("user 1", "user 2"), ("groups of 1", "groups of 2", "users of 1", "all")
is_(save, "user 2")
is_(lambda: User.objects.filter(pk=1).update(username="updated"), "user 1")
is_(lambda: User.objects.filter(pk__in=[1, 7]).update(username=F("username")), "user 1")
is_(lambda: User.objects.filter(username="updated").update(username="u1"), *users)
is_(lambda: User.objects.filter(pk=2, is_active=True).update(last_name="x"), *users)
is_(lambda: User.objects.create(username="new"), *(() if knows_new_keys else users))
is_(lambda: User.objects.create(pk=76, username="given"))
is_(lambda: User.objects.filter(pk=76).update(id=F("id") + 1), *users)
is_(lambda: Link.objects.create(user_id=2, group_id=1), "groups of 2", "users of 1", "all")
is_(lambda: Link.objects.create(user_id=2, group_id=2), "groups of 2", "all")
is_(lambda: User.objects.get(pk=1).groups.add(1), "groups of 1", "users of 1", "all")
is_(lambda: Link.objects.filter(user_id=1).delete(), *links)
is_(lambda: raw("INSERT INTO auth_user_groups (user_id, group_id) VALUES (%s, %s)", 1, 2), *links)
one = Link(user_id=77, group_id=2)
is_(lambda: Link.objects.bulk_create([one], ignore_conflicts=True), "all")
clash = dict(update_conflicts=True, unique_fields=["user", "group"], update_fields=["group"])
is_(lambda: Link.objects.bulk_create([Link(user_id=77, group_id=2)], **clash), *links)
is_(lambda: User.objects.get(pk=2).delete(), "user 2", *links)
for wrong in (dict(name="x"), dict(user=True), dict(user="1"), dict(user=1, group=1)):
    try: row(Link, **wrong)
    except Exception as error: assert "auth_user_groups" in str(error) or "whole number" in str(error), error
    else: raise AssertionError(wrong)
print("right")
"""


@pytest.mark.parametrize(
    "engine_name", ["sqlite3", pytest.param("postgresql", marks=pytest.mark.integration)]
)
def test_django_tells_the_rows_that_a_statement_says_beyond_doubt(engine_name, request):
    where = {"ENGINE": f"django.db.backends.{engine_name}", "NAME": ":memory:"}
    with contextlib.ExitStack() as stack:
        if engine_name == "postgresql":
            server = request.getfixturevalue("postgres_server")
            url = sa.make_url(stack.enter_context(server.fresh_database()))
            where |= {"NAME": url.database, "HOST": url.host, "PORT": url.port, "USER": url.username}
        call = [sys.executable, "-c", DJANGO_ROWS, json.dumps(where)]
        done = subprocess.run(call, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("right"), done.stderr


@pytest.mark.parametrize("follows", ["Auto", 7, [7], [""], [None], b"auto", {"events"}])
def test_wrong_follows_is_refused_when_it_is_said(follows):
    with pytest.raises(ConfigurationError, match="follows"):
        CacheManager().cached(follows=follows)


@pytest.mark.parametrize("tag", [7, None, b"t", ("t",)])
def test_a_tag_that_is_no_text_is_refused(tag):
    with pytest.raises(ConfigurationError, match="tags"):
        depends(tag)


def test_an_auto_function_that_uses_what_nobody_can_tell_is_not_kept(engine):
    with CacheManager() as cache:
        follow(cache, engine)
        loads: list[int] = []

        @cache.cached(namespace="other", follows=["seats"])
        def inner() -> int:
            return 1

        @cache.cached(follows="auto")
        def outer() -> int:
            loads.append(1)
            return inner()

        assert [outer(), outer()] == [1, 1]
        assert not cache.exists(outer.key())
        assert len(loads) == 2
