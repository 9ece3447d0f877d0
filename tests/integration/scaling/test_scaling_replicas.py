"""The replica routers on real primaries with real replicas: PostgreSQL's streaming, MariaDB's by GTID."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from eventperf.errors import ConfigurationError
from eventperf.scaling import AsyncReplicaRouter, ReplicaRouter, ScalingError
from eventperf.scaling.routing import replication
from eventperf.scaling.routing.lag import Lag
from servers import MariaDBServer, PostgresServer

pytestmark = pytest.mark.integration


class Standby(PostgresServer):
    """A streaming replica of another server."""

    def __init__(self, primary: PostgresServer) -> None:
        super().__init__(max_connections=100)
        self._source = primary

    def prepare(self) -> None:
        source = f"host={self._source.host} port={self._source.port} user=eventperf"
        program = str(Path(self.binary).resolve().with_name("pg_basebackup"))
        options = ["-d", source, "-R", "-X", "stream", "-c", "fast", "--no-sync"]
        self._run(program, "-D", str(self.home / "data"), *options)

    def start(self) -> Standby:
        super(PostgresServer, self).start()  # a replica takes extensions and databases from its primary
        return self

    def pause(self) -> None:
        self.execute("SELECT pg_wal_replay_pause()")

    def resume(self) -> None:
        self.execute("SELECT pg_wal_replay_resume()")


class MariaDBPrimary(MariaDBServer):
    def __init__(self) -> None:
        super().__init__(server_id=1, log_bin="binlog")
        if self.is_mysql:
            self.config |= {"gtid_mode": "ON", "enforce_gtid_consistency": "ON"}


class MariaDBStandby(MariaDBServer):
    """A replica of another server, by transaction ids."""

    numbers = itertools.count(2)

    def __init__(self, primary: MariaDBServer) -> None:
        super().__init__(server_id=next(self.numbers))
        if self.is_mysql:
            self.config |= {"gtid_mode": "ON", "enforce_gtid_consistency": "ON", "skip_log_bin": "1"}
        self._source = primary

    def start(self) -> MariaDBStandby:
        super().start()
        at = f"_HOST='127.0.0.1', {{0}}_PORT={self._source.port}, {{0}}_USER='eventperf'"
        if self.execute("SHOW REPLICA STATUS"):
            return self
        if self.is_mysql:
            how = "SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1"
            self.execute(f"CHANGE REPLICATION SOURCE TO SOURCE{at.format('SOURCE')}, {how}")
        else:
            self.execute(f"CHANGE MASTER TO MASTER{at.format('MASTER')}, MASTER_USE_GTID=slave_pos")
        self.execute("START REPLICA")
        self.execute("SET GLOBAL read_only = ON")
        return self

    def pause(self) -> None:
        self.execute("STOP REPLICA SQL_THREAD")

    def resume(self) -> None:
        self.execute("START REPLICA SQL_THREAD")


class Group:
    def __init__(self, primary: Any, standbys: list[Any]) -> None:
        self.primary, self.standbys = primary, standbys

    @classmethod
    def of(cls, name: str, stack: contextlib.ExitStack, replicas: int) -> Group:
        primary = PostgresServer(max_connections=100) if name == "postgres" else MariaDBPrimary()
        stack.callback(primary.close)
        primary.start()
        primary.execute("CREATE TABLE orders (id int PRIMARY KEY)", "eventperf")
        make: Callable[[Any], Any] = Standby if name == "postgres" else MariaDBStandby
        standbys = [make(primary) for _ in range(replicas)]
        for standby in standbys:
            stack.callback(standby.close)
            standby.start()
        return cls(primary, standbys)

    def urls(self) -> list[str]:
        return [server.database_url("eventperf") for server in (self.primary, *self.standbys)]

    def router(self, **options: Any) -> ReplicaRouter:
        primary, *replicas = self.urls()
        return ReplicaRouter(primary, replicas, **options)

    def async_router(self, **options: Any) -> AsyncReplicaRouter:
        primary, *replicas = (url.replace("+pymysql", "+aiomysql") for url in self.urls())
        return AsyncReplicaRouter(primary, replicas, **options)


@pytest.fixture(scope="module", params=["postgres", "mariadb"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which database; the session's server says whether there is one."""
    request.getfixturevalue(f"{request.param}_server")
    return str(request.param)


@pytest.fixture(scope="module")
def servers(kind: str) -> Iterator[Group]:
    """A primary and two replicas of this module."""
    with contextlib.ExitStack() as stack:
        yield Group.of(kind, stack, 2)


