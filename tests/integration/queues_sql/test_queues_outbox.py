"""Jobs on their way from a database transaction to another store, while the relay is killed."""

from __future__ import annotations

import json
import random
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, make_url, text
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from eventperf.cli.main import main
from eventperf.errors import ConfigurationError, OutboxMissing, StoreUnavailable
from eventperf.queues import JobState, QueueManager
from eventperf.queues.backends.sql import engines
from eventperf.queues.outbox import Relay, create_table
from eventperf.queues.producing.outbox import STRAY
from eventperf.testing.queues import Station
from eventperf.testing.queues.search import found as found_jobs
from faults import Worker, wait_until

pytestmark = pytest.mark.integration

RELAY = """
import sys
from eventperf.queues import QueueManager
from eventperf.queues.outbox import Relay
with QueueManager(sys.argv[1], namespace="outbox") as queues, Relay(queues, sys.argv[2], batch=50) as relay:
    print("ready", flush=True)
    relay.run()
"""


@pytest.fixture
def queues(redis_url: str) -> Iterator[QueueManager]:
    with QueueManager(redis_url, namespace="outbox") as manager:
        yield manager


@pytest.fixture
def app(postgres_url: str) -> Iterator[Any]:
    engine = create_engine(postgres_url)
    create_table(engine)
    with engine.begin() as conn:
        conn.execute(text("CREATE TABLE orders (id INTEGER PRIMARY KEY)"))
    yield engine
    engine.dispose()


def test_nothing_is_lost_and_nothing_made_up_though_the_relay_dies(
    queues: QueueManager, app: Any, redis_url: str, postgres_url: str
) -> None:
    """Every committed job arrives once, no rolled back one does, whenever the relay is killed."""
    chance = random.Random(7)
    committed: list[int] = []
    over = threading.Event()

    def write() -> None:
        first = 1
        for _ in range(1500):
            mine = list(range(first, first + chance.randint(1, 3)))
            first = mine[-1] + 1
            with Session(app) as session:
                for n in mine:
                    session.execute(text("INSERT INTO orders VALUES (:n)"), {"n": n})
                    queues.enqueue("ship", n, session=session, priority=1)
                if chance.random() < 0.3:
                    session.rollback()
                else:
                    session.commit()
                    committed.extend(mine)
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    kills, when = 0, random.Random(8)
    while not over.is_set() or kills < 3:
        with Worker(RELAY, redis_url, postgres_url) as relay:
            relay.wait_for("ready")
            over.wait(when.uniform(0.02, 0.4))
            relay.kill9()
            kills += 1
    writer.join()
    with Relay(queues, postgres_url) as relay:
        relay.run(burst=True)
        assert relay.waiting() == 0
    with app.connect() as conn:
        stored = conn.execute(text("SELECT id FROM orders ORDER BY id")).scalars().all()
    arrived = []
    station = Station(queues, "ship", lease_s=60)
    while leases := station.take():
        arrived += [queues.codec.decode(lease.record.payload) for lease in leases]
    assert stored == committed
    assert arrived == committed, "each once, in their order"


def test_delay_deadline_and_options_survive(queues: QueueManager, app: Any, postgres_url: str) -> None:
    with Session(app) as session:
        job = queues.enqueue(
            "ship", {"a": b"\x00"}, session=session, delay=60, headers={"trace": "x"}, fairness_key="acme",
            deadline=90, attempts=7,
        )  # fmt: skip
        session.commit()
    with Relay(queues, postgres_url) as relay:
        assert relay.run(burst=True) == 1
    info = job.info()
    assert info.state is JobState.DELAYED
    assert (dict(info.headers), info.key) == ({"trace": "x"}, "acme")
    assert 50 < (info.due_at or 0) - info.created_at <= 60
    assert queues.codec.decode(info.payload or b"") == {"a": b"\x00"}


def test_relay_waits_for_a_store_that_is_away(app: Any, private_redis: Any, postgres_url: str) -> None:
    server = private_redis(appendonly="yes", appendfsync="always")
    with QueueManager(server.url) as queues, Relay(queues, postgres_url) as relay:
        thread = threading.Thread(target=relay.run)
        thread.start()
        try:
            server.kill9()
            with Session(app) as session:
                job = queues.enqueue("ship", 1, session=session)
                session.commit()
            server.restart()
            wait_until(lambda: relay.relayed == 1, timeout=20, what="the relay")
            assert job.info().state is JobState.WAITING
        finally:
            relay.stop()
            thread.join(20)
        assert not thread.is_alive()


