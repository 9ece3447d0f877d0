"""Private servers for the tests: real binaries, free ports, data in temporary directories.

    with RedisServer() as redis:
        client = redis.client()
        redis.kill9(); redis.restart()

Drivers are imported when a server is first asked whether it answers.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from processes import READY_S, Server, ServerFailed, ServerMissing, find_binary, free_port, unprivileged_user

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = [
    "MariaDBServer",
    "PostgresServer",
    "RedisCluster",
    "RedisSentinel",
    "RedisServer",
    "ServerFailed",
    "ServerMissing",
]


def _by_number(path: str) -> list[int]:
    return [int(number) for number in re.findall(r"\d+", path)]


class RedisServer(Server):
    """redis-server (or valkey-server), standalone and without persistence.

    Keyword arguments are its settings, with ``_`` for ``-``: ``RedisServer(appendonly="yes")``. With
    ``**tls_settings(folder)`` it has a second port that speaks TLS.
    """

    name = "redis"

    def __init__(self, **config: object) -> None:
        super().__init__()
        self.config = {"save": "", "appendonly": "no", "protected-mode": "no", "bind": self.host}
        self.config |= {key.replace("_", "-"): str(value) for key, value in config.items()}
        self.tls_port = 0
        if "tls-cert-file" in self.config:
            self.tls_port = self._pick_port()
            self.config |= {"tls-port": str(self.tls_port), "tls-replication": "yes"}

    @classmethod
    def find(cls) -> str:
        return find_binary("redis-server", "valkey-server")

    @property
    def url(self) -> str:
        return f"redis://{self.host}:{self.port}/0"

    def command(self) -> list[str]:
        config = {**self.config, "port": str(self.port), "dir": str(self.home)}
        if int(self.version.split(".")[0]) >= 7:
            config.setdefault("enable-debug-command", "yes")
        pairs = ((f"--{k}", *(v.split() if k == "replicaof" else [v])) for k, v in config.items())
        return [self.binary, *itertools.chain.from_iterable(pairs)]

    def client(self, **options: Any) -> Any:
        """Return a new ``redis.Redis``; the caller closes it."""
        import redis

        return redis.Redis(host=self.host, port=self.port, **options)

    def execute(self, *command: object) -> Any:
        """Run one command on a connection of its own."""
        with self.client(socket_timeout=5, protocol=2) as client:  # a test may take HELLO away
            return client.execute_command(*command)

    def flush(self) -> None:
        self.execute("FLUSHALL")

    def ping(self) -> None:
        self.execute("PING")


class _ClusterNode(RedisServer):
    BUS = 10_000  # Redis 6.2 knows no other distance

    def _pick_port(self) -> int:
        return free_port(also=self.BUS)


def tls_settings(folder: Path) -> dict[str, str]:
    """Return Redis' settings for TLS with ``cert.pem`` and ``key.pem`` of ``folder``."""
    cert = str(folder / "cert.pem")
    return {
        "tls_cert_file": cert, "tls_ca_cert_file": cert, "tls_key_file": str(folder / "key.pem"),
        "tls_auth_clients": "no",
    }  # fmt: skip


