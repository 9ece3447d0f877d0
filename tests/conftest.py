"""Fixtures for the private servers of ``servers.py``.

A server starts when the first test asks for it and ends with the session. Without it a test is
skipped with the reason; where ``EVENTPERF_REQUIRE_SERVERS=1`` or ``CI`` is set it fails. The run ends
with one line per server.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import ssl
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, settings

from processes import version_of
from servers import (
    MariaDBServer,
    PgBouncer,
    PostgresServer,
    RedisCluster,
    RedisSentinel,
    RedisServer,
    ServerMissing,
)

# How fast examples come and run says how busy this machine is, nothing about the code.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")

# PyMySQL reads every authority of the system for each connection, 80 ms of CPU, thousands of times here.
# A file of one is read at once, and the folder beside it is asked only when an authority is needed.
if _one := next(iter(sorted(Path(ssl.get_default_verify_paths().capath or os.devnull).glob("*.pem"))), None):
    os.environ["SSL_CERT_FILE"] = str(_one)

AnyServer = RedisServer | RedisCluster | RedisSentinel | PostgresServer | MariaDBServer
S = TypeVar("S", RedisServer, RedisCluster, RedisSentinel, PostgresServer, MariaDBServer)

KINDS: tuple[type[Any], ...] = (RedisServer, RedisCluster, RedisSentinel, PostgresServer, MariaDBServer)
_used: Counter[str] = Counter()  # tests by server
_private: Counter[str] = Counter()  # servers started for a single test
_shared: dict[str, AnyServer] = {}
_FIXTURES: dict[str, Any] = {
    "redis_server": RedisServer,
    "redis_cluster": RedisCluster,
    "redis_sentinel": RedisSentinel,
    "postgres_server": PostgresServer,
    "mariadb_server": MariaDBServer,
    "private_redis": RedisServer,
    "private_redis_cluster": RedisCluster,
    "private_redis_sentinel": RedisSentinel,
    "private_postgres": PostgresServer,
    "private_mariadb": MariaDBServer,
}


def servers_required() -> bool:
    """Tell whether a missing server is a failure (CI) or a reason to skip (elsewhere)."""
    value = os.environ.get("EVENTPERF_REQUIRE_SERVERS") or os.environ.get("CI") or ""
    return value.lower() not in {"", "0", "false", "no"}


def _built(kind: type[S], **config: object) -> S:
    try:
        server = kind(**config)
        try:
            return server.start()
        except BaseException:
            server.close()
            raise
    except ServerMissing as error:
        if servers_required():
            pytest.fail(f"{kind.name} is required here: {error}", pytrace=False)
        pytest.skip(f"{kind.name}: {error}")


def _session(kind: type[S]) -> Iterator[S]:
    with contextlib.closing(_built(kind)) as server:
        _shared[kind.name] = server
        yield server
        del _shared[kind.name]


def _factory(kind: type[S]) -> Iterator[Callable[..., S]]:
    with contextlib.ExitStack() as stack:

        def build(**config: object) -> S:
            _private[kind.name] += 1
            return stack.enter_context(contextlib.closing(_built(kind, **config)))

        yield build


# --- shared by the session ----------------------------------------------------------------------


@pytest.fixture(scope="session")
def redis_server() -> Iterator[RedisServer]:
    """The session's Redis; leave it running."""
    yield from _session(RedisServer)


@pytest.fixture(scope="session")
def redis_cluster() -> Iterator[RedisCluster]:
    """The session's Redis Cluster of 3 masters and 3 replicas; leave it running."""
    yield from _session(RedisCluster)


@pytest.fixture(scope="session")
def redis_sentinel() -> Iterator[RedisSentinel]:
    """The session's Redis with a replica and three Sentinels; leave it running."""
    yield from _session(RedisSentinel)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """The session's PostgreSQL; leave it running."""
    yield from _session(PostgresServer)


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDBServer]:
    """The session's MariaDB; leave it running."""
    yield from _session(MariaDBServer)


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    """``redis://`` URL of a Redis that is empty when a test begins."""
    return redis_server.url


@pytest.fixture(scope="session")
def redis_cluster_url(redis_cluster: RedisCluster) -> str:
    """``redis+cluster://`` URL of a cluster that is empty when a test begins."""
    return redis_cluster.url


@pytest.fixture(scope="session")
def redis_sentinel_url(redis_sentinel: RedisSentinel) -> str:
    """``redis+sentinel://`` URL of a Redis that is empty when a test begins."""
    return redis_sentinel.url


@pytest.fixture
def redis_client(redis_server: RedisServer) -> Iterator[Any]:
    """A ``redis.Redis`` on the session's server, for looking at what the code under test wrote."""
    with redis_server.client() as client:
        yield client


