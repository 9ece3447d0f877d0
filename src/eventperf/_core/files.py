"""Files beside other people's: in a folder where everybody may write, a name may be somebody else's trap."""

from __future__ import annotations

import os
import stat


def private(path: str, flags: int) -> int:
    """Open a file for the ``opener`` of :func:`open`; new ones are readable by owner and group at most.

    In a folder that everybody may write to (``/tmp``) links are not followed, and a file that belongs to
    another user is refused: either would let that user choose where this process writes.

    Raises:
        OSError: It is such a link or file, or cannot be opened.
    """
    parent = os.path.dirname(os.path.abspath(path))
    is_shared = bool(os.stat(parent).st_mode & stat.S_IWOTH)
    no_links = getattr(os, "O_NOFOLLOW", 0) if is_shared else 0
    descriptor = os.open(path, flags | no_links, 0o640)
    if is_shared and hasattr(os, "geteuid") and os.fstat(descriptor).st_uid not in (0, os.geteuid()):
        os.close(descriptor)
        raise PermissionError(f"{path} belongs to another user, in a folder that everybody may write to")
    return descriptor


def write(path: str | os.PathLike[str], text: str) -> None:
    """Write a whole file through :func:`private`."""
    with open(path, "w", encoding="utf-8", opener=private) as file:
        file.write(text)
