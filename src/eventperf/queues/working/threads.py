"""Threads for plain handlers, none of which can keep the process from ending."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

_Item = tuple["Future[Any]", Callable[[], Any]]


class JobThreads(Executor):
    """Like ``ThreadPoolExecutor``, with daemon threads: the interpreter waits for those of the standard
    library, so a handler that hangs would keep a stopped worker alive for ever."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._todo: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._mu = threading.Lock()
        self._waiting = 0  # calls nobody has taken up
        self._free = 0  # threads without a call, those included that are only starting
        self._made = 0
        self._closed = False

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        with self._mu:
            if self._closed:
                raise RuntimeError("these threads are closed")
            self._todo.put((future, lambda: fn(*args, **kwargs)))
            self._waiting += 1
            if self._waiting > self._free and self._made < self._most:
                self._made += 1
                self._free += 1
                name = f"eventperf-job-{self._made}"
                try:
                    threading.Thread(target=self._serve, name=name, daemon=True).start()
                except RuntimeError:  # the system has no more; those that are there take it up
                    self._made -= 1
                    self._free -= 1
                    if not self._made:
                        future.cancel()  # lest it runs later, when it was reported as failed
                        raise
        return future

    def _serve(self) -> None:
        while (item := self._todo.get()) is not None:
            with self._mu:
                self._waiting -= 1
                self._free -= 1
            future, call = item
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except BaseException as error:
                    future.set_exception(error)
            del item, future, call  # nothing of a job outlives it here
            with self._mu:
                self._free += 1

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Let every thread end after the call it is at; ``wait`` is never obeyed."""
        with self._mu:
            self._closed = True
            made = self._made
        if cancel_futures:
            self._cancel()
        for _ in range(made):
            self._todo.put(None)

    def _cancel(self) -> None:
        while True:
            try:
                item = self._todo.get_nowait()
            except queue.Empty:
                return
            if item is not None:
                item[0].cancel()