@pytest.fixture
def group(servers: Group) -> Iterator[Group]:
    servers.primary.execute("TRUNCATE orders", "eventperf")
    yield servers
    for standby in servers.standbys:
        if not standby.running:
            standby.start()
        standby.resume()


def eventually(holds: Callable[[], object], within_s: float = 60.0) -> None:
    end = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def insert(router: ReplicaRouter, number: int) -> None:
    with router.write() as connection:
        connection.execute(sa.text("INSERT INTO orders VALUES (:id)"), {"id": number})


def read(router: ReplicaRouter) -> tuple[set[int], bool]:
    """Return the orders, and whether a replica answered."""
    with router.read() as connection:
        return look(connection)


def holds(url: str, number: int) -> bool:
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        return number in look(connection)[0]


def look(connection: sa.Connection) -> tuple[set[int], bool]:
    postgres = connection.dialect.name == "postgresql"
    query = "SELECT pg_is_in_recovery()" if postgres else "SELECT @@GLOBAL.server_id > 1"
    replica = bool(connection.exec_driver_sql(query).scalar_one())
    return set(connection.exec_driver_sql("SELECT id FROM orders").scalars()), replica


def on_replica(router: ReplicaRouter) -> bool:
    return read(router)[1]


def test_own_writes_are_read_while_replicas_stand_still(group: Group) -> None:
    with group.router(max_lag="1h") as router:
        insert(router, 1)
        for url in group.urls()[1:]:
            eventually(lambda url=url: holds(url, 1))
        eventually(lambda: on_replica(router))
        for standby in group.standbys:
            standby.pause()
        insert(router, 2)
        assert read(router) == ({1, 2}, False)  # the primary: no replica has it
        seen_elsewhere: list[tuple[set[int], bool]] = []
        thread = threading.Thread(target=lambda: seen_elsewhere.append(read(router)))
        thread.start()
        thread.join()
        assert seen_elsewhere == [({1}, True)]  # another context wrote nothing, and may read what is there
        for standby in group.standbys:
            standby.resume()
        eventually(lambda: read(router) == ({1, 2}, True))


def test_a_position_carries_over_to_another_process(group: Group) -> None:
    with group.router(max_lag="1h") as here, group.router(max_lag="1h") as there:
        insert(here, 1)
        eventually(lambda: on_replica(here))
        for standby in group.standbys:
            standby.pause()
        insert(here, 2)
        cookie = here.position()
        there.follow(cookie)
        assert read(there) == ({1, 2}, False)


def test_a_replica_that_lags_too_far_is_left_out_and_comes_back(group: Group) -> None:
    with group.router(max_lag=0.5, check_every=0.01) as router:
        eventually(lambda: on_replica(router))
        for standby in group.standbys:
            standby.pause()
        group.primary.execute("INSERT INTO orders VALUES (7)", "eventperf")  # somebody else writes
        eventually(lambda: not on_replica(router))
        assert read(router) == ({7}, False)
        assert all(stats.behind_s > 0.5 for stats in router.stats())
        group.standbys[0].resume()
        eventually(lambda: read(router) == ({7}, True))
        assert router.stats()[0].behind_s == 0.0


def test_a_primary_at_rest_makes_nobody_late(group: Group) -> None:
    with group.router(max_lag=0.3, check_every=0.01) as router:
        eventually(lambda: on_replica(router))
        time.sleep(1)
        assert on_replica(router)


