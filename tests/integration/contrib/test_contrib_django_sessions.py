"""Sessions: a logout while Redis is frozen stays a logout, in every process; nobody else is logged out."""

from __future__ import annotations

import subprocess
import sys

import pytest

from faults import wait_until

pytest.importorskip("django")

PROGRAM = """
import sys, time
from django.conf import settings
settings.configure(
    CACHES={"default": {"BACKEND": "eventperf.contrib.django.cache.EventPerfCache", "LOCATION": sys.argv[1],
                        "OPTIONS": {"timeout": 0.2, "l1_entries": int(sys.argv[2])}}},
    SESSION_ENGINE="eventperf.contrib.django.sessions", SECRET_KEY="x", ALLOWED_HOSTS=["*"],
    ROOT_URLCONF="__main__",
    MIDDLEWARE=["django.contrib.sessions.middleware.SessionMiddleware"],
)
import django; django.setup()
from django.http import HttpResponse
from django.test import Client
from django.urls import path

def login(request): request.session["user"] = request.GET["who"]; return HttpResponse("in")
def logout(request): request.session.flush(); return HttpResponse("out")
def who(request): return HttpResponse(str(request.session.get("user")))
def mark(request): request.session["mark"] = 1; return HttpResponse("marked")
urlpatterns = [path("login", login), path("logout", logout), path("who", who), path("mark", mark)]

def ask(line):
    verb, cookie = line.split()
    client = Client()
    if cookie != "-": client.cookies["sessionid"] = cookie
    response = client.get("/" + verb)
    there = client.cookies.get("sessionid")
    return f"{response.content.decode()} {there.value if there and there.value else '-'}"

print("ready", flush=True)
for line in sys.stdin:
    print(ask(line), flush=True)
"""


class Server:
    """A process that serves requests, one line each."""

    def __init__(self, url: str, l1_entries: int) -> None:
        args = [sys.executable, "-c", PROGRAM, url, str(l1_entries)]
        self.process = subprocess.Popen(args, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._line() == "ready"

    def _line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def get(self, verb: str, cookie: str = "-") -> tuple[str, str]:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{verb} {cookie}\n")
        self.process.stdin.flush()
        text, left = self._line().split()
        return text, left

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.mark.parametrize("l1_entries", [0, 1000])
def test_a_logout_while_redis_is_frozen_stays_one_in_every_process(private_redis, l1_entries):
    server = private_redis()
    url = server.url
    one, other = Server(url, l1_entries), Server(url, l1_entries)
    try:
        _, ann = one.get("login?who=ann")
        _, bob = one.get("login?who=bob")
        assert one.get("who", ann) == other.get("who", ann) == ("ann", ann)
        server.sigstop()
        text, left = other.get("logout", ann)
        assert (text, left) == ("out", "-")
        assert one.get("mark", bob)[1] == bob, "a cookie is not dropped for what nobody can tell"
        server.sigcont()
        key = f"*sessions*{ann}"
        wait_until(lambda: not server.execute("KEYS", key), 15, what="the logout is made up for")
        wait_until(lambda: one.get("who", bob)[0] == "bob", 15, what="the server is in use again")
        assert one.get("who", ann)[0] == other.get("who", ann)[0] == "None"
        assert other.get("who", bob)[0] == "bob", "nothing was written over it"
    finally:
        one.close()
        other.close()
