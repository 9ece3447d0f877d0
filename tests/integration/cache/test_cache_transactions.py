"""Cached reads inside a transaction that has written: neither uncommitted data kept, nor old data read."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import Context
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, async_scoped_session, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, scoped_session, sessionmaker

from eventperf._core.errors import ConfigurationError
from eventperf.cache import CacheManager, CacheOptions, invalidate_on_commit
from eventperf.cache.transactions import DIRTY, inside, writes
from faults import wait_until


class Base(DeclarativeBase):
    pass


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


@pytest.fixture
def engine(tmp_path) -> Iterator[sa.Engine]:
    made = sa.create_engine(f"sqlite:///{tmp_path}/users.db")

    @sa.event.listens_for(made, "connect")
    def _own_begin(connection, _record):
        connection.isolation_level = None  # savepoints of SQLite need it

    @sa.event.listens_for(made, "begin")
    def _begin(connection):
        connection.exec_driver_sql("BEGIN")

    Base.metadata.create_all(made)
    with Session(made) as session:
        session.add(User(id=1, name="old"))
        session.commit()
    yield made
    made.dispose()


class Names:
    """A cached function that reads with the session of the moment, as an application would."""

    def __init__(self, cache: CacheManager, engine: sa.Engine) -> None:
        self.engine = engine
        self.session = Session(engine)
        self.loads = 0

        @cache.cached(ttl=60, key="name:{pk}", tags=["user:{pk}"])
        def name(pk):
            self.loads += 1
            return self.session.scalar(sa.select(User.name).where(User.id == pk))

        self.name: Any = name


def by_orm(session: Session, name: str) -> None:
    session.get(User, 1).name = name
    session.flush()


def by_orm_unflushed(session: Session, name: str) -> None:
    session.get(User, 1).name = name


def by_bulk(session: Session, name: str) -> None:
    session.execute(sa.update(User).values(name=name))


def by_text(session: Session, name: str) -> None:
    session.execute(sa.text("/* who */ UPDATE users SET name = :n"), {"n": name})


def by_connection(session: Session, name: str) -> None:
    session.connection().execute(sa.update(User).values(name=name))


def in_savepoint(session: Session, name: str) -> None:
    with session.begin_nested():
        by_bulk(session, name)


WAYS = [by_orm, by_orm_unflushed, by_bulk, by_text, by_connection, in_savepoint]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("is_warm", [False, True])
def test_after_a_rollback_nothing_uncommitted_is_left(engine, way, is_warm):
    with CacheManager() as cache:
        names = Names(cache, engine)
        if is_warm:
            names.name(1)
            names.session.rollback()
        way(names.session, "never")
        if way is not by_orm_unflushed or not is_warm:  # what is not flushed has not been written yet
            assert names.name(1) == "never"
            assert names.name(1) == "never"
        names.session.rollback()
        assert names.name(1) == "old"
        loads = names.loads
        assert names.name(1) == "old"
        assert names.loads == loads, "a hit again"
        assert not inside()
        names.session.close()


@pytest.mark.parametrize("way", WAYS)
def test_after_a_commit_the_named_key_is_loaded_anew_and_kept(engine, way):
    with CacheManager() as cache:
        names = Names(cache, engine)
        assert names.name(1) == "old"
        invalidate_on_commit(cache, names.session, "name:1")
        way(names.session, "new")
        assert names.name(1) == "new"
        names.session.commit()
        loads = names.loads
        assert [names.name(1), names.name(1)] == ["new", "new"]
        assert names.loads == loads + 1
        names.session.close()


def test_a_transaction_that_only_reads_uses_the_cache(engine):
    with CacheManager() as cache:
        names = Names(cache, engine)
        names.session.scalars(sa.select(User).with_for_update()).all()
        assert [names.name(1), names.name(1)] == ["old", "old"]
        assert names.loads == 1
        names.session.close()


def test_other_threads_and_tasks_go_on_hitting(engine):
    with CacheManager() as cache:
        names, seen = Names(cache, engine), []
        names.name(1)
        by_bulk(names.session, "mine")
        thread = threading.Thread(target=lambda: seen.append(names.name(1)))
        thread.start()
        thread.join()
        assert (seen, names.loads) == (["old"], 1)
        assert names.name(1) == "mine"
        names.session.rollback()
        names.session.close()


def test_bulk_loads_and_plain_loads_are_guarded_too(engine):
    with CacheManager() as cache, Session(engine) as session:

        def load() -> Any:
            return session.scalar(sa.select(User.name))

        by_bulk(session, "never")
        assert cache.get_or_load("n", load) == "never"
        assert cache.get_or_load_many(["n"], lambda keys: {key: load() for key in keys}) == {"n": "never"}
        session.rollback()
        assert cache.get_or_load("n", load) == "old"


def test_a_loader_that_writes_keeps_nothing(engine):
    with CacheManager() as cache, Session(engine) as session:

        def load() -> Any:
            by_bulk(session, "never")
            return session.scalar(sa.select(User.name))

        assert cache.get_or_load("n", load) == "never"
        assert cache.get_or_load_many(["m"], lambda keys: {"m": load()}) == {"m": "never"}
        session.rollback()
        assert (cache.get("n"), cache.get("m")) == (None, None)


def test_the_guard_can_be_switched_off_for_what_no_database_says(engine):
    with CacheManager(options=CacheOptions(guard_transactions=False)) as cache, Session(engine) as session:
        by_bulk(session, "never")
        assert [cache.get_or_load("weather", lambda n=n: n) for n in (1, 2)] == [1, 1]
        session.rollback()


def test_a_session_that_is_dropped_without_an_end_guards_nothing(engine):
    with CacheManager() as cache:
        session = Session(engine)
        by_bulk(session, "never")
        assert inside()
        session.close()
        del session
        assert [cache.get_or_load("k", lambda n=n: n) for n in (1, 2)] == [1, 1]
        assert threading.get_ident() not in DIRTY


def test_async_sessions_are_guarded_by_task(tmp_path):
    pytest.importorskip("aiosqlite")
    asyncio.run(_async_sessions(tmp_path))


async def _async_sessions(tmp_path):
    engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/users.db")
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
        await connection.execute(sa.insert(User).values(id=1, name="old"))
    async with CacheManager() as cache, AsyncSession(engine) as session:

        async def load() -> Any:
            return await session.scalar(sa.select(User.name))

        assert await cache.aget_or_load("n", load) == "old"
        await session.execute(sa.update(User).values(name="never"))
        assert await cache.aget_or_load("n", load) == "never"
        other = Context().run(asyncio.create_task, cache.aget_or_load("n", load))
        assert await other == "old"  # nothing of this task's
        await session.rollback()
        assert await cache.aget_or_load("n", load) == "old"
    await engine.dispose()


async def gathered(read: Any) -> Any:
    return (await asyncio.gather(read(), read()))[0]


async def timed(read: Any) -> Any:
    return await asyncio.wait_for(asyncio.shield(read()), 5)


async def nested(read: Any) -> Any:
    return await asyncio.create_task(gathered(read))


@pytest.mark.parametrize("start", [gathered, timed, nested])
@pytest.mark.parametrize("way", ["one", "many", "decorated"])
@pytest.mark.parametrize("is_warm", [True, False], ids=["warm", "cold"])
def test_tasks_that_a_transaction_starts_are_inside(tmp_path, start, way, is_warm):
    pytest.importorskip("aiosqlite")

    async def main() -> None:
        engine = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/users.db")
        async with engine.begin() as connection:
            await connection.run_sync(Base.metadata.create_all)
            await connection.execute(sa.insert(User).values(id=1, name="old"))
        async with CacheManager() as cache, AsyncSession(engine) as session:
            turn = asyncio.Lock()  # a session is for one at a time

            async def load() -> Any:
                async with turn:
                    return await session.scalar(sa.select(User.name))

            async def load_many(keys: list[str]) -> Any:
                return {key: await load() for key in keys}

            async def many() -> Any:
                return (await cache.aget_or_load_many(["n"], load_many))["n"]

            read = {
                "one": lambda: cache.aget_or_load("n", load),
                "many": many,
                "decorated": cache.cached(ttl=60)(load),
            }[way]
            if is_warm:
                assert await start(read) == "old"
            await session.execute(sa.update(User).values(name="never"))
            assert await start(read) == "never"
            await session.rollback()
            assert await start(read) == "old"
        await engine.dispose()

    asyncio.run(main())


@pytest.mark.parametrize("way", ["read elsewhere", "written elsewhere", "written in the load"])
@pytest.mark.parametrize("is_bulk", [False, True], ids=["one", "many"])
def test_what_a_thread_outside_reads_through_it_is_not_kept(tmp_path, way, is_bulk):
    """Not even for those who wait for that load."""
    engine = sa.create_engine(f"sqlite:///{tmp_path}/u.db", connect_args={"check_same_thread": False})
    Base.metadata.create_all(engine)
    with engine.begin() as connection:
        connection.execute(sa.insert(User).values(id=1, name="old"))
    writer, others = ThreadPoolExecutor(1), ThreadPoolExecutor(1)
    with CacheManager() as cache, Session(engine) as session, writer, others:
        began, go_on = threading.Event(), threading.Event()

        def load() -> Any:
            if way == "written in the load":
                writer.submit(by_text, session, "never").result()
            value = session.scalar(sa.select(User.name))
            began.set()
            assert go_on.wait(30)
            return value

        def committed() -> Any:
            with Session(engine) as own:
                return own.scalar(sa.select(User.name))

        def read(load: Any) -> Any:
            if is_bulk:
                return cache.get_or_load_many(["n"], lambda keys: {"n": load()})["n"]
            return cache.get_or_load("n", load)

        if way == "read elsewhere":
            by_text(session, "never")
        elif way == "written elsewhere":
            writer.submit(by_text, session, "never").result()
        first: Future[Any] = Future()
        thread = threading.Thread(target=lambda: first.set_result(read(load)))
        thread.start()
        assert began.wait(30)
        other = others.submit(read, committed)
        wait_until(lambda: other.running() and cache._core.flights._open["n"].is_awaited, what="a waiter")
        go_on.set()
        assert (first.result(30), other.result(30)) == ("never", "old")
        thread.join()
        session.rollback()
        assert read(committed) == "old"
    engine.dispose()


def test_a_second_transaction_of_a_connection_is_its_own(engine):
    """Python may give it the very address of the first."""
    with CacheManager() as cache, engine.connect() as connection:
        for n in range(20):
            with connection.begin():
                connection.execute(sa.update(User).values(name=f"name {n}"))
                assert inside()
            with connection.begin():
                connection.execute(sa.select(User.name))
                assert not inside()
                assert cache.get_or_load(f"k{n}", lambda: 1) == cache.get(f"k{n}") == 1


def test_every_usual_session_is_taken_and_anything_else_refused(engine):
    plain, scoped = Session(engine), scoped_session(sessionmaker(engine))
    for session in (plain, scoped):
        with CacheManager() as cache:
            cache.set("k", 1)
            session.execute(sa.text("select 1"))
            invalidate_on_commit(cache, session, "k")
            session.commit()
            assert cache.get("k") is None
        session.close()
    made = async_scoped_session(async_sessionmaker(), scopefunc=lambda: 1)
    with CacheManager() as cache:
        invalidate_on_commit(cache, made, "k")
        for odd in (sessionmaker(engine), engine, "session", None):
            with pytest.raises(ConfigurationError, match=r"session: .*a Session, an AsyncSession or"):
                invalidate_on_commit(cache, odd, "k")
        for wrong in ("t", b"t", 7, [7]):
            with pytest.raises(ConfigurationError, match="tags"):
                invalidate_on_commit(cache, plain, tags=wrong)
        with pytest.raises(ConfigurationError, match="key"):
            invalidate_on_commit(cache, plain, 7)


@pytest.mark.parametrize(
    ("statement", "expected"),
    [
        ("select 1", False), ("  (SELECT 1)", False), ("-- a\n/* b */ select 1", False),
        ("SAVEPOINT a", False),
        ("WITH x AS (SELECT 1) SELECT * FROM x", False), ("SELECT * FROM t FOR UPDATE", False),
        ("INSERT INTO t VALUES (1)", True), ("update t set a=1", True), ("DELETE FROM t", True),
        ("WITH x AS (DELETE FROM t RETURNING *) SELECT * FROM x", True), ("MERGE INTO t", True),
        ("CALL p()", True), ("TRUNCATE t", True), ("/* select */ REPLACE INTO t VALUES (1)", True),
        ("selection", True), ("", True),
    ],
)  # fmt: skip
def test_what_writes(statement, expected):
    assert writes(statement) is expected


DJANGO = """
import django, threading
from django.conf import settings
settings.configure(
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}, SECRET_KEY="x",
    INSTALLED_APPS=["django.contrib.contenttypes", "django.contrib.auth"], USE_TZ=True,
)
django.setup()
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction
from django.test import TestCase
from eventperf.cache import CacheManager
from eventperf.contrib.django import invalidate_on_commit
call_command("migrate", verbosity=0)
cache, loads = CacheManager(), []
User.objects.create(pk=1, username="old")

