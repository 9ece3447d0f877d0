"""Invalidation with a transaction: SQLAlchemy's Session and AsyncSession, savepoints included."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session

from eventperf.cache import CacheManager, RedisStore, invalidate_on_commit


@pytest.fixture
def cache() -> CacheManager:
    made = CacheManager()
    made.set_many({"a": 1, "b": 1, "c": 1})
    made.set("tagged", 1, tags=["t"])
    return made


@pytest.fixture
def session() -> Iterator[Session]:
    engine = sa.create_engine("sqlite://")

    @sa.event.listens_for(engine, "connect")
    def _own_begin(connection, _record):
        connection.isolation_level = None  # savepoints of SQLite need it

    @sa.event.listens_for(engine, "begin")
    def _begin(connection):
        connection.exec_driver_sql("BEGIN")

    with Session(engine) as made:
        yield made
    engine.dispose()


def held(cache: CacheManager) -> str:
    return "".join(sorted(key[0] for key in cache.get_many(["a", "b", "c", "tagged"])))


def test_a_released_savepoint_waits_for_the_commit(cache: CacheManager, session: Session) -> None:
    session.execute(sa.text("select 1"))
    invalidate_on_commit(cache, session, "a")
    with session.begin_nested():
        invalidate_on_commit(cache, session, "b", tags=["t"])
    assert held(cache) == "abct"  # others still read the old rows
    session.commit()
    assert held(cache) == "c"


def test_a_rollback_to_a_savepoint_forgets_only_what_was_inside(
    cache: CacheManager, session: Session
) -> None:
    session.execute(sa.text("select 1"))
    invalidate_on_commit(cache, session, "a")
    outer = session.begin_nested()
    invalidate_on_commit(cache, session, "b")
    with session.begin_nested():
        invalidate_on_commit(cache, session, "c")
    outer.rollback()
    assert held(cache) == "abct"
    session.commit()
    assert held(cache) == "bct"


def test_a_rollback_after_a_released_savepoint_forgets_all(cache: CacheManager, session: Session) -> None:
    session.execute(sa.text("select 1"))
    with session.begin_nested():
        invalidate_on_commit(cache, session, "a")
    session.rollback()
    session.execute(sa.text("select 1"))
    session.commit()
    assert held(cache) == "abct"


def test_one_session_serves_several_transactions(cache: CacheManager, session: Session) -> None:
    for key, end in (("a", session.commit), ("b", session.rollback), ("c", session.commit)):
        session.execute(sa.text("select 1"))
        invalidate_on_commit(cache, session, key)
        end()
    assert held(cache) == "bt"


@pytest.mark.integration
def test_an_async_session_on_redis(redis_url: str) -> None:
    async def main() -> list[object]:
        seen: list[object] = []
        engine = create_async_engine("sqlite+aiosqlite://")
        async with (
            CacheManager(RedisStore(redis_url, timeout=5), namespace="commit") as cache,
            AsyncSession(engine) as session,
        ):
            for end in (session.rollback, session.commit):
                await cache.aset("k", 1, tags=["t"])
                await cache.aset("other", 1, tags=["t"])
                await session.execute(sa.text("select 1"))
                invalidate_on_commit(cache, session, "k", tags=["t"])
                await end()
                seen += [await cache.aget("k"), await cache.aget("other")]
        await engine.dispose()
        return seen

    assert asyncio.run(main()) == [1, 1, None, None]


def test_an_old_value_loaded_before_the_commit_goes_with_it(cache: CacheManager, session: Session) -> None:
    """A reader between the change and its commit caches the old row; the commit ends it."""
    load: Callable[[], str] = lambda: "the row before"  # noqa: E731
    session.execute(sa.text("select 1"))
    invalidate_on_commit(cache, session, "fresh")
    assert cache.get_or_load("fresh", load) == "the row before"
    session.commit()
    assert cache.get_or_load("fresh", lambda: "the row after") == "the row after"
