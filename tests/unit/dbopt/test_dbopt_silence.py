"""What users typed into a statement stands in no report and no log line, whatever cannot be read."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import sqlglot
from sqlalchemy import create_engine, text

from eventperf.cache.following import tables_in
from eventperf.dbopt import DatabaseOptimizer, Workload, lint_workload
from eventperf.dbopt.statements.fingerprint import parse
from eventperf.dbopt.statements.told import reason

SECRET = "TOPSECRET"
ODD = [
    "CALL f('{}')", "SET x='{}' WHERE", "CREATE USER x IDENTIFIED BY '{}'", "VALUES '{}'",
    "SELECT a FROM t WHERE b='{}' FROB NICATE '{}' (((", "SELECT a FROM t WHERE b='{}' AND )) '{}'",
    "WITH x AS ('{}') SELECT", "SELECT json_extract(b, '$.{}[') FROM t", "SELECT 1 FROM t PIVOT('{}')",
    "UPDATE t SET a = {{'{}'", "MERGE '{}' x",
    "INSERT INTO t SET '{}' FOO", "ALTER USER x PASSWORD '{}'", "GRANT '{}' TO x", "EXPLAIN SELECT '{}'",
    "SELECT a FROM t WHERE a = f('{}' b c d", "SELECT nosuch('{}') FROM t", "SELECT a FROM t HAVING '{}'",
    "SELECT a FROM t JOIN ON '{}'", "SELECT CAST('{}' AS", "SELECT a FROM t ORDER BY '{}' NULLS '{}'",
    "SELECT a FROM t WHERE b = 1 '{}' '{}'", "DELETE FROM t WHERE '{}' WITHIN '{}'",
    "SELECT a FROM t WHERE a = f('{}' b c '", "SELECT '{}",
    "SELECT '{}' `", "SELECT a FROM t WHERE b = '{}' /* {}",
]  # fmt: skip


@pytest.mark.parametrize("dialect", ["sqlite", "postgres", "mysql"])
@pytest.mark.parametrize("form", ODD)
def test_a_statement_that_cannot_be_read_is_told_without_its_values(
    form: str, dialect: str, caplog: pytest.LogCaptureFixture
) -> None:
    sql = form.replace("{{", "{").replace("{}", SECRET)
    with caplog.at_level(logging.DEBUG):
        parsed = parse.__wrapped__(sql, dialect)
        tables_in(sql)
        found = lint_workload(Workload.from_sql(sql, dialect=dialect))
    said = f"{parsed.error} {parsed.unread} {found} {caplog.text}"
    assert SECRET not in said.upper()


def test_no_report_and_no_log_line_of_advice_holds_a_value(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = create_engine(f"sqlite:///{tmp_path}/db")
    with engine.begin() as db:
        db.execute(text("CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c INT)"))
    whole = [f for f in ODD if f.count("'") % 2 == 0 and "/*" not in f and "`" not in f]
    work = Workload.from_sql(";\n".join(f.replace("{{", "{").replace("{}", SECRET) for f in whole))
    with caplog.at_level(logging.DEBUG), DatabaseOptimizer(engine, source=work) as optimizer:
        advice = optimizer.advise()
    assert "no such function: nosuch" in str(advice), "what is told says why"
    for shown in (str(advice), advice.to_html(), advice.to_sql(), json.dumps(advice.to_dict()), caplog.text):
        assert SECRET not in shown.upper()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ('invalid input syntax for type integer: "TOPSECRET"', 'invalid input syntax for type integer: "?"'),
        ('value "99999999999" is out of range', 'value "?" is out of range'),
        ('column t.b does not exist', 'column t.b does not exist'),
        ('relation "t" does not exist', 'relation "t" does not exist'),
        ("Incorrect DATE value: 'TOPSECRET'", "Incorrect DATE value: '?'"),
        ("Unknown column 't.b' in 'field list'", "Unknown column 't.b' in '?'"),
        ("the right syntax to use near ''TOPSEC' at line 1", "the right syntax to use"),
    ],
)  # fmt: skip
def test_a_server_s_words_keep_names_and_lose_values(said: str, told: str) -> None:
    sql = "SELECT a FROM t WHERE t.b = 'TOPSECRET'"
    assert reason(ValueError(said + "\nLINE 1: 'TOPSECRET'"), sql, "postgres") == told


def test_what_the_application_asks_of_the_parser_stays_in_its_log(caplog: pytest.LogCaptureFixture) -> None:
    sqlglot.parse_one("CREATE USER mine IDENTIFIED BY 'x'")
    assert "contains unsupported syntax" in caplog.text
