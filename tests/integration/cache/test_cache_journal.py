"""The change journal: whatever any program commits is told to the cache, after the commit and only then."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa

from eventperf.cache import CacheManager, Journal, JournalMissing, depends, row
from eventperf.cache.following import table_tags
from eventperf.cache.journal import making
from eventperf.cache.journal.dialects.numbered import Place
from eventperf.cli.main import main
from eventperf.errors import ConfigurationError

HOSTILE = "o'dd \"`%s$ep0$ \\name"
SCHEMA = (
    "CREATE TABLE events (id INTEGER PRIMARY KEY, name VARCHAR(40))",
    "CREATE TABLE seats (hall INTEGER, nr INTEGER, place VARCHAR(40), PRIMARY KEY (hall, nr))",
    "CREATE TABLE notes (body VARCHAR(40))",
    "CREATE TABLE {hostile} ({column} INTEGER PRIMARY KEY, name VARCHAR(40))",
    "CREATE TABLE tickets (id INTEGER PRIMARY KEY, event_id INTEGER, "
    "FOREIGN KEY (event_id) REFERENCES events (id) ON DELETE CASCADE)",
)
TABLES = ("events", "seats", "notes", HOSTILE, "tickets")


class Site:
    """A database with a journal, a cache in this process that follows it, and a second connection."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.engine = sa.create_engine(url, poolclass=sa.pool.NullPool)
        mark = "`" if self.engine.dialect.name == "mysql" else '"'
        self.hostile, self.column = (mark + n.replace(mark, mark * 2) + mark for n in (HOSTILE, "i'd \"`"))
        if self.engine.dialect.name == "sqlite":
            sa.event.listen(self.engine, "connect", lambda raw, _: raw.execute("PRAGMA foreign_keys = ON"))
        self.run(*(s.format(hostile=self.hostile, column=self.column) for s in SCHEMA))

    def run(self, *statements: str) -> None:
        with self.connect() as connection:
            for statement in statements:
                self.say(connection, statement)
            connection.commit()

    def connect(self) -> Any:
        return self.engine.connect()

    @staticmethod
    def say(connection: Any, statement: str) -> None:
        if not hasattr(connection, "exec_driver_sql"):
            connection.cursor().execute(statement)
            return
        connection.exec_driver_sql(statement, execution_options={"no_parameters": True})

    def open(self) -> contextlib.closing[Any]:
        """Return a connection of another program: the cache here does not see that it has written."""
        return contextlib.closing(self.engine.raw_connection())

    def journal(self, *tables: str, notify: bool | None = None) -> None:
        making.apply(self.url, making.plan(self.url, tables, notify=notify))

    def rows(self) -> int:
        with self.connect() as connection:
            return int(connection.exec_driver_sql("SELECT count(*) FROM eventperf_changes").scalar())

    def objects(self) -> list[str]:
        """Return the names of everything in the database that may be the journal's."""
        asked = {
            "sqlite": "SELECT name FROM sqlite_master WHERE name LIKE 'eventperf%'",
            "postgresql": "SELECT relname FROM pg_class WHERE relname LIKE 'eventperf%' UNION ALL "
            "SELECT proname FROM pg_proc WHERE proname LIKE 'eventperf%' UNION ALL "
            "SELECT tgname FROM pg_trigger WHERE tgname LIKE 'eventperf%'",
            "mysql": "SELECT table_name FROM information_schema.tables WHERE table_schema = database() "
            "AND table_name LIKE 'eventperf%' UNION ALL SELECT trigger_name FROM "
            "information_schema.triggers WHERE trigger_schema = database()",
        }[self.engine.dialect.name]
        with self.connect() as connection:
            options = {"no_parameters": True}
            return [name for (name,) in connection.exec_driver_sql(asked, execution_options=options)]