@cache.cached(ttl=60, key="name:{pk}")
def name(pk):
    loads.append(pk)
    return User.objects.get(pk=pk).username

def bulk(): User.objects.filter(pk=1).update(username="never")
def save():
    user = User.objects.get(pk=1); user.username = "never"; user.save()
def raw():
    with connection.cursor() as cursor: cursor.execute("UPDATE auth_user SET username = 'never'")
def nested():
    with transaction.atomic(): bulk()

def rolled_back(*steps):
    try:
        with transaction.atomic():
            for step in steps: step()
            raise KeyError
    except KeyError:
        pass

read = lambda: name(1)
def own(): assert name(1) == "never", name(1)
for warm in (False, True):
    for write in (bulk, save, raw, nested):
        for steps in ((write, own), (write, own, lambda: invalidate_on_commit(cache, "name:1")),
                      (lambda: invalidate_on_commit(cache, "name:1"), write, own)):
            cache.clear()
            if warm: read()
            rolled_back(*steps)
            assert read() == "old", (write, read())
            before = len(loads); read(); assert len(loads) == before
from asgiref.sync import async_to_sync, sync_to_async

@cache.cached(ttl=60)
async def aname(pk): return (await User.objects.aget(pk=pk)).username
def awaited(): assert async_to_sync(aname)(1) == "never"
async def view():
    await sync_to_async(lambda: rolled_back(bulk, own, awaited))()
    return await aname(1)
