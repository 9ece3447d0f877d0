"""``cached_view`` in Django: kept for everybody, and a page with a token or a session for nobody else."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("django")

CODE = """
import asyncio, django, sys
from django.conf import settings
settings.configure(
    DEBUG=True, ALLOWED_HOSTS=["*"], ROOT_URLCONF="__main__", SECRET_KEY="x",
    INSTALLED_APPS=["django.contrib.sessions"],
    USE_I18N=True, USE_TZ=True, LANGUAGES=[("de", ""), ("en", "")],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware",
                "django.middleware.locale.LocaleMiddleware", "__main__.zone",
                "django.middleware.csrf.CsrfViewMiddleware"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
)
django.setup()
from django.http import Http404, HttpResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.core.handlers.asgi import ASGIHandler
from django.template import engines
from django.template.response import TemplateResponse
from django.test import AsyncClient, Client
from django.urls import path
from django.utils import timezone, translation
from django.views.decorators.cache import cache_control, never_cache
from eventperf.cache import CacheManager
from eventperf.contrib.django.http import cached_view

from eventperf.errors import ConfigurationError
from eventperf.testing import FakeClock

clock = FakeClock()
cache, calls = CacheManager(clock=clock), []

def zone(get_response):
    def middleware(request):
        with timezone.override(request.headers.get("X-Zone", "UTC")):
            return get_response(request)
    return middleware

def seen(name, answer):
    def view(request, **given):
        calls.append(name)
        return answer(request, **given)
    return view

made = []

def slowly():
    for piece in (b"a", b"b"):
        made.append(piece)
        yield piece

def login(request):
    request.session["user"] = "alice"
    return HttpResponse("welcome alice")

def here(request):
    return HttpResponse(f"{translation.get_language()} {timezone.get_current_timezone_name()}")

async def slow(request, n):
    calls.append("async")
    await asyncio.sleep(0)
    return TemplateResponse(request, engines["django"].from_string("async {{ n }}"), {"n": n})

async def private(request):
    calls.append("private")
    answer = HttpResponse("x")
    answer.set_cookie("a", "b")
    return answer

def breaks(request):
    if calls and calls[-1] == "break":
        raise LookupError("broken view")
    if calls and calls[-1] == "gone":
        raise Http404("gone")
    return HttpResponse("fine")

keep = cached_view("1m", cache, tags=lambda **given: [f"event:{given['n']}"] if given else ["all"])
urlpatterns = [
    path("event/<int:n>", keep(seen("event", lambda request, n: HttpResponse(f"event {n}")))),
    path("body", keep(lambda request: HttpResponse(request.body or b"clean"))),
    path("here", keep(here)),
    path("async/<int:n>", keep(slow)),
    path("private", keep(private)),
    path("hidden", keep(lambda request: private(request))),
    path("breaks", cached_view("1m", cache, grace="1h", clock=clock)(breaks)),
    path("form", keep(seen("form", lambda request: HttpResponse(get_token(request))))),
    path("login", keep(seen("login", login))),
    path("stream", keep(seen("stream", lambda request: StreamingHttpResponse(iter([b"a", b"b"]))))),
    path("slow", keep(lambda request: StreamingHttpResponse(slowly()))),
    path("never", keep(never_cache(seen("never", lambda request: HttpResponse("x"))))),
    path("cookie", keep(seen("cookie", lambda request: [r := HttpResponse("x"), r.set_cookie("a", "b")][0]))),
]

def ask(url, **more):
    return Client().get(url, **more)

assert [ask("/event/1").content for _ in range(2)] == [b"event 1"] * 2
assert ask("/event/2").content == b"event 2"
tag = ask("/event/1").headers["ETag"]
assert ask("/event/1", HTTP_IF_NONE_MATCH=tag).status_code == 304
assert calls == ["event", "event"], calls
cache.invalidate_tags("event:1")
ask("/event/1"), ask("/event/2")
assert calls == ["event"] * 3, calls
assert ask("/form").content != ask("/form").content, "a token belongs to a cookie"
for name in ("login", "stream", "never", "cookie"):
    before = calls.count(name)
    ask(f"/{name}"), ask(f"/{name}")
    assert calls.count(name) == before + 2, name
for _ in range(2):
    made.clear()
    assert next(iter(ask("/slow").streaming_content)) == b"a"
    assert made == [b"a"], "nothing is read ahead of who asks"
client = Client()
client.cookies["sessionid"] = "bob"
before = len(calls)
client.get("/event/1")
assert len(calls) == before + 1, "whoever has a cookie is answered by the view"
for _ in range(2):
    for lang, tz in (("de", "UTC"), ("en", "UTC"), ("de", "Asia/Tokyo")):
        answer = ask("/here", HTTP_ACCEPT_LANGUAGE=lang, HTTP_X_ZONE=tz)
        assert answer.content.decode() == f"{lang} {tz}", (lang, tz, answer.content)
assert "hit" in answer.headers["Cache-Status"]

async def tasks():
    for _ in range(2):
        assert (await AsyncClient().get("/async/7")).content == b"async 7"
        assert "a" in (await AsyncClient().get("/private")).cookies
    assert (await AsyncClient().get("/private", headers={"Private-Token": "alice"})).content == b"x"
    sent = [await by_asgi(body=b) for b in (b"evil", b"", b"")]
    assert sent == [b"evil", b"clean", b"clean"], sent
    before = len(calls)
    for user in (True, True):
        await by_asgi(path="/event/9", user=user)
    assert len(calls) == before + 2, "a middleware outside knows who asks"

async def by_asgi(path="/body", body=b"", **around):
    got, messages = [], [{"type": "http.request", "body": body}]
    async def receive():
        if messages:
            return messages.pop()
        await asyncio.Event().wait()
    async def send(message):
        got.append(message)
    scope = {"type": "http", "method": "GET", "path": path, "query_string": b"", "headers": [(b"host", b"h")]}
    await ASGIHandler()({**scope, **around}, receive, send)
    return b"".join(m.get("body", b"") for m in got)

asyncio.run(tasks())
assert (calls.count("async"), calls.count("private")) == (1, 3), calls
cache.invalidate_tags("event:7")
assert ask("/async/7").content == b"async 7"
assert calls.count("async") == 2
try:
    ask("/hidden")
except ConfigurationError as error:
    assert "markcoroutinefunction" in str(error)
else:
    raise AssertionError("a coroutine that nobody could see is told")
ask("/breaks")
clock.advance(61)
calls.append("break")
assert ask("/breaks").content == b"fine"
calls.append("gone")
assert ask("/breaks").status_code == 404, "a refusal is no error"
try:
    cached_view("1m", cache, tags=lambda other: [])(slow)
    cached_view("1m", cache, tags=lambda: [])(slow)
except ConfigurationError as error:
    assert "(n)" in str(error), error
else:
    raise AssertionError("tags that the view has none of")
print("kept")
"""


def test_views_are_kept_for_everybody_and_personal_ones_for_nobody() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.stdout == "kept\n", done.stderr[-3000:]
