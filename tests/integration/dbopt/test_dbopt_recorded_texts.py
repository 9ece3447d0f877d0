"""Texts as servers really record them: all of them parse, and keep what matters."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import create_engine

from eventperf.dbopt import Statement, Workload
from faults import wait_until

pytestmark = pytest.mark.integration

TABLES = [
    "CREATE TABLE events (id INT PRIMARY KEY, name VARCHAR(60), status VARCHAR(10), starts_at "
    "TIMESTAMP NULL, "
    "seats INT, price DECIMAL(10,2))",
    "CREATE TABLE tickets (id INT PRIMARY KEY, event_id INT, buyer VARCHAR(40), sold_at TIMESTAMP "
    "NULL, n INT)",
    'CREATE TABLE "Odd ""Table" ("select" INT PRIMARY KEY, "a b" INT)',
]
BOTH = [
    "SELECT * FROM events WHERE id = 7",
    "SELECT name FROM events WHERE status IN ('open', 'closed', 'it''s') AND seats > -5 ORDER BY "
    "starts_at DESC LIMIT 5",
    "SELECT e.id, count(*) FROM events e LEFT JOIN tickets t ON t.event_id = e.id AND t.n > 2 GROUP BY e.id "
    "HAVING count(*) > 1",
    "SELECT id FROM events WHERE EXISTS (SELECT 1 FROM tickets t WHERE t.event_id = events.id AND t.n = 3)",
    "SELECT id FROM events WHERE seats = (SELECT max(seats) FROM events WHERE status = 'open')",
    "WITH big AS (SELECT event_id, sum(n) AS s FROM tickets GROUP BY event_id) SELECT * FROM big "
    "WHERE s > 10",
    "WITH RECURSIVE r (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM r WHERE n < 5) SELECT n FROM r",
    "SELECT id, row_number() OVER (PARTITION BY status ORDER BY seats DESC) FROM events WHERE id > 3",
    "SELECT CASE WHEN seats > 100 THEN 'big' WHEN seats IS NULL THEN '' ELSE 'small' END FROM events",
    "SELECT id FROM events WHERE name LIKE 'a%' AND name NOT LIKE '%b_' OR NOT (seats BETWEEN 1 AND 9)",
    "SELECT id FROM events UNION SELECT event_id FROM tickets WHERE n = 1 ORDER BY 1 LIMIT 3 OFFSET 2",
    "SELECT substring(name, 1, 2), coalesce(status, 'none') FROM events WHERE substring(name, 1, 2) "
    "IN ('ab', 'cd')",
    "SELECT 100 * (5 - seats) * (1 + price) FROM events WHERE price * 2 > 10.5e1",
    "INSERT INTO tickets VALUES (1, 2, 'x', NULL, 3), (2, 2, 'y', NULL, 4), (3, 2, 'z', NULL, 5)",
    "UPDATE tickets SET n = n + 1, buyer = 'who; -- knows' WHERE id = 1",
    "DELETE FROM tickets WHERE id = 3 AND buyer IS NOT NULL",
    "INSERT INTO tickets (id, event_id) SELECT id + 100, id FROM events WHERE seats < 0",
    "SELECT id /* a comment; with 'quotes' */ FROM events -- and another\n WHERE id = 8",
    "SELECT count(DISTINCT buyer) FROM tickets WHERE sold_at >= '2026-01-01 00:00:00'",
    "SELECT a.id FROM events a CROSS JOIN events b WHERE a.id = b.id AND (a.seats, b.seats) IN ((1, "
    "2), (3, 4))",
]
POSTGRES = [
    "SELECT id FROM events WHERE starts_at >= date '2026-01-01' AND starts_at < date '2026-01-01' + "
    "interval '1 day'",
    "SELECT id FROM events WHERE starts_at > timestamp '2026-01-01 10:00' AND starts_at::date = '2026-01-02'",
    "SELECT substr(name,1,2) FROM events WHERE substr(name,1,2) IN ('ab','cd') AND seats=ANY('{1,2}'::int[])",
    "SELECT DISTINCT ON (status) id FROM events ORDER BY status, starts_at DESC NULLS LAST",
    "SELECT count(*) FILTER (WHERE seats > 5) FROM events GROUP BY GROUPING SETS ((status), ())",
    "SELECT e.id, l.n FROM events e, LATERAL (SELECT n FROM tickets t WHERE t.event_id = e.id LIMIT 2) l",
    "SELECT id FROM tickets WHERE id = 5 FOR UPDATE SKIP LOCKED",
    "INSERT INTO tickets (id, n) VALUES (900, 1) ON CONFLICT (id) DO UPDATE SET n = excluded.n + 1 "
    "RETURNING id",
    "UPDATE tickets SET n = e.seats FROM events e WHERE e.id = tickets.event_id AND e.status = 'x' "
    "RETURNING tickets.id",
    "DELETE FROM tickets USING events e WHERE e.id = tickets.event_id AND e.seats = 12345",
    "SELECT ('{\"a\": {\"b\": 1}}'::jsonb) -> 'a' ->> 'b', '[1]'::jsonb @> '1' FROM events WHERE id = 1",
    "SELECT extract(epoch FROM starts_at), date_trunc('day', starts_at) FROM events WHERE name ~* "
    "'^a' OR name ILIKE 'b%'",
    "SELECT starts_at AT TIME ZONE 'UTC' FROM events WHERE name SIMILAR TO 'a%' AND name LIKE 'a!%' "
    "ESCAPE '!'",
    "SELECT array_agg(id ORDER BY id) FROM events WHERE id = ANY(ARRAY[1,2,3]) AND E'a\\'b' <> name",
    'SELECT "select", "a b" FROM "Odd ""Table" WHERE "a b" = 4',
    "SELECT * FROM (VALUES (1, 'a'), (2, 'b')) AS v (k, w) WHERE k = 1",
    "SELECT id FROM generate_series(1, 10, 2) AS id WHERE id > 3",
    "SELECT $$dollar ' quoted$$ || name FROM events WHERE id = 2",
    "SELECT id FROM events ORDER BY seats FETCH FIRST 3 ROWS ONLY",
    "SELECT string_agg(name, ', ' ORDER BY id) FROM events GROUP BY ROLLUP (status)",
    "SELECT id FROM events WHERE interval '2 hours' > starts_at - timestamp '2026-01-01' AND "
    "'now'::timestamp > starts_at",
]
MYSQL = [
    "SELECT SQL_NO_CACHE id FROM events USE INDEX (PRIMARY) WHERE id = 3 LIMIT 2, 5",
    "SELECT id FROM events WHERE starts_at >= NOW() - INTERVAL 3 DAY AND starts_at < '2026-01-01' + "
    "INTERVAL 1 HOUR",
    "INSERT INTO tickets (id, n) VALUES (900, 1) ON DUPLICATE KEY UPDATE n = VALUES(n) + 1",
    "REPLACE INTO tickets (id, n) VALUES (901, 1), (902, 2)",
    "INSERT IGNORE INTO tickets SET id = 903, n = 4",
    "UPDATE tickets t JOIN events e ON e.id = t.event_id SET t.n = e.seats WHERE e.status = 'x'",
    "DELETE t FROM tickets t JOIN events e ON e.id = t.event_id WHERE e.seats = 12345",
    "SELECT status, count(*) FROM events GROUP BY status WITH ROLLUP",
    "SELECT group_concat(DISTINCT name ORDER BY id DESC SEPARATOR '; ') FROM events WHERE id <=> NULL",
    "SELECT id DIV 2, id MOD 3, id % 4, id ^ 1, !id FROM events WHERE name REGEXP '^a' AND name "
    "RLIKE 'b' XOR id = 1",
    "SELECT `select`, `a b` FROM `Odd Table` WHERE `a b` = 4",
    "SELECT id FROM tickets WHERE id = 5 FOR UPDATE",
    "SELECT id FROM tickets WHERE id = 5 LOCK IN SHARE MODE",
    "SELECT STRAIGHT_JOIN e.id FROM events e JOIN tickets t USING (id) WHERE t.n = 1",
    "SELECT date_format(starts_at, '%Y-%m-%d'), \"text in double quotes\" FROM events WHERE id = 0x0A",
    "SELECT CAST(seats AS CHAR), CONVERT(name USING utf8mb4), name COLLATE utf8mb4_bin FROM events "
    "WHERE id = 1",
    "SELECT if(seats > 1, 'a', 'b'), @@version, @x := 3 FROM events WHERE id = 1",
    "SELECT EXTRACT(YEAR FROM starts_at), TIMESTAMPDIFF(DAY, starts_at, NOW()) FROM events WHERE id "
    "= 1 # tail",
]


def ours(workload: Workload) -> list[Statement]:
    """Leave out what the test's own connection said."""
    names = ("events", "tickets", "odd ", "generate_series", "from r ", "values (", "from (")
    texts = [(s, s.fingerprint.text.lower()) for s in workload]
    return [s for s, t in texts if any(n in t for n in names) and "performance_schema" not in t]


