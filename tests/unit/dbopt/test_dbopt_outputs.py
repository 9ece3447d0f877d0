"""What people and tools take away: the command line, lint, HTML, SQL, migrations."""

from __future__ import annotations

import argparse
import json
import sqlite3
from pathlib import Path

import pytest

from eventperf.cli import db as cli
from eventperf.cli.main import main
from eventperf.dbopt import (
    Advice,
    ApplyReport,
    DatabaseOptimizer,
    DropAdvice,
    QueryRecorder,
    RewriteAdvice,
    Workload,
)
from eventperf.dbopt.changes.verdict import Compared, Verdict, judge
from eventperf.dbopt.lint.statements import lint
from eventperf.dbopt.options import Limits
from eventperf.dbopt.protocols import Measurement


@pytest.fixture
def url(tmp_path: Path) -> str:
    file = tmp_path / "app.db"
    db = sqlite3.connect(file)
    db.execute("CREATE TABLE shop_visit (id INTEGER PRIMARY KEY, page INT NOT NULL, at INT NOT NULL)")
    db.executemany("INSERT INTO shop_visit (page, at) VALUES (?, ?)", [(n % 300, n) for n in range(9000)])
    db.commit()
    db.close()
    (tmp_path / "load.sql").write_text(
        "-- calls: 500\nSELECT at FROM shop_visit WHERE page = 7 ORDER BY at;\n"
        "SELECT * FROM shop_visit WHERE page+1 = 3;"
    )
    return f"sqlite:///{file}"


def call(*arguments: str) -> int:
    parser = argparse.ArgumentParser()
    cli.configure(parser)
    return cli.run(parser.parse_args(arguments))