class RedisCluster:
    """Redis Cluster of 3 masters and 3 replicas; ``nodes[0:3]`` start as the masters.

    Built with CLUSTER MEET, ADDSLOTS and REPLICATE on a full mesh, which takes about two seconds
    where ``redis-cli --cluster create`` waits for gossip. With ``**tls_settings(folder)`` its nodes speak
    TLS with one another and name their TLS ports to clients that do; tests may ask them without.
    """

    name = "redis cluster"
    MASTERS: ClassVar[int] = 3

    def __init__(self, **config: object) -> None:
        settings = {
            "cluster_enabled": "yes",
            "cluster_config_file": "nodes.conf",
            "cluster_node_timeout": 1500,
            "cluster_announce_ip": "127.0.0.1",
            "cluster_replica_validity_factor": 0,
            "repl_diskless_sync": "yes",
            "repl_diskless_sync_delay": 0,
            **config,
        }
        if "tls_cert_file" in config:
            settings["tls_cluster"] = "yes"
        self.nodes: list[RedisServer] = [_ClusterNode(**settings) for _ in range(2 * self.MASTERS)]

    @classmethod
    def find(cls) -> str:
        return RedisServer.find()

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"{n.host}:{n.port}" for n in self.nodes)

    @property
    def tls_url(self) -> str:
        hosts = ",".join(f"{n.host}:{n.tls_port}" for n in self.nodes)
        return f"rediss+cluster://{hosts}?ssl_ca_certs={self.nodes[0].config['tls-ca-cert-file']}"

    @property
    def version(self) -> str:
        return self.nodes[0].version

    @property
    def running(self) -> bool:
        return all(node.running for node in self.nodes)

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exc: object) -> None:
        self.close()

    def start(self) -> Self:
        """Start every node that is down; the first time, join them."""
        fresh = all(node._home is None for node in self.nodes)
        for node in self.nodes:
            node.start()
        if fresh:
            self._join()
        self.wait_ok()
        return self

    def stop(self) -> None:
        for node in self.nodes:
            node.stop()

    def kill9(self) -> None:
        for node in self.nodes:
            node.kill9()

    def restart(self) -> Self:
        self.stop()
        return self.start()

    def close(self) -> None:
        for node in self.nodes:
            node.close()

    def client(self, **options: Any) -> Any:
        """Return a new ``redis.RedisCluster``; the caller closes it."""
        import redis

        startup: Any = redis.cluster.ClusterNode
        nodes = [startup(n.host, n.port) for n in self.nodes if n.running]
        return redis.RedisCluster(startup_nodes=nodes, **options)

    def masters(self) -> list[RedisServer]:
        """Return the running nodes that are masters at this moment."""
        return [n for n in self.nodes if n.running and n.execute("ROLE")[0] == b"master"]

    def master_of(self, key: str) -> RedisServer:
        """Return the node that serves ``key`` at this moment."""
        alive = next(node for node in self.nodes if node.running)
        slot = alive.execute("CLUSTER KEYSLOT", key)
        with self.client() as client:
            port = client.nodes_manager.get_node_from_slot(slot).port
        return next(node for node in self.nodes if node.port == port)

    def failover(self, master: RedisServer) -> None:
        """Promote a replica of ``master`` in good order and wait until every node knows."""
        old = _id(master)
        alive = [node for node in self.nodes if node.running]
        replica = next(n for n in alive if _cluster_nodes(n)[_id(n)][1] == old)
        replica.execute("CLUSTER FAILOVER")
        new = _id(replica)
        _until(lambda: all(_cluster_nodes(node)[old][1] == new for node in alive), "failover")
        self.wait_ok()

    def flush(self) -> None:
        for node in self.masters():
            node.flush()

    def wait_ok(self) -> None:
        """Wait until every running node sees all slots served and replicas are linked."""
        for node in self.nodes:
            if node.running:
                _until(functools.partial(self._is_ok, node), f"cluster node {node.port} to be ready")

    @staticmethod
    def _is_ok(node: RedisServer) -> bool:
        info = _text(node.execute("CLUSTER INFO"))
        role = node.execute("ROLE")
        linked = role[0] == b"master" or role[3] == b"connected"
        return "ok" in info.split("cluster_state:")[1][:3] and linked

    def _join(self) -> None:
        slots = 16384 // self.MASTERS + 1
        for index, node in enumerate(self.nodes):
            node.execute("CLUSTER SET-CONFIG-EPOCH", index + 1)
            if index < self.MASTERS:
                node.execute("CLUSTER ADDSLOTS", *range(index * slots, min((index + 1) * slots, 16384)))
        for node, other in itertools.permutations(self.nodes, 2):
            node.execute("CLUSTER MEET", other.host, other.tls_port or other.port)
        for node in self.nodes:
            _until(functools.partial(self._knows_all, node), f"cluster node {node.port} to know the others")
        for index, replica in enumerate(self.nodes[self.MASTERS :]):
            replica.execute("CLUSTER REPLICATE", _id(self.nodes[index]))

    def _knows_all(self, node: RedisServer) -> bool:
        known = _cluster_nodes(node)
        return len(known) == len(self.nodes) and not any("handshake" in flags for flags, _ in known.values())


class _SentinelNode(RedisServer):
    def __init__(self, master: RedisServer, **tls: object) -> None:
        super().__init__(**tls)
        self._master = master

    def command(self) -> list[str]:
        at, name = self._master, RedisSentinel.SERVICE
        tls = {key: value for key, value in self.config.items() if key.startswith("tls-")}
        settings = {
            "port": self.port, "bind": self.host, "dir": self.home, "protected-mode": "no",
            **tls,
            "sentinel monitor": f"{name} {at.host} {at.tls_port or at.port} 2",
            "sentinel down-after-milliseconds": f"{name} 500",
            "sentinel failover-timeout": f"{name} 2000",
        }  # fmt: skip
        config = self.home / "sentinel.conf"
        if not config.exists():  # a Sentinel writes down there what it learns
            config.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
        return [self.binary, str(config), "--sentinel"]


