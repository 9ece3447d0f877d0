"""``apply`` killed at every step, in real processes, on real servers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from dbopt_plans import prepared

HANGS_S = 900  # some thirty processes one after the other: a minute here says how busy the machine is
pytestmark = [pytest.mark.integration, pytest.mark.timeout(HANGS_S + 60)]


LONG = pytest.mark.long


@pytest.mark.parametrize(
    "engine",
    ["sqlite", "postgres", pytest.param("postgres parted", marks=LONG), pytest.param("mariadb", marks=LONG)],
)
def test_death_at_every_step_leaves_nothing_that_the_next_run_does_not_mend(
    engine: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    url = (
        f"sqlite:///{tmp_path / 'crash.db'}"
        if engine == "sqlite"
        else request.getfixturevalue(f"{engine.split()[0]}_url")
    )
    plan, workload, names = prepared(url, tmp_path, parted="parted" in engine)
    script = Path(__file__).with_name("crash_apply.py")
    done = subprocess.run(
        [sys.executable, str(script), url, str(plan), str(workload)],
        capture_output=True,
        text=True,
        timeout=HANGS_S,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    deaths = [json.loads(line) for line in done.stdout.splitlines()]
    # Two queries measured before and after, two builds, statistics, two reverts, measured again.
    assert len({d["step"] for d in deaths}) >= (10 if engine == "sqlite" else 7), deaths
    for death in deaths:
        assert death["found"] == names, death
        assert death["invalid"] == [], death
        assert death["failed"] == [], death
