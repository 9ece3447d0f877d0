"""The pages about moving in: each old call runs against the old library, each new one against ours."""

from __future__ import annotations

import ast
import asyncio
import importlib
import os
import re
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from eventperf.queues import QueueManager

# What the old libraries warn of is theirs.
pytestmark = [pytest.mark.integration, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

PAGES = Path(__file__).parents[3] / "docs/how-to"
CELL = re.compile(r"`([^`]*)`")
Rows = list[tuple[str, str, list[str]]]
WRITTEN = "redis://localhost:6379/0"
FUNCTIONS = """
def square(n):
    return n * n

def fail(n):
    raise ValueError("no such address")
"""


def rows(page: str, section: str) -> Rows:
    """Return the section's first table: old call, new call, and what they answer (one text, or two)."""
    text = (PAGES / page).read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    table = re.search(r"(?:^\|.*\n)+", text, re.M)
    assert table, f"{page}: {section}"
    lines = [line.strip("|\n").split(" | ") for line in table[0].splitlines()[2:]]
    cells = [[CELL.findall(cell) for cell in line] for line in lines]
    return [(old[0], new[0], told) for old, new, told in cells]


def told(code: str, names: dict[str, Any]) -> Any:
    """Run one call in ``names`` and return its answer, a coroutine where it awaits."""
    try:
        made = compile(code, code, "eval", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    except SyntaxError:
        made = compile(code, code, "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    return eval(made, names)


def check(line: tuple[str, str, list[str]], place: int, answer: Any) -> None:
    if answers := line[2]:
        assert repr(answer) == answers[place if len(answers) > 1 else 0], line[place]


def walk(found: Rows, place: int, names: dict[str, Any], url: str = WRITTEN) -> None:
    """Run every old call (0) or every new one (1), one after another."""
    assert len(found) > 5
    for line in found:
        check(line, place, told(line[place].replace(WRITTEN, url), names))


def needs(name: str) -> Any:
    """Import an old library; in CI its absence is a failure."""
    return importlib.import_module(name) if os.environ.get("CI") else pytest.importorskip(name)


# -- caches ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1], ids=["django-redis", "ours"])
def test_calls_of_django_redis(redis_url: str, place: int) -> None:
    needs("django_redis")
    from django.conf import settings

    if not settings.configured:
        settings.configure()
    from django.core.cache import caches
    from django.test import override_settings
    from django_redis import get_redis_connection

    backend = ("django_redis.cache.RedisCache", "eventperf.contrib.django.cache.EventPerfCache")[place]
    where = {"BACKEND": backend, "LOCATION": redis_url, "KEY_PREFIX": f"a[*{time.monotonic_ns()}"}
    with override_settings(CACHES={"default": where}):
        names = {
            "cache": caches["default"], "datetime": datetime, "timedelta": timedelta,
            "get_redis_connection": get_redis_connection,
        }  # fmt: skip
        walk(rows("migrating-cache.md", "From django-redis"), place, names)


@pytest.mark.parametrize("place", [0, 1], ids=["cashews", "ours"])
def test_calls_of_cashews(redis_url: str, place: int) -> None:
    needs("cashews")
    calls: list[int] = []

    async def slow(n: int) -> int:
        calls.append(n)
        return n * n

    async def all_of_them() -> None:
        names: dict[str, Any] = {"slow": slow, "calls": calls}
        for line in rows("migrating-cache.md", "From cashews"):
            answer = told(line[place].replace(WRITTEN, redis_url), names)
            check(line, place, await answer if asyncio.iscoroutine(answer) else answer)

    asyncio.run(all_of_them())


@pytest.mark.parametrize("place", [0, 1], ids=["dogpile", "ours"])
def test_calls_of_dogpile(redis_url: str, place: int) -> None:
    needs("dogpile.cache")
    calls: list[int] = []

    def plain(n: int) -> int:
        calls.append(n)
        return n * n

    names: dict[str, Any] = {"plain": plain, "calls": calls}
    walk(rows("migrating-cache.md", "From dogpile.cache"), place, names, redis_url)
    if place:
        names["cache"].close()


@pytest.mark.parametrize("place", [0, 1], ids=["flask-caching", "ours"])
def test_calls_of_flask_caching(redis_url: str, redis_client: Any, place: int) -> None:
    needs("flask_caching")
    import flask

    redis_client.flushdb()
    calls: list[int] = []
    app, pages = flask.Flask("site"), iter(range(1, 9))

    def plain(n: int) -> int:
        calls.append(n)
        return n * n

    names: dict[str, Any] = {
        "plain": plain, "calls": calls, "app": app, "client": app.test_client(),
        "page": lambda: f"page {next(pages)}",
    }  # fmt: skip
    names["page"].__name__ = "page"
    walk(rows("migrating-cache.md", "From Flask-Caching"), place, names, redis_url)
    if place:
        names["cache"].close()


@pytest.mark.parametrize("place", [0, 1], ids=["fastapi-cache", "ours"])
def test_calls_of_fastapi_cache(redis_url: str, redis_client: Any, place: int) -> None:
    needs("fastapi_cache")
    import fastapi
    import httpx
    from fastapi_cache import FastAPICache
    from redis.asyncio import Redis

    redis_client.flushdb()
    calls: list[int] = []
    pages = iter(range(1, 9))

    async def slow(n: int) -> int:
        calls.append(n)
        return n * n

    async def page(n: int) -> dict[str, int]:
        return {"n": n, "page": next(pages)}

    async def all_of_them() -> None:
        app = fastapi.FastAPI()
        transport = httpx.ASGITransport(app=app)
        async with (
            Redis.from_url(redis_url) as redis,
            httpx.AsyncClient(transport=transport, base_url="http://site") as client,
        ):
            names: dict[str, Any] = {
                "slow": slow, "calls": calls, "app": app, "page": page, "redis": redis, "client": client,
            }  # fmt: skip
            for line in rows("migrating-cache.md", "From fastapi-cache"):
                answer = told(line[place].replace(WRITTEN, redis_url), names)
                check(line, place, await answer if asyncio.iscoroutine(answer) else answer)
            if place:
                await names["site"].aclose()

    try:
        asyncio.run(all_of_them())
    finally:
        FastAPICache.reset()


# -- queues ----------------------------------------------------------------------------------------------


def ours() -> dict[str, Any]:
    def square(ctx: Any, n: int) -> int:
        return n * n

    def fail(ctx: Any, n: int) -> None:
        raise ValueError("no such address")

    def work(queues: QueueManager) -> None:
        queues.worker().run(burst=True)

    return {"square": square, "fail": fail, "work": work, "timedelta": timedelta}


@pytest.fixture
def functions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Functions in a module of their own: the old libraries find them by path."""
    (tmp_path / "moved_functions.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    sys.modules.pop("moved_functions", None)
    return importlib.import_module("moved_functions")


def walk_queue(section: str, place: int, names: dict[str, Any], url: str = WRITTEN) -> None:
    walk(rows("migrating-queues.md", section), place, names, url)


def test_calls_of_celery(functions: Any) -> None:
    needs("celery")
    from celery.contrib.testing.worker import start_worker
    from celery.signals import setup_logging

    names: dict[str, Any] = {"square": functions.square, "fail": functions.fail}

    def work() -> None:
        with start_worker(names["app"], perform_ping_check=False, pool="solo"):
            for name in ("result", "fast", "late", "many", "broken"):
                if name in names:
                    names[name].get(timeout=60, propagate=False)

    def leave_alone(**_: object) -> None:
        """Keep Celery from setting up the logging of this process."""

    names["work"] = work
    setup_logging.connect(leave_alone)
    try:
        walk_queue("From Celery", 0, names)
    finally:
        setup_logging.disconnect(leave_alone)


def test_calls_of_rq(functions: Any, redis_url: str, redis_client: Any) -> None:
    needs("rq")

    def work(queue: Any) -> None:
        command = [sys.executable, "-m", "rq.cli", "worker", "--burst", "--url", redis_url, queue.name]
        subprocess.run(command, check=True, capture_output=True, timeout=120)

    names = {"square": functions.square, "redis": redis_client, "timedelta": timedelta, "work": work}
    walk_queue("From RQ", 0, names)


def test_calls_of_dramatiq(functions: Any) -> None:
    dramatiq = needs("dramatiq")
    from dramatiq.brokers.stub import StubBroker
    from dramatiq.results import Results
    from dramatiq.results.backends import StubBackend

    broker = StubBroker()
    broker.add_middleware(Results(backend=StubBackend()))
    dramatiq.set_broker(broker)
    names: dict[str, Any] = {"square": functions.square, "broker": broker}

    def work(broker: Any) -> None:
        worker = dramatiq.Worker(broker, worker_timeout=20)
        worker.start()
        try:
            names["sent"].get_result(block=True, timeout=60_000)
        finally:
            worker.stop()

    names["work"] = work
    walk_queue("From dramatiq", 0, names)


@pytest.mark.parametrize("section", ["From Celery", "From RQ", "From dramatiq"])
def test_our_calls_for_those_of(section: str, redis_url: str) -> None:
    names = ours()
    walk_queue(section, 1, names, redis_url)
    names["queues"].close()