class RedisSentinel:
    """A master, a replica, and three Sentinels that watch them; ``data[0]`` starts as the master."""

    name = "redis sentinel"
    SERVICE: ClassVar[str] = "main"

    def __init__(self, **tls: object) -> None:
        lively = {"repl_diskless_sync": "yes", "repl_diskless_sync_delay": 0, **tls}
        self.data: list[RedisServer] = [RedisServer(**lively) for _ in range(2)]
        self.sentinels: list[RedisServer] = [_SentinelNode(self.data[0], **tls) for _ in range(3)]

    @classmethod
    def find(cls) -> str:
        return RedisServer.find()

    @property
    def url(self) -> str:
        hosts = ",".join(f"{n.host}:{n.port}" for n in self.sentinels)
        return f"redis+sentinel://{hosts}/{self.SERVICE}/0"

    @property
    def tls_url(self) -> str:
        hosts = ",".join(f"{n.host}:{n.tls_port}" for n in self.sentinels)
        certificate = self.data[0].config["tls-ca-cert-file"]
        return f"rediss+sentinel://{hosts}/{self.SERVICE}/0?ssl_ca_certs={certificate}"

    @property
    def version(self) -> str:
        return self.data[0].version

    @property
    def running(self) -> bool:
        return all(node.running for node in (*self.data, *self.sentinels))

    def start(self) -> Self:
        """Start everything and wait until the Sentinels know of one another and of the replica."""
        for node in self.data:
            node.start()
        self.data[1].execute("REPLICAOF", self.data[0].host, self.data[0].tls_port or self.data[0].port)
        for node in self.sentinels:
            node.start()
        _until(lambda: all(map(self._knows_all, self.sentinels)), "the Sentinels to know everybody")
        return self

    def close(self) -> None:
        for node in (*self.sentinels, *self.data):
            node.close()

    @property
    def master(self) -> RedisServer:
        """The server that the first Sentinel calls the master."""
        _, port = self.sentinels[0].execute("SENTINEL GET-MASTER-ADDR-BY-NAME", self.SERVICE)
        return next(node for node in self.data if int(port) in (node.port, node.tls_port))

    def flush(self) -> None:
        self.master.flush()

    def _knows_all(self, sentinel: RedisServer) -> bool:
        facts = sentinel.execute("SENTINEL MASTER", self.SERVICE)  # redis-py makes it a dict
        link = self.data[1].execute("INFO", "replication")["master_link_status"]
        known = facts["num-slaves"], facts["num-other-sentinels"], facts["flags"], link
        return bool(known == (1, 2, "master", "up"))


def _text(reply: object) -> str:
    if isinstance(reply, dict):  # redis-py parses CLUSTER INFO and NODES by itself
        return "\r\n".join(f"{k}:{v}" for k, v in reply.items())
    return reply.decode() if isinstance(reply, bytes) else str(reply)


def _id(node: RedisServer) -> str:
    return _text(node.execute("CLUSTER MYID"))


def _cluster_nodes(node: RedisServer) -> dict[str, tuple[str, str]]:
    """Return ``(flags, id of the master or '-')`` by the id of every node that ``node`` knows."""
    reply = node.execute("CLUSTER NODES")
    if isinstance(reply, dict):
        return {entry["node_id"]: (entry["flags"], entry["master_id"]) for entry in reply.values()}
    lines = [line.split() for line in _text(reply).splitlines()]
    return {line[0]: (line[2], line[3]) for line in lines}


def _until(done: Callable[[], bool], what: str) -> None:
    give_up = time.monotonic() + READY_S
    while not done():
        if time.monotonic() > give_up:
            raise ServerFailed(f"waited {READY_S:g} s for {what}")
        time.sleep(0.02)


