"""What a failure says, in text that any store takes."""

from __future__ import annotations

import traceback
from pathlib import Path

from eventperf.queues.attempts import TRACEBACK_BYTES, tail

LIMIT = 2000
_WORDY = 10_000

_OWN = str(Path(__file__).parent)  # what stands above a handler in its traceback


def safe(text: str, most: int = LIMIT) -> str:
    """Return ``text`` without what some store refuses: halves of characters and NUL.

    >>> safe("x\\udce9\\x00")
    'x\\\\udce9\\\\x00'
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")[:most]


def error_text(error: BaseException, most: int = LIMIT) -> str:
    """Return an error's type and text, whatever its ``__str__`` does.

    >>> error_text(KeyError("a"))
    "KeyError: 'a'"
    """
    try:
        said = str(error)
    except BaseException as trouble:  # user code: anything may come out of it
        said = f"(its text cannot be had: {type(trouble).__name__})"
    return safe(f"{type(error).__name__}: {said}", most)


def is_wordy(error: BaseException) -> bool:
    """Tell whether what an error and those behind it say is too long for a log.

    >>> is_wordy(ValueError("x" * 100_000))
    True
    """
    size, at = 0, [error]
    for _ in range(50):  # chains may be long, or closed
        if not at or size > _WORDY:
            break
        one = at.pop()
        size += len(error_text(one, _WORDY))
        at += [more for more in (one.__cause__, one.__context__) if more is not None]
    return size >= _WORDY


def trace_text(error: BaseException | None) -> str | None:
    """Return the end of an error's traceback from the handler on; ``None`` where it has none."""
    if error is None or error.__traceback__ is None:
        return None
    trace = error.__traceback__
    while trace.tb_next is not None and trace.tb_frame.f_code.co_filename.startswith(_OWN):
        trace = trace.tb_next
    try:
        said = "".join(traceback.format_exception(type(error), error, trace))
    except BaseException as trouble:  # user code again
        said = (
            "".join(traceback.format_tb(trace)) + f"{type(error).__name__} ({type(trouble).__name__} in it)"
        )
    return tail(said.rstrip().replace("\0", "\\x00"), TRACEBACK_BYTES)
