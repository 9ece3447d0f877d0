"""How a command that runs on comes to its end: SIGTERM, Ctrl-C, or a terminal that closes."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def ending(stop: Callable[[], object]) -> Iterator[None]:
    """Have a signal ask for an orderly end, and a second one end the process at once.

    A terminal that closes (SIGHUP) asks as well, unless ``nohup`` has that ignored; what is printed from then
    on goes nowhere. In a thread that is not the main one nothing is handled.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked, terminal = False, [fd for fd in (1, 2) if os.isatty(fd)]

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if number != signal.SIGINT:
            _let_go(terminal)
        if asked:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        asked = True
        stop()

    hangup = [signal.SIGHUP] if hasattr(signal, "SIGHUP") else []
    wanted = [signal.SIGTERM, signal.SIGINT, *hangup]
    before = {one: signal.getsignal(one) for one in wanted if signal.getsignal(one) is not signal.SIG_IGN}
    for one in before:
        signal.signal(one, ask)
    try:
        yield
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def _let_go(terminal: list[int]) -> None:
    """Write no more to a terminal that is gone: every print would fail, and the last flush with it."""
    for fd in terminal:
        if not os.isatty(fd):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, fd)
            os.close(nowhere)
