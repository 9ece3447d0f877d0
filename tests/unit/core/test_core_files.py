"""Files in shared folders: no link is followed, no file of another user written, modes are tight."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from eventperf._core.files import private, write
from eventperf.cli.main import main
from eventperf.dbopt import Advice, DatabaseOptimizer, Workload
from eventperf.scaling import DecisionLog, ScalingDecision
from eventperf.scaling.records.state import FileState


def append(path: Path) -> None:
    with open(path, "a", opener=private) as file:
        file.write("x")


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o1777)
    return folder


def test_a_link_in_a_shared_folder_is_not_followed(shared: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    (shared / "log").symlink_to(target)
    with pytest.raises(OSError, match="log"):
        append(shared / "log")
    assert target.read_text() == ""
    (tmp_path / "own").symlink_to(target)
    append(tmp_path / "own")
    assert target.read_text() == "x", "in a folder of one's own a link is one's own choice"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can make another user's file")
def test_a_file_of_another_user_in_a_shared_folder_is_refused(shared: Path) -> None:
    trap = shared / "log"
    trap.write_text("")
    os.chown(trap, 65534, 65534)
    with pytest.raises(PermissionError, match="another user"):
        append(trap)
    assert trap.read_text() == ""


def test_a_new_file_is_nobody_elses_to_read(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        append(tmp_path / "log")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "log").stat().st_mode) == 0o640


def test_the_decision_log_opens_its_file_so(shared: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    (shared / "log").symlink_to(target)
    log = DecisionLog(shared / "log")
    decision = ScalingDecision(at=1.0, target="t", before=1, wanted=2, after=2, reason="r")
    with pytest.raises(OSError, match="log"):
        log.write(decision)
    assert target.read_text() == ""
    assert log.last == decision


def test_workloads_and_plans_are_kept_so(tmp_path: Path) -> None:
    Advice(dialect="sqlite").save(tmp_path / "plan")
    Workload.from_sql("SELECT 1").save(tmp_path / "load")
    for name in ("plan", "load"):
        assert not stat.S_IMODE((tmp_path / name).stat().st_mode) & 0o007


def test_the_lock_of_an_optimizer_and_kept_state_go_through_no_link(shared: Path, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(b"somebody else's")
    with create_engine(f"sqlite:///{shared}/db").begin() as db:
        db.exec_driver_sql("CREATE TABLE t (a INT)")
    (shared / "db-eventperf-lock").symlink_to(target)
    dialect = DatabaseOptimizer(f"sqlite:///{shared}/db").dialect
    with pytest.raises(OSError, match="lock"), dialect.exclusive():
        pytest.fail("the lock was taken through a link")
    (shared / "state").symlink_to(target)
    with pytest.raises(OSError, match="state"):
        FileState(shared).load("state")
    FileState(shared).save("state", b"ours")
    assert FileState(shared).load("state") == b"ours", "a write takes the link's place"
    with pytest.raises(OSError, match="report"):
        (shared / "report").symlink_to(target)
        write(shared / "report", "x")
    assert target.read_bytes() == b"somebody else's"


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="only root can make another user's file")
def test_a_log_of_another_user_in_a_shared_folder_is_not_read(shared: Path) -> None:
    decision = ScalingDecision(at=1.0, target="t", before=1, wanted=2, after=2, reason="r")
    trap = shared / "log"
    trap.write_text(decision.to_json() + "\n")
    assert list(DecisionLog.read(trap)) == [decision]
    os.chown(trap, 65534, 65534)
    with pytest.raises(PermissionError, match="another user"):
        DecisionLog(trap).recall("t", dry_run=False)
    with pytest.raises(PermissionError, match="another user"):
        list(DecisionLog.read(trap))
    assert main(["console", "--port", "0", "--scale-log", str(trap)]) == 2, "a sentence, and no traceback"
    assert main(["scale", "explain", str(trap)]) == 2


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX's")
def test_a_pipe_in_a_shared_folder_holds_nobody_up(shared: Path) -> None:
    os.mkfifo(shared / "log")
    with pytest.raises(OSError, match="log"):
        append(shared / "log")
    with pytest.raises(PermissionError, match="is no file"), open(shared / "log", "rb", opener=private):
        pass


@pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0, reason="only root can make another user's folder"
)
def test_a_link_in_another_users_folder_is_not_written_through(tmp_path: Path) -> None:
    folder, target = tmp_path / "theirs", tmp_path / "target"
    folder.mkdir(0o755)
    target.write_text("")
    (folder / "log").symlink_to(target)
    os.chown(folder, 65534, 65534)
    with pytest.raises(OSError, match="log"):
        append(folder / "log")
    append(folder / "other")
    assert (folder / "other").read_text() == "x"
