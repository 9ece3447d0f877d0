"""Who of several new indexes is to blame for a slower query: found by taking them away."""

from __future__ import annotations

import random

import pytest

from eventperf.dbopt.changes.blame import culprits


@pytest.mark.parametrize("seed", range(40))
def test_the_set_that_does_harm_is_found_and_no_other_is_blamed(seed: int) -> None:
    draw = random.Random(seed)
    names = [f"ix{n}" for n in range(12)]
    guilty = frozenset(draw.sample(names, draw.randrange(1, 4)))
    asked: list[frozenset[str]] = []

    def is_cured(without: frozenset[str]) -> bool:
        asked.append(without)
        return guilty <= without

    assert culprits(names, is_cured) == guilty
    assert len(asked) <= 2 * len(names)


def test_what_no_absence_cures_blames_nobody() -> None:
    assert culprits(["a", "b"], lambda without: False) == frozenset()
