"""The console over the demo's own run, on this machine, while it runs and until it is interrupted."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from eventperf.cli.console import server
from eventperf.contrib.console import Console, read_only


class Window:
    """What the demo shows of itself; each stage hands over its managers and takes them back.

    Args:
        port: Where it listens; 0 takes a free one.

    Raises:
        ConfigurationError: The port cannot be had.
    """

    def __init__(self, port: int) -> None:
        self._parts: dict[str, Any] = {}
        self._mu = threading.Lock()
        self._rebuild()
        self._server = server(self, "127.0.0.1", port)
        self.url: str = f"http://127.0.0.1:{self._server.server_port}/"
        threading.Thread(target=self._server.serve_forever, name="console", daemon=True).start()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        return self._app(environ, start_response)

    def show(self, **parts: Any) -> None:
        """Show parts of the console from now on; ``None`` takes one away."""
        with self._mu:
            self._parts = {k: v for k, v in {**self._parts, **parts}.items() if v is not None}
            self._rebuild()

    @contextmanager
    def over(self, **parts: Any) -> Iterator[None]:
        """Show parts for as long as they are open."""
        self.show(**parts)
        try:
            yield
        finally:
            self.show(**dict.fromkeys(parts))

    def _rebuild(self) -> None:
        self._app = Console(title="eventperf demo", may=read_only, **self._parts).wsgi()

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