class Follower:
    """A cache, its reader, and what the cache still holds after a round."""

    def __init__(self, site: Site, cache: CacheManager, **options: Any) -> None:
        self.site, self.cache = site, cache
        self.reader = Journal(cache, site.url, **options)
        self.reader.once()

    def keep(self) -> None:
        for table in TABLES:
            self.cache.get_or_load(f"all {table}", lambda t=table: depends(*table_tags([t])), ttl=600)
        for key in ((1,), (2,)):
            self.cache.get_or_load(f"event {key[0]}", lambda k=key: depends(*row("events", *k)), ttl=600)
            self.cache.get_or_load(f"odd {key[0]}", lambda k=key: depends(*row(HOSTILE, *k)), ttl=600)
        for key in ((1, 1), (1, 2)):
            self.cache.get_or_load(f"seat {key}", lambda k=key: depends(*row("seats", *k)), ttl=600)
        self.cache.set("other", 1, ttl=600)

    def gone(self) -> set[str]:
        """Read the journal once; return which entries it dropped, and keep them again."""
        names = [f"all {t}" for t in TABLES] + [
            "event 1",
            "event 2",
            "odd 1",
            "odd 2",
            "seat (1, 1)",
            "seat (1, 2)",
        ]
        self.reader.once()
        gone = {name for name in [*names, "other"] if not self.cache.exists(name)}
        self.keep()
        return gone


@pytest.fixture(params=["sqlite", "postgresql", "mariadb"])
def site(request, tmp_path) -> Iterator[Site]:
    with contextlib.ExitStack() as stack:
        if request.param == "sqlite":
            url = f"sqlite:///{tmp_path}/journal.db"
        else:
            kind = "postgres" if request.param == "postgresql" else "mariadb"
            server = request.getfixturevalue(f"{kind}_server")
            url = stack.enter_context(server.fresh_database())
        made = Site(url)
        yield made
        made.engine.dispose()


@pytest.fixture
def follower(site) -> Iterator[Follower]:
    site.run(
        "INSERT INTO events VALUES (1, 'a'), (2, 'b')",
        "INSERT INTO seats VALUES (1, 1, 'x'), (1, 2, 'y')",
        f"INSERT INTO {site.hostile} VALUES (1, 'a'), (2, 'b')",
        "INSERT INTO tickets VALUES (1, 2)",
    )
    site.journal()
    with CacheManager() as cache:
        made = Follower(site, cache)
        made.keep()
        assert made.gone() == set()
        yield made
        made.reader.close()


def followed(follower: Follower, *statements: str) -> set[str]:
    follower.site.run(*statements)
    return follower.gone()


def test_writes_of_another_program_forget_their_rows_and_tables_and_nothing_else(follower):
    odd, column = follower.site.hostile, follower.site.column
    assert followed(follower, "UPDATE events SET name = 'new' WHERE id = 2") == {"all events", "event 2"}
    assert followed(follower, "INSERT INTO events VALUES (3, 'c')") == {"all events"}
    assert followed(follower, "UPDATE seats SET place = 'z' WHERE nr = 2") == {"all seats", "seat (1, 2)"}
    assert followed(follower, f"DELETE FROM {odd} WHERE {column} = 1") == {f"all {HOSTILE}", "odd 1"}
    assert followed(follower, "INSERT INTO notes VALUES ('no key')") == {"all notes"}
    assert followed(follower, "UPDATE events SET name = 'none' WHERE id = 77") == set()
    assert followed(follower) == set()


def test_a_key_that_changes_forgets_the_row_under_both(follower):
    assert followed(follower, "UPDATE events SET id = 20 WHERE id = 1") == {"all events", "event 1"}
    assert followed(follower, "UPDATE events SET id = 1 WHERE id = 20") == {"all events", "event 1"}


def test_what_a_foreign_key_deletes_is_told_too(follower):
    assert followed(follower, "DELETE FROM events WHERE id = 2") == {"all events", "event 2", "all tickets"}


def test_a_rollback_adds_nothing(follower):
    before = follower.site.rows()
    with follower.site.connect() as connection:
        follower.site.say(connection, "UPDATE events SET name = 'never'")
        follower.site.say(connection, "INSERT INTO notes VALUES ('never')")
        connection.rollback()
    assert follower.site.rows() == before
    assert follower.gone() == set()