def failures(statements: list[Statement]) -> list[str]:
    return [f"{s.error}: {s.sql}" for s in statements if s.error is not None]


@pytest.fixture
def postgres(private_postgres: Callable[..., Any]) -> Iterator[Any]:
    with private_postgres(track_activity_query_size=4096).fresh_database() as url:
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        yield engine
        engine.dispose()


def test_pg_stat_statements(postgres: Any) -> None:
    asked = [*BOTH, *POSTGRES]
    with postgres.connect() as db:
        for table in TABLES:
            db.exec_driver_sql(table)
        db.exec_driver_sql("SELECT pg_stat_statements_reset()")
        for sql in asked:
            db.exec_driver_sql(sql.replace("%", "%%"))
        db.exec_driver_sql("SELECT id FROM events WHERE seats BETWEEN %s AND %s AND name = %s", (1, 2, "x"))
    found = ours(Workload.from_pg_stat_statements(postgres))
    assert len(found) >= len(asked)
    assert failures(found) == []
    assert not any(s.is_cut for s in found)


@pytest.fixture
def mariadb(private_mariadb: Callable[..., Any]) -> Iterator[Any]:
    server = private_mariadb(
        performance_schema="ON", performance_schema_max_digest_length=256, log_output="FILE,TABLE"
    )
    with server.fresh_database() as url:
        engine = create_engine(url, isolation_level="AUTOCOMMIT")
        yield engine
        engine.dispose()


