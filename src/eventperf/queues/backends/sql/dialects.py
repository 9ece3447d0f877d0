"""What PostgreSQL, MySQL/MariaDB and SQLite each say in their own way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from sqlalchemy import LargeBinary, Table, bindparam, cast, delete, func, literal_column, select, text, update
from sqlalchemy.dialects import mysql, postgresql, sqlite
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DBAPIError

from . import tables as s
from .trouble import Trouble, of_mysql, of_postgres, of_sqlite

_PG_ARRAYS: Final = {
    "id": "text", "type": "text", "queue": "text", "priority": "int", "turn": "bigint", "state": "smallint",
    "at": "float8", "tag": "float8", "ready_at": "float8", "deadline_at": "float8", "held_key": "text",
    "held_for": "text", "payload": "bytea", "facts": "text",
}  # fmt: skip

Row = dict[str, Any]


class Dialect:
    """SQLite, and what all have in common."""

    name: str = "SQLite"
    now: Any = None  # the host's clock: there is only one host

    def trouble(self, error: DBAPIError) -> Trouble:
        """Judge an error of the driver."""
        return of_sqlite(error.orig)

    def insert_new(self, conn: Connection, table: Table, rows: Sequence[Row]) -> None:
        """Insert ``rows`` whose key is not there yet."""
        conn.execute(sqlite.insert(table).on_conflict_do_nothing(), rows)

    def insert_jobs(self, conn: Connection, rows: Sequence[Row]) -> set[str]:
        """Insert jobs whose id is not stored yet; return the ids of those inserted."""
        statement = sqlite.insert(s.jobs).on_conflict_do_nothing().returning(s.jobs.c.id)
        return {row[0] for row in conn.execute(statement, rows)}

    def upsert(self, conn: Connection, table: Table, keys: Row, values: Row) -> None:
        statement = sqlite.insert(table).values(**keys, **values)
        conn.execute(statement.on_conflict_do_update(index_elements=list(keys), set_=values))

    def take_key(self, conn: Connection, row: Row, now: float) -> str:
        """Give the unique key in ``row`` to its job unless another holds it; return the holder."""
        insert: Any = sqlite.insert if self.name == "SQLite" else postgresql.insert
        u, new = s.unique.c, insert(s.unique).values(**row)
        free = (u.until <= now) | (u.job_id == row["job_id"])
        conn.execute(
            new.on_conflict_do_update(
                index_elements=["ns", "held_key"],
                set_={"job_id": new.excluded.job_id, "until": new.excluded.until},
                where=free,
            )
        )
        return self.holder(conn, row)

    def holder(self, conn: Connection, row: Row) -> str:
        u = s.unique.c
        found = select(u.job_id).where(u.ns == row["ns"], u.held_key == row["held_key"])
        return str(conn.execute(found).scalar_one())

    def complete(
        self, conn: Connection, ns: int, rows: Sequence[Row], now: float, ttl_s: float
    ) -> dict[str, Any] | None:
        """Complete jobs in one statement, where the server can; ``None`` where it cannot."""
        return None

    def place(self, conn: Connection, rows: Sequence[Row]) -> None:
        """Write the state, tag and time of each row."""
        statement = (
            update(s.jobs)
            .where(s.jobs.c.seq == bindparam("b_seq"))
            .values(state=bindparam("b_state"), tag=bindparam("b_tag"), ready_at=bindparam("b_ready"))
        )
        conn.execute(statement, rows)

    def free_keys(self, conn: Connection, ns: int, held: Sequence[tuple[str, str]]) -> None:
        """Forget unique keys ``(key, job id)`` that are still held by those jobs."""
        u = s.unique.c
        statement = delete(s.unique).where(
            u.ns == ns, u.held_key == bindparam("b_key"), u.job_id == bindparam("b_id")
        )
        conn.execute(statement, [{"b_key": key, "b_id": job_id} for key, job_id in sorted(held)])

    def has(self, column: Any, text: str) -> Any:
        """Return the condition that ``column`` contains ``text``, letter by letter."""
        return func.instr(column, text) > 0

    def has_bytes(self, column: Any, data: bytes) -> Any:
        """The same of bytes."""
        return func.instr(column, data) > 0

    def allow_depth(self, conn: Connection) -> None:
        """Let a recursive question go as deep as chains of jobs do."""

    def notify(self, conn: Connection, channel: str, text: str) -> None:
        """Wake workers when this transaction commits, where the server can."""


class Postgres(Dialect):
    name: str = "PostgreSQL"
    now: Any = literal_column("extract(epoch from clock_timestamp())::float8")

    _insert = text(
        f"INSERT INTO {s.jobs.name} (ns, created_at, {', '.join(_PG_ARRAYS)}) "
        f"SELECT :ns, :now, {', '.join('v.' + n for n in _PG_ARRAYS)} "
        f"FROM unnest({', '.join(f'CAST(:{n} AS {t}[])' for n, t in _PG_ARRAYS.items())}) "
        f"WITH ORDINALITY AS v({', '.join(_PG_ARRAYS)}, n) ORDER BY v.n "
        "ON CONFLICT (ns, id) DO NOTHING RETURNING id"
    )
    _complete = text(
        f"UPDATE {s.jobs.name} AS j SET state = {s.COMPLETED}, attempts = j.attempts + 1, result = v.result, "
        "finished_at = :now + v.n * 1e-6, progress = NULL, steps = NULL, "
        "at = :now + CASE WHEN v.result IS NULL THEN LEAST(:ttl, 60) ELSE :ttl END "
        "FROM unnest(CAST(:id AS text[]), CAST(:token AS bigint[]), CAST(:result AS bytea[])) "
        f"WITH ORDINALITY AS v(id, token, result, n) "
        f"WHERE j.ns = :ns AND j.id = v.id AND j.token = v.token AND j.state = {s.ACTIVE} "
        "RETURNING j.id, j.queue, j.type, j.turn, j.attempts, j.crashes, j.started_at, j.ready_at, "
        "j.held_key, j.held_for"
    )
    _place = text(
        f"UPDATE {s.jobs.name} AS j SET state = v.state, tag = v.tag, ready_at = v.ready FROM unnest("
        "CAST(:seq AS bigint[]), CAST(:state AS smallint[]), CAST(:tag AS float8[]), CAST(:ready AS float8[])"
        ") AS v(seq, state, tag, ready) WHERE j.seq = v.seq"
    )
    _notify = text("SELECT pg_notify(:channel, :text)")

    def trouble(self, error: DBAPIError) -> Trouble:
        return of_postgres(error.orig)

    def insert_new(self, conn: Connection, table: Table, rows: Sequence[Row]) -> None:
        conn.execute(postgresql.insert(table).on_conflict_do_nothing(), rows)

    def insert_jobs(self, conn: Connection, rows: Sequence[Row]) -> set[str]:
        values: dict[str, Any] = {name: [row[name] for row in rows] for name in _PG_ARRAYS}
        values.update(ns=rows[0]["ns"], now=rows[0]["created_at"])
        return {row[0] for row in conn.execute(self._insert, values)}

    def upsert(self, conn: Connection, table: Table, keys: Row, values: Row) -> None:
        statement = postgresql.insert(table).values(**keys, **values)
        conn.execute(statement.on_conflict_do_update(index_elements=list(keys), set_=values))

    def complete(
        self, conn: Connection, ns: int, rows: Sequence[Row], now: float, ttl_s: float
    ) -> dict[str, Any] | None:
        values: dict[str, Any] = {name: [row[name] for row in rows] for name in ("id", "token", "result")}
        answer = conn.execute(self._complete, {**values, "ns": ns, "now": now, "ttl": ttl_s})
        return {row.id: row for row in answer}

    def place(self, conn: Connection, rows: Sequence[Row]) -> None:
        names = ("seq", "state", "tag", "ready")
        conn.execute(self._place, {name: [row["b_" + name] for row in rows] for name in names})

    def has(self, column: Any, text: str) -> Any:
        return func.strpos(column, text) > 0

    def has_bytes(self, column: Any, data: bytes) -> Any:
        return func.pg_catalog.position(column, data) > 0

    def notify(self, conn: Connection, channel: str, text: str) -> None:
        conn.execute(self._notify, {"channel": channel, "text": text})


class MySQL(Dialect):
    name: str = "MySQL"
    now: Any = literal_column("TIMESTAMPDIFF(MICROSECOND, '1970-01-01', UTC_TIMESTAMP(6)) / 1e6")

    def trouble(self, error: DBAPIError) -> Trouble:
        return of_mysql(error.orig)

    def allow_depth(self, conn: Connection) -> None:
        is_mariadb = getattr(conn.dialect, "is_mariadb", False)
        name = "max_recursive_iterations" if is_mariadb else "cte_max_recursion_depth"
        conn.exec_driver_sql(f"SET SESSION {name} = 10000000")

    def insert_new(self, conn: Connection, table: Table, rows: Sequence[Row]) -> None:
        conn.execute(mysql.insert(table).prefix_with("IGNORE"), rows)

    def insert_jobs(self, conn: Connection, rows: Sequence[Row]) -> set[str]:
        j, ids = s.jobs.c, [row["id"] for row in rows]
        known = set(conn.execute(select(j.id).where(j.ns == rows[0]["ns"], j.id.in_(ids))).scalars())
        fresh = [row for row in rows if row["id"] not in known]
        if fresh:
            conn.execute(mysql.insert(s.jobs), fresh)
        return {row["id"] for row in fresh}

    def upsert(self, conn: Connection, table: Table, keys: Row, values: Row) -> None:
        conn.execute(mysql.insert(table).values(**keys, **values).on_duplicate_key_update(**values))

    def has(self, column: Any, text: str) -> Any:
        return func.instr(cast(column, LargeBinary), text.encode()) > 0

    def take_key(self, conn: Connection, row: Row, now: float) -> str:
        sql = (
            f"INSERT INTO {s.unique.name} (ns, held_key, job_id, until) "
            "VALUES (:ns, :held_key, :job_id, :until) ON DUPLICATE KEY UPDATE "
            "job_id = IF(until <= :now, VALUES(job_id), job_id), "
            "until = IF(job_id = VALUES(job_id), VALUES(until), until)"
        )
        conn.execute(text(sql), {**row, "now": now})
        return self.holder(conn, row)


DIALECTS: Final[Mapping[str, type[Dialect]]] = {
    "postgresql": Postgres,
    "mysql": MySQL,
    "mariadb": MySQL,
    "sqlite": Dialect,
}
