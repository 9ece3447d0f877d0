"""The servers of the test run are real, and end with the process that started them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from faults import Worker, wait_until

pytestmark = pytest.mark.integration


def test_redis_answers_and_is_empty(redis_url, redis_client):
    assert redis_client.dbsize() == 0
    redis_client.set("left behind", 1)


def test_redis_is_empty_again(redis_url, redis_client):
    assert redis_client.dbsize() == 0
    redis_client.set("left behind", 1)


def test_cluster_has_three_linked_pairs(redis_cluster):
    assert len(redis_cluster.masters()) == 3
    roles = [node.execute("ROLE") for node in redis_cluster.nodes]
    assert sorted(role[0] for role in roles) == [b"master"] * 3 + [b"slave"] * 3
    with redis_cluster.client() as client:
        assert all(client.set(f"key:{n}", n) for n in range(50))


def test_cluster_moves_a_master(private_redis_cluster):
    cluster = private_redis_cluster()
    before = cluster.master_of("key")
    cluster.failover(before)
    assert cluster.master_of("key") is not before


def test_postgres_has_both_extensions(postgres_url, postgres_server):
    database = postgres_url.rpartition("/")[2]
    names = {name for (name,) in postgres_server.execute("SELECT extname FROM pg_extension", database)}
    assert {"hypopg", "pg_stat_statements"} <= names
    postgres_server.execute("CREATE TABLE t (a int)", database)
    assert postgres_server.execute("SELECT * FROM hypopg_create_index('CREATE INDEX ON t (a)')", database)


def test_mariadb_logs_slow_statements_to_a_table(mariadb_url, mariadb_server):
    mariadb_server.execute("SET GLOBAL long_query_time=0")
    mariadb_server.execute("SELECT SLEEP(0.01)")
    mariadb_server.execute("SET GLOBAL long_query_time=10")
    logged = mariadb_server.execute("SELECT sql_text FROM mysql.slow_log")
    assert any("SLEEP(0.01)" in str(text) for (text,) in logged)
    digests = mariadb_server.execute(
        "SELECT COUNT(*) FROM performance_schema.events_statements_summary_by_digest"
    )
    assert digests[0][0] > 0


def test_killed_redis_returns_on_its_port_with_its_aof(private_redis):
    redis = private_redis(appendonly="yes", appendfsync="always")
    port = redis.port
    redis.execute("SET", "kept", "1")
    redis.kill9()
    assert not redis.running
    redis.restart()
    assert redis.port == port
    assert redis.execute("GET", "kept") == b"1"


ORPHANS = """
import sys, time
from servers import MariaDBServer, PostgresServer, RedisServer
servers = [kind().start() for kind in (RedisServer, PostgresServer, MariaDBServer)]
print(*(f"{s.name}: {s.pid} {s.home}" for s in servers), sep="\\n", flush=True)
time.sleep(60)
"""


def test_servers_end_when_their_starter_is_killed(postgres_server, mariadb_server):
    with Worker(ORPHANS) as starter:
        told = [starter.wait_for(f"{kind}:").split()[1:] for kind in ("redis", "postgresql", "mariadb")]
        pids = [int(pid) for pid, _ in told]
        assert all(map(_alive, pids))
        starter.kill9()
    wait_until(lambda: not any(map(_alive, pids)), what="servers to end with their starter")
    wait_until(lambda: not any(Path(home).exists() for _, home in told), what="their data to go")


def _alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


MISSING = {"EVENTPERF_REDIS_SERVER": "/nowhere"}


@pytest.mark.parametrize(
    ("env", "outcome", "code"),
    [
        ({}, "1 passed", 0),
        (MISSING, "1 skipped", 0),
        ({**MISSING, "CI": "true"}, "1 error", 1),
        (
            {**MISSING, "CI": "true", "EVENTPERF_REQUIRE_SERVERS": "0"},
            "1 skipped",
            0,
        ),
    ],
    ids=["there", "missing", "missing in CI", "not required"],
)
def test_a_missing_server_skips_with_its_reason_but_fails_in_ci(tmp_path, env, outcome, code):
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = integration: real server\n")
    (tmp_path / "test_one.py").write_text("def test_one(redis_url): assert redis_url")
    base = {
        name: value for name, value in os.environ.items() if name not in {"CI", "EVENTPERF_REQUIRE_SERVERS"}
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-rs", str(tmp_path)],
        env={**base, "PYTHONPATH": str(Path(__file__).parent), **env},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert outcome in done.stdout, done.stdout + done.stderr
    assert done.returncode == code
    if env:
        assert "redis          missing: EVENTPERF_REDIS_SERVER=/nowhere is no program" in done.stdout