for warm in (False, True):
    cache.clear()
    if warm: async_to_sync(aname)(1)
    rolled_back(bulk, awaited)
    assert async_to_sync(aname)(1) == "old"
    assert async_to_sync(view)() == "old"
cache.clear(); read()
bulk(); assert read() == "old"  # committed by itself: the entry stays until it is invalidated
invalidate_on_commit(cache, "name:1"); assert read() == "never"

class InATest(TestCase):
    def test_hits(self):
        cache.clear(); save()
        before = len(loads); read(); read()
        assert len(loads) == before + 1, "the blocks of a TestCase are no transaction"
        with self.captureOnCommitCallbacks() as callbacks:
            with transaction.atomic():
                save(); read(); read()
        assert len(loads) == before + 3
        assert callbacks == []
import unittest
result = unittest.TextTestRunner().run(unittest.defaultTestLoader.loadTestsFromTestCase(InATest))
for wrong in ("t", b"t", 7):
    try: invalidate_on_commit(cache, tags=wrong)
    except ValueError: pass
    else: raise SystemExit("a text was taken for a list of tags")
print("right" if result.wasSuccessful() else "wrong")
"""


def test_the_same_in_django_with_every_way_to_write():
    pytest.importorskip("django")
    run = subprocess.run([sys.executable, "-c", DJANGO], capture_output=True, text=True, timeout=120)
    assert run.stdout.endswith("right\n"), run.stdout + run.stderr