class _Database(Server):
    """What PostgreSQL and MariaDB share: databases by number, and a URL for each."""

    dialect: ClassVar[str]

    def __init__(self, **config: object) -> None:
        super().__init__()
        self.config = {key: str(value) for key, value in config.items()}
        self._numbers = itertools.count(1)

    def database_url(self, database: str) -> str:
        return f"{self.dialect}://eventperf@{self.host}:{self.port}/{database}"

    @contextlib.contextmanager
    def fresh_database(self) -> Iterator[str]:
        """Yield the URL of a new database and drop it afterwards."""
        name = f"test_{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield self.database_url(name)
        finally:
            if self.running:
                self.drop(name)

    def execute(self, sql: str, database: str | None = None) -> list[tuple[Any, ...]]:
        """Run one statement with auto-commit on a connection of its own."""
        raise NotImplementedError

    def drop(self, database: str) -> None:
        raise NotImplementedError

    def ping(self) -> None:
        self.execute("SELECT 1")


class PostgresServer(_Database):
    """PostgreSQL with HypoPG and pg_stat_statements; the superuser ``eventperf`` needs no password.

    Both extensions are there in every :meth:`fresh_database`, as they are in the template.
    Keyword arguments are server settings: ``PostgresServer(max_connections=20)``.
    """

    name = "postgresql"
    dialect = "postgresql+psycopg"
    stop_signal = signal.SIGINT  # "fast": SIGTERM would wait for every client to leave
    EXTENSIONS: ClassVar[tuple[str, ...]] = ("hypopg", "pg_stat_statements")

    @classmethod
    def find(cls) -> str:
        folders = [str(path.parent) for path in cls._installed()]
        binaries = [find_binary("postgres", folders=tuple(sorted(folders, key=_by_number, reverse=True)))]
        binaries += [f"{folder}/postgres" for folder in folders]  # the first may lack an extension
        for binary in binaries:
            if cls._has_extensions(binary):
                return binary
        raise ServerMissing(f"{binaries[0]} lacks an extension of {', '.join(cls.EXTENSIONS)}")

    @staticmethod
    def _installed() -> list[Path]:
        return [
            *Path("/usr/lib/postgresql").glob("*/bin/postgres"),
            *Path("/usr").glob("pgsql-*/bin/postgres"),
        ]

    @classmethod
    def _has_extensions(cls, binary: str) -> bool:
        command = [str(Path(binary).resolve().with_name("pg_config")), "--sharedir"]
        try:
            share = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        except (OSError, subprocess.CalledProcessError):
            return False
        return all(Path(share, "extension", f"{name}.control").exists() for name in cls.EXTENSIONS)

    @classmethod
    def run_as(cls) -> str | None:
        return unprivileged_user("postgres")

    @property
    def url(self) -> str:
        """URL of the database ``eventperf``, which all users of this server share."""
        return self.database_url("eventperf")

    def prepare(self) -> None:
        initdb = str(Path(self.binary).with_name("initdb"))
        options = ["--username=eventperf", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"]
        self._run(initdb, "--pgdata", str(self.home / "data"), *options)

    def command(self) -> list[str]:
        config = {
            "listen_addresses": self.host,
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "full_page_writes": "off",
            "shared_preload_libraries": "pg_stat_statements",
            "pg_stat_statements.track": "all",
            "track_io_timing": "on",
            "dynamic_shared_memory_type": "mmap",  # containers have little /dev/shm
            "max_prepared_transactions": "10",
            "wal_level": "logical",
            **self.config,
        }
        settings = [f"--{key}={value}" for key, value in config.items()]
        return [self.binary, "-D", str(self.home / "data"), *settings]

    def start(self) -> Self:
        fresh = self._home is None
        super().start()
        if fresh:
            for extension in self.EXTENSIONS:
                self.execute(f"CREATE EXTENSION {extension}", "template1")
            self.execute("CREATE DATABASE eventperf", "template1")
        return self

    def execute(self, sql: str, database: str | None = None) -> list[tuple[Any, ...]]:
        import psycopg

        where = f"host={self.host} port={self.port} user=eventperf connect_timeout=5"
        with psycopg.connect(f"{where} dbname={database or 'postgres'}", autocommit=True) as connection:
            cursor = connection.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def drop(self, database: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")


class MariaDBServer(_Database):
    """MariaDB with the slow log as a table and performance_schema on.

    ``EVENTPERF_MARIADBD`` may name MySQL's ``mysqld`` to run the same tests against it.
    ``long_query_time`` is 10 s; a test that wants its statements in the slow log sets it lower.
    Keyword arguments are server settings: ``MariaDBServer(max_connections=20)``.
    """

    name = "mariadb"
    dialect = "mysql+pymysql"

    @classmethod
    def find(cls) -> str:
        return find_binary("mariadbd", "mysqld", folders=("/usr/libexec",))

    @classmethod
    def run_as(cls) -> str | None:
        return unprivileged_user("mysql")

    @property
    def url(self) -> str:
        """URL of the database ``eventperf``, which all users of this server share."""
        return self.database_url("eventperf")

    @functools.cached_property
    def is_mysql(self) -> bool:
        said = subprocess.run([self.binary, "--version"], capture_output=True, text=True, check=True)
        return "MariaDB" not in said.stdout

    def prepare(self) -> None:
        data = f"--datadir={self.home / 'data'}"
        if self.is_mysql:
            self._run(self.binary, "--no-defaults", "--initialize-insecure", data)
        else:
            install = find_binary("mariadb-install-db", "mysql_install_db")
            normal = "--auth-root-authentication-method=normal"
            self._run(install, "--no-defaults", data, normal, "--skip-test-db", "--skip-name-resolve")
        welcome = self.home / "welcome.sql"
        welcome.write_text(
            "CREATE USER IF NOT EXISTS 'eventperf'@'127.0.0.1';\n"
            "GRANT ALL ON *.* TO 'eventperf'@'127.0.0.1' WITH GRANT OPTION;\n"
            "CREATE DATABASE IF NOT EXISTS eventperf;\n"
        )
        welcome.chmod(0o644)

    def command(self) -> list[str]:
        config = {
            "datadir": str(self.home / "data"),
            "socket": str(self.home / "sock"),
            "pid_file": str(self.home / "mariadbd.pid"),
            "init_file": str(self.home / "welcome.sql"),
            "port": str(self.port),
            "bind_address": self.host,
            "skip_networking": "0",
            "skip_name_resolve": "1",
            "character_set_server": "utf8mb4",
            "innodb_flush_log_at_trx_commit": "0",
            "innodb_buffer_pool_size": "64M",
            "innodb_log_file_size": "32M",
            "slow_query_log": "1",
            "log_output": "TABLE",
            "long_query_time": "10",
            "performance_schema": "ON",
            "performance_schema_consumer_events_statements_current": "ON",
            "performance_schema_consumer_events_statements_history": "ON",
            "performance_schema_consumer_statements_digest": "ON",
            **self.config,
        }
        if self.is_mysql:
            config = {k: v for k, v in config.items() if k != "innodb_log_file_size"} | {
                "mysqlx": "OFF",
                "secure_file_priv": "",
            }
        settings = [f"--{key.replace('_', '-')}={value}" for key, value in config.items()]
        return [self.binary, "--no-defaults", *settings, "--performance-schema-instrument=statement/%=ON"]

    def execute(self, sql: str, database: str | None = None) -> list[tuple[Any, ...]]:
        import pymysql

        with (
            pymysql.connect(
                host=self.host, port=self.port, user="eventperf", database=database, autocommit=True
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)
            return list(cursor.fetchall())

    def drop(self, database: str) -> None:
        self.execute(f"DROP DATABASE IF EXISTS {database}")


class PgBouncer(Server):
    """A connection pooler before a PostgreSQL server of :class:`PostgresServer`.

    Args:
        mode: How long a client keeps a connection: ``transaction``, ``session`` or ``statement``.
    """

    name = "pgbouncer"

    def __init__(self, server: PostgresServer, mode: str = "transaction") -> None:
        super().__init__()
        self.server = server
        self.mode = mode

    @classmethod
    def find(cls) -> str:
        return find_binary("pgbouncer", folders=("/usr/sbin", "/usr/local/sbin"))

    @classmethod
    def run_as(cls) -> str | None:
        return unprivileged_user("postgres")

    @property
    def url(self) -> str:
        return self.database_url("eventperf")

    def database_url(self, database: str) -> str:
        return f"postgresql+psycopg://eventperf@{self.host}:{self.port}/{database}"

    def prepare(self) -> None:
        users = self.home / "users"
        users.write_text('"eventperf" ""\n')
        settings = self.home / "pgbouncer.ini"
        settings.write_text(
            f"[databases]\n* = host={self.server.host} port={self.server.port}\n[pgbouncer]\n"
            f"listen_addr = {self.host}\nlisten_port = {self.port}\nauth_type = trust\nauth_file = {users}\n"
            f"pool_mode = {self.mode}\nunix_socket_dir =\ndefault_pool_size = 4\n"
        )
        for path in (users, settings):
            path.chmod(0o644)

    def command(self) -> list[str]:
        return [self.binary, str(self.home / "pgbouncer.ini")]

    def ping(self) -> None:
        socket.create_connection((self.host, self.port), 1).close()
