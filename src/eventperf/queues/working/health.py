"""Whether workers are well: what probes of a pod or a service manager ask, answered from another thread."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from http.server import BaseHTTPRequestHandler, HTTPServer

from eventperf._core.errors import ConfigurationError
from eventperf._core.texts import whole
from eventperf.queues.protocols import WorkerFacts

from .worker import Worker

_ANSWER_S = 1.0
PATIENCE_S = 60.0
"""A worker whose loop is silent for this long is not well: some call holds it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """How one worker is.

    Attributes:
        is_live: Whether to leave it alone; else only a new process helps.
        is_ready: Whether it takes jobs.
        why: What keeps it from either.
    """

    worker: str
    is_live: bool
    is_ready: bool
    why: str = ""
    slots: int = 0
    running: int = 0
    begun: int = 0
    hung: int = 0


def judge(facts: WorkerFacts | None, silent_s: float, patience_s: float = PATIENCE_S) -> Report:
    """Judge a worker by its last facts (none before its run) and how long its loop has not answered.

    >>> judge(WorkerFacts(worker="w", slots=2, running=2, hung=2), 0.0).why
    'handlers that hang hold all 2 slots'
    """
    if silent_s >= patience_s:
        why = f"its loop has not answered for {silent_s:.0f} s"
    elif facts is not None and 0 < facts.slots <= facts.hung:
        why = f"handlers that hang hold all {facts.slots} slots"
    else:
        why = ""
    is_live = not why
    if facts is None:
        return Report(worker="", is_live=is_live, is_ready=False, why=why or "it does not run yet")
    if not why and facts.store_lost:
        why = "its store does not answer"
    if not why and facts.stopping:
        why = f"it takes no more jobs: {facts.stopping}"
    return Report(
        worker=facts.worker, is_live=is_live, is_ready=not why, why=why, slots=facts.slots,
        running=facts.running, begun=facts.begun, hung=facts.hung,
    )  # fmt: skip


class Pulse:
    """Asks a worker's loop how it is; the loop's silence is part of the answer."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._facts: WorkerFacts | None = None
        self._asked_at: float | None = None
        self._heard = threading.Event()

    def report(self) -> Report:
        """Wait a second at most for the loop's answer, and judge."""
        if self._asked_at is None:
            self._heard.clear()
            self._asked_at = time.monotonic()  # before: the answer may be there when ask() returns
        if not self._worker.ask(self._hear):  # again each time: a run that ends answers nobody
            self._asked_at = None
            return judge(None, 0.0)
        self._heard.wait(_ANSWER_S)
        asked = self._asked_at
        return judge(self._facts, 0.0 if asked is None or self._heard.is_set() else time.monotonic() - asked)

    def _hear(self, facts: WorkerFacts) -> None:
        self._facts = facts
        self._asked_at = None
        self._heard.set()


class HealthServer:
    """Answers ``/healthz`` and ``/livez`` with 200 while a worker is live, ``/readyz`` while one takes jobs.

    One request at a time, each within two seconds: a stranger cannot make it hold anything.

    Args:
        at: ``"PORT"`` (of every address) or ``"HOST:PORT"``.
        reports: Asked for each request.
    """

    def __init__(self, at: str, reports: Callable[[], Sequence[Report]]) -> None:
        host, port = _address(at)

        class Handler(BaseHTTPRequestHandler):
            timeout = 2.0

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                if path not in ("/healthz", "/livez", "/readyz"):
                    self.send_error(404)
                    return
                found = reports()
                good = any(r.is_ready if path == "/readyz" else r.is_live for r in found)
                body = json.dumps({"ok": good, "workers": [asdict(r) for r in found]}).encode()
                self.send_response(200 if good else 503)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            do_HEAD = do_GET

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing: probes come every few seconds."""

        try:
            self._server = HTTPServer((host, port), Handler)
        except OSError as error:
            raise ConfigurationError("health", at, f"an address that can be listened on ({error})") from error
        self.port: int = self._server.server_port
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="eventperf-health", daemon=True
        )

    def __enter__(self) -> HealthServer:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def _address(at: str) -> tuple[str, int]:
    host, _, port = at.rpartition(":")
    number = whole(port)
    if number is None or number > 65535:
        raise ConfigurationError("health", at, "PORT or HOST:PORT, such as 8080 or 127.0.0.1:8080")
    return host.strip("[]"), number
