"""The program of a worker's guard: renews its leases while a call in a handler holds the interpreter.

It runs alone, by ``python -I -S``, and imports nothing of the package before it has to: most guards never do.
"""

from __future__ import annotations

import json
import os
import pickle
import signal
import socket
import struct
import sys
import time
from typing import Any

COVER_S = 300.0
"""A worker that has not moved for this long is taken for dead."""


def is_stopped(pid: int) -> bool:
    """Tell whether a process is suspended (SIGSTOP, a debugger): it is not busy then, nor to be covered."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
            return file.read().rpartition(")")[2].split()[0] in ("T", "t", "Z")
    except OSError:
        return False


class Held:
    """The leases of the worker, as far as its line tells, and when it last renewed them itself."""

    def __init__(self) -> None:
        self.leases: dict[str, int] = {}
        self.beat_at: float = time.monotonic()
        self._rest = b""

    def take(self, data: bytes) -> None:
        """Read what came."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            pairs = json.loads(line[1:])
            if line[:1] == b"=":
                self.leases = dict(pairs)
                self.beat_at = time.monotonic()
            else:
                self.leases.update(pairs)


def receive(line: socket.socket, size: int) -> bytes:
    """Return the next ``size`` bytes."""
    data = b""
    while len(data) < size:
        part = line.recv(size - len(data))
        if not part:
            raise EOFError
        data += part
    return data


def drain(line: socket.socket, held: Held) -> None:
    """Take all that has come; raise EOFError when the worker has gone."""
    while True:
        try:
            data = line.recv(1 << 16)
        except BlockingIOError:
            return
        if not data:
            raise EOFError
        held.take(data)


def open_store(facts: dict[str, Any], blob: bytes) -> Any:
    """Return a face of the worker's store: now the package is imported."""
    sys.path[:] = facts["path"]
    backend, card = pickle.loads(blob)  # noqa: S301 - from the worker that started this process, by a private socket
    return backend.waiter(card)


def guard(line: socket.socket, worker_pid: int) -> None:
    """Watch until the worker has gone."""
    facts = json.loads(receive(line, struct.unpack("!I", receive(line, 4))[0]))
    blob = receive(line, struct.unpack("!I", receive(line, 4))[0])
    lease_s, worker = facts["lease_s"], facts["worker"]
    store = None
    if facts["eager"]:
        store = open_store(facts, blob)
        line.sendall(b"!")
    line.setblocking(False)
    held = Held()
    renewed_at = 0.0
    while os.getppid() == worker_pid:
        time.sleep(lease_s / 8)
        drain(line, held)
        now = time.monotonic()
        silent = now - held.beat_at
        if not held.leases or not lease_s / 2 < silent < COVER_S or now - renewed_at < lease_s / 4:
            continue
        if is_stopped(worker_pid):
            continue
        if store is None:
            store = open_store(facts, blob)
            drain(line, held)
        try:
            store.renew(worker, list(held.leases.items()))
            renewed_at = time.monotonic()
        except Exception:  # the store is away: the worker itself says so
            time.sleep(lease_s / 8)


def main() -> None:
    """Be the guard of the process that started this one."""
    worker_pid = os.getppid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # it ends with its worker
    try:
        guard(socket.socket(fileno=0), worker_pid)
    except (EOFError, OSError):
        pass


if __name__ == "__main__":
    main()
