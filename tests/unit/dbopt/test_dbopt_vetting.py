"""Plan files and names are data: read, judged, written anew, and never code in what is generated."""

from __future__ import annotations

import ast

import pytest
import sqlglot
from hypothesis import given
from hypothesis import strategies as st

from eventperf._core.texts import one_line
from eventperf.dbopt import Advice
from eventperf.dbopt.errors import AdviceMismatch
from eventperf.dbopt.schema.vetting import expression

NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30).filter(
    lambda t: "\x00" not in t
)
TAIL = "; DROP TABLE payments; --"


def plan(dialect: str = "postgres", **spec):
    key = {"name": "event_id", "descending": False, "is_expression": False, "opclass": None, "prefix": None}
    whole = {
        "table": "t",
        "keys": [{**key, **spec.pop("key", {})}],
        "include": [],
        "where": None,
        "method": "btree",
    }
    index = {
        "name": spec.pop("name", "ix"), "sql": "DROP TABLE payments", "reason": "r", "gain": 0.5,
        "size_bytes": 1,
        "write_cost": 0, "proof": "p", "spec": {**whole, **spec}, "serves": [], "rejected": [],
    }  # fmt: skip
    return {
        "format": "eventperf-advice-1",
        "dialect": dialect,
        "proof": "p",
        "gain": 0.5,
        "explains": 1,
        "seconds": 1,
        "is_complete": True,
        "since": "",
        "statements": 1,
        "indexes": [index],
        "drops": [],
        "rewrites": [],
        "partitions": [],
    }


@pytest.mark.parametrize(
    "spec",
    [
        {"where": "true" + TAIL},
        {"where": "id IN (SELECT id FROM other)"},
        {"where": "pg_sleep(10) IS NULL"},
        {"where": "status = 'a' -- '\n; DROP TABLE payments"},
        {"key": {"opclass": "int4_ops)" + TAIL}},
        {"method": "btree (event_id)" + TAIL},
        {"key": {"name": "1))" + TAIL, "is_expression": True}},
        {"key": {"name": "their_function(event_id)", "is_expression": True}},
        {"key": {"prefix": "1) " + TAIL}},
    ],
)
@pytest.mark.parametrize("dialect", ["postgres", "mysql", "sqlite"])
def test_a_plan_that_is_not_understood_is_refused(spec, dialect):
    try:
        advice = Advice.from_dict(plan(dialect, **spec))
    except AdviceMismatch:
        return
    statements = [s for s in sqlglot.parse(advice.indexes[0].sql, read=dialect) if s is not None]
    assert len(statements) == 1, "what is understood stays one statement"
    assert "DROP TABLE" not in advice.indexes[0].sql.partition("--")[0]


def test_the_statement_of_a_plan_is_written_anew_from_what_it_says():
    advice = Advice.from_dict(plan(where="status = 'open'"))
    assert advice.indexes[0].sql == (
        'CREATE INDEX CONCURRENTLY "ix" ON "t" ("event_id") WHERE status = \'open\''
    )


@pytest.mark.parametrize("text", ["lower(email)", "status = 'open' AND deleted_at IS NULL", "a IN (1, 2, 3)"])
def test_what_indexes_are_made_of_is_kept(text):
    assert expression(text, "postgres").lower() == text.lower()


@given(NAMES, NAMES)
def test_hostile_names_stay_text_in_migrations_and_scripts(table, column):
    given_plan = plan(table=table, key={"name": column}, include=[column], where=None)
    advice = Advice.from_dict(given_plan)
    for kind in ("django", "alembic"):
        tree = ast.parse(advice.to_migration(kind))
        kinds = {ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.ClassDef, ast.FunctionDef}
        assert {type(node) for node in tree.body} <= kinds
        calls = {ast.unparse(n.func) for n in ast.walk(tree) if isinstance(n, ast.Call)}
        assert calls <= {
            "migrations.RunSQL", "AddIndexConcurrently", "models.Index", "op.create_index", "op.drop_index",
            "op.get_context", "op.get_context().autocommit_block", "sa.column", "sa.column().desc",
        }  # fmt: skip


@given(st.text())
def test_a_comment_is_one_line_whatever_it_holds(text):
    assert len(one_line(text).splitlines()) <= 1
    assert one_line(text).isprintable()
