"""The console mounted in each framework: the same pages, forms and refusals below any prefix."""

from __future__ import annotations

import asyncio
import io
import subprocess
import sys
from typing import Any

import pytest

from eventperf.cache import CacheManager
from eventperf.contrib.console import Console
from eventperf.contrib.console.guard import COOKIE, token_of
from eventperf.queues import QueueManager

CURE = "0123456789abcdef" * 3
FORM = {"csrf": token_of(CURE), "action": "queue.pause", "subject": "normal", "manager": "default"}
SENT = {"Origin": "http://testserver", "Cookie": f"{COOKIE}={CURE}"}


def console(seen: list[Any]) -> tuple[Console, QueueManager]:
    def may(request: Any, action: str, subject: str | None) -> bool:
        seen.append(request)
        return True

    queues = QueueManager("memory://")
    return Console(queues=queues, cache=CacheManager(), may=may), queues


def is_paused(queues: QueueManager) -> bool:
    return any(s.paused for s in queues.status())


def judge(get: Any, post: Any, queues: QueueManager, base: str) -> None:
    """Walk through it; ``get`` and ``post`` return status, headers and text."""
    status, headers, text = get(f"{base}/")
    assert status == 200
    assert f'href="{base}/queues"' in text
    assert COOKIE in headers["set-cookie"]
    assert f"Path={base}" in headers["set-cookie"]
    assert "default-src 'none'" in headers["content-security-policy"]
    for path in ("/queues", "/cache", "/console.css", "/console.js"):
        assert get(base + path)[0] == 200, path
    assert get(f"{base}/nope/deeper")[0] == 404
    assert post(f"{base}/queues", {**FORM, "csrf": "x"})[0] == 403
    assert not is_paused(queues)
    status, headers, _ = post(f"{base}/queues", FORM)
    assert status == 303
    assert headers["location"].startswith(f"{base}/queues?done=pause")
    assert is_paused(queues)
    assert post(f"{base}/queues", {**FORM, "more": "x" * 70_000})[0] == 413


def test_flask() -> None:
    flask = pytest.importorskip("flask")
    seen: list[Any] = []
    mounted, queues = console(seen)
    app = flask.Flask("shop")
    app.register_blueprint(mounted.flask_blueprint(), url_prefix="/ops")
    client = app.test_client()

    def get(path: str) -> Any:
        answer = client.get(path, base_url="http://testserver")
        return answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, answer.text

    def post(path: str, form: dict[str, str]) -> Any:
        client.set_cookie(COOKIE, CURE, domain="testserver", path="/ops")
        answer = client.post(
            path, data=form, base_url="http://testserver", headers={"Origin": SENT["Origin"]}
        )
        return answer.status_code, {k.lower(): v for k, v in answer.headers.items()}, answer.text

    judge(get, post, queues, "/ops")
    assert isinstance(seen[0], flask.Request)


@pytest.mark.parametrize("prefix", ["/ops", "/a/b"])
def test_fastapi(prefix: str) -> None:
    pytest.importorskip("fastapi")
    httpx = pytest.importorskip("httpx")
    from fastapi import FastAPI

    seen: list[Any] = []
    mounted, queues = console(seen)
    app = FastAPI()
    app.mount(prefix, mounted.asgi())

    def ask(method: str, path: str, **more: Any) -> Any:
        async def asked() -> Any:
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
                return await client.request(method, path, **more)

        answer = asyncio.run(asked())
        return answer.status_code, answer.headers, answer.text

    def get(path: str) -> Any:
        return ask("GET", path)

    def post(path: str, form: dict[str, str]) -> Any:
        return ask("POST", path, data=form, headers=SENT)

    judge(get, post, queues, prefix)
    assert seen[0]["type"] == "http"