def test_emptying_a_table_forgets_all_of_its_rows(follower):
    name = follower.site.engine.dialect.name
    if name == "mysql":
        pytest.skip("TRUNCATE is a definition there and runs no trigger: docs/cache/follow.md says so")
    how = "DELETE FROM seats" if name == "sqlite" else "TRUNCATE seats"
    assert followed(follower, how) == {"all seats", "seat (1, 1)", "seat (1, 2)"}


def test_transactions_that_commit_in_reverse_order_are_both_told(follower):
    site = follower.site
    if site.engine.dialect.name == "sqlite":
        pytest.skip("one writer at a time")
    with site.open() as first, site.open() as second:
        site.say(first, "UPDATE events SET name = 'first' WHERE id = 1")
        site.say(second, "UPDATE seats SET place = 'second' WHERE nr = 1")
        second.commit()
        assert follower.gone() == {"all seats", "seat (1, 1)"}
        site.run("INSERT INTO notes VALUES ('third')")
        assert follower.gone() == {"all notes"}
        first.commit()
    assert follower.gone() == {"all events", "event 1"}


def test_a_reader_that_begins_amid_a_transaction_hears_its_commit(follower):
    site = follower.site
    if site.engine.dialect.name == "sqlite":
        pytest.skip("one writer at a time")
    with site.open() as first, CacheManager() as cache:
        site.say(first, "UPDATE events SET name = 'first' WHERE id = 1")
        site.run("INSERT INTO notes VALUES ('later')")
        late = Follower(site, cache)
        late.keep()
        assert late.gone() == set()
        first.commit()
        assert late.gone() == {"all events", "event 1"}
        late.reader.close()


def test_numbers_that_were_rolled_back_are_given_up_and_others_are_not(follower, monkeypatch):
    site = follower.site
    if site.engine.dialect.name != "mysql":
        pytest.skip("positions without numbers that are missing")
    monkeypatch.setattr("eventperf.cache.journal.dialects.mysql.SETTLED_S", -1.0)
    with site.open() as dead, site.open() as open_:
        site.say(dead, "UPDATE events SET name = 'never' WHERE id = 2")
        dead.rollback()
        site.say(open_, "UPDATE events SET name = 'late' WHERE id = 1")
        site.run("INSERT INTO notes VALUES ('x')")
        for _ in range(4):
            follower.reader.once()
        place = Place.of(str(follower.reader._position))
        assert len(place.gaps) == 1, "the transaction under way alone is waited for"
        open_.commit()
    assert follower.gone() >= {"all events", "event 1"}
    follower.reader.once()
    assert Place.of(str(follower.reader._position)).gaps == ()


def test_too_many_missing_numbers_are_joined_and_given_up_in_the_end(follower, monkeypatch):
    site = follower.site
    if site.engine.dialect.name != "mysql":
        pytest.skip("positions without numbers that are missing")
    numbered = "eventperf.cache.journal.dialects.numbered"
    monkeypatch.setattr(f"{numbered}.MOST_GAPS", 50)
    monkeypatch.setattr(f"{numbered}._AT_ONCE", 7)
    first = 1 + Place.of(str(follower.reader._position)).last
    odd = ", ".join(f"({first + 2 * n}, 'seats')" for n in range(80))
    with site.open() as open_:
        site.say(open_, f"INSERT INTO eventperf_changes (id, tbl, k) VALUES ({first + 61}, 'events', '1')")
        site.run(f"INSERT INTO eventperf_changes (id, tbl) VALUES {odd}")
        assert "all seats" in follower.gone()
        assert 25 < len(Place.of(str(follower.reader._position)).gaps) <= 50
        monkeypatch.setattr("eventperf.cache.journal.dialects.mysql.SETTLED_S", -1.0)
        for _ in range(4):
            assert "event 1" not in follower.gone()
        open_.commit()
        assert "event 1" in follower.gone()
    for _ in range(2):
        follower.reader.once()
    assert (Place.of(str(follower.reader._position)).gaps, follower.reader.lost) == ((), 0)


