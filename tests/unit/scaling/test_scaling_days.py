"""What forecasting policies decide over days that are written down, and what they keep in mind."""

from __future__ import annotations

import json

import pytest

from scaling_days import FOLDER, WRITTEN, differing


@pytest.mark.parametrize("name", WRITTEN)
def test_a_day_is_lived_as_it_is_written_down(name: str) -> None:
    written = json.loads((FOLDER / f"{name}.json").read_text())
    found = json.loads(json.dumps(WRITTEN[name]()))
    decided = differing([row[:2] for row in found], [row[:2] for row in written])
    if what := decided or differing(found, written):
        pytest.fail(f"{what}; where it is meant, python tests/scaling_days.py writes it anew: read the diff")
