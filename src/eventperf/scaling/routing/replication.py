"""How far a primary and its replicas are, asked of each database in its own way."""

from __future__ import annotations

from typing import Any, Protocol

from eventperf.scaling.errors import ScalingError


class Replication(Protocol):
    """How positions are asked for; positions are whole numbers that only grow."""

    def written(self, connection: Any, /) -> int:
        """Return the primary's position: at least that of everything committed so far."""
        ...

    def replayed(self, connection: Any, /) -> int:
        """Return how far a replica has come."""
        ...


class PostgresReplication:
    """PostgreSQL's physical streaming replication, by log sequence number.

    Needs no rights beyond a login. A server that turned from replica to primary answers with its own
    position, so that a router survives a failover it was not told of.
    """

    def written(self, connection: Any, /) -> int:
        return _log_position(connection, "SELECT pg_current_wal_insert_lsn()")

    def replayed(self, connection: Any, /) -> int:
        return _log_position(
            connection,
            "SELECT CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() "
            "ELSE pg_current_wal_insert_lsn() END",
        )


def _log_position(connection: Any, query: str) -> int:
    text = connection.exec_driver_sql(query).scalar_one()
    high, _, low = str(text).partition("/")
    return (int(high, 16) << 32) | int(low, 16)


class MySQLReplication:
    """Replication of MariaDB and MySQL by global transaction id (GTID), in the primary's order.

    Needs no rights beyond a login; the primary keeps its binary log, on MySQL with ``gtid_mode=ON``. A
    position is a count of transactions: on MariaDB the sequence number in the primary's own domain, on MySQL
    the sum over the servers that ever were primary of the transactions without a gap, which is right where
    replicas commit in the primary's order (``replica_preserve_commit_order``, the default). Transactions made
    on a replica itself do not count.
    """

    def __init__(self) -> None:
        self._domain = "0"
        self._servers: frozenset[str] = frozenset()

    def written(self, connection: Any, /) -> int:
        if connection.dialect.is_mariadb:
            row = connection.exec_driver_sql("SELECT @@GLOBAL.gtid_binlog_pos, @@GLOBAL.gtid_domain_id").one()
            self._domain = str(row[1])
            return _in_domain(_asked(row[0]), self._domain)
        counts = _without_gaps(
            _asked(connection.exec_driver_sql("SELECT @@GLOBAL.gtid_executed").scalar_one())
        )
        self._servers = frozenset(counts)
        return sum(counts.values())

    def replayed(self, connection: Any, /) -> int:
        if connection.dialect.is_mariadb:
            # of a server that became the primary: what it wrote since
            text = connection.exec_driver_sql("SELECT @@GLOBAL.gtid_current_pos").scalar_one()
            return _in_domain(str(text), self._domain)
        counts = _without_gaps(str(connection.exec_driver_sql("SELECT @@GLOBAL.gtid_executed").scalar_one()))
        known = self._servers or frozenset(counts)
        return sum(count for server, count in counts.items() if server in known)


def _asked(position: Any) -> str:
    if not position:
        raise ScalingError(
            "the primary has no transaction ids: switch on its binary log (log_bin; on MySQL gtid_mode too)"
        )
    return str(position)


def _in_domain(text: str, domain: str) -> int:
    """Read MariaDB's ``domain-server-sequence,...``.

    >>> _in_domain("0-1-270,3-2-5", "3")
    5
    """
    parts = (part.strip().split("-") for part in text.split(",") if part)
    return max((int(number) for found, _, number in parts if found == domain), default=0)


def _without_gaps(text: str) -> dict[str, int]:
    """Read MySQL's set of transactions: per server (and tag), how many there are before the first gap.

    >>> _without_gaps("a-b:1-57:60-61:shop:1-3,\\nc-d:7")
    {'a-b': 57, 'a-b:shop': 3, 'c-d': 0}
    """
    out: dict[str, int] = {}
    for part in text.replace("\n", "").split(","):
        server, *intervals = part.strip().split(":")
        name = server
        for interval in intervals:
            if not interval[0].isdigit():
                name = f"{server}:{interval}"
                continue
            first, _, last = interval.partition("-")
            out.setdefault(name, int(last or first) if first == "1" else 0)
    return out