def test_many_rows_of_one_statement_are_told_as_a_table(follower):
    site = follower.site
    many = ", ".join(f"({n}, 'x')" for n in range(100, 3_100))
    before = site.rows()
    assert followed(follower, f"INSERT INTO events VALUES {many}") >= {"all events"}
    if site.engine.dialect.name == "postgresql":
        assert site.rows() - before <= 1_002
    assert followed(follower, "UPDATE events SET name = 'all'") == {"all events", "event 1", "event 2"}


def test_read_rows_are_removed_and_a_forgotten_reader_invalidates_everything(follower):
    site = follower.site
    with CacheManager() as cache:
        other = Follower(site, cache, name="other")
        other.keep()
        site.run("INSERT INTO notes VALUES ('x')")
        follower.reader._saved = (follower.reader._saved[0], 0.0)
        follower.reader.once()
        assert site.rows() >= 1  # the other one has not read it
        site.run("UPDATE eventperf_change_readers SET seen_at = 1 WHERE name LIKE 'other%'")
        site.run("UPDATE events SET name = 'x' WHERE id = 1")
        for _ in range(2):
            follower.reader._saved = (follower.reader._saved[0], 0.0)
            follower.reader.once()
        assert site.rows() <= 1, "the last may stay: it shows that the journal is the same"
        other.reader._saved = (other.reader._saved[0], 0.0)
        everything = {f"all {t}" for t in TABLES} | {"event 1", "event 2", "odd 1", "odd 2"}
        assert other.gone() - {"all notes"} == (everything | {"seat (1, 1)", "seat (1, 2)"}) - {"all notes"}
        assert other.reader.lost == 1
        assert cache.exists("other")
        other.reader.close()


def test_a_journal_that_was_emptied_or_made_anew_is_noticed(follower):
    site = follower.site
    if site.engine.dialect.name == "postgresql":
        pytest.skip("positions are the server's own, not the table's")
    site.run("DELETE FROM eventperf_changes")
    assert follower.gone() >= {"all events", "event 1", "seat (1, 1)"}
    assert follower.gone() == set()


def test_a_table_that_lost_its_triggers_is_said_and_forgotten_until_it_has_them_again(follower, caplog):
    site = follower.site

    def gone_later() -> set[str]:
        follower.reader._saved = (follower.reader._saved[0], 0.0)
        return follower.gone()

    assert gone_later() == set()
    table, other = (
        ("seats", "all events") if site.engine.dialect.name == "sqlite" else ("events", "all seats")
    )
    if site.engine.dialect.name == "postgresql":
        site.run("ALTER TABLE events DISABLE TRIGGER USER")
    else:
        site.run(f"DROP TABLE {table}") if table == "seats" else site.run(
            "ALTER TABLE events RENAME TO old_events", "CREATE TABLE events LIKE old_events"
        )
    for _ in range(2):
        gone = gone_later()
        assert f"all {table}" in gone
        assert other not in gone
    said = [line for line in caplog.messages if "no triggers on" in line]
    assert len(said) == 1
    assert table in said[0]
    if table == "seats":
        site.run("CREATE TABLE seats (hall INTEGER, nr INTEGER, PRIMARY KEY (hall, nr))")
    site.journal(table)
    gone_later()
    assert gone_later() == set()


def test_caches_in_process_memory_do_not_share_a_place_whatever_name_they_are_given(follower):
    with CacheManager() as first, CacheManager() as second:
        readers = [Follower(follower.site, cache, name="web") for cache in (first, second)]
        for one in readers:
            one.keep()
        follower.site.run("UPDATE events SET name = 'x' WHERE id = 1")
        for one in readers:
            one.reader._saved = (one.reader._saved[0], 0.0)
            assert one.gone() == {"all events", "event 1"}
            one.reader.close()


