"""The lock file that keeps two optimizers from changing one SQLite database."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from eventperf.dbopt import OptimizerBusy
from eventperf.dbopt.backends.sqlite.dialect import _file_lock


def test_it_is_held_by_one_and_gone_afterwards(tmp_path: Path) -> None:
    path = tmp_path / "app.db-eventperf-lock"
    with _file_lock(path), pytest.raises(OptimizerBusy), _file_lock(path):
        pytest.fail("two hold the lock")
    assert list(tmp_path.iterdir()) == []


def test_one_left_by_a_process_that_died_locks_nobody_out(tmp_path: Path) -> None:
    path = tmp_path / "app.db-eventperf-lock"
    path.touch()
    with _file_lock(path):
        assert path.exists()
    assert list(tmp_path.iterdir()) == []


def test_no_two_hold_it_while_others_remove_it(tmp_path: Path) -> None:
    path = tmp_path / "app.db-eventperf-lock"
    inside, most, held = [0], [0], [0]

    def work() -> None:
        for _ in range(400):
            try:
                with _file_lock(path):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    held[0] += 1
                    inside[0] -= 1
            except OptimizerBusy:
                continue

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1
    assert held[0] > 0
    assert list(tmp_path.iterdir()) == []
