"""What belongs to one caller is refused when it is loaded, by name and with the cure; the rest is kept."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import dataclasses
import io
import socket
import sqlite3
import tempfile
import threading
from collections import OrderedDict, defaultdict, deque
from pathlib import Path
from types import SimpleNamespace

import msgspec
import pytest

from eventperf.cache import CacheManager, NotCacheable
from eventperf.cache.values.single_use import refuse_single_use


def rows():
    yield 1


async def pages():
    yield 1


async def load():
    return 1


def future():
    loop = asyncio.new_event_loop()
    loop.close()
    return asyncio.Future(loop=loop)


@contextlib.contextmanager
def opened():
    yield 1


@dataclasses.dataclass
class Page:
    rows: object
    total: int = 1


class Sheet(msgspec.Struct):
    rows: object


def starlette(name, *args):
    return getattr(pytest.importorskip("starlette.responses"), name)(*args)


def flask_response(body):
    return pytest.importorskip("flask").Response(body)


def httpx_response(**given):
    httpx = pytest.importorskip("httpx")
    return httpx.Response(200, **given)


def requests_response(content):
    response = pytest.importorskip("requests").Response()
    response._content = content
    return response


def session(kind):
    orm = pytest.importorskip("sqlalchemy.orm")
    return orm.scoped_session(orm.sessionmaker()) if kind == "scoped" else orm.Session()


def async_session():
    return pytest.importorskip("sqlalchemy.ext.asyncio").AsyncSession()


def http_session(library, kind):
    return getattr(pytest.importorskip(library), kind)()


# ruff: noqa: SIM115 - files that are meant to stay open
ONCE = [
    (rows, "yields"), (pages, "yields"), (lambda: iter([1]), "yields"), (lambda: map(str, [1]), "yields"),
    (lambda: csv.reader(["a"]), "yields"), (lambda: Page(rows()), "yields"), (lambda: [1, rows()], "yields"),
    (lambda: {"rows": rows(), "total": 1}, "yields"), (lambda: (1, ([rows()],)), "yields"),
    (lambda: {rows()}, "yields"), (lambda: deque([rows()]), "yields"),
    (lambda: {"a": rows()}.items(), "yields"),
    (lambda: OrderedDict(a=rows()), "yields"), (lambda: defaultdict(list, a=rows()), "yields"),
    (lambda: SimpleNamespace(a=rows()), "yields"), (lambda: Sheet(rows()), "yields"),
    (load, "await"), (future, "await"),
    (lambda: io.StringIO("a"), "text or bytes"), (lambda: open(__file__), "text or bytes"),
    (lambda: tempfile.NamedTemporaryFile(), "text or bytes"), (opened, "entered"),
    (lambda: starlette("StreamingResponse", iter(["a"])), "whole body"),
    (lambda: flask_response(rows()), "whole body"), (lambda: httpx_response(stream=object()), "whole body"),
    (lambda: requests_response(False), "whole body"),
    (lambda: sqlite3.connect(":memory:"), "belongs to the caller"),
    (lambda: sqlite3.connect(":memory:").cursor(), "caller"), (socket.socket, "caller"),
    (lambda: session("scoped"), "caller"), (lambda: session("plain"), "caller"), (async_session, "caller"),
    (lambda: http_session("requests", "Session"), "caller"),
    (lambda: http_session("httpx", "Client"), "caller"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "cure"), ONCE, ids=range(len(ONCE)))
def test_what_is_used_up_by_one_reader_is_refused_by_name(make, cure):
    value = make()
    with pytest.raises(NotCacheable, match="cannot cache a .* under 'k': .*" + cure):
        refuse_single_use("k", value)
    if isinstance(value, (io.IOBase, socket.socket, sqlite3.Connection)) or hasattr(value, "file"):
        value.close()


class Streaming:
    """Its words are those of streams, what it holds is data."""

    streaming = True
    is_streamed = True

    def read(self):
        return 1


KEPT = [
    None, 1, "a", [1, 2], {"a": [1]}, range(3), {1: 2}.keys(), Page([1]), SimpleNamespace(a=1), object(),
    threading.Lock(), Path("a"), Streaming(), Page, rows, io, re_match := __import__("re").match("a", "a"),
]  # fmt: skip


@pytest.mark.parametrize("value", KEPT, ids=range(len(KEPT)))
def test_what_every_reader_finds_as_it_was_is_kept(value):
    refuse_single_use("k", value)


def test_whole_responses_are_kept():
    refuse_single_use("k", starlette("JSONResponse", {"a": 1}))
    refuse_single_use("k", flask_response("text"))
    refuse_single_use("k", httpx_response(text="a"))
    refuse_single_use("k", requests_response(b"a"))


def test_the_first_call_is_refused_and_the_next_one_is_too():
    with CacheManager() as cache:
        for _ in range(2):
            with pytest.raises(NotCacheable, match=r"under 'rows': .* return a list"):
                cache.get_or_load("rows", rows)
            with pytest.raises(NotCacheable, match=r"under 'b': .* return a list"):
                cache.get_or_load_many(["a", "b"], lambda keys: {"a": 1, "b": iter([1])})
            with pytest.raises(NotCacheable):
                cache.set("rows", rows())
            with pytest.raises(NotCacheable):
                asyncio.run(cache.aget_or_load("page", pages))
        assert cache.get("rows") is cache.get("page") is None


@pytest.mark.parametrize("function", [rows, pages])
def test_a_generator_function_is_refused_when_it_is_decorated(function):
    with CacheManager() as cache, pytest.raises(NotCacheable, match=f"generator .*{function.__name__}.*list"):
        cache.cached(ttl=60)(function)
