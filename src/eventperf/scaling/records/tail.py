"""The newest records of a file of lines, read from its end: what a start costs does not grow with history."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

from eventperf._core.files import private

_BLOCK = 1 << 16
_MOST = 64 << 20
_TARGET = b'"target":'  # keys are sorted: nothing but plain figures and escaped text comes after it
_OBSERVATION = b'"observation":null'


class Tail:
    """The newest line of each target that has an observation, found from the end as far as it was asked for.

    At most the last 64 MB are read: what is older was not written for hours, or by a target that is no more
    (a running scaler writes what it knows every quarter of an hour).
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._found: dict[tuple[str, bool], bytes] = {}
        self._path, self._file = path, _identity(path)
        self._lines = _backwards(path)

    @property
    def is_current(self) -> bool:
        """Whether the file is the one that was opened, and nothing was cut from it."""
        file = _identity(self._path)
        return file[:2] == self._file[:2] and file[2] >= self._file[2]

    def newest(self, target: str, dry_run: bool) -> bytes | None:
        """Return the newest line of ``target`` that a scaler can go on from.

        Raises:
            OSError: The file could not be read.
        """
        key = (target, dry_run)
        while key not in self._found:
            line = next(self._lines, None)
            if line is None:
                return None
            at = line.rfind(_TARGET)
            if at < 0 or _OBSERVATION in line or not line.rstrip().endswith(b"}"):  # the last: cut by a crash
                continue
            try:
                name, _ = json.JSONDecoder().raw_decode(line[at + len(_TARGET) :].decode())
            except (ValueError, RecursionError):  # cut by a crash, or nobody's line
                continue
            if isinstance(name, str):
                self._found.setdefault((name, b'"dry_run":true' in line), line)
        return self._found[key]

    def leave(self, target: str, dry_run: bool) -> None:
        """Look for an older line of ``target``: its newest cannot be read."""
        del self._found[target, dry_run]


def is_cut(path: str | os.PathLike[str]) -> bool:
    """Tell whether the last line of a file has no end: its writer crashed, or the disk was full."""
    if not os.path.isfile(path):
        return False
    with open(path, "rb") as file:
        if not file.seek(0, os.SEEK_END):
            return False
        file.seek(-1, os.SEEK_END)
        return file.read(1) != b"\n"


def _identity(path: str | os.PathLike[str]) -> tuple[int, int, int]:
    try:
        found = os.stat(path)
    except OSError:
        return 0, 0, 0
    return found.st_dev, found.st_ino, found.st_size


def _backwards(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Yield the lines of a file from the last to the first."""
    try:
        file = open(path, "rb", opener=private)  # noqa: SIM115 - closed below; a file that is not there yet holds nothing
    except FileNotFoundError:
        return
    with file:
        end = at = file.seek(0, os.SEEK_END)
        pieces: list[bytes] = []  # of the line whose begin is not read yet, the last one first
        while at > max(0, end - _MOST):
            size = min(_BLOCK, at)
            at -= size
            file.seek(at)
            first, *rest = file.read(size).split(b"\n")
            if rest:
                yield rest.pop() + b"".join(reversed(pieces))
                yield from reversed(rest)
                pieces = []
            pieces.append(first)
        if at == 0:
            yield b"".join(reversed(pieces))