def test_the_dry_run_changes_nothing_and_drop_leaves_nothing(site, capsys):
    assert main(["cache", "journal", site.url]) == 0
    shown = capsys.readouterr().out
    assert "CREATE TRIGGER" in shown
    assert "Nothing was changed" in shown
    assert site.objects() == []
    for _ in range(2):  # again is harmless
        assert main(["cache", "journal", site.url, "--apply", "--table", "events", "--table", "notes"]) == 0
    once = sorted(site.objects())
    assert main(["cache", "journal", site.url, "--apply", "--tables", "events", "notes"]) == 0
    assert sorted(site.objects()) == once
    assert main(["cache", "journal", site.url, "--drop"]) == 0
    assert sorted(site.objects()) == once
    assert main(["cache", "journal", site.url, "--drop", "--yes"]) == 0
    assert site.objects() == []
    site.run("INSERT INTO events VALUES (9, 'still works')")


def test_what_was_not_asked_for_is_left_alone_and_wrong_names_are_refused(site):
    site.run("CREATE TABLE django_session (id INTEGER PRIMARY KEY)")
    plan = making.plan(site.url)
    assert "django_session" in str(plan.left_out)
    assert {table.name for table in plan.tables} == set(TABLES)
    assert [table.name for table in making.plan(site.url, ["django_session"]).tables] == ["django_session"]
    with pytest.raises(ConfigurationError, match="nope"):
        making.plan(site.url, ["nope"])


def test_a_reader_without_a_journal_says_how_to_make_one(site):
    with CacheManager() as cache, pytest.raises(JournalMissing, match="eventperf cache journal URL --apply"):
        Journal(cache, site.url).once()


@pytest.mark.parametrize("poll", ["20ms", "1h"])
def test_a_thread_follows_until_it_is_closed(follower, poll):
    if poll == "1h":
        if follower.site.engine.dialect.name != "postgresql":
            pytest.skip("only PostgreSQL wakes its readers")
        follower.site.journal(notify=True)
        follower.reader.once()
        follower.keep()
    follower.reader._poll_s = 3600.0 if poll == "1h" else 0.02
    waits = threading.Event()
    plain = follower.cache.invalidate_tags

    def told(*tags: str) -> None:
        plain(*tags)
        if "table:notes" in tags:
            waits.set()

    follower.cache.invalidate_tags = told  # type: ignore[method-assign]
    with follower.reader as reader:
        assert reader.state == "following"
        follower.site.run("INSERT INTO notes VALUES ('heard')")
        assert waits.wait(30)
    assert reader.state == "stopped"
    assert not follower.cache.exists("all notes")


WRITER = """
import os, signal, sys
import sqlalchemy as sa
from eventperf.cache import CacheManager
from eventperf.contrib.sqlalchemy import follow
engine = sa.create_engine(sys.argv[1])
cache = CacheManager(sys.argv[2])
follow(cache, engine)
cache.invalidate_tags = lambda *tags: os.kill(os.getpid(), signal.SIGKILL)
with engine.begin() as connection:
    connection.execute(sa.text("UPDATE events SET name = 'killed' WHERE id = 1"))
"""


def test_an_application_killed_between_commit_and_invalidation_leaves_nothing_stale(follower, redis_server):
    site = follower.site
    with CacheManager(redis_server.url, namespace=f"j{time.monotonic_ns()}") as cache:
        shared = Follower(site, cache)
        shared.keep()
        done = subprocess.run([sys.executable, "-c", WRITER, site.url, redis_server.url], check=False)
        assert done.returncode == -signal.SIGKILL
        assert cache.exists("event 1"), "nobody has told it yet"
        assert shared.gone() == {"all events", "event 1"}
        shared.reader.close()


