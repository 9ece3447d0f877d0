"""No literal of any engine survives in a fingerprint, and statements are kept by shape."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from eventperf.dbopt import QueryRecorder, Workload
from eventperf.dbopt.statements.fingerprint import fingerprint
from eventperf.dbopt.statements.lex import tokens

SECRET = "TOPSECRET"
FORMS = {
    "postgres": [
        f"E'x\\'{SECRET}'",
        f"'x\\' || '{SECRET}'",
        f"$a1${SECRET}$a1$",
        f"$${SECRET}$$",
        f"$\u00fc${SECRET}$\u00fc$",
        f"U&'{SECRET}'",
        f"1 /* a /* b */ {SECRET} */",
        f"N'{SECRET}'",
    ],
    "mysql": [
        f"'x\\'{SECRET}'",
        f'"x\\"{SECRET}"',
        f"_utf8mb4'{SECRET}'",
        f"N'{SECRET}'",
        f"1 # {SECRET}",
        f"'it''s {SECRET}'",
    ],
    "sqlite": [f'"{SECRET}"', f"'it''s {SECRET}'", f"1 -- {SECRET}", f"'{SECRET}\\'"],
}


@pytest.mark.parametrize(("dialect", "form"), [(d, f) for d, forms in FORMS.items() for f in forms])
@pytest.mark.parametrize(
    "shape", ["SELECT * FROM t WHERE a = {}", "SELECT * FROM t WHERE a > 1 AND b LIKE {}"]
)
def test_no_literal_survives(dialect: str, form: str, shape: str) -> None:
    sql = shape.format(form)
    assert SECRET.lower() not in fingerprint(sql, dialect).text
    assert "".join(t.text for t in tokens(sql, dialect)) == sql


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="aE'\"$\\/*-#u&_n0x1.%()[]` \n", max_size=40), st.sampled_from(sorted(FORMS)))
def test_every_byte_is_kept_whatever_the_text(text: str, dialect: str) -> None:
    assert "".join(t.text for t in tokens(text, dialect)) == text


def test_names_that_are_compared_stay_names() -> None:
    text = fingerprint('SELECT "t"."a" FROM "t" JOIN "u" ON "t"."a" = "u"."b" WHERE "t"."c" = ?').text
    assert text == "select t.a from t join u on t.a = u.b where t.c = ?"


def test_comments_and_literals_do_not_part_statements() -> None:
    recorder = QueryRecorder(dialect="sqlite", max_statements=50)
    for n in range(200):
        recorder.observe(f"SELECT a FROM t WHERE id = {n} /* trace {n} */", None, 0.001, "app.py:1")
    (found,) = recorder.workload()
    assert found.calls == 200
    assert recorder.dropped == 0


def test_what_costs_most_is_kept_and_what_was_dropped_is_told() -> None:
    recorder = QueryRecorder(dialect="sqlite", max_statements=10)
    for n in range(100):
        recorder.observe(f"SELECT a FROM t{n}", None, 0.001, "app.py:1")
        recorder.observe("SELECT b FROM late WHERE x = ?", (1,), 1.0, "app.py:9")
    work = recorder.workload()
    assert max(work, key=lambda s: s.total_s or 0).calls == 100
    assert len(work) <= 10
    assert recorder.dropped
    assert "max_statements" in work.notes[0]


def test_values_are_recorded_as_values() -> None:
    class Jsonb:
        def __init__(self, obj: object) -> None:
            self.obj = obj

    work = Workload("postgres")
    work.add("SELECT 1 FROM t WHERE a @> $1 AND b = $2", samples=[(Jsonb({"a": True}), [1, 2])])
    (statement,) = work
    assert statement.samples[0].values == ('{"a": true}', [1, 2])
