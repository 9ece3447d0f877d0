"""The ``queue`` commands, in this process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from eventperf.cli.main import main
from eventperf.queues import QueueManager

APP = """
from eventperf.queues import QueueManager, NonRetryable
queues = QueueManager("memory://")
@queues.job("bad")
def bad(ctx, data):
    raise NonRetryable("never")
bad.enqueue(None)
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "queues_cli_app.py").write_text(APP)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "queues_cli_app", raising=False)
    return "queues_cli_app:queues"


def queues_of(app: str) -> QueueManager:
    found: QueueManager = sys.modules[app.partition(":")[0]].queues
    return found


def test_worker_status_dead_replay_purge(app: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["queue", "worker", app, "--burst"]) == 0
    capsys.readouterr()
    assert main(["queue", "status", app, "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert (rows["normal"]["failed"], rows["normal"]["dead"]) == (1, 1)
    assert main(["queue", "dead", app, "normal", "--json"]) == 0
    assert "never" in json.loads(capsys.readouterr().out)[0]["error"]
    assert main(["queue", "dead", app]) == 0  # of all queues
    assert "normal" in capsys.readouterr().out
    dead = queues_of(app).dead("normal")[0].id
    other = queues_of(app).enqueue("bad", queue="low", delay="1h").id
    capsys.readouterr()
    assert main(["queue", "replay", app, "normal", dead, "never", other]) == 1
    assert capsys.readouterr().out.splitlines() == [
        f"{dead} is back in line",
        "never is not known: never enqueued, or no longer kept",
        f"{other} is of the queue low",
    ]
    assert main(["queue", "replay", app, "normal", dead]) == 1
    assert "it is waiting" in capsys.readouterr().out
    assert main(["queue", "worker", app, "--burst"]) == 0
    assert main(["queue", "replay", app, "normal"]) == 0
    assert main(["queue", "purge", app, "normal"]) == 0
    assert "1 waiting jobs" in capsys.readouterr().out
    assert main(["queue", "ping", app]) == 0
    assert main(["queue", "ping", app, "--workers", "1"]) == 1


def test_job_is_looked_up_listed_cancelled_and_retried(app: str, capsys: pytest.CaptureFixture[str]) -> None:
    def said() -> str:
        return capsys.readouterr().out

    assert main(["queue", "list", app, "normal", "--json"]) == 0
    (row,) = json.loads(said())
    assert (row["type"], row["state"]) == ("bad", "waiting")
    assert main(["queue", "info", app, row["id"]]) == 0
    assert "waiting" in said()
    assert main(["queue", "worker", app, "--burst"]) == 0
    said()
    assert main(["queue", "list", app, "normal", "--state", "failed"]) == 0
    assert row["id"] in said()
    assert main(["queue", "info", app, row["id"], "--json"]) == 0
    assert "never" in json.loads(said())["error"]
    assert main(["queue", "retry", app, row["id"]]) == 0
    assert main(["queue", "cancel", app, row["id"], "unknown"]) == 1
    assert said().splitlines()[-2:] == [f"{row['id']} cancelled", "unknown is not there or has ended"]
    assert main(["queue", "info", app, row["id"], "--json"]) == 0
    assert json.loads(said())["state"] == "cancelled"


def test_jobs_are_found_shown_with_attempts_changed_and_measured(
    app: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(*arguments: str, code: int = 0) -> str:
        assert main(["queue", *arguments]) == code
        return capsys.readouterr().out

    (row,) = json.loads(said("jobs", app, "--type", "bad", "--json"))["jobs"]
    said("update", app, row["id"], "--priority", "9", "--queue", "high", "--data", "[1]")
    (row,) = json.loads(said("jobs", app, "--queue", "high", "--state", "waiting", "--json"))["jobs"]
    assert (row["queue"], row["priority"]) == ("high", 9)
    for wrong in (
        ["--at", "soon"],
        ["--data", "{"],
        ["--priority", "-1"],
        ["--at", "2026-05-01T09:00:00"],
        [],
    ):
        assert main(["queue", "update", app, row["id"], *wrong]) == 2
    capsys.readouterr()
    said("worker", app, "--burst")
    assert row["id"] in said("jobs", app, "--text", "never")
    shown = said("info", app, row["id"])
    assert "attempt 1" in shown
    assert 'raise NonRetryable("never")' in shown
    assert json.loads(said("info", app, row["id"], "--json"))["attempts"][0]["outcome"] == "failed"
    (one,) = json.loads(said("metrics", app, "--json"))
    assert (one["queue"], one["type"], one["failed"]) == ("high", "bad", 1)
    assert "bad" in said("metrics", app, "--since", "2h", "--step", "10m")
    assert main(["queue", "update", app, row["id"], "--priority", "1"]) == 2, "it has ended"


def test_terminal_gets_no_control_codes_out_of_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'queues.enqueue("t", "a\\x1b[2Jb", id="j")\n'
    (tmp_path / "queues_cli_codes.py").write_text(APP.replace("bad.enqueue(None)\n", text))
    monkeypatch.syspath_prepend(str(tmp_path))
    assert main(["queue", "info", "queues_cli_codes:queues", "j"]) == 0
    assert "\x1b" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        ["dead", "memory://", "nope"],
        ["list", "memory://", "nope"],
        ["list", "memory://", "normal", "--state", "cancelled-ish"],
        ["list", "memory://", "normal", "--limit", "0"],
        ["status", "ftp://x"],
        ["status", "no.such:thing"],
        ["status", "json:dumps"],
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["queue", *arguments]) == 2
    said = capsys.readouterr().err
    assert "allowed" in said
    assert "Traceback" not in said
