"""Each target of the fuzz session runs here with a few examples, so that it is alive when it is needed."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

import fuzzing
from eventperf.queues import soundness
from eventperf.queues.job import JobRecord

FEW = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.mark.parametrize("name", fuzzing.TARGETS)
@pytest.mark.filterwarnings("ignore")
def test_hostile_input_gets_one_of_the_answers_that_are_foreseen(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(fuzzing, "FOLDER", str(tmp_path))
    FEW(fuzzing.TARGETS[name])()


@pytest.mark.integration
def test_lua_takes_any_text_as_data(redis_url: str) -> None:
    FEW(fuzzing.lua(redis_url))()


def test_every_field_of_a_record_is_judged_when_it_comes_back() -> None:
    judged = {name for name, _ in soundness._SOUND}
    assert judged == {field.name for field in fields(JobRecord)}
