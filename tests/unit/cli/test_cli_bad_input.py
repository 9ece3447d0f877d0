"""What a person types wrong: one sentence, exit code 2, nothing of a password, in every command."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from eventperf.cli.main import main

SECRET = "hunter2"
NUMBERS = "time,rps\n0,10\n60,20\n120,30\n"


@pytest.fixture(scope="module")
def closed() -> Iterator[str]:
    """A host and port where nobody listens: bound, so that nobody else takes it."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must be refused, and return what it said."""
    code = main(arguments)
    said = capsys.readouterr().err
    assert (code, said.count("Traceback")) == (2, 0), said
    assert SECRET not in said
    sentences = [line for line in said.splitlines() if line.startswith("eventperf ")]
    assert len(sentences) == 1, said
    return sentences[0]


@pytest.mark.parametrize(
    ("command", "named"),
    [
        ("cache stats http://x", ["http://x", "redis+cluster://"]),
        ("cache nonsense", ["nonsense", "invalidate"]),
        ("cache stats redis://h --nonsense", ["--nonsense"]),
        ("cache hot redis://h --limit many", ["--limit", "many"]),
        ("db advise nonsense://x", ["nonsense://x", "postgresql+psycopg://"]),
        ("db advise sqlite:////no/such/folder/x.db", ["/no/such/folder", "unable to open"]),
        ("db advise sqlite:// --workload /no/such.sql", ["/no/such.sql", "readable file"]),
        ("db advise sqlite:// --since yesterday", ["since", "yesterday", "5m"]),
        ("db advise sqlite:// --budget=-3s --workload {sql}", ["budget", "-3s"]),
        ("db advise sqlite:// --max-bytes -4", ["max_index_bytes", "-4"]),
        ("db advise sqlite:// --nonsense", ["--nonsense"]),
        ("db apply sqlite:// /no/such.json", ["/no/such.json", "plan file"]),
        ("db apply sqlite:// {sql}", ["a.sql", "is not JSON"]),
        ("db slow sqlite:// --limit -1", ["--limit", "-1"]),
        ("db lint /no/such.sql", ["/no/such.sql", "readable file"]),
        ("queue status http://x", ["http://x", "redis+cluster://"]),
        ("queue worker nonsense", ["nonsense", "myapp.jobs:queues"]),
        ("queue worker no.such:thing", ["no.such:thing", "importable"]),
        ("queue worker memory:// --burst --concurrency -1", ["concurrency", "-1"]),
        ("queue worker memory:// --burst --lease=-1", ["lease", "-1"]),
        ("queue worker memory:// --queues nosuch", ["nosuch", "critical"]),
        ("queue worker memory:// --burst", ["memory://", "myapp.jobs:queues"]),
        ("queue pause memory:// nosuch", ["nosuch", "critical"]),
        ("queue dead memory:// critical --limit -1", ["--limit", "-1"]),
        ("queue status memory:// --nonsense", ["--nonsense"]),
        ("scale backtest /no/such.csv", ["/no/such.csv", "CSV"]),
        ("scale backtest {sql}", ["rates", "0 figures"]),
        ("scale backtest {csv} --policy nosuch", ["nosuch", "hpa-cpu"]),
        ("scale backtest {csv} --step=-1s", ["step", "-1s"]),
        ("scale backtest {csv} --min -1", ["min", "-1"]),
        ("scale backtest {csv} --pod-rps 0", ["rps", "above 0"]),
        ("scale explain /no/such.jsonl", ["/no/such.jsonl"]),
        ("scale backtest {csv} --nonsense", ["--nonsense"]),
    ],
)
def test_wrong_word(
    command: str, named: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.sql").write_text("SELECT 1 FROM nowhere WHERE a = 1;\n", encoding="utf-8")
    (tmp_path / "a.csv").write_text(NUMBERS, encoding="utf-8")
    files = {"sql": str(tmp_path / "a.sql"), "csv": str(tmp_path / "a.csv")}
    said = refused([word.format(**files) for word in command.split()], capsys)
    for word in named:
        assert word in said


@pytest.mark.parametrize(
    "command",
    [
        "cache stats redis://:hunter2@{closed}/0",
        "cache invalidate redis://:hunter2@{closed}/0 --tag x",
        "cache get redis+cluster://:hunter2@{closed} key",
        "db advise postgresql+psycopg://user:hunter2@{closed}/x",
        "db slow mysql+pymysql://user:hunter2@{closed}/x",
        "demo --database postgresql+psycopg://user:hunter2@{closed}/x",
        "demo --redis redis://:hunter2@{closed}/0",
        "queue status redis://:hunter2@{closed}/0",
        "queue replay redis+cluster://:hunter2@{closed} critical",
        "queue worker redis://:hunter2@{closed}/0 --burst",
    ],
)
def test_server_that_is_not_there(command: str, closed: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused([word.format(closed=closed) for word in command.split()], capsys)
    assert closed.split(":")[1] in said