@pytest.mark.parametrize("prefix", ["", "/ops"])
def test_wsgi(prefix: str) -> None:
    from wsgiref.util import setup_testing_defaults
    from wsgiref.validate import validator

    seen: list[Any] = []
    mounted, queues = console(seen)
    app = validator(mounted.wsgi())

    def ask(method: str, path: str, body: bytes = b"", **more: str) -> Any:
        environ: dict[str, Any] = {
            "REQUEST_METHOD": method, "SCRIPT_NAME": prefix, "PATH_INFO": path[len(prefix) :],
            "HTTP_HOST": "testserver", "QUERY_STRING": "", "wsgi.input": io.BytesIO(body), **more,
        }  # fmt: skip
        setup_testing_defaults(environ)
        told: list[Any] = []
        found = app(environ, lambda status, headers, exc=None: told.extend([status, headers]))
        text = b"".join(found).decode()
        found.close()  # type: ignore[attr-defined]
        return int(told[0].split()[0]), {k.lower(): v for k, v in told[1]}, text

    def post(path: str, form: dict[str, str]) -> Any:
        from urllib.parse import urlencode

        body = urlencode(form).encode()
        sent = {"HTTP_ORIGIN": SENT["Origin"], "HTTP_COOKIE": SENT["Cookie"]}
        kind = "application/x-www-form-urlencoded"
        return ask("POST", path, body, CONTENT_LENGTH=str(len(body)), CONTENT_TYPE=kind, **sent)

    if prefix:
        judge(lambda path: ask("GET", path), post, queues, prefix)
    else:
        assert ask("GET", "/")[0] == 200
        assert 'href="/queues"' in ask("GET", "/")[2]
    assert seen[0]["REQUEST_METHOD"]


DJANGO = """
import sys
sys.path.insert(0, {here!r})
import django
from django.conf import settings
settings.configure(
    DEBUG=True, ALLOWED_HOSTS=["*"], ROOT_URLCONF="__main__", SECRET_KEY="x",
    MIDDLEWARE=["django.middleware.security.SecurityMiddleware", "django.middleware.csrf.CsrfViewMiddleware",
                "django.middleware.clickjacking.XFrameOptionsMiddleware"],
)
django.setup()
from django.http import HttpRequest
from django.test import Client
from django.urls import include, path
import test_console_hosts as t
seen = []
mounted, queues = t.console(seen)
urlpatterns = [path("ops/", include(mounted.django_urls()))]
client = Client(enforce_csrf_checks=True)

def told(answer):
    headers = {{k.lower(): v for k, v in answer.headers.items()}}
    if t.COOKIE in answer.cookies:
        headers["set-cookie"] = answer.cookies[t.COOKIE].OutputString()
    return answer.status_code, headers, answer.content.decode()

def get(path):
    client.cookies.clear()
    return told(client.get(path, HTTP_HOST="testserver"))

def post(path, form):
    client.cookies[t.COOKIE] = t.CURE
    return told(client.post(path, form, HTTP_HOST="testserver", HTTP_ORIGIN=t.SENT["Origin"]))

t.judge(get, post, queues, "/ops")
assert isinstance(seen[0], HttpRequest)
print("walked")
"""


def test_django_below_its_own_protections() -> None:
    pytest.importorskip("django")
    from pathlib import Path

    code = DJANGO.format(here=str(Path(__file__).parent))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "walked\n", done.stderr[-3000:]


def test_an_event_loop_goes_on_while_a_store_is_slow() -> None:
    import threading

    waiting = threading.Event()

    class Slow(CacheManager):
        def stats(self) -> Any:
            waiting.wait(10)
            return super().stats()

    app = Console(cache=Slow(), may=lambda *a: True).asgi()
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "query_string": b""}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        sent.append(message)

    async def main() -> None:
        asked = asyncio.ensure_future(app(scope, receive, send))
        for _ in range(100):  # of which none would run if the loop waited for the store
            await asyncio.sleep(0)
        assert not sent
        waiting.set()
        await asked

    asyncio.run(main())
    assert sent[0]["status"] == 200