@pytest.fixture
def postgres_url(postgres_server: PostgresServer) -> Iterator[str]:
    """SQLAlchemy URL of a new, empty PostgreSQL database of this test."""
    with postgres_server.fresh_database() as url:
        yield url


@pytest.fixture
def mariadb_url(mariadb_server: MariaDBServer) -> Iterator[str]:
    """SQLAlchemy URL of a new, empty MariaDB database of this test."""
    with mariadb_server.fresh_database() as url:
        yield url


# --- for one test, which may kill them ----------------------------------------------------------


@pytest.fixture
def private_redis() -> Iterator[Callable[..., RedisServer]]:
    """Start a Redis of this test: ``private_redis(appendonly="yes").kill9()``."""
    yield from _factory(RedisServer)


@pytest.fixture
def private_redis_cluster() -> Iterator[Callable[..., RedisCluster]]:
    """Start a Redis Cluster of this test."""
    yield from _factory(RedisCluster)


@pytest.fixture
def private_redis_sentinel() -> Iterator[Callable[..., RedisSentinel]]:
    """Start a Redis with a replica and Sentinels of this test."""
    yield from _factory(RedisSentinel)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with ``cert.pem`` and ``key.pem`` for 127.0.0.1."""
    return _certify(tmp_path_factory.mktemp("tls"), "IP:127.0.0.1")


@pytest.fixture(scope="session")
def foreign_certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same for another host, ``other.example``."""
    return _certify(tmp_path_factory.mktemp("tls"), "DNS:other.example")


def _certify(folder: Path, name: str) -> Path:
    command = [
        "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
        "-keyout", "key.pem", "-out", "cert.pem", "-days", "2", "-subj", f"/CN={name.partition(':')[2]}",
        "-addext", f"subjectAltName={name}",
    ]  # fmt: skip
    try:
        subprocess.run(command, cwd=folder, check=True, capture_output=True, timeout=30)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"openssl makes no certificate: {error}")
    return folder


@pytest.fixture
def private_postgres() -> Iterator[Callable[..., PostgresServer]]:
    """Start a PostgreSQL of this test."""
    yield from _factory(PostgresServer)


@pytest.fixture
def private_mariadb() -> Iterator[Callable[..., MariaDBServer]]:
    """Start a MariaDB of this test."""
    yield from _factory(MariaDBServer)


@pytest.fixture
def private_pgbouncer(postgres_server: PostgresServer) -> Iterator[Callable[..., PgBouncer]]:
    """Start a pooler of this test before the session's PostgreSQL."""
    with contextlib.ExitStack() as stack:

        def build(mode: str = "transaction") -> PgBouncer:
            _private[PgBouncer.name] += 1
            try:
                server = PgBouncer(postgres_server, mode)
                return stack.enter_context(contextlib.closing(server.start()))
            except ServerMissing as error:
                if servers_required():
                    pytest.fail(f"{PgBouncer.name} is required here: {error}", pytrace=False)
                pytest.skip(f"{PgBouncer.name}: {error}")

        yield build


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run ``@pytest.mark.anyio`` tests on asyncio, the only loop this library speaks."""
    return "asyncio"


# --- hooks --------------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    names = getattr(item, "fixturenames", ())
    for fixture, kind in _FIXTURES.items():
        shared = _shared.get(kind.name)
        asked = fixture in names or "request" in names  # a test with `request` may still ask for it
        if asked and isinstance(shared, (RedisServer, RedisCluster, RedisSentinel)):
            shared.flush()


@pytest.fixture(autouse=True)
def _count_servers(request: pytest.FixtureRequest) -> Iterator[None]:
    yield
    asked = request.fixturenames  # those asked for while the test ran, too
    for kind in {kind.name: kind for fixture, kind in _FIXTURES.items() if fixture in asked}.values():
        _used[kind.name] += 1


def pytest_terminal_summary(terminalreporter: Any) -> None:
    terminalreporter.section("servers")
    for kind in KINDS:
        terminalreporter.write_line(f"{kind.name:<15}{_line(kind)}")


def _line(kind: Any) -> str:
    try:
        binary = kind.find()
    except ServerMissing as error:
        return f"missing: {error}"
    if not (tests := _used[kind.name]):
        return f"{version_of(binary):<10} not used: no selected test asks for it"
    return f"{version_of(binary):<10} used by {tests} tests, {_private[kind.name]} private instances"


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Fail with every stack where a thread that somebody left behind would keep this process for ever."""
    faulthandler.dump_traceback_later(180, exit=True, file=sys.__stderr__)
