"""The front door of the command line: what is refused, and how."""

from __future__ import annotations

import subprocess
import sys

import pytest

from eventperf.cli.main import main


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nonsense"], ["nonsense", "demo", "queue"]),
        (["demo", "--nonsense"], ["--nonsense", "--report"]),
        (["demo", "--scale", "0"], ["--scale", "0.001"]),
        (["demo", "--seconds", "-1"], ["--seconds", "0.5"]),
        (["demo", "--report", "/no/such/folder/x.html"], ["--report", "folder that exists"]),
        (["demo", "--database", "nonsense://host"], ["nonsense", "postgresql+psycopg"]),
        (["demo", "--redis", "http://host"], ["http", "redis"]),
    ],
)
def test_bad_input_is_one_sentence_and_exit_code_2(
    arguments: list[str], named: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "Traceback" not in said
    assert len(said.strip().splitlines()) == 1
    for word in named:
        assert word in said


def test_version_as_a_module() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "eventperf", "--version"], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("eventperf ")