READER = """
import os, signal, sys
from eventperf.cache import CacheManager, Journal
cache = CacheManager(sys.argv[2], namespace=sys.argv[3])
reader = Journal(cache, sys.argv[1])
reader.once()
reader._saved = (reader._saved[0], 0.0)
reader.once()
print("ready", flush=True)
sys.stdin.readline()
cache.invalidate_tags = lambda *tags: os.kill(os.getpid(), signal.SIGKILL)
reader.once()
"""


def test_a_reader_killed_before_it_invalidates_goes_on_where_it_was(follower, redis_server):
    site = follower.site
    with CacheManager(redis_server.url, namespace=f"j{time.monotonic_ns()}") as cache:
        call = [sys.executable, "-c", READER, site.url, redis_server.url, cache.namespace]
        with subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert child.stdin is not None
            assert child.stdout.readline() == "ready\n"
            cache.set("k", 1, ttl=600, tags=["table:events"])
            cache.set("unchanged", 1, ttl=600, tags=["table:seats"])
            site.run("UPDATE events SET name = 'x' WHERE id = 1")
            child.stdin.write("go\n")
            child.stdin.flush()
            assert child.wait(60) == -signal.SIGKILL
        assert cache.exists("k")
        again = Journal(cache, site.url)
        assert again.once() == 1
        assert (cache.exists("k"), cache.exists("unchanged")) == (False, True)
        assert again.lost == 0
        again.close()


def test_what_the_cache_has_not_taken_is_read_again(follower, private_redis):
    site, redis = follower.site, private_redis()
    with CacheManager(redis.url, namespace="held", l1=None, timeout=1) as cache:
        reader = Journal(cache, site.url)
        reader.once()
        before = reader._position
        redis.kill9()
        site.run("UPDATE events SET name = 'x' WHERE id = 1")
        with pytest.raises(Exception, match="waits for it"):
            reader.once()
        assert reader._position == before
        redis.restart()
        end = time.monotonic() + 60
        while cache.stats().replay_queue and time.monotonic() < end:
            time.sleep(0.05)
        assert reader.once() >= 1
        reader.close()


def test_blindness_is_said_once_and_its_end_too(private_postgres, caplog):
    with (
        contextlib.closing(private_postgres()) as server,
        server.fresh_database() as url,
        CacheManager() as cache,
    ):
        site = Site(url)
        site.journal("events")
        with Journal(cache, url, poll="20ms") as reader:
            server.kill9()
            _until(lambda: reader.state == "blind")
            server.restart()
            _until(lambda: reader.state == "following")
            cache.set("k", 1, tags=["table:events"])
            site.engine.dispose()
            site.run("INSERT INTO events VALUES (1, 'x')")
            _until(lambda: not cache.exists("k"))
        said = [r.getMessage() for r in caplog.records if "change journal" in r.getMessage()]
        assert [("blind" in line, "follows again" in line) for line in said] == [(True, False), (False, True)]
        site.engine.dispose()


def psycopg_calls(step: Any, made: list[Any], monkeypatch: Any) -> Any:
    """Have each wait for PostgreSQL take a step first; return how to tell whether a connection is open."""
    import psycopg

    wait, connect = psycopg.Connection.wait, psycopg.connect

    def waited(connection: Any, *args: Any) -> Any:
        step(psycopg.OperationalError)
        return wait(connection, *args)

    def connected(*args: Any, **options: Any) -> Any:
        step(psycopg.OperationalError)
        made.append(connect(*args, **options))
        return made[-1]

    monkeypatch.setattr(psycopg.Connection, "wait", waited)
    monkeypatch.setattr(psycopg, "connect", connected)
    return lambda one: not one.closed


def pymysql_calls(step: Any, made: list[Any], monkeypatch: Any) -> Any:
    import pymysql

    execute, connect = pymysql.connections.Connection._execute_command, pymysql.connect

    def executed(connection: Any, *args: Any) -> Any:
        step(pymysql.err.OperationalError)
        return execute(connection, *args)

    def connected(*args: Any, **options: Any) -> Any:
        step(pymysql.err.OperationalError)
        made.append(connect(*args, **options))
        return made[-1]

    monkeypatch.setattr(pymysql.connections.Connection, "_execute_command", executed)
    monkeypatch.setattr(pymysql, "connect", connected)
    return lambda one: one.open