def test_reads_are_shared_and_survive_a_dead_replica(group: Group) -> None:
    with group.router(max_lag="1h") as router:
        eventually(lambda: on_replica(router))
        threads = [threading.Thread(target=lambda: [read(router) for _ in range(50)]) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert all(stats.endpoint.requests >= 10 for stats in router.stats())
        group.standbys[1].kill9()
        failed = 0
        for _ in range(50):
            try:
                assert read(router)[1]
            except sa.exc.DBAPIError:
                failed += 1  # a pooled connection that broke under the caller's own statement
        assert failed <= 6
        group.standbys[0].kill9()
        for _ in range(20):
            try:
                assert not on_replica(router)
                break
            except sa.exc.DBAPIError:
                continue
        assert not on_replica(router)


def test_without_the_primary_replicas_go_on_answering(kind: str) -> None:
    with contextlib.ExitStack() as stack:
        group = Group.of(kind, stack, 1)
        with group.router(check_every=0.01) as router:
            insert(router, 1)
            eventually(lambda: read(router) == ({1}, True))
            group.primary.kill9()
            assert read(router) == ({1}, True)
            with pytest.raises(sa.exc.DBAPIError):
                insert(router, 2)


def test_a_read_cannot_write_anywhere(group: Group) -> None:
    with group.router() as router:
        for primary in (False, True):
            with (
                pytest.raises(sa.exc.DBAPIError, match=r"(?i)read.only"),
                router.read(primary=primary) as connection,
            ):
                connection.exec_driver_sql("INSERT INTO orders VALUES (1)")
        insert(router, 1)  # the connection that was read-only is not when it writes


def test_a_failed_write_leaves_no_trace(group: Group) -> None:
    with group.router() as router:
        insert(router, 1)
        before = router.position()
        with pytest.raises(sa.exc.IntegrityError):
            insert(router, 1)
        assert router.position() == before


def test_sql_errors_are_no_failures_of_the_replica(group: Group) -> None:
    with group.router(max_lag="1h") as router:
        eventually(lambda: on_replica(router))
        for _ in range(20):
            with pytest.raises(sa.exc.DBAPIError), router.read() as connection:
                connection.exec_driver_sql("SELECT nonsense")
        assert all(stats.endpoint.failures == 0 for stats in router.stats())
        assert on_replica(router)


def test_threads_read_their_own_writes_while_replicas_stumble(group: Group) -> None:
    stop, wrong = threading.Event(), list[str]()

    def stumble() -> None:
        while not stop.wait(0.05):
            group.standbys[0].pause()
            stop.wait(0.05)
            group.standbys[0].resume()

    def work(first: int) -> None:
        for number in range(first, first + 25):
            insert(router, number)
            seen, _ = read(router)
            if number not in seen:
                wrong.append(f"{number} was not read back")

    with group.router(max_lag="1h", check_every=0.05) as router:
        stumbler = threading.Thread(target=stumble)
        stumbler.start()
        workers = [threading.Thread(target=work, args=(1000 * n,)) for n in range(4)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        stop.set()
        stumbler.join()
    assert wrong == []


async def _ainsert(router: AsyncReplicaRouter, number: int) -> None:
    async with router.write() as connection:
        await connection.execute(sa.text("INSERT INTO orders VALUES (:id)"), {"id": number})


async def _aread(router: AsyncReplicaRouter) -> tuple[set[int], bool]:
    async with router.read() as connection:
        return await connection.run_sync(look)


async def _aeventually(holds: Callable[[], Any]) -> None:
    end = time.monotonic() + 60
    while not await holds():
        assert time.monotonic() < end
        await asyncio.sleep(0.02)


def test_tasks_read_their_own_writes_and_only_those_wait(group: Group) -> None:
    async def main() -> None:
        async with group.async_router(max_lag="1h") as router, group.async_router(max_lag="1h") as there:

            async def both() -> bool:
                return await _aread(router) == ({1}, True)

            await _ainsert(router, 1)
            await _aeventually(both)
            for standby in group.standbys:
                standby.pause()

            async def writer() -> tuple[set[int], bool]:
                await _ainsert(router, 2)
                there.follow(await router.position())
                return await _aread(router)

            assert await asyncio.create_task(writer()) == ({1, 2}, False)
            assert await asyncio.create_task(_aread(router)) == ({1}, True)  # a task that wrote nothing
            with pytest.raises(ConfigurationError):
                there.follow("soon")

    asyncio.run(main())


def test_tasks_at_once_while_replicas_stumble(group: Group) -> None:
    async def main() -> None:
        wrong = list[str]()
        done = asyncio.Event()

        async def stumble() -> None:
            while not done.is_set():
                await asyncio.to_thread(group.standbys[0].pause)
                await asyncio.sleep(0.05)
                await asyncio.to_thread(group.standbys[0].resume)
                await asyncio.sleep(0.05)

        async def work(first: int) -> None:
            for number in range(first, first + 25):
                await _ainsert(router, number)
                seen, _ = await _aread(router)
                if number not in seen:
                    wrong.append(f"{number} was not read back")

        async with group.async_router(max_lag="1h", check_every=0.05) as router:
            stumbler = asyncio.create_task(stumble())
            await asyncio.gather(*(work(1000 * n) for n in range(4)))
            done.set()
            await stumbler
            assert wrong == []

    asyncio.run(main())


def test_a_cancelled_task_gives_its_connection_and_its_place_back(group: Group) -> None:
    async def main() -> None:
        async with group.async_router(max_lag="1h") as router:

            async def reads() -> bool:
                return (await _aread(router))[1]

            async def hang() -> None:
                async with router.read() as connection:
                    await connection.execute(sa.text(SLEEP[connection.dialect.name]))

            await _aeventually(reads)
            for after in (0.0, 0.001, 0.003, 0.01, 0.05):
                tasks = [asyncio.create_task(hang()) for _ in range(4)]
                await asyncio.sleep(after)
                while not all(task.done() for task in tasks):  # wait_for of Python 3.11 may swallow the first
                    for task in tasks:
                        task.cancel()
                    await asyncio.sleep(0.1)
                assert all(task.cancelled() for task in tasks)
            stats = router.stats()
            assert [one.endpoint.in_flight for one in stats] == [0, 0]
            assert [one.endpoint.failures for one in stats] == [0, 0]
            assert await reads()
            with pytest.raises(sa.exc.IntegrityError):
                await _ainsert(router, 1)
                await _ainsert(router, 1)
            assert 1 in (await _aread(router))[0]

    asyncio.run(main())


SLEEP = {"postgresql": "SELECT pg_sleep(5)", "mysql": "SELECT SLEEP(5)"}


@pytest.mark.parametrize(("text", "counts"), [
    ("0-1-270", 270), ("0-1-9,1-5-400", 9), ("", 0), ("7-1-3", 0),
])  # fmt: skip
def test_a_replica_of_mariadb_is_judged_by_the_primary_s_domain(text: str, counts: int) -> None:
    assert replication._in_domain(text, "0") == counts


def test_transactions_behind_a_gap_are_not_there() -> None:
    assert replication._without_gaps("a:1-5:8-9,\nb:3,c:1,d:live:1-4:1-2:7") == {
        "a": 5, "b": 0, "c": 1, "d:live": 4,
    }  # fmt: skip


def test_lag_is_measured_from_the_first_thing_that_is_missing() -> None:
    lag = Lag(["a"])
    assert lag.behind_s("a", now=0.0) == float("inf")
    for second in range(10):
        lag.primary_at(100 + second, now=float(second))
    lag.replica_at("a", 104, now=10.0)
    assert lag.behind_s("a", now=10.0) == 5.0
    lag.replica_at("a", 90, now=11.0)  # an older answer that was under way
    assert lag.has("a", 104)
    lag.replica_at("a", 109, now=12.0)
    assert lag.behind_s("a", now=99.0) == 0.0


@pytest.mark.parametrize(
    ("argument", "make"),
    [
        ("replicas", lambda: ReplicaRouter("sqlite://", [])),
        ("replicas", lambda: ReplicaRouter("sqlite://", "sqlite://")),
        ("primary", lambda: ReplicaRouter("no url:s3cret@", ["sqlite://"])),
        ("replicas[1]", lambda: ReplicaRouter("sqlite://", ["sqlite://", 7])),  # type: ignore[list-item]
        ("max_lag", lambda: ReplicaRouter("sqlite://", ["sqlite://"], max_lag="soon")),
        ("primary", lambda: AsyncReplicaRouter("sqlite://", ["sqlite+aiosqlite://"])),
        ("replicas", lambda: AsyncReplicaRouter("sqlite+aiosqlite://", [])),
        ("replicas[0]", lambda: AsyncReplicaRouter("sqlite+aiosqlite://", [sa.create_engine("sqlite://")])),  # type: ignore[list-item]
        ("position", lambda: ReplicaRouter("sqlite://", ["sqlite://"]).follow("-1")),
        ("position", lambda: ReplicaRouter("sqlite://", ["sqlite://"]).follow("9" * 5000)),
    ],
)
def test_bad_router_arguments_are_named(argument: str, make: Callable[[], object]) -> None:
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert caught.value.argument == argument
    assert "s3cret" not in str(caught.value)


def test_a_position_that_is_not_known_is_an_error_not_a_lie(tmp_path: Path) -> None:
    """SQLite knows no positions: the write stands, and reads stay on the primary."""
    with ReplicaRouter(f"sqlite:///{tmp_path}/p.db", [f"sqlite:///{tmp_path}/r.db"]) as router:
        with router.write() as connection:
            connection.exec_driver_sql("CREATE TABLE orders (id int)")
        with router.read() as connection:
            assert connection.exec_driver_sql("SELECT count(*) FROM orders").scalar_one() == 0
        with pytest.raises(ScalingError):
            router.position()
