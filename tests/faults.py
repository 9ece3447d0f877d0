"""Faults on demand: a TCP proxy between client and server, and worker processes to kill or freeze.

with TcpProxy(redis.host, redis.port) as proxy:
    client = redis.Redis(port=proxy.port)
    proxy.black_hole(); ...; proxy.heal()
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from processes import free_port

if TYPE_CHECKING:
    from typing_extensions import Self

__all__ = ["TcpProxy", "Worker", "free_port", "stopped", "wait_until"]

T = TypeVar("T")


def wait_until(
    done: Callable[[], T],
    timeout: float = 10.0,
    *,
    every: float = 0.01,
    what: str | Callable[[], object] = "",
) -> T:
    """Return the first true result of ``done``; fail with ``what`` after ``timeout`` seconds."""
    give_up = time.monotonic() + timeout
    while not (result := done()):
        if time.monotonic() > give_up:
            told = what() if callable(what) else what
            raise AssertionError(f"waited {timeout:g} s for {told or getattr(done, '__name__', done)}")
        time.sleep(every)
    return result


def read_pid(path: Path) -> int:
    """Return the process id that stands in a file; 0 while there is none."""
    text = path.read_text() if path.exists() else ""
    return int(text) if text else 0


def is_gone(pid: int) -> bool:
    """Tell whether a process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text("latin-1").rpartition(") ")[2][:1] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


