"""What a failure says, in text that any store takes."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from eventperf.queues.attempts import TRACEBACK_BYTES, tail

LIMIT = 2000
_TRACE: Callable[[BaseException], TracebackType | None] = BaseException.__dict__["__traceback__"].__get__
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
        said = f"(its text cannot be had: {_kind(trouble)})"
    return safe(f"{_kind(error)}: {said}", most)


def _kind(error: BaseException) -> str:
    """Return the name of an error's class as it was written, whatever its own class says of it."""
    name: str = type.__dict__["__name__"].__get__(type(error))
    return name


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
    trace = None if error is None else _TRACE(error)
    if error is None or trace is None:
        return None
    while trace.tb_next is not None and trace.tb_frame.f_code.co_filename.startswith(_OWN):
        trace = trace.tb_next
    try:
        said = "".join(traceback.format_exception(type(error), error, trace))
    except BaseException as trouble:  # user code again
        said = "".join(traceback.format_tb(trace)) + f"{_kind(error)} ({_kind(trouble)} in it)"
    return tail(said.rstrip().replace("\0", "\\x00"), TRACEBACK_BYTES)


def stack_text(task: asyncio.Task[Any]) -> str:
    """Return where a task waits, from the handler on."""
    frames = list[tuple[FrameType, int]]()
    at: Any = task.get_coro()
    while (frame := getattr(at, "cr_frame", None)) is not None and len(frames) < 100:
        frames.append((frame, frame.f_lineno))
        at = getattr(at, "cr_await", None)
    while len(frames) > 1 and frames[0][0].f_code.co_filename.startswith(_OWN):
        del frames[0]
    return "".join(traceback.StackSummary.extract(iter(frames)).format())
