"""The ``queue`` commands, in this process."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from eventperf.cli.main import main

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
    assert main(["queue", "replay", app, "normal"]) == 0
    assert main(["queue", "purge", app, "normal"]) == 0
    assert "1 waiting jobs" in capsys.readouterr().out
    assert main(["queue", "ping", app]) == 0
    assert main(["queue", "ping", app, "--workers", "1"]) == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ["dead", "memory://", "nope"],
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
