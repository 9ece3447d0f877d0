"""``eventperf queue worker --reload``: code that is changed on disk is what runs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from eventperf.cli.autoreload import changed, snapshot
from eventperf.queues import QueueManager
from faults import wait_until

APP = """
from eventperf.queues import QueueManager
queues = QueueManager({url!r}, namespace={namespace!r})
@queues.job("version")
def version(ctx, data):
    return {answer!r}
"""


@pytest.mark.integration
def test_changed_code_runs_and_sigterm_stops_both(redis_url: str, tmp_path: Path) -> None:
    facts = {"url": redis_url, "namespace": uuid4().hex}
    app = tmp_path / "reload_app.py"
    app.write_text(APP.format(**facts, answer="old"))
    command = [sys.executable, "-m", "eventperf", "queue", "worker", "reload_app:queues", "--reload"]
    with QueueManager(redis_url, namespace=facts["namespace"]) as queues:
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip
        try:
            assert queues.enqueue("version").result(30) == "old"
            app.write_text("this is no Python")
            wait_until(lambda: queues.backlog().workers == 0, 30)
            app.write_text(APP.format(**facts, answer="new, and longer"))
            assert queues.enqueue("version").result(30) == "new, and longer"
            process.send_signal(signal.SIGTERM)
            _, said = process.communicate(timeout=30)
        finally:
            process.kill()
            process.communicate()
        assert b"reloading: reload_app.py changed" in said
        wait_until(lambda: queues.backlog().workers == 0, 10)


def test_what_is_watched(tmp_path: Path) -> None:
    for name in ("a.py", "sub/b.py", ".hidden/c.py", "venv/d.py", "note.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("1")
    (tmp_path / "venv" / "pyvenv.cfg").write_text("")
    before = snapshot(tmp_path)
    assert {p.name for p in before} == {"a.py", "b.py"}
    (tmp_path / "a.py").unlink()
    os.utime(tmp_path / "sub" / "b.py", (1, 1))
    (tmp_path / "e.py").write_text("1")
    assert [p.name for p in changed(before, snapshot(tmp_path))] == ["a.py", "e.py", "b.py"]
