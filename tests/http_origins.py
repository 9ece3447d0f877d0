"""One origin that says what each step of a case tells it to, behind the HTTP cache of every adapter."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from eventperf.cache import CacheManager
from eventperf.contrib.http import HttpCacheMiddleware, WsgiCacheMiddleware, http_cached
from eventperf.testing import FakeClock

MADE, KEPT = "made", "kept"
METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PURGE"]
Lines = list[tuple[str, str]]


@dataclass(frozen=True)
class Step:
    """One request, and what shall come of it.

    Attributes:
        outcome: Whether the origin is asked (``made``) or a kept answer is handed out (``kept``).
        told: Header lines of the origin's answer, if it is asked.
        status: Status of that.
        after: Seconds that pass before the request.
        sent: Header lines of the request.
        gets: Status that the client sees; that of the origin's answer where nothing is said.
        of: Number of the step whose answer a kept one is; the last one that was made where nothing is said.
        has: Header lines that the client sees.
        lacks: Names of headers that it does not see.
    """

    outcome: str
    told: tuple[str, ...] = ()
    status: int = 200
    after: float = 0
    method: str = "GET"
    path: str = "/a"
    sent: tuple[str, ...] = ()
    gets: int | None = None
    of: int | None = None
    has: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()


def ask(outcome: str, *told: str, **more: Any) -> Step:
    """Return a step; a single line may be given as a text."""
    for name in ("sent", "has", "lacks"):
        if isinstance(more.get(name), str):
            more[name] = (more[name],)
    return Step(outcome, told, **more)


@dataclass(frozen=True)
class Case:
    """A sequence of requests under a section of an RFC.

    Attributes:
        bare: Whether it is about answers that nobody gave a life, so not for adapters that must be given one.
        options: Of the cache.
    """

    section: str
    name: str
    steps: Sequence[Step]
    bare: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.section}: {self.name}".replace(" ", "_")


class Origin:
    """Requests through one adapter."""

    def __init__(self, case: Case, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.clock = FakeClock()
        self.cache = CacheManager(clock=self.clock)
        self.options = {"clock": self.clock, **case.options}
        self.needed: dict[str, Any] = {"ttl": "1h", **self.options}
        self.step, self.asked = Step(MADE), 0
        self.build()

    def build(self) -> None:
        raise NotImplementedError

    def open(self, step: Step, sent: Lines) -> tuple[int, Lines, str]:
        raise NotImplementedError

    def answer(self) -> tuple[int, Lines, bytes]:
        """Make an answer, as the step tells."""
        self.asked += 1
        is_empty = self.step.status in (204, 304) or self.step.method == "HEAD"
        body = b"" if is_empty else f"answer {self.asked}".encode()
        return self.step.status, [("Content-Type", "text/plain"), *map(line, self.step.told)], body

    def ask(self, step: Step) -> tuple[int, Lines, str]:
        """Send the request of a step."""
        self.step = step
        if step.after:
            self.clock.advance(step.after)
        status, headers, body = self.open(step, [("Host", "site"), *map(line, step.sent)])
        return status, [(name.lower(), value) for name, value in headers], body


def line(text: str) -> tuple[str, str]:
    """Return name and value of a header line."""
    name, _, value = text.partition(":")
    return name, value.strip()


def joined(lines: Lines) -> dict[str, str]:
    """Return headers by their names, lines of one name joined as gateways join them."""
    found: dict[str, str] = {}
    for name, value in lines:
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def environ(step: Step, sent: Lines) -> dict[str, Any]:
    """Return what a WSGI server makes of a request."""
    path, _, query = step.path.partition("?")
    around = {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in joined(sent).items()}
    around |= {"CONTENT_LENGTH": around.pop("HTTP_CONTENT_LENGTH", "")}
    return {**around, "REQUEST_METHOD": step.method, "PATH_INFO": path, "QUERY_STRING": query,
            "wsgi.url_scheme": "http", "SERVER_NAME": "site", "SERVER_PORT": "80"}  # fmt: skip


class Asgi(Origin):
    """``HttpCacheMiddleware``."""

    def build(self) -> None:
        async def app(scope: Any, receive: Any, send: Any) -> None:
            status, headers, body = self.answer()
            raw = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in headers]
            await send({"type": "http.response.start", "status": status, "headers": raw})
            await send({"type": "http.response.body", "body": body})

        self.site = HttpCacheMiddleware(app, self.cache, **self.options)

    def open(self, step: Step, sent: Lines) -> tuple[int, Lines, str]:
        got: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request"}

        async def send(message: Any) -> None:
            got.append(message)

        path, _, query = step.path.partition("?")
        raw = [(k.lower().encode("latin-1"), v.encode("latin-1")) for k, v in sent]
        scope = {"type": "http", "method": step.method, "path": path, "query_string": query.encode(),
                 "scheme": "http", "headers": raw}  # fmt: skip
        self.loop.run_until_complete(self.site(scope, receive, send))
        headers = [(k.decode("latin-1"), v.decode("latin-1")) for k, v in got[0]["headers"]]
        return got[0]["status"], headers, b"".join(m.get("body", b"") for m in got[1:]).decode()


class Wsgi(Origin):
    """``WsgiCacheMiddleware``."""

    def build(self) -> None:
        def app(environ: Any, start_response: Any) -> Any:
            status, headers, body = self.answer()
            start_response(f"{status} Fine", headers)
            return [body]

        self.site = WsgiCacheMiddleware(app, self.cache, **self.options)

    def open(self, step: Step, sent: Lines) -> tuple[int, Lines, str]:
        told: list[Any] = []
        parts = self.site(
            environ(step, sent), lambda status, headers, exc=None: told.extend([status, headers])
        )
        return int(told[0][:3]), told[1], b"".join(parts).decode()


class Flask(Origin):
    """``http_cached`` around a view of Flask."""

    def build(self) -> None:
        import flask

        app = flask.Flask("origin")

        @app.route("/<path:path>", methods=METHODS, provide_automatic_options=False)
        @http_cached(self.cache, **self.needed)
        def view(path: str) -> Any:
            status, headers, body = self.answer()
            answer = flask.Response(body, status=status)
            del answer.headers["Content-Type"]
            for name, value in headers:
                answer.headers.add(name, value)
            return answer

        self.site = app

    def open(self, step: Step, sent: Lines) -> tuple[int, Lines, str]:
        client = self.site.test_client(use_cookies=False)
        base, headers = "http://site", list(joined(sent).items())
        got = client.open(step.path, method=step.method, headers=headers, base_url=base)
        return got.status_code, list(got.headers.items()), got.text


class Django(Origin):
    """``cached_view`` around a view of Django."""

    def build(self) -> None:
        from django.conf import settings

        if not settings.configured:
            settings.configure()
        from eventperf.contrib.django.http import cached_view

        self.view = cached_view(cache=self.cache, **self.needed)(self.made)

    def made(self, request: Any) -> Any:
        from django.http import HttpResponse

        status, headers, body = self.answer()
        answer = HttpResponse(body, status=status)
        for name, value in joined(headers).items():
            answer[name] = value
        return answer

    def request(self, step: Step, sent: Lines) -> Any:
        from django.test import RequestFactory

        told = {k: v for k, v in environ(step, sent).items() if k not in ("wsgi.url_scheme", "PATH_INFO")}
        return RequestFactory().generic(step.method, step.path, **told)

    def open(self, step: Step, sent: Lines) -> tuple[int, Lines, str]:
        got = self.view(self.request(step, sent))
        return got.status_code, list(got.items()), got.content.decode()


class AsyncDjango(Django):
    """``cached_view`` around an ``async def`` of Django."""

    def build(self) -> None:
        super().build()
        from eventperf.contrib.django.http import cached_view

        async def made(request: Any) -> Any:
            return self.made(request)

        self.view = cached_view(cache=self.cache, **self.needed)(made)

    def open(self, step: Step, sent: Lines) -> tuple[int, Lines, str]:
        got = self.loop.run_until_complete(self.view(self.request(step, sent)))
        return got.status_code, list(got.items()), got.content.decode()


ADAPTERS = {"asgi": Asgi, "wsgi": Wsgi, "flask": Flask, "django": Django, "django-async": AsyncDjango}
NEED_A_LIFE = ("flask", "django", "django-async")
