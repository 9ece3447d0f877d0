"""The console as a WSGI application."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from http import HTTPStatus
from typing import Any

from eventperf._core.texts import whole
from eventperf.contrib.console.web import BODY_LIMIT, Answers, Request, Response, parsed, too_large


class WsgiApp:
    """Answers below the place it is mounted at (``SCRIPT_NAME``)."""

    def __init__(self, console: Answers) -> None:
        self._console = console

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer one request."""
        response = self._respond(environ)
        status = f"{response.status} {HTTPStatus(response.status).phrase}"
        length = ("Content-Length", str(len(response.body)))
        start_response(status, [*response.headers, length])
        return [b"" if environ["REQUEST_METHOD"] == "HEAD" else response.body]

    def _respond(self, environ: dict[str, Any]) -> Response:
        body = b""
        if environ["REQUEST_METHOD"] == "POST":
            given = whole(environ.get("CONTENT_LENGTH") or "0")
            if given is None or given > BODY_LIMIT:
                return too_large()
            body = environ["wsgi.input"].read(given)
        headers = {k[5:].replace("_", "-").lower(): v for k, v in environ.items() if k.startswith("HTTP_")}
        path = str(environ.get("PATH_INFO", "")).encode("latin-1").decode("utf-8", "replace")
        return self._console.respond(
            Request(
                method=environ["REQUEST_METHOD"],
                path=path or "/",
                base=str(environ.get("SCRIPT_NAME", "")).rstrip("/"),
                query=parsed(environ.get("QUERY_STRING", "")),
                form=parsed(body),
                headers=headers,
                is_secure=environ.get("wsgi.url_scheme") == "https",
                native=environ,
            )
        )