def test_whatever_call_to_the_database_fails_no_connection_is_left_open(site, monkeypatch):
    if site.engine.dialect.name == "sqlite":
        pytest.skip("it is no server that goes away")
    site.journal("events")
    made, calls, fails = [], [0], [0]

    def step(error: Any) -> None:
        calls[0] += 1
        if calls[0] == fails[0]:
            raise error("the server is gone")

    with CacheManager() as cache:
        reader = Journal(cache, site.url)
        assert reader._attempt()
        watch = psycopg_calls if site.engine.dialect.name == "postgresql" else pymysql_calls
        is_open = watch(step, made, monkeypatch)
        for at in range(1, 200):
            calls[0], fails[0] = 0, at
            reader._saved = (str(reader._saved[0]), 0.0)  # places are kept, old rows removed
            is_past = reader._attempt() and calls[0] < at
            assert reader._engine.pool.checkedout() == 0, "a place of the pool is lost for good"
            assert len([one for one in made if is_open(one)]) <= 2, "one of the pool, and the bell"
            if is_past:
                break
        assert at > 10, "no call was left out"
        reader.close()
        assert [one for one in made if is_open(one)] == []


def _until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_forked_child_goes_on_reading(site):
    site.journal("events")
    script = f"""
import os, time
from eventperf.cache import CacheManager, Journal
import sqlalchemy as sa
cache = CacheManager()
reader = Journal(cache, {site.url!r}, poll="20ms").start()
if os.fork() == 0:
    while reader._position is None: time.sleep(0.01)
    cache.set("k", 1, tags=["table:events"])
    engine = sa.create_engine({site.url!r})
    with engine.begin() as connection: connection.execute(sa.text("INSERT INTO events VALUES (1, 'x')"))
    end = time.monotonic() + 60
    while cache.exists("k") and time.monotonic() < end: time.sleep(0.01)
    print("gone" if not cache.exists("k") else "kept", flush=True)
    reader.close()
    os._exit(0)
os.wait()
reader.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert done.stdout == "gone\n", done.stderr


# -- PostgreSQL alone ----------------------------------------------------------------------------------------


@pytest.fixture
def postgres(postgres_server) -> Iterator[Site]:
    with postgres_server.fresh_database() as url:
        site = Site(url)
        yield site
        site.engine.dispose()


def test_partitions_and_heirs_are_told_as_themselves_and_as_what_shows_them(postgres):
    postgres.run(
        "CREATE TABLE visits (id int, day int, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)",
        "CREATE TABLE visits_1 PARTITION OF visits FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE people (id int PRIMARY KEY)",
        "CREATE TABLE staff (badge int, PRIMARY KEY (id)) INHERITS (people)",
    )
    postgres.journal("visits", "people")
    postgres.run("CREATE TABLE visits_2 PARTITION OF visits FOR VALUES FROM (10) TO (20)")

    def tags(statement: str) -> set[str]:
        reader.once()
        told.clear()
        postgres.run(statement)
        reader.once()
        links = {tag for tag in told if tag.endswith(":=*")}  # a journal does not know where rows link to
        assert links == {f"{tag}:=*" for tag in told if tag.count(":") == 1}
        return set(told) - links

    told: list[str] = []
    with CacheManager() as cache:
        cache.invalidate_tags = lambda *tags: told.extend(tags)  # type: ignore[method-assign]
        reader = Journal(cache, postgres.url)
        both = {"table:visits", "table:visits:1,3", "table:visits_1", "table:visits_1:1,3"}
        assert tags("INSERT INTO visits VALUES (1, 3)") == both
        assert tags("UPDATE visits_1 SET day = 3") == both
        assert tags("UPDATE visits SET day = 13") == both | {
            "table:visits:1,13", "table:visits_2", "table:visits_2:1,13",
        }  # fmt: skip
        assert tags("TRUNCATE visits_1") == {
            "table:visits_1", "table:visits_1:*", "table:visits", "table:visits:*",
        }  # fmt: skip
        assert tags("INSERT INTO staff VALUES (7, 1)") == {
            "table:staff", "table:staff:7", "table:people", "table:people:*",
        }  # fmt: skip
        assert "table:staff:7" in tags("UPDATE people SET id = 8")
        reader.close()


def test_writers_need_no_right_to_the_journal_and_its_reader_needs_no_other(postgres):
    postgres.journal("events")
    grants = making.grants(postgres.url, 'rea"der')
    postgres.run(
        "DROP ROLE IF EXISTS \"rea\"\"der\"", "DROP ROLE IF EXISTS wri", 'CREATE ROLE "rea""der" LOGIN',
        "CREATE ROLE wri LOGIN", "GRANT SELECT, INSERT ON events TO wri", *grants,
    )  # fmt: skip
    try:
        url = sa.make_url(postgres.url)
        writer = sa.create_engine(url.set(username="wri"), poolclass=sa.pool.NullPool)
        with CacheManager() as cache:
            reader = Journal(cache, url.set(username='rea"der').render_as_string(hide_password=False))
            reader.once()
            cache.set("k", 1, tags=["table:events"])
            with writer.begin() as connection:
                connection.exec_driver_sql("INSERT INTO events VALUES (1, 'x')")
            with pytest.raises(sa.exc.ProgrammingError), writer.begin() as connection:
                connection.exec_driver_sql("DELETE FROM eventperf_changes")
            assert reader.once() == 1
            assert not cache.exists("k")
            reader.close()
    finally:
        postgres.run('DROP OWNED BY "rea""der"', "DROP OWNED BY wri", 'DROP ROLE "rea""der"', "DROP ROLE wri")


def test_prepared_transactions_are_told_when_they_are_committed(postgres):
    postgres.journal("events")
    with CacheManager() as cache:
        reader = Journal(cache, postgres.url)
        reader.once()
        cache.set("k", 1, tags=["table:events"])
        with postgres.connect() as connection:
            connection.exec_driver_sql("INSERT INTO events VALUES (1, 'x')")
            connection.exec_driver_sql("PREPARE TRANSACTION 'j8'")
            connection.commit()
        reader.once()
        assert cache.exists("k")
        with postgres.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            connection.exec_driver_sql("COMMIT PREPARED 'j8'")
        reader.once()
        assert not cache.exists("k")
        reader.close()


def test_another_server_or_a_restored_one_is_noticed(postgres):
    postgres.journal("events")
    with CacheManager() as cache:
        reader = Journal(cache, postgres.url)
        reader.once()
        cache.set("k", 1, tags=["table:events"])
        server, _, snap = str(reader._position).partition(" ")
        for position in (f"elsewhere {snap}", f"{server} 9000000:9000000:"):
            cache.set("k", 1, tags=["table:events"])
            reader._position = position
            reader.once()
            assert not cache.exists("k")
        assert reader.lost == 2
        reader.close()


def test_a_place_that_somebody_damaged_is_a_lost_one_and_ends_no_reader(site: Site) -> None:
    site.journal()
    damage = sa.text("UPDATE eventperf_change_readers SET position = :odd")
    with CacheManager() as cache, contextlib.closing(Journal(cache, site.url, keep="1h")) as journal:
        for odd in ("garbage", "", "²", "9" * 5000, "-1", "1 2:3-", "0/1 5:x:", "0/1 5:6:7,", "[]"):
            journal.once()
            with site.connect() as connection:
                connection.execute(damage, {"odd": odd})
                connection.commit()
            journal._purge()  # another reader's, that is: it leaves alone what that one may need
            lost, journal._position = journal.lost, odd
            journal.once()
            assert journal.lost == lost + 1, odd
        site.run("INSERT INTO events VALUES (77, 'x')")
        assert journal.once() == 1