@contextlib.contextmanager
def stopped(server: Any) -> Iterator[None]:
    """SIGSTOP a Redis: the kernel still accepts, nobody answers."""
    pid = server.execute("INFO", "server")
    pid = pid["process_id"] if isinstance(pid, dict) else int(pid.split(b"process_id:")[1].split()[0])
    os.kill(int(pid), signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(int(pid), signal.SIGCONT)


class _Link:
    """One proxied connection; ``doomed`` asks its thread to end it."""

    def __init__(self, client: socket.socket) -> None:
        self.client = client
        self.server: socket.socket | None = None
        self.doomed = False


class TcpProxy:
    """Forwards a local port to ``host:port`` until told otherwise; one thread per connection.

    Attributes:
        accepted: Connections accepted so far (also while black-holed).
        delay_s: Seconds by which each chunk is held back, in both directions.
    """

    def __init__(self, host: str, port: int) -> None:
        self.target = (host, port)
        self.host, self.port = "127.0.0.1", free_port()
        self.accepted = 0
        self.delay_s = 0.0
        self._mu = threading.Lock()
        self._links: set[_Link] = set()
        self._threads: set[threading.Thread] = set()
        self._holed = threading.Event()
        self._listener: socket.socket | None = None
        self._acceptor: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.heal()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def url(self, url: str) -> str:
        """Return ``url`` with this proxy's host and port in place of the server's."""
        parts = urlsplit(url)
        user, at, _ = parts.netloc.rpartition("@")
        return urlunsplit(parts._replace(netloc=f"{user}{at}{self.host}:{self.port}"))

    @property
    def open(self) -> int:
        """How many connections are open now."""
        return len(self._links)

    # faults

    def delay(self, seconds: float) -> None:
        """Hold every chunk back for ``seconds``; 0 ends it."""
        self.delay_s = seconds

    def cut(self) -> int:
        """Reset every open connection; new ones are welcome. Returns how many were cut."""
        with self._mu:
            links = list(self._links)
        for link in links:
            link.doomed = True
            with contextlib.suppress(OSError):
                # Linger 0: when its thread closes the socket the client meets a reset, not an orderly end.
                link.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                if link.server is not None:
                    link.server.shutdown(socket.SHUT_RDWR)  # wakes the thread
        wait_until(lambda: not self._links.intersection(links), what="connections to be cut")
        return len(links)

    def black_hole(self) -> None:
        """Keep connections open, accept new ones, and forward nothing."""
        self._holed.set()

    def refuse(self) -> None:
        """Cut everything and refuse new connections, as a stopped server does."""
        if self._listener is not None:
            listener, self._listener = self._listener, None
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            if self._acceptor is not None:
                self._acceptor.join(5)
            listener.close()
        self.cut()

    def heal(self) -> None:
        """Forward again, at full speed; what a black hole swallowed arrives late, as on a real network."""
        self.delay_s = 0.0
        self._holed.clear()
        if self._listener is None:
            self._listener = socket.create_server((self.host, self.port), backlog=512)
            self._acceptor = self._spawn(self._accept, self._listener)

    def close(self) -> None:
        """Cut everything and end the threads."""
        self.refuse()
        for thread in list(self._threads):
            thread.join(5)

    # inside

    def _spawn(self, fn: Callable[..., None], *args: object) -> threading.Thread:
        def run() -> None:
            try:
                fn(*args)
            finally:
                self._threads.discard(thread)

        thread = threading.Thread(target=run, name="tcp-proxy", daemon=True)
        self._threads.add(thread)
        thread.start()
        return thread

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.accepted += 1
            link = _Link(client)
            with self._mu:
                self._links.add(link)
            self._spawn(self._serve, link)

    def _serve(self, link: _Link) -> None:
        try:
            with link.client:
                if self._may_pass(link):
                    with socket.create_connection(self.target, timeout=5) as link.server:
                        self._forward(link, link.client, link.server)
        except OSError:
            pass  # either side is gone, which is what a proxy has to pass on
        finally:
            with self._mu:
                self._links.discard(link)

    def _forward(self, link: _Link, client: socket.socket, server: socket.socket) -> None:
        server.settimeout(None)
        for side in (client, server):
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        other = {client: server, server: client}
        while not link.doomed:
            ready, _, _ = select.select([client, server], [], [], 0.1)
            for side in ready:
                if not self._may_pass(link):
                    return
                if self.delay_s:
                    time.sleep(self.delay_s)
                chunk = side.recv(65536)
                if not chunk or not self._may_pass(link):
                    return
                other[side].sendall(chunk)

    def _may_pass(self, link: _Link) -> bool:
        """Wait out a black hole; False when the connection ended meanwhile."""
        while self._holed.is_set() and not link.doomed:
            if select.select([link.client], [], [], 0.01)[0] and not link.client.recv(1, socket.MSG_PEEK):
                return False
            time.sleep(0.005)
        return not link.doomed


class Worker:
    """A Python process that runs ``code``, for tests that kill, freeze or crash it.

        with Worker("print('ready', flush=True); import time; time.sleep(60)") as worker:
            worker.wait_for("ready")
            worker.kill9()

    The process finds ``tests/`` on its path, its arguments in ``sys.argv[1:]``, and ends with the block.
    Its output is buffered, so that a flushed line is one write: a kill leaves it out or leaves it whole.
    """

    def __init__(self, code: str, *args: object, env: dict[str, str] | None = None) -> None:
        tests = str(Path(__file__).parent)
        path = os.pathsep.join(filter(None, [tests, os.environ.get("PYTHONPATH", "")]))
        self.lines: list[str] = []
        inherited = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, args)],
            env={**inherited, "PYTHONPATH": path, **(env or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._reader = threading.Thread(target=self._read, name="worker-output", daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill9()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def output(self) -> str:
        """Everything it has printed so far, standard error included."""
        return "\n".join(self.lines)

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_for(self, text: str, timeout: float = 60.0) -> str:
        """Return the first line that contains ``text``; fail with the output when there is none."""
        give_up = time.monotonic() + timeout
        while True:
            ended = not self.running and not self._reader.is_alive()
            for line in list(self.lines):
                if text in line:
                    return line
            if ended or time.monotonic() > give_up:
                raise AssertionError(f"worker did not print {text!r}; it printed:\n{self.output}")
            time.sleep(0.01)

    def wait(self, timeout: float = 30.0) -> int:
        """Wait until it ends and return its exit code."""
        code = self._process.wait(timeout)
        self._reader.join(timeout)
        return code

    def terminate(self) -> None:
        """Send SIGTERM: a worker should finish or hand back its work."""
        self._process.terminate()

    def kill9(self) -> int:
        """Kill it at once and return its exit code; nothing to do when it has ended."""
        self._process.kill()
        code = self._process.wait()
        self._reader.join(10)
        if self._process.stdout is not None:
            self._process.stdout.close()
        return code

    def sigstop(self) -> None:
        """Freeze it, as a long pause of a container does."""
        self._process.send_signal(signal.SIGSTOP)

    def sigcont(self) -> None:
        """Let it go on."""
        self._process.send_signal(signal.SIGCONT)

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.endswith("\n"):  # one that a kill cut was never said
                self.lines.append(line[:-1])
