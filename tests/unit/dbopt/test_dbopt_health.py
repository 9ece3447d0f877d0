"""Lint of models and the health page."""

from __future__ import annotations

import argparse
import json
import sqlite3
from pathlib import Path

import pytest
import sqlalchemy as sa

from eventperf.cli import db as cli
from eventperf.dbopt import DatabaseOptimizer, lint_metadata
from eventperf.errors import ConfigurationError


def schema(*indexes: sa.Index, **columns: sa.types.TypeEngine[object]) -> sa.MetaData:
    out = sa.MetaData()
    sa.Table("a", out, sa.Column("id", sa.Integer, primary_key=True))
    sa.Table(
        "b",
        out,
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("x", sa.Integer),
        sa.Column("y", sa.Integer),
        *(sa.Column(name, type_) for name, type_ in columns.items()),
        *indexes,
    )
    return out


def rules(metadata: sa.MetaData, dialect: str = "postgres") -> list[tuple[str, str]]:
    return [(f.rule, f.statement) for f in lint_metadata(metadata, dialect)]


def test_sound_models_have_no_findings() -> None:
    made = schema(
        sa.Index("one", "x", "y"),
        sa.Index("two", "y", "x"),
        sa.Index("three", sa.text("lower(x)")),
        sa.Index("four", "x", postgresql_where=sa.text("y > 1")),
        sa.Index("five", "x", postgresql_include=["id"]),
    )
    assert rules(made) == []


def test_foreign_keys_want_an_index_that_begins_with_them() -> None:
    made = schema()
    made.tables["b"].append_column(sa.Column("a_id", sa.ForeignKey("a.id")))
    assert rules(made) == [("unindexed-foreign-key", "b (a_id)")]
    assert rules(made, "mysql") == []
    sa.Index("late", made.tables["b"].c.x, made.tables["b"].c.a_id)
    assert rules(made) == [("unindexed-foreign-key", "b (a_id)")]
    sa.Index("first", made.tables["b"].c.a_id, made.tables["b"].c.x)
    assert rules(made) == []


def test_duplicates_and_prefixes_are_found_once() -> None:
    assert rules(schema(sa.Index("one", "x"), sa.Index("two", "x"))) == [("duplicate-index", "b.one")]
    assert rules(schema(sa.Index("short", "x"), sa.Index("wide", "x", "y"))) == [
        ("redundant-index", "b.short")
    ]
    assert rules(schema(sa.Index("only", "x", unique=True), sa.Index("wide", "x", "y"))) == []
    assert rules(schema(sa.Index("again", "id"))) == [("duplicate-index", "b.again")]
    unique = schema(sa.Index("short", "x"))
    unique.tables["b"].append_constraint(sa.UniqueConstraint("x", "y"))
    assert rules(unique) == [("redundant-index", "b.short")]


def test_names_types_and_keys() -> None:
    long = "i" * 70
    made = schema(sa.Index(long + "a", "x"), sa.Index(long + "b", "y"))
    assert [r for r, _ in rules(made)] == ["long-index-name", "long-index-name"]
    assert "the same as another" in lint_metadata(made, "postgres")[0].message
    assert rules(made, "sqlite") == []
    assert rules(schema(sa.Index("flag", "f"), f=sa.Boolean())) == [("boolean-index", "b.flag")]
    text = schema(sa.Index("words", "t"), t=sa.Text())
    assert rules(text, "mysql") == [("text-without-length", "b.words")]
    assert rules(text) == []
    assert rules(schema(sa.Index("words", "t", mysql_length={"t": 20}), t=sa.Text()), "mysql") == []
    bare = sa.MetaData()
    sa.Table("log", bare, sa.Column("at", sa.Integer))
    assert rules(bare) == [("no-primary-key", "log")]
    with pytest.raises(ConfigurationError):
        lint_metadata(object())


MODELS = """
import sqlalchemy as sa
metadata = sa.MetaData()
sa.Table("a", metadata, sa.Column("id", sa.Integer, primary_key=True))
sa.Table("b", metadata, sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("a_id", sa.ForeignKey("a.id")))
"""


def call(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cli.configure(parser)
    return cli.run(parser.parse_args(arguments))


def test_lint_in_ci_fails_on_what_is_new_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "linted_models.py").write_text(MODELS)
    (tmp_path / "q.sql").write_text("SELECT a FROM t WHERE b = 1;\nSELECT * FROM t WHERE b = 2;")
    monkeypatch.syspath_prepend(tmp_path)
    targets = [str(tmp_path / "q.sql"), "linted_models:metadata"]
    assert call("lint", *targets, "--json") == 1
    found = {f["rule"] for f in json.loads(capsys.readouterr().out)}
    assert found == {"select-star", "unindexed-foreign-key"}
    base = str(tmp_path / "known.txt")
    assert call("lint", *targets, "--write-baseline", base) == 0
    assert call("lint", *targets, "--baseline", base) == 0
    (tmp_path / "q.sql").write_text("SELECT * FROM t WHERE b = 77;\nDELETE FROM t;")  # old, moved; and new
    capsys.readouterr()
    assert call("lint", *targets, "--baseline", base, "--json") == 1
    assert [f["rule"] for f in json.loads(capsys.readouterr().out)] == ["unbounded-change"]
    with pytest.raises(ConfigurationError):
        call("lint", "linted_models:nothing")


def test_the_health_page_names_what_could_go_and_what_is_missing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sick.db"
    db = sqlite3.connect(file)
    db.executescript(
        "CREATE TABLE a (id INTEGER PRIMARY KEY);"
        "CREATE TABLE b (id INTEGER PRIMARY KEY, a_id INT REFERENCES a (id), x INT, y INT);"
        "CREATE INDEX short ON b (x); CREATE INDEX wide ON b (x, y); CREATE INDEX wide_too ON b (x, y);"
        "CREATE TABLE log (at INT, line TEXT);"
    )
    db.close()
    with DatabaseOptimizer(f"sqlite:///{file}") as optimizer:
        report = optimizer.health()
    assert not report.is_healthy
    assert {d.name for d in report.drops} == {"short", "wide"} or {d.name for d in report.drops} == {
        "short",
        "wide_too",
    }
    assert all(d.evidence and d.sql.startswith("DROP INDEX") for d in report.drops)
    assert {(f.kind, f.about) for f in report.faults} == {
        ("foreign key without index", "b (a_id)"),
        ("no primary key", "log"),
    }
    page = tmp_path / "health.html"
    assert call("health", f"sqlite:///{file}", "--html", str(page)) == 0
    assert "foreign key without index" in capsys.readouterr().out
    assert call("health", f"sqlite:///{file}", "--strict", "--json") == 1
    assert json.loads(capsys.readouterr().out)["is_healthy"] is False
    written = page.read_text()
    assert "<svg" in written
    assert "DROP INDEX" in written
    assert "://" not in written
