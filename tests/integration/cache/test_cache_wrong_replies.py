"""A line that drips, garbage, answers to something else: an outage of that connection, never a raw error."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from uuid import uuid4

import pytest

from eventperf.cache import CacheManager, RedisStore, StoreUnavailable
from eventperf.cache.backends.redis import direct_plain
from eventperf.cache.backends.redis.direct_plain import _Link
from faults import wait_until

pytestmark = pytest.mark.integration


class Between:
    """Stands between a cache and a real Redis; once it is told to, the next answer is another, or all drip.

    Attributes:
        answer: What is sent in place of the next answer, and nothing after it; ``None`` passes all on.
        drips: Answers come a byte at a time, each long before a time-out.
    """

    def __init__(self, host: str, port: int) -> None:
        self.answer: bytes | None = None
        self.drips = False
        self.accepted = 0
        self._target = (host, port)
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def _start(self, target, *args) -> None:
        self._threads.append(threading.Thread(target=target, args=args, daemon=True))
        self._threads[-1].start()

    def close(self) -> None:
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(30)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.accepted += 1
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with client, socket.create_connection(self._target) as server:
            forth = threading.Thread(target=self._pass_on, args=(client, server, False), daemon=True)
            forth.start()
            self._pass_on(server, client, True)
            forth.join(30)

    def _pass_on(self, here: socket.socket, there: socket.socket, is_answer: bool) -> None:
        with contextlib.suppress(OSError):
            while (data := here.recv(65536)) and not self._ended.is_set():
                if is_answer and self.answer is not None:
                    data, self.answer = self.answer, b""
                if not (is_answer and self.drips):
                    there.sendall(data)
                    continue
                for n in range(len(data)):
                    there.sendall(data[n : n + 1])
                    if self._ended.wait(0.02):
                        break
        for one in (here, there):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def between(redis_server):
    made = Between(redis_server.host, redis_server.port)
    yield made
    made.close()


@pytest.fixture
def store(between):
    made = RedisStore(f"redis://127.0.0.1:{between.port}", timeout=20)
    yield made
    between.answer = None
    made.close()


BLOB = b"x" * 500
WRONG = {
    "a number": b":1\r\n",
    "another number": b":-7\r\n",
    "bytes": b"$5\r\nhello\r\n",
    "a status": b"+PONG\r\n",
    "nothing": b"$-1\r\n",
    "an empty list": b"*0\r\n",
    "a list of lists": b"*3\r\n*0\r\n*0\r\n*0\r\n",
    "three texts": b"*3\r\n$1\r\na\r\n$1\r\nb\r\n$1\r\nc\r\n",
    "an unknown state": b"*3\r\n:9\r\n:0\r\n:0\r\n",
    "garbage": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "a length that is none": b"$abc\r\n",
}
VALUES, COUNTS, NEVER = {"bytes", "a status", "nothing"}, {"a number", "another number"}, set()
ACQUIRED = {"lease_s": 5, "force": set()}
CALLS = {
    "get": (("k",), {}, 1, VALUES),
    "get_many": ((["k", "l"],), {}, 1, NEVER),
    "set_many": (([("k", BLOB, 60)],), {}, 1, NEVER),
    "set_many of two": (([("k", BLOB, 60), ("l", BLOB, 60)],), {}, 2, NEVER),
    "delete": ((["k"],), {}, 1, COUNTS),
    "touch": (("k", 1.0, 2.0, 60), {}, 1, COUNTS),
    "incr": (("n", 1), {"ttl_s": 60}, 1, NEVER),
    "add": (("k", 1), {}, 1, {"an unknown state"}),
    "put_new": (("k", BLOB, 60, b""), {}, 1, COUNTS),
    "acquire_many": ((["k"], "t" * 16), ACQUIRED, 1, NEVER),
    "acquire_many of two": ((["k", "l"], "t" * 16), ACQUIRED, 2, NEVER),
    "store_many": (("t" * 16, [("k", BLOB, 60)]), {}, 1, COUNTS),
    "release_many": (("t" * 16, ["k"]), {}, 1, COUNTS),
    "tag_versions": ((["t"], "s" * 16, 60), {}, 1, NEVER),
    "bump_tags": ((["t"], "s" * 16), {}, 1, NEVER),
    "keys": (("*",), {}, 1, NEVER),
    "delete_pattern": (("none*",), {}, 1, NEVER),
    "publish": ((b"word",), {}, 1, COUNTS),
}  # fmt: skip


@pytest.mark.parametrize("call", CALLS)
def test_an_answer_that_does_not_fit_is_an_outage_and_no_raw_error(between, store, call):
    args, options, replies, fitting = CALLS[call]
    verb = getattr(store, call.split()[0])
    for name, answer in WRONG.items():
        # Connections of both kinds, made while the line is good, and scripts that the server knows.
        store.get("k")
        verb(*args, **options)
        between.answer = answer * replies
        if name in fitting:
            verb(*args, **options)
        else:
            with pytest.raises(StoreUnavailable) as caught:
                verb(*args, **options)
            assert caught.value.silent, name
        between.answer = None


@pytest.mark.parametrize("call", [call for call in CALLS if call not in ("keys", "delete_pattern")])
def test_to_tasks_it_is_the_same(between, store, call):
    args, options, replies, fitting = CALLS[call]
    verb = getattr(store, f"a{call.split()[0]}")

    async def main():
        for name, answer in WRONG.items():
            await store.aget("k")
            await verb(*args, **options)
            between.answer = answer * replies
            if name in fitting:
                await verb(*args, **options)
            else:
                with pytest.raises(StoreUnavailable) as caught:
                    await verb(*args, **options)
                assert caught.value.silent, name
            between.answer = None
        await store.aclose()

    asyncio.run(main())


@pytest.mark.parametrize(
    "call",
    [
        lambda c: c.get_or_load("n", lambda: 1) == 1,
        lambda c: c.get_or_load_many(["n", "m"], lambda keys: dict.fromkeys(keys, 1)) == {"n": 1, "m": 1},
        lambda c: c.invalidate("k") == 0,
        lambda c: c.lock("n", ttl=5).acquire(wait=0),
    ],
    ids=["get_or_load", "get_or_load_many", "invalidate", "lock"],
)
def test_a_cache_goes_on_without_such_a_server(between, store, call):
    with CacheManager(store, namespace=f"w{uuid4().hex[:8]}", l1=None, coherence="ttl") as cache:
        assert cache.get("k") is None
        cache.set("k", 1)
        with cache.lock("warm", ttl=5):
            between.answer = b"*3\r\n*0\r\n*0\r\n*0\r\n"
            with contextlib.suppress(StoreUnavailable):  # of a lock: nobody knows who holds it
                assert call(cache)
            assert cache.stats().store_errors
            between.answer = None
            wait_until(lambda: cache.stats().breaker == "closed", 60, what="the probe")


def test_a_connection_whose_answers_got_out_of_step_is_not_used_again(between, store):
    store.set_many([("k", BLOB, 60)])
    store.set_many([("l", b"other", 60)])
    assert store.get("k") == BLOB
    between.answer = b":1\r\n$5\r\nwrong\r\n"  # one answer too many: it would be taken for the next
    with pytest.raises(StoreUnavailable):
        store.get("k")
    between.answer, before = None, between.accepted
    assert store.get("l") == b"other"
    assert between.accepted > before


@pytest.mark.parametrize("many", [False, True])
@pytest.mark.parametrize("by_task", [False, True])
def test_a_line_that_drips_is_silent(between, redis_server, many, by_task):
    """Each byte comes long before the time-out; the answer does not."""
    store = RedisStore(f"redis://127.0.0.1:{between.port}", timeout=0.4)
    name = f"drip-{uuid4().hex[:8]}"
    with CacheManager(store, namespace=name, l1=None, coherence="ttl") as cache:
        cache.set_many({"k": "x" * 2000, "l": 1})
        assert cache.get("k") == "x" * 2000

        async def main():
            assert await cache.aget("k") == "x" * 2000
            between.drips = True
            return await (cache.aget_many(["k", "l"]) if many else cache.aget("k"))

        if by_task:
            found = asyncio.run(main())
        else:
            between.drips = True
            found = cache.get_many(["k", "l"]) if many else cache.get("k")
        assert not found
        assert cache.stats().store_errors == 1
        between.drips = False


WRITES = {
    "set_many": ([("k", BLOB, 60)],), "set_many of two": ([("k", BLOB, 60), ("l", BLOB, 60)],),
    "a large value": ([("k", BLOB * 200, 60)],), "delete": (["k"],), "touch": ("k", 1.0, 2.0, 60),
    "put_new": ("k", BLOB, 60, b""), "store_many": ("t" * 16, [("k", BLOB, 60)] * 2),
    "tag_versions": (["t", "u"], "s" * 16, 60), "bump_tags": (["t"], "s" * 16), "publish": (b"[]",),
    "acquire_many": (["k", "l"], "t" * 16),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITES)
def test_a_write_of_a_thread_has_one_time_out_for_the_whole_call(between, name):
    """Answers come a byte in 20 ms without an end in sight: each long before a time-out of its own."""
    store = RedisStore(f"redis://127.0.0.1:{between.port}", timeout=0.2)
    verb = {"a large value": "set_many"}.get(name, name.split()[0])
    options = ACQUIRED if verb == "acquire_many" else {}
    getattr(store, verb)(*WRITES[name], **options)  # the script is known, a connection is open
    between.answer, between.drips = b"+" * 100_000, True
    with pytest.raises(StoreUnavailable) as caught:
        getattr(store, verb)(*WRITES[name], **options)
    assert caught.value.silent
    between.drips = False
    store.close()


def test_a_large_answer_on_a_slow_line_has_its_time():
    """More than a time-out goes by, and every byte of it is needed."""
    ours, theirs = socket.socketpair()

    class Connection:
        _sock = ours

    class Clock:
        now = 0.0

    hiredis = pytest.importorskip("hiredis")
    ours.settimeout(1)
    link = _Link(Connection, hiredis.Reader())

    def slow_recv(size):
        Clock.now += 0.02  # 65,536 bytes in 20 ms
        return ours.recv(65_536)

    class Sock:
        recv = staticmethod(slow_recv)
        gettimeout = staticmethod(ours.gettimeout)
        settimeout = staticmethod(ours.settimeout)

    link.sock = Sock
    data = b"$10000000\r\n" + bytes(10_000_000) + b"\r\n"
    sender = threading.Thread(target=theirs.sendall, args=(data,), daemon=True)
    sender.start()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(direct_plain.time, "monotonic", lambda: Clock.now)
        (reply,) = link.receive(1, 0)
    sender.join(30)
    assert len(reply) == 10_000_000
    assert Clock.now > 1
    assert ours.gettimeout() == 1
    ours.close()
    theirs.close()