def test_slow_log_table_and_file_and_digests(mariadb: Any) -> None:
    asked = [*BOTH, *MYSQL]
    long = (
        f"SELECT id FROM events WHERE name = 'x' AND status IN ('a') AND {' AND '.join(['seats > 1'] * 60)}"
    )
    with mariadb.connect() as db:
        for table in TABLES:
            db.exec_driver_sql(table.replace('""', "").replace('"', "`"))
        file = Path(db.exec_driver_sql("SELECT CONCAT(@@datadir, '/slow.log')").scalar())
        db.exec_driver_sql(f"SET GLOBAL slow_query_log_file = '{file}'")
        db.exec_driver_sql("SET GLOBAL slow_query_log = ON")
        db.exec_driver_sql("TRUNCATE TABLE performance_schema.events_statements_summary_by_digest")
        db.exec_driver_sql("SET SESSION long_query_time = 0")
        for sql in [*asked, long]:
            db.exec_driver_sql(sql.replace("%", "%%"))
        db.exec_driver_sql("SET SESSION long_query_time = 10")
    table = ours(Workload.from_slow_log(mariadb))
    assert len(table) >= len(asked)
    assert failures(table) == []
    assert all(s.measurable for s in table if s.is_read)
    wait_until(file.exists, 10)
    logged = ours(Workload.from_slow_log(file))
    assert {s.fingerprint.id for s in table} <= {s.fingerprint.id for s in logged}
    assert failures(logged) == []
    digests = ours(Workload.from_performance_schema(mariadb))
    assert len(digests) >= len(asked) - 2
    assert failures(digests) == []
    (cut,) = [s for s in digests if s.is_cut]
    assert "name" in cut.fingerprint.text
    assert cut.measurable == []
