"""``cached_view`` in Django: kept for everybody, and a page with a token or a session for nobody else."""

from __future__ import annotations

import subprocess
import sys

import pytest

pytest.importorskip("django")

CODE = """
import django
from django.conf import settings
settings.configure(
    DEBUG=True, ALLOWED_HOSTS=["*"], ROOT_URLCONF="__main__", SECRET_KEY="x",
    INSTALLED_APPS=["django.contrib.sessions"],
    SESSION_ENGINE="django.contrib.sessions.backends.signed_cookies",
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware",
                "django.middleware.csrf.CsrfViewMiddleware"],
    TEMPLATES=[{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
)
django.setup()
from django.http import HttpResponse, StreamingHttpResponse
from django.middleware.csrf import get_token
from django.test import Client
from django.urls import path
from django.views.decorators.cache import cache_control, never_cache
from eventperf.cache import CacheManager
from eventperf.contrib.django.http import cached_view

cache, calls = CacheManager(), []

def seen(name, answer):
    def view(request, **given):
        calls.append(name)
        return answer(request, **given)
    return view

def login(request):
    request.session["user"] = "alice"
    return HttpResponse("welcome alice")

keep = cached_view("1m", cache, tags=lambda **given: [f"event:{given['n']}"] if given else ["all"])
urlpatterns = [
    path("event/<int:n>", keep(seen("event", lambda request, n: HttpResponse(f"event {n}")))),
    path("form", keep(seen("form", lambda request: HttpResponse(get_token(request))))),
    path("login", keep(seen("login", login))),
    path("stream", keep(seen("stream", lambda request: StreamingHttpResponse(iter([b"a", b"b"]))))),
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
client = Client()
client.cookies["sessionid"] = "bob"
before = len(calls)
client.get("/event/1")
assert len(calls) == before + 1, "whoever has a cookie is answered by the view"
print("kept")
"""


def test_views_are_kept_for_everybody_and_personal_ones_for_nobody() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=False)
    assert done.stdout == "kept\n", done.stderr[-3000:]
