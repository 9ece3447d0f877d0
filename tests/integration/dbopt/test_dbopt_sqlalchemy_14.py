"""SQLAlchemy 1.4, which is beside ours in a folder of its own: hosts that stay with it are served too."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.integration
FLOOR, LAST = "1.4.42", "1.4.54"


def beside(version: str, folder: Path) -> Mapping[str, str]:
    """Return an environment in which ``import sqlalchemy`` finds that version; at our floor, more."""
    wanted = [f"sqlalchemy=={version}", *(["typing-extensions==4.5.0"] if version == FLOOR else [])]
    uv = shutil.which("uv")
    pip = (
        [uv, "pip", "install", "--python", sys.executable] if uv else [sys.executable, "-m", "pip", "install"]
    )
    done = subprocess.run(
        [*pip, "-q", "--no-deps", "--target", str(folder), *wanted], capture_output=True, text=True
    )
    if done.returncode:
        pytest.skip(f"{' '.join(wanted)}: not to be had: {done.stderr.strip()[-300:]}")
    return {**os.environ, "PYTHONPATH": str(folder), "SQLALCHEMY_SILENCE_UBER_WARNING": "1"}


@pytest.mark.parametrize(("version", "kind"), [(FLOOR, "sqlite"), (LAST, "postgres")])
def test_an_application_of_1_4_is_advised_measured_and_followed(
    version: str, kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    script = Path(__file__).with_name("in_sqlalchemy_14.py")
    old = beside(version, tmp_path / "old")

    def run(url: str, scratch: str) -> dict[str, Any]:
        done = subprocess.run(
            [sys.executable, str(script), url, scratch], capture_output=True, text=True, env=old, timeout=300
        )
        assert done.returncode == 0, done.stderr[-2000:]
        told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return told

    if kind == "sqlite":
        told = run(f"sqlite:///{tmp_path / 'site.db'}", "")
    else:
        pytest.importorskip("psycopg2")  # 1.4 knows no other of ours
        server = request.getfixturevalue("postgres_server")
        with server.fresh_database() as url, server.fresh_database() as scratch:
            told = run(*(one.replace("+psycopg:", "+psycopg2:") for one in (url, scratch)))
    assert told["sqlalchemy"] == version
    assert told["names"] == ["event 1", "moved", "again"], "what is cached follows its commits"
    assert told["jobs"] == [2, 2, 0], "they leave with its transactions"
    assert told["level"] == "planned"
    assert any("joinedload(Registration.event)" in loop for loop in told["loops"]), told["loops"]
    assert told["failed"] == []
    assert told["created"]
    assert told["there"] == told["created"]
    assert told["left"] == []
