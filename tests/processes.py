"""Server processes of the tests: found, started on a free port, and ended for certain.

Every server ends with the process that started it, however that process ends: ``close()`` and
``atexit`` in the good case, a watchdog process (this same file, run as a script) in the bad one.
Only the standard library is imported here, so that the watchdog starts anywhere.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import os
import pwd
import random
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from typing_extensions import Self

READY_S = 30.0


class ServerMissing(Exception):
    """This machine has no such server (or lacks the driver); the text says what was looked for."""


class ServerFailed(Exception):
    """A server did not come up; the text ends with the tail of its log."""


# --- ports, folders, processes ------------------------------------------------------------------


def free_port(*, also: int = 0) -> int:
    """Return a free TCP port below the range of outgoing connections, so that it stays free.

    Args:
        also: An offset at which a second port must be free too (the bus of Redis Cluster).
    """
    for _ in range(500):
        port = random.SystemRandom().randrange(10_500, 22_000)
        if _is_free(port) and (not also or _is_free(port + also)):
            return port
    raise ServerFailed("no free port between 10500 and 22000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def find_binary(*names: str, folders: tuple[str, ...] = ()) -> str:
    """Return the first of ``names`` on PATH or in the distributions' folders.

    ``EVENTPERF_REDIS_SERVER=/path`` (``_POSTGRES``, ``_MARIADBD``) names another build to test against.

    Raises:
        ServerMissing: None of them is there.
    """
    variable = f"EVENTPERF_{names[0].upper().replace('-', '_')}"
    if chosen := os.environ.get(variable):
        if os.access(chosen, os.X_OK):
            return chosen
        raise ServerMissing(f"{variable}={chosen} is no program")
    places = os.pathsep.join([os.environ.get("PATH", ""), *folders, "/usr/sbin", "/usr/local/sbin"])
    for name in names:
        if found := shutil.which(name, path=places):
            return found
    raise ServerMissing(f"no {' or '.join(names)} on PATH or in {', '.join(folders or ('/usr/sbin',))}")


def unprivileged_user(*preferred: str) -> str | None:
    """Return a user for servers that refuse to run as root, or ``None`` when we are not root."""
    if os.geteuid() != 0:
        return None
    for name in (*preferred, "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise ServerMissing(f"running as root, and no user {' or '.join((*preferred, 'nobody'))} to become")


def _reachable_temp() -> str:
    """A temporary root that any user can traverse; TMPDIR itself may be private to root."""
    for place in (tempfile.gettempdir(), "/tmp", "/var/tmp"):
        path = Path(place).resolve()
        if all(p.stat().st_mode & 0o001 for p in (path, *path.parents)):
            return str(path)
    raise ServerMissing("no temporary directory that an unprivileged user can reach")


def kill_tree(pid: int) -> None:
    """SIGKILL ``pid`` and its descendants (a postmaster's backends sit in sessions of their own)."""
    family, found = {pid}, True
    while found:
        found = False
        for child, parent in _processes():
            if parent in family and child not in family:
                family.add(child)
                found = True
    for member in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)


def _processes() -> Iterator[tuple[int, int]]:
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            yield int(stat.parent.name), int(stat.read_text().rpartition(")")[2].split()[1])


# --- the watchdog -------------------------------------------------------------------------------


class _Watchdog:
    """Knows the home of every running server and ends them when this process is gone.

    A home is announced before its server starts, and the server's pid is written into it by the
    child itself before ``exec``: there is no moment in which a crash could leave an orphan.
    """

    def __init__(self) -> None:
        self._mu = threading.Lock()
        self._owner = 0
        self._process: subprocess.Popen[bytes] | None = None

    def tell(self, sign: str, home: Path) -> None:
        with self._mu:
            if self._owner != os.getpid():  # first use here, or a forked child with servers of its own
                self._owner = os.getpid()
                self._process = subprocess.Popen(
                    [sys.executable, "-S", __file__, str(os.getpid())],
                    stdin=subprocess.PIPE,
                    start_new_session=True,
                )
                atexit.register(self._end, os.getpid())
            assert self._process is not None
            assert self._process.stdin is not None
            os.write(self._process.stdin.fileno(), f"{sign}{home}\n".encode())

    def _end(self, owner: int) -> None:
        if owner == os.getpid() and self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()
            self._process.wait()


