"""One version everywhere, with its notes."""

from __future__ import annotations

import re
from pathlib import Path

import eventperf

ROOT = Path(__file__).parents[2]


def test_the_version_is_one_and_its_notes_are_written() -> None:
    said = re.search(r'^version = "(.+)"$', (ROOT / "pyproject.toml").read_text(), re.M)
    assert said
    assert said[1] == eventperf.__version__
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert versions[:2] == ["Unreleased", eventperf.__version__]
