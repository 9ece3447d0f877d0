"""Files beside other people's: in a folder where everybody may write, a name may be somebody else's trap."""

from __future__ import annotations

import os
import stat


def private(path: str, flags: int) -> int:
    """Open a file for the ``opener`` of :func:`open`; new ones are readable by owner and group at most.

    In a folder that everybody may write to (``/tmp``) links are not followed, and a file that belongs to
    another user is refused: either would let that user choose where this process writes, or what it reads.
    So is what is no file: a pipe would hold this process until somebody is at its other end. In the folder of
    another user links are not followed where something is written.

    Raises:
        OSError: It is such a link or file, or cannot be opened.
    """
    parent = os.stat(os.path.dirname(os.path.abspath(path)))
    is_shared = bool(parent.st_mode & stat.S_IWOTH)
    ours = (0, os.geteuid()) if hasattr(os, "geteuid") else (parent.st_uid,)
    is_written = bool(flags & (os.O_WRONLY | os.O_RDWR))
    if is_shared or (is_written and parent.st_uid not in ours):
        flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)  # which matters to pipes only
    descriptor = os.open(path, flags, 0o640)
    found = os.fstat(descriptor)
    if is_shared and (found.st_uid not in ours or not stat.S_ISREG(found.st_mode)):
        os.close(descriptor)
        what = "is no file" if found.st_uid in ours else "belongs to another user"
        raise PermissionError(f"{path} {what}, in a folder that everybody may write to")
    return descriptor


def write(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole file through :func:`private`."""
    with open(path, "w", encoding="utf-8", opener=private) as file:
        file.write(text)