def _watch(parent: int) -> None:
    """Body of the watchdog: collect homes from stdin; end what is in them when ``parent`` is gone."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    homes: set[str] = set()
    rest = b""
    while os.getppid() == parent:
        # The time-out: a forked grandchild may hold the pipe open after the parent's death.
        if not select.select([0], [], [], 0.5)[0]:
            continue
        chunk = os.read(0, 65536)
        if not chunk:
            break
        *lines, rest = (rest + chunk).split(b"\n")
        for line in map(os.fsdecode, lines):
            (homes.add if line[0] == "+" else homes.discard)(line[1:])
    for wait_s in (0.0, 0.3):  # the second round meets a child that had not yet written its pid
        time.sleep(wait_s)
        for home in homes:
            with contextlib.suppress(OSError, ValueError):
                kill_tree(int(Path(home, "pid").read_text()))
    for home in homes:
        shutil.rmtree(home, ignore_errors=True)


_watchdog = _Watchdog()


# --- servers ------------------------------------------------------------------------------------


class Server:
    """One server process: ``start`` (done by ``with``), ``stop``, ``kill9``, ``sigstop``, ``restart``."""

    name: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM

    def __init__(self) -> None:
        self.binary = self.find()
        self.user = self.run_as()
        self.host, self.port = "127.0.0.1", self._pick_port()
        self._home: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None

    # what each kind of server says about itself

    @classmethod
    def find(cls) -> str:
        """Return the path of the server's binary or raise ``ServerMissing``."""
        raise NotImplementedError

    @classmethod
    def run_as(cls) -> str | None:
        """Return the user to run as; ``None`` keeps ours."""
        return None

    @property
    def url(self) -> str:
        raise NotImplementedError

    def command(self) -> list[str]:
        raise NotImplementedError

    def prepare(self) -> None:
        """Create the data directory; called once, before the first start."""

    def ping(self) -> None:
        """Raise unless the server answers."""
        raise NotImplementedError

    # life

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *exc: object) -> None:
        self.close()

    def start(self) -> Self:
        """Start and wait until it answers; data of an earlier run is kept."""
        if self.running:
            return self
        if self._home is None:
            self._home = Path(tempfile.mkdtemp(prefix="eventperf-", dir=_reachable_temp()))
            _watchdog.tell("+", self._home)
            if self.user:
                shutil.chown(self._home, self.user)
            self.prepare()
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                ["/bin/sh", "-c", 'echo $$ >"$0"; exec "$@"', str(self.home / "pid"), *self.command()],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                start_new_session=True,
                **self._identity(),
            )
        self._wait_ready()
        return self

    def stop(self) -> None:
        """Shut down as an administrator would; the data stays for ``start``."""
        if not self.running:
            return
        self.signal(signal.SIGCONT)
        self.signal(self.stop_signal)
        assert self._process is not None
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self.kill9()
        self._reap()

    def kill9(self) -> None:
        """Kill it and its children at once, as a power cut would."""
        if self._process is not None and self._process.poll() is None:
            kill_tree(self._process.pid)
        self._reap()

    def restart(self) -> Self:
        """Stop (if it runs) and start again on the same port and data."""
        self.stop()
        return self.start()

    def sigstop(self) -> None:
        """Freeze it: connections stay open, nothing answers."""
        self.signal(signal.SIGSTOP)

    def sigcont(self) -> None:
        """Let it go on after :meth:`sigstop`."""
        self.signal(signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its data."""
        self.kill9()
        if self._home is not None:
            shutil.rmtree(self._home, ignore_errors=True)
            _watchdog.tell("-", self._home)
            self._home = None

    def signal(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)

    # facts

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} is not running"
        return self._process.pid

    @property
    def home(self) -> Path:
        assert self._home is not None, f"{self.name} was not started"
        return self._home

    @property
    def log(self) -> Path:
        return self.home / "log"

    @property
    def version(self) -> str:
        return version_of(self.binary)

    # inside

    def _pick_port(self) -> int:
        return free_port()

    def _identity(self) -> dict[str, Any]:
        if self.user is None:
            return {}
        entry = pwd.getpwnam(self.user)
        return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}

    def _run(self, *command: str) -> None:
        """Run a preparing program as the server's user."""
        env = {**os.environ, "HOME": str(self.home), "LC_ALL": "C"}
        done = subprocess.run(
            command, cwd=self.home, env=env, capture_output=True, text=True, check=False, **self._identity()
        )
        if done.returncode:
            raise ServerFailed(f"{command[0]} exited with {done.returncode}:\n{done.stdout}{done.stderr}")

    def _wait_ready(self) -> None:
        give_up, trouble = time.monotonic() + READY_S, "no answer"
        while time.monotonic() < give_up:
            if not self.running:
                trouble = "it ended by itself"
                break
            try:
                return self.ping()
            except ImportError as error:
                self.kill9()
                raise ServerMissing(f"the driver for {self.name} is not installed: {error}") from error
            except Exception as error:  # each driver has its own word for "not yet"
                trouble = repr(error)
            time.sleep(0.02)
        tail = self.log.read_text(errors="replace")[-2000:]
        self.kill9()
        raise ServerFailed(f"{self.name} did not start ({trouble}); its log ends:\n{tail}")

    def _reap(self) -> None:
        if self._home is not None:
            (self._home / "pid").unlink(missing_ok=True)
        if self._process is not None:
            self._process.wait()
            self._process = None


@functools.cache
def version_of(binary: str) -> str:
    """Return the version that the binary names; the same binary is asked once."""
    text = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\d+(?:\.\d+)+", text)
    return found[0] if found else text.strip()


if __name__ == "__main__":
    _watch(int(sys.argv[1]))
