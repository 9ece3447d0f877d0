"""What only MariaDB has stops no advice: histories, sequences, operators with another name in the parser."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import create_engine

from eventperf.dbopt import DatabaseOptimizer, Workload

pytestmark = pytest.mark.integration

DDL = [
    "CREATE TABLE kept (id INT PRIMARY KEY, a INT) WITH SYSTEM VERSIONING",
    "CREATE TABLE plain (id INT PRIMARY KEY, a INT, b INT, words TEXT)",
    "CREATE SEQUENCE numbers",
    "INSERT INTO kept SELECT seq, seq % 900 FROM seq_1_to_20000",
    "INSERT INTO plain SELECT seq, seq % 900, seq % 800, 'x' FROM seq_1_to_20000",
    "ANALYZE TABLE kept, plain",
]
SQLS = [
    "SELECT id FROM kept WHERE a = 5",
    "SELECT id FROM kept FOR SYSTEM_TIME ALL WHERE a = 6",
    "SELECT id FROM plain WHERE words REGEXP '5' AND a = 4",
    "SELECT id FROM plain WHERE words NOT RLIKE '5' AND a = 4 LOCK IN SHARE MODE",
    "SELECT seq, plain.id FROM seq_1_to_9 LEFT JOIN plain ON plain.b = seq",
]


def test_every_statement_is_planned_and_served(mariadb_server: Any) -> None:
    with mariadb_server.fresh_database() as url, mariadb_server.fresh_database() as other:
        engine = create_engine(url, isolation_level="AUTOCOMMIT", execution_options={"no_parameters": True})
        if mariadb_server.is_mysql:
            pytest.skip("MySQL has none of this")
        with engine.connect() as db:
            for sql in DDL:
                db.exec_driver_sql(sql)
        with DatabaseOptimizer(engine, what_if=other) as optimizer:
            advice = optimizer.advise(Workload.from_sql(";\n".join(SQLS), "mysql"), budget="60s")
        engine.dispose()
    assert not advice.unserved, advice.unserved
    assert not [w for w in advice.warnings if "not here" in w or "not analysed" in w]
    served = {(i.spec.table, i.spec.keys[0].name) for i in advice.indexes}
    assert {("kept", "a"), ("plain", "a"), ("plain", "b")} <= served
