"""The demo at a small scale, and its judge."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from eventperf.cli.demo.check import Ledger
from eventperf.cli.main import main
from faults import wait_until


def test_demo_ends_with_figures_and_a_page_that_loads_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "demo.html"
    code = main(["demo", "--scale", "0.01", "--seconds", "0.5", "--json", "--report", str(report)])
    figures = json.loads(capsys.readouterr().out)
    assert figures["is_clean"], [stage["errors"] for stage in figures["stages"]]
    assert code == 0
    assert [stage["name"] for stage in figures["stages"]] == ["plain", "+ cache", "+ indexes", "+ queue"]
    assert all(stage["requests"] > 0 and stage["reads_checked"] > 0 for stage in figures["stages"])
    assert all(stage["stale"] == stage["lost"] == stage["double"] == 0 for stage in figures["stages"])
    page = report.read_text(encoding="utf-8")
    HTMLParser().feed(page)
    assert page.count("<svg") == page.count("</svg>") == 4
    assert not re.search(r"https?:|<script|<link|<img|@import|url\(", page)


def _on_real_servers(database: str, redis: str, capsys: pytest.CaptureFixture[str]) -> str:
    options = ["--scale", "0.01", "--seconds", "0.5", "--json", "--database", database, "--redis", redis]
    code = main(["demo", *options])
    printed = capsys.readouterr()
    assert printed.out, printed.err
    figures = json.loads(printed.out)
    assert (code, figures["is_clean"]) == (0, True), figures["stages"]
    assert figures["environment"]["cache"].startswith("process memory + redis://")
    assert figures["stages"][-1]["jobs"] > 0
    return str(figures["engine"])


def test_the_very_same_runs_on_postgresql_and_redis(
    postgres_url: str, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _on_real_servers(postgres_url, redis_url, capsys).startswith("postgresql")


def test_the_console_shows_every_part_of_the_run_until_it_is_interrupted() -> None:
    command = [
        sys.executable, "-m", "eventperf", "demo", "--scale", "0.005", "--seconds", "0.5", "--json",
        "--console", "0",
    ]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr
        assert demo.stdout
        try:
            said = iter(demo.stderr.readline, "")
            url = next(line.split()[1] for line in said if line.startswith("console: "))
            next(line for line in said if "is served until Ctrl-C" in line)

            def page(path: str) -> str:
                try:
                    with urllib.request.urlopen(url + path, timeout=60) as answer:
                        return str(answer.read().decode())
                except urllib.error.HTTPError as error:  # not there yet
                    return str(error)

            wait_until(lambda: "critical" in page("queues"), 60, what=lambda: page("queues"))
            assert "hit ratio" in page("cache").lower()
            assert "registrations" in page("database")
            assert "simulated day" in page("scaling")
        finally:
            demo.send_signal(signal.SIGINT)
            printed, _ = demo.communicate(timeout=60)
    assert demo.returncode == 0
    assert json.loads(printed)["is_clean"]


def test_it_refuses_a_database_that_has_tables(postgres_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    engine = create_engine(postgres_url)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE events (id integer)")
        connection.exec_driver_sql("INSERT INTO events VALUES (1)")
    assert main(["demo", "--database", postgres_url]) == 2
    assert "an empty database" in capsys.readouterr().err
    with engine.begin() as connection:
        assert connection.exec_driver_sql("SELECT COUNT(*) FROM events").scalar() == 1
    engine.dispose()


def test_the_very_same_runs_on_mariadb_and_redis(
    mariadb_url: str, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _on_real_servers(mariadb_url, redis_url, capsys).startswith(("mysql", "mariadb"))


def test_with_chaos_nothing_is_stale_lost_or_done_twice(
    redis_server: object, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = tmp_path / "demo.html"
    code = main(["demo", "--scale", "0.01", "--seconds", "1", "--chaos", "--json", "--report", str(report)])
    figures = json.loads(capsys.readouterr().out)
    chaos = figures["stages"][-1]
    assert (code, figures["is_clean"], chaos["name"]) == (0, True, "chaos"), chaos
    assert chaos["jobs"] > 0
    assert chaos["stale"] == chaos["lost"] == chaos["double"] == 0
    assert [event["what"] for event in chaos["broken"]] == [
        "the worker is killed (kill -9), another is started",
        "Redis is killed (kill -9)",
        "Redis is started again",
    ]
    assert "done again because their worker was killed" in report.read_text(encoding="utf-8")


def test_chaos_without_redis_server_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert main(["demo", "--chaos"]) == 2
    assert "no redis-server on PATH" in capsys.readouterr().err


def test_the_check_catches_a_planted_stale_read() -> None:
    ledger = Ledger({1: 10}, {}, {})
    ledger.registered(1, 5)
    expected = ledger.expectation("event_page", 1)
    ledger.judge("event_page", expected, {"registered": 11}, 2.0)
    assert ledger.verdict().is_clean
    ledger.judge("event_page", expected, {"registered": 10}, 2.0)
    assert ledger.verdict().stale == 1


def test_the_check_catches_a_planted_lost_and_a_double_job() -> None:
    ledger = Ledger({}, {}, {})
    first, second = ledger.promised("mail"), ledger.promised("mail")
    ledger.done("mail", first)
    assert (ledger.verdict().lost, ledger.verdict().double) == (1, 0)
    ledger.done("mail", second)
    ledger.done("mail", second)
    assert (ledger.verdict().lost, ledger.verdict().double) == (0, 1)
    ledger.done("mail", first, claim=2)
    assert (ledger.verdict().double, ledger.verdict().again) == (1, 1)
