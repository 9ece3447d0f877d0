"""``eventperf console``: the console alone, on this machine, over whatever is named."""

from __future__ import annotations

import argparse
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any, Final
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from eventperf._core.errors import ConfigurationError
from eventperf._core.files import private

from .ending import ending

if TYPE_CHECKING:
    from eventperf.contrib.console import Console
    from eventperf.scaling import ScalingDecision

_KEPT: Final = 2_000  # decisions of a log
_READ: Final = 8 << 20  # bytes of it at once
_LOCAL: Final = frozenset({"127.0.0.1", "localhost", "::1"})


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    parser.add_argument("--queues", metavar="APP", action="append", default=[],
                        help="module:attribute of a QueueManager, or a URL (repeatable)")  # fmt: skip
    parser.add_argument(
        "--cache", metavar="URL", action="append", default=[], help="redis://... (repeatable)"
    )
    parser.add_argument("--database", metavar="URL", help="SQLAlchemy URL of a database")
    parser.add_argument("--what-if", metavar="URL", help="database where hypothetical objects may be made")
    parser.add_argument("--scale-log", metavar="FILE", action="append", default=[],
                        help="decision log of a scaler (repeatable)")  # fmt: skip
    parser.add_argument("--namespace", help="of queues and caches given by URL")
    parser.add_argument("--host", default="127.0.0.1", choices=sorted(_LOCAL), help="this machine only")
    parser.add_argument("--port", type=int, default=8020, help="0 takes a free one (default 8020)")
    parser.add_argument("--act", action="store_true",
                        help="allow actions, and show payloads, values and literals")  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Serve until SIGTERM, Ctrl-C, or the terminal closes.

    Raises:
        ConfigurationError: Nothing was named to look at, or a name that leads nowhere.
    """
    console = build(args)
    with (
        server(console.wsgi(), args.host, args.port) as serving,
        ending(threading.Thread(target=serving.shutdown, daemon=True).start),
    ):
        host = f"[{args.host}]" if ":" in args.host else args.host
        print(f"http://{host}:{serving.server_port}/", flush=True)
        if not args.act:
            print("looking only; --act allows actions and shows payloads", file=sys.stderr)
        serving.serve_forever()
    return 0


def build(args: argparse.Namespace) -> Console:
    """Return the console over what the options name."""
    from eventperf.contrib.console import Console, read_only

    options: dict[str, Any] = {"may": _everything if args.act else read_only}
    if args.queues:
        from .queue import load

        options["queues"] = [load(app, args.namespace or "default") for app in args.queues]
    if args.cache:
        from eventperf.cache import CacheManager

        options["cache"] = [
            CacheManager(url, namespace=args.namespace or "app", l1=None, coherence="bus")
            for url in args.cache
        ]
    if args.database:
        from eventperf.dbopt import DatabaseOptimizer

        options["optimizer"] = DatabaseOptimizer(args.database, what_if=args.what_if)
    if args.scale_log:
        logs = {path: FileLog(path) for path in args.scale_log}
        for log in logs.values():
            if log.absent:
                print(log.absent, file=sys.stderr)
            try:
                deque(log, maxlen=0)  # read now, not for whoever looks first
            except OSError as error:
                raise ConfigurationError("--scale-log", log.path, f"a log to read ({error})") from error
        options["scaler"] = logs
    if len(options) == 1:
        raise ConfigurationError("console", "", "at least one of --queues, --cache, --database, --scale-log")
    return Console(**options)


class FileLog:
    """The newest decisions in a file; each page reads what has come since the one before, not the whole."""

    def __init__(self, path: str) -> None:
        self.path: str = path
        self._mu = threading.Lock()
        self._kept: deque[ScalingDecision] = deque(maxlen=_KEPT)
        self._file: tuple[int, int] = (0, 0)
        self._at = 0

    @property
    def absent(self) -> str:
        """Say that the file is not there, empty when it is."""
        if Path(self.path).exists():
            return ""
        return f"{self.path} is not there: it comes with the first decision of a scaler, or its name is wrong"

    def __iter__(self) -> Iterator[ScalingDecision]:
        with self._mu:
            try:
                self._read()
            except FileNotFoundError:
                self._kept.clear()
                self._at = 0
            return iter(tuple(self._kept))

    def _read(self) -> None:
        from eventperf.scaling import ScalingDecision

        with open(self.path, "rb", opener=private) as file:
            found = os.fstat(file.fileno())
            if (found.st_dev, found.st_ino) != self._file or found.st_size < self._at:
                self._file, self._at = (found.st_dev, found.st_ino), 0
                self._kept.clear()
            begin = max(self._at, found.st_size - _READ)
            is_cut = begin > self._at  # in the middle of a line, most likely
            file.seek(begin)
            *lines, _ = file.read(_READ).split(b"\n")
            self._at = begin + sum(len(line) + 1 for line in lines)
            for line in lines[int(is_cut) :][-_KEPT:]:
                with suppress(ValueError, KeyError, TypeError):  # torn by a crash, or of another version
                    self._kept.append(ScalingDecision.from_json(line.decode()))


def _everything(request: Any, action: str, subject: str | None) -> bool:
    return True


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    timeout = 30  # seconds for a request to arrive

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing for each page: a page that keeps itself up to date asks every few seconds."""


def server(app: Callable[..., Iterable[bytes]], host: str, port: int) -> WSGIServer:
    """Return a server on this machine that answers to its own name only.

    A page elsewhere could lead its own name to this address; its requests carry that name, and are refused.

    Raises:
        ConfigurationError: The port cannot be had.
    """

    def guarded(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        name = str(environ.get("HTTP_HOST", "")).rpartition(":")[0].strip("[]")
        if name not in _LOCAL:
            start_response("421 Misdirected Request", [("Content-Type", "text/plain; charset=utf-8")])
            return [b"this console answers to localhost only\n"]
        return app(environ, start_response)

    try:
        return make_server(host, port, guarded, server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise ConfigurationError("--port", port, f"a free port, or 0 ({error.strerror})") from error
