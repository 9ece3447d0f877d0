"""Run a command again whenever a Python file below a directory changes; for development."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

_SKIPPED = ("__pycache__", "node_modules", "site-packages")
_STOP_S = 10.0


def python_files(root: Path) -> Iterator[Path]:
    """Yield the Python files below ``root``, without hidden and installed ones."""
    for folder, folders, files in os.walk(root):
        folders[:] = [f for f in folders if not f.startswith(".") and f not in _SKIPPED]
        if "pyvenv.cfg" in files:  # a virtual environment
            folders.clear()
            continue
        yield from (Path(folder, name) for name in files if name.endswith(".py"))


def snapshot(root: Path) -> dict[Path, int]:
    """Return when each file was last changed."""
    found = {}
    for path in python_files(root):
        try:
            found[path] = path.stat().st_mtime_ns
        except FileNotFoundError:  # gone since it was listed
            continue
    return found


def changed(before: dict[Path, int], after: dict[Path, int]) -> list[Path]:
    """Return files that were changed, added or removed."""
    return sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))


class Reloader:
    """A child process that is stopped gracefully and started again when files change.

    Args:
        command: What to run.
        root: Directory whose Python files are watched.
        interval_s: How often to look.
    """

    def __init__(self, command: Sequence[str], root: Path, *, interval_s: float = 0.5) -> None:
        self._command = list(command)
        self._root = root
        self._interval_s = interval_s
        self._stopping = False

    def run(self) -> int:
        """Run until SIGTERM or Ctrl-C; return the last child's exit code."""
        before = signal.signal(signal.SIGTERM, self._stop)
        seen, child, told = snapshot(self._root), self._start(), False
        try:
            while not self._stopping:
                time.sleep(self._interval_s)
                now = snapshot(self._root)
                if files := changed(seen, now):
                    seen, told = now, False
                    print(f"reloading: {files[0].name} changed", file=sys.stderr, flush=True)
                    self._end(child)
                    child = self._start()
                elif child.poll() is not None and not told:
                    told = True
                    print(
                        "the worker ended; it starts again with the next change", file=sys.stderr, flush=True
                    )
        except KeyboardInterrupt:
            self._stopping = True
        finally:
            code = self._end(child)
            signal.signal(signal.SIGTERM, before)
        return max(code, 0)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self._stopping = True

    def _start(self) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._command)

    def _end(self, child: subprocess.Popen[bytes]) -> int:
        if child.poll() is None:
            child.terminate()
            try:
                child.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                child.kill()
        return child.wait()