def test_relay_command_and_bad_databases(
    redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{tmp_path / 'app.db'}"
    assert main(["queue", "relay", redis_url, "--database", url, "--create", "--burst"]) == 0
    engine = create_engine(url, poolclass=NullPool)
    with QueueManager(redis_url) as queues, engine.begin() as conn:
        queues.enqueue("ship", 1, session=conn)
    engine.dispose()
    assert main(["queue", "relay", redis_url, "--database", url, "--burst"]) == 0
    assert "1 jobs relayed" in capsys.readouterr().out
    with QueueManager(redis_url) as queues:
        assert sum(row.waiting for row in queues.status()) == 1
        with pytest.raises(ConfigurationError):
            Relay(queues, "nonsense")
        with (
            Relay(queues, "postgresql+psycopg://a:s3cret@127.0.0.1:1/x") as relay,
            pytest.raises(StoreUnavailable) as caught,
        ):
            relay.run(burst=True)
        assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("kind", ["sqlite", "postgres", "mariadb"])
def test_an_outbox_without_its_table_is_one_sentence(
    queues: QueueManager, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    fixture = "" if kind == "sqlite" else request.getfixturevalue(f"{kind}_url")
    url = fixture or f"sqlite:///{tmp_path / 'app.db'}"
    engine = create_engine(url, poolclass=NullPool)
    with Relay(queues, url) as relay:
        for call in (relay.once, relay.waiting, lambda: relay.run(burst=True)):
            with pytest.raises(OutboxMissing, match="--create"):
                call()
        with engine.connect() as conn, pytest.raises(OutboxMissing, match="create_table"):
            queues.enqueue("ship", 1, session=conn)
        create_table(url)
        with engine.begin() as conn:
            queues.enqueue("ship", 1, session=conn)
        assert (relay.waiting(), relay.once()) == (1, 1)
    engine.dispose()


def _bodies(good: str) -> Iterator[str]:
    """Yield what a row may hold that nobody enqueued: no JSON, other shapes, every field made another."""
    yield from ("", "{", "[]", "7", "null", "[[],0,null]", "[" * 100_000, '[{"a":1},0,null]')
    fields, *times = json.loads(good)
    for name in fields:
        for odd in (None, 7.5, [], {}, "a\x1fb", "a|b", "x" * 999, "\ud800", -1, 10**30):
            if (name, odd) not in (("headers", None), ("headers", {}), ("tags", []), ("key", "a|b")):
                yield json.dumps([{**fields, name: odd}, *times])
    yield json.dumps([{**fields, "flow": {"after": ["a\x1f"], "when": "success"}}, *times])
    for odd in ("x", [], 1e400, -1):
        yield json.dumps([fields, odd, None])
        yield json.dumps([fields, 0, odd])


def test_rows_that_are_no_jobs_end_in_the_dead_letter_and_hold_nothing_up(
    redis_url: str, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/app.db"
    create_table(url)
    engine = create_engine(url, poolclass=NullPool)
    made = QueueManager(redis_url, namespace=f"odd-{uuid4().hex[:8]}", unknown_grace=0)
    with made as queues, Relay(queues, url) as relay:
        with engine.begin() as conn:
            queues.enqueue("ship", "before", session=conn, tags=["x"], headers={"a": "b"}, fairness_key="k")
            body = conn.execute(text("SELECT body FROM eventperf_outbox")).scalar_one()
            odd = list(_bodies(body))
            row = text("INSERT INTO eventperf_outbox (namespace, created_at, body) VALUES (:n, 0, :b)")
            conn.execute(row, [{"n": queues.namespace, "b": one} for one in odd])
            forgotten = queues.enqueue("ship", "orphan", session=conn, after=["long forgotten"])
            queues.enqueue("ship", "after", session=conn)
        assert relay.run(burst=True) == len(odd) + 3
        station = Station(queues, "ship")
        taken = [queues.codec.decode(lease.record.payload) for lease in station.take()]
        assert sorted(taken) == ["after", "before"]
        strays = [job for job in found_jobs(queues, 1000) if job.type == STRAY]
        assert len(strays) == len(odd) + 1
        assert {(queues.job_info(job.id).payload or b"").decode() for job in strays} > set(odd[:5])
        assert forgotten.info().type == STRAY
    engine.dispose()


def test_django_transaction(redis_url: str, tmp_path: Path) -> None:
    url = tmp_path / "django.db"
    with Worker(DJANGO, redis_url, url) as program:
        assert program.wait(60) == 0, program.output
    with QueueManager(redis_url, namespace="dj") as queues, Relay(queues, f"sqlite:///{url}") as relay:
        assert relay.run(burst=True) == 1
        (lease,) = Station(queues, "ship").take()
        assert queues.codec.decode(lease.record.payload) == "kept"


DJANGO = """
import sys
import django
from django.conf import settings
settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": sys.argv[2]}})
django.setup()
from django.db import transaction, connections
from eventperf.queues import QueueManager
from eventperf.errors import ConfigurationError, OutboxMissing
from eventperf.queues.outbox import create_table
with QueueManager(sys.argv[1], namespace="dj") as queues:
    for using, error in (("default", OutboxMissing), ("never", ConfigurationError)):
        try:
            queues.enqueue("ship", "lost", using=using)
        except error as told:
            assert "--create" in str(told) or "default" in str(told)
        else:
            raise AssertionError(using)
create_table(f"sqlite:///{sys.argv[2]}")
with QueueManager(sys.argv[1], namespace="dj") as queues:
    with transaction.atomic():
        queues.enqueue("ship", "kept", using="default")
    try:
        with transaction.atomic():
            queues.enqueue("ship", "gone", using="default")
            raise KeyError
    except KeyError:
        pass
connections.close_all()
"""


@pytest.mark.parametrize("there", ["psycopg", "psycopg2"])
def test_a_url_without_a_driver_takes_the_one_that_is_installed(
    queues: QueueManager, app: Any, postgres_url: str, monkeypatch: pytest.MonkeyPatch, there: str
) -> None:
    """``postgresql://`` names another driver in each SQLAlchemy; an application has one of the two."""
    monkeypatch.setattr(engines, "find_spec", lambda name: name if name == there else None)
    plain = postgres_url.replace("+psycopg", "")
    create_table(plain)
    with Session(app) as session:
        queues.enqueue("ship", 1, session=session)
        session.commit()
    with Relay(queues, plain) as relay:
        assert relay.run(burst=True) == 1
        assert relay._url.get_driver_name() == there
    assert engines.with_driver(make_url("postgresql+asyncpg://h/d")).drivername == "postgresql+asyncpg"
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    assert engines.with_driver(make_url("postgresql://h/d")).drivername == "postgresql"