def test_advise_writes_every_form_and_apply_takes_the_plan(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    load, plan = str(tmp_path / "load.sql"), str(tmp_path / "plan.json")
    forms = ["--html", str(tmp_path / "a.html"), "--sql", str(tmp_path / "a.sql"), "--plan", plan]
    assert call("advise", url, "--workload", load, "--json", *forms) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown == json.loads(Path(plan).read_text())
    assert shown["indexes"][0]["spec"]["keys"][0]["name"] == "page"
    page = (tmp_path / "a.html").read_text()
    assert "<svg" in page
    assert "://" not in page
    assert "CREATE INDEX" in (tmp_path / "a.sql").read_text()
    assert call("apply", url, plan) == 0
    assert "Nothing was changed" in capsys.readouterr().out
    assert call("apply", url, plan, "--yes", "--json", "--workload", load) == 0
    report = json.loads(capsys.readouterr().out)
    assert [a["name"] for a in report["created"]] == [i["name"] for i in shown["indexes"]]
    assert report["measured"][0]["plan_changed"]


def test_slow_ranks_a_file_by_its_weights(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("slow", url, "--workload", str(tmp_path / "load.sql"), "--json") == 0
    found = json.loads(capsys.readouterr().out)["queries"]
    assert [q["calls"] for q in found] == [500, 1]
    assert "7" not in found[0]["sample"]


def test_lint_fails_on_new_findings_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, known = tmp_path / "q.sql", tmp_path / "known"
    file.write_text("SELECT a FROM t WHERE lower(b) = 'x'")
    assert call("lint", str(file), "--json") == 1
    assert [f["rule"] for f in json.loads(capsys.readouterr().out)] == ["wrapped-column"]
    assert call("lint", str(file), "--write-baseline", str(known)) == 0
    assert call("lint", str(file), "--baseline", str(known)) == 0
    capsys.readouterr()
    file.write_text("SELECT a FROM t WHERE lower(b) = 'other';\nDELETE FROM t")
    assert call("lint", str(file), "--baseline", str(known), "--json") == 1
    assert [f["rule"] for f in json.loads(capsys.readouterr().out)] == ["unbounded-change"]


@pytest.mark.parametrize(
    ("sql", "rules"),
    [
        ("SELECT a FROM t WHERE b = 1", []),
        ("SELECT a FROM t WHERE b + 1 = 2", ["column-arithmetic"]),
        ("SELECT a FROM t WHERE b LIKE '%x'", ["leading-wildcard"]),
        ("SELECT a FROM t WHERE b LIKE 'x%'", []),
        ("SELECT a FROM t WHERE b NOT IN (SELECT c FROM u)", ["not-in-subquery"]),
        ("SELECT a FROM t ORDER BY a LIMIT 10 OFFSET 1000", ["offset"]),
        ("SELECT * FROM t WHERE a = 1", ["select-star"]),
        ("UPDATE t SET a = 1", ["unbounded-change"]),
        ("SELECT a FROM t ORDER BY random() LIMIT 1", ["order-by-random"]),
    ],
)
def test_lint_rules(sql: str, rules: list[str]) -> None:
    assert [f.rule for f in lint(Workload.from_sql(sql))] == rules


def advised(url: str, tmp_path: Path) -> Advice:
    with DatabaseOptimizer(url) as optimizer:
        return optimizer.advise(Workload.from_sql_file(tmp_path / "load.sql"))


def seen(seconds: float, plan: str = "a", *indexes: str) -> Measurement:
    return Measurement(seconds=seconds, plan=plan, indexes=frozenset(indexes), runs=1)


@pytest.mark.parametrize(
    ("pairs", "keep"),
    [
        ([], True),
        ([(seen(1.0), seen(0.1, "b", "ix"))], True),
        ([(seen(1.0), seen(0.1, "b", "other"))], False),
        ([(seen(1.0), seen(0.95, "b", "ix"))], False),
        ([(seen(1.0), seen(0.1, "b", "ix")), (seen(0.1), seen(0.5, "b", "ix"))], False),
        ([(seen(9.0), seen(0.1, "b", "ix")), (seen(0.1), seen(0.2, "b", "ix"))], True),
        ([(seen(1.0), seen(0.1, "b", "ix")), (seen(0.1, "a"), seen(0.17, "a"))], True),
    ],
)
def test_indexes_stay_only_when_they_help(pairs: list[tuple[Measurement, Measurement]], keep: bool) -> None:
    compared = [Compared(fingerprint=str(n), calls=1, before=b, after=a) for n, (b, a) in enumerate(pairs)]
    assert judge("ix", compared, Limits()).keep is keep


def test_slower_is_called_slower_and_a_ratio_within_the_noise_is_none() -> None:
    def verdict(before: Measurement, after: Measurement) -> Verdict:
        return judge("ix", [Compared(fingerprint="q", calls=3, before=before, after=after)], Limits())

    slower = verdict(seen(0.8), seen(0.9, "b", "ix"))
    assert (slower.keep, slower.reason) == (False, "its queries are 1.12x slower")
    assert "only 1.05x faster; min_speedup is 1.1" in verdict(seen(1.05), seen(1.0, "b", "ix")).reason


def test_what_is_measured_of_a_statement_are_the_dearest_samples_of_each_text() -> None:
    recorder = QueryRecorder(dialect="sqlite")
    texts = ("SELECT a FROM t WHERE b = :b", "SELECT a FROM t WHERE b  =  :b")
    for n in range(400):
        recorder.observe(texts[n % 2], {"b": n}, 0.025 if n == 201 else 0.0003 + n * 1e-9)
    (statement,) = Workload.from_recorder(recorder)
    dearest = statement.probes(9)[0]
    assert dearest.values == (201,)
    assert {s.sql for s in statement.probes(9)} == {s.sql for s in statement.samples}
    assert len({s.sql for s in statement.samples}) == 2


def test_times_of_samples_survive_a_file_and_a_merge(tmp_path: Path) -> None:
    load = Workload()
    load.add("SELECT a FROM t WHERE b = ?", samples=[(n,) for n in range(16)], times=[0.001] * 16)
    late = Workload()
    late.add("SELECT a FROM t WHERE b = ?", samples=[(99,)], times=[0.5])
    load.merge(late).save(tmp_path / "w.json", values=True)
    (statement,) = Workload.load(tmp_path / "w.json")
    assert (statement.probes(1)[0].values, statement.probes(1)[0].seconds) == ((99,), 0.5)


def test_a_slow_log_file_is_read_with_its_own_clock(tmp_path: Path) -> None:
    file = tmp_path / "slow.log"
    file.write_text(
        "/usr/sbin/mariadbd, Version: 10.11\n"
        "# Time: 260101  1:00:00\n# User@Host: app[app] @ [10.0.0.1]\n"
        "# Query_time: 2.5  Lock_time: 0.5  Rows_sent: 3  Rows_examined: 900\n"
        "use shop;\nSET timestamp=1767229200;\nSELECT a FROM t WHERE b = 'x # y';\n"
        "# Time: 260103  1:00:00\n# User@Host: app[app] @ [10.0.0.1]\n"
        "# Query_time: 1.5  Lock_time: 0.0  Rows_sent: 1  Rows_examined: 100\n"
        "SET timestamp=1767402000;\nSELECT c\nFROM u;\n"
    )
    every = Workload.from_slow_log(file)
    assert sorted((s.fingerprint.text, s.total_s, s.lock_s, s.rows_examined) for s in every) == [
        ("select a from t where b = ?", 2.5, 0.5, 900),
        ("select c from u", 1.5, 0.0, 100),
    ]
    assert [s.fingerprint.text for s in Workload.from_slow_log(file, "24h")] == ["select c from u"]


def test_indexes_that_a_migration_may_have_made_are_not_dropped_unasked(url: str, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "app.db") as db:
        db.execute("CREATE TABLE alembic_version (version_num TEXT PRIMARY KEY)")
        db.execute("CREATE INDEX ix_ep_visit_page_1 ON shop_visit (page)")
    with DatabaseOptimizer(url) as optimizer:
        report = optimizer.revert()
        assert (report.planned, report.reverted) == ([], [])
        (skipped,) = report.skipped
        assert skipped.reason.startswith("a migration of Alembic may have made it")
        assert [i.name for i in optimizer.dialect.indexes("shop_visit")] == ["ix_ep_visit_page_1"]
        done = ApplyReport(dry_run=False, created=[skipped])
        assert [a.name for a in optimizer.revert(done).reverted] == ["ix_ep_visit_page_1"]


def test_long_lists_are_counted_and_loops_stand_before_drops() -> None:
    def drop(n: int, table: str) -> DropAdvice:
        return DropAdvice(
            name=f"ix{n}", table=table, kind="unused", evidence="0 scans", sql=f"DROP INDEX ix{n}"
        )

    advice = Advice(
        dialect="postgres", tables={"mine": (5, 5)}, copied=[f"t{n}: all rows" for n in range(60)]
    )
    advice.drops = [drop(0, "mine"), *(drop(n, f"other{n}") for n in range(1, 68))]
    advice.unserved = {f"q{n}": "its table is empty" for n in range(40)}
    advice.warnings = [
        "t was left out",
        "q1 is an N+1 loop, 9 statements in 1 transactions, from a.py:1: join",
    ]
    lines = str(advice).splitlines()
    assert len(lines) < 40
    text = str(advice)
    assert "... and 49 more (--json has all)" in text
    assert "never touched: 67: ix1 (unused)" in text
    assert "its table is empty: 40" in text
    assert text.index("N+1 loop") < text.index("ix0") < text.index("t was left out")
    assert len(advice.to_dict()["drops"]) == 68


def test_no_migration_is_printed_where_nothing_is_advised(
    url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "none.sql").write_text("SELECT 1;")
    args = ["db", "advise", url, "--workload", str(tmp_path / "none.sql"), "--migration", "alembic"]
    assert main(args) == 0
    out, err = capsys.readouterr()
    assert out == ""
    assert "no migration is written" in err


def test_indexes_of_a_packages_tables_are_written_in_sql_after_its_last_migration(
    url: str, tmp_path: Path
) -> None:
    advice = advised(url, tmp_path)
    options = {"app_label": "mine", "dependency": "0001_a", "models": {}, "fields": {}}
    assert "belongs to another app" in advice.to_migration("django", **options)
    text = advice.to_migration("django", **options, others={"shop_visit": ("shop", "0009_last")})
    assert "dependencies = [('mine', '0001_a'), ('shop', '0009_last')]" in text
    assert "migrations.RunSQL('CREATE INDEX" in text
    compile(text, "migration.py", "exec")


def test_no_output_shows_the_values_of_a_rewritten_statement() -> None:
    """A log's text has its values inside: they stand in ``after``, to be compared, and nowhere else."""
    rewrite = RewriteAdvice(
        fingerprint="f1",
        rule="or-to-in",
        before="select id from person where name = ? or name = ?",
        after="SELECT id FROM person WHERE name IN ('Grace Hopper', 'it''s me') AND pin = 4711 AND k1 = :p1",
        is_safe=True,
        verdict="equal",
        advice="Use IN",
    )
    advice = Advice(dialect="postgres", rewrites=[rewrite])
    outputs = [str(advice), advice.to_html(), json.dumps(advice.to_dict())]
    for shown in outputs:
        assert not [word for word in ("Hopper", "s me", "4711") if word in shown]
        assert "pin = ?" in shown
        assert "k1 = :p1" in shown
