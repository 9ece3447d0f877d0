"""A server in Redis' place: answers that drip, that announce gigabytes or that do not end."""

from __future__ import annotations

import asyncio
import re
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from eventperf._core.errors import BackendUnavailable, EventPerfError
from eventperf._redis import answers
from eventperf._redis.answers import Answers, Misread
from eventperf.cache import CacheManager
from eventperf.queues import QueueManager
from eventperf.queues.backends.redis import backend
from eventperf.scaling.backends.redis_state import RedisState

pytestmark = pytest.mark.integration

Lie = Callable[[socket.socket, threading.Event], None]


def drips(line: socket.socket, over: threading.Event) -> None:
    line.sendall(b"$100000\r\n")
    while not over.wait(0.01):
        line.sendall(b"a")


def drips_its_head(line: socket.socket, over: threading.Event) -> None:
    while not over.wait(0.01):
        line.sendall(b"+")


def drips_items(line: socket.socket, over: threading.Event) -> None:
    line.sendall(b"*100000\r\n")
    while not over.wait(0.01):
        line.sendall(b":1\r\n")


def says(text: bytes) -> Lie:
    def lie(line: socket.socket, over: threading.Event) -> None:
        line.sendall(text)
        over.wait(60)

    return lie


def repeats(head: bytes, text: bytes) -> Lie:
    def lie(line: socket.socket, over: threading.Event) -> None:
        line.sendall(head)
        while not over.is_set():
            line.sendall(text)

    return lie


GREETINGS = {b"HELLO": b"%1\r\n$5\r\nproto\r\n:3\r\n"}
DRIPS: dict[str, Lie] = {"a text": drips, "a head": drips_its_head, "items": drips_items}
CLAIMS: dict[str, Lie] = {
    "a text of 99 GB": says(b"$99999999999\r\n" + b"a" * 1000),
    "a list of 4 billion": says(b"*4000000000\r\n:1\r\n"),
    "one within another": says(b"*2\r\n:1\r\n*4000000000\r\n"),
    "a number too long": says(b"$" + b"9" * 5000 + b"\r\n"),
    "lists without an end": repeats(b"", b"*1\r\n" * 1000),
    "a line without an end": repeats(b"+", b"a" * 65536),
    "texts without an end": repeats(b"*1000000\r\n", b"$65536\r\n" + b"a" * 65536 + b"\r\n"),
}


@pytest.fixture
def liar() -> Iterator[Callable[[Lie], str]]:
    """Start a server that greets as Redis does and then lies; returns its URL."""
    over, doors = threading.Event(), []

    def serve(line: socket.socket, lie: Lie) -> None:
        with line, suppress(OSError):
            while data := line.recv(65536):
                greetings = re.findall(rb"SETINFO|SELECT|HELLO|MAINT_NOTIFICATIONS", data)
                if not greetings:
                    lie(line, over)
                    return
                line.sendall(b"".join(GREETINGS.get(word, b"+OK\r\n") for word in greetings))

    def start(lie: Lie) -> str:
        door = socket.create_server(("127.0.0.1", 0))
        doors.append(door)

        def accept() -> None:
            with suppress(OSError):
                while True:
                    line, _ = door.accept()
                    threading.Thread(target=serve, args=(line, lie), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        return f"redis://127.0.0.1:{door.getsockname()[1]}/0"

    yield start
    over.set()
    for door in doors:
        with suppress(OSError):
            door.shutdown(socket.SHUT_RDWR)
        door.close()


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "COMMAND_TIMEOUT_S", 0.4)
    monkeypatch.setattr(answers, "MOST_BYTES", 4 << 20)


def ends(call: Callable[[], object]) -> BaseException | None:
    """Return what a call raised; one that is held by the server is told as such."""
    raised: list[BaseException | None] = []

    def run() -> None:
        try:
            call()
        except BaseException as error:
            raised.append(error)
        else:
            raised.append(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(60)
    assert raised, "the server holds the call"
    return raised[0]


def first_cause(error: BaseException | None) -> BaseException | None:
    while error is not None and error.__cause__ is not None:
        error = error.__cause__
    return error


def of_queues(url: str, verb: str) -> BaseException | None:
    with QueueManager(url) as queues:
        calls: dict[str, Callable[[], object]] = {
            "enqueue": lambda: queues.enqueue("t", 1),
            "status": queues.status,
            "result": lambda: queues.result("1"),
            "cancel": lambda: queues.cancel("1"),
            "jobs": queues.jobs,
            "job_info": lambda: queues.job_info("1"),
            "workers": queues.workers,
        }
        return ends(calls[verb])


def of_tasks(url: str, verb: str) -> BaseException | None:
    async def call() -> None:
        queues = QueueManager(url)
        try:
            calls: dict[str, Callable[[], Awaitable[object]]] = {
                "enqueue": lambda: queues.aenqueue("t", 1),
                "status": queues.astatus,
                "cancel": lambda: queues.acancel("1"),
                "jobs": queues.ajobs,
                "job_info": lambda: queues.ajob_info("1"),
                "workers": queues.aworkers,
            }
            await calls[verb]()
        finally:
            with suppress(EventPerfError):
                await queues.aclose()

    return ends(lambda: asyncio.run(call()))


@pytest.mark.parametrize("lie", DRIPS)
@pytest.mark.parametrize("verb", ["enqueue", "status", "result"])
def test_a_server_that_drips_holds_no_call_of_the_queues(
    liar: Callable[[Lie], str], lie: str, verb: str
) -> None:
    assert isinstance(of_queues(liar(DRIPS[lie]), verb), BackendUnavailable)


@pytest.mark.parametrize("lie", DRIPS)
@pytest.mark.parametrize("verb", ["enqueue", "status"])
def test_a_server_that_drips_holds_no_task(liar: Callable[[Lie], str], lie: str, verb: str) -> None:
    assert isinstance(of_tasks(liar(DRIPS[lie]), verb), BackendUnavailable)


@pytest.mark.parametrize("lie", CLAIMS)
def test_what_a_server_announces_is_refused_before_it_is_read(
    liar: Callable[[Lie], str], lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backend, "COMMAND_TIMEOUT_S", 60.0)
    url = liar(CLAIMS[lie])
    for error in (of_queues(url, "status"), of_tasks(url, "status")):
        assert isinstance(error, BackendUnavailable)
        assert isinstance(first_cause(error), Misread), "not its time-out"


ODD = [
    b":a\r\n", b"HTTP/1.1 400\r\n\r\n", b"$x\r\n", b"*1\r\n$a\r\n",
    b"+PONG\r\n", b":7\r\n", b"$-1\r\n", b"*0\r\n", b"*2\r\n:1\r\n*0\r\n", b"*3\r\n*1\r\n:1\r\n$-1\r\n+a\r\n",
]  # fmt: skip


@pytest.mark.parametrize("answer", ODD)
def test_answers_to_something_else_are_errors_of_ours(liar: Callable[[Lie], str], answer: bytes) -> None:
    url = liar(says(answer * 50))
    for call in (of_queues, of_tasks):
        for verb in ("enqueue", "status", "cancel", "jobs", "job_info", "workers"):
            error = call(url, verb)
            assert error is None or isinstance(error, EventPerfError), repr(error)


@pytest.mark.parametrize("lie", [*DRIPS, *CLAIMS])
def test_the_cache_and_the_state_of_scaling_live_without_such_a_server(
    liar: Callable[[Lie], str], lie: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = liar({**DRIPS, **CLAIMS}[lie])
    for directly in (True, False):
        with CacheManager(url, l1=None, timeout="200ms") as cache:
            if not directly:
                cache.store.server._direct = None
            assert ends(lambda: cache.get("k")) is None
            assert ends(lambda: asyncio.run(_got(cache))) is None
            assert cache.stats().store_errors
    monkeypatch.setattr("eventperf.scaling.backends.redis_state._TIMEOUT_S", 0.4)
    state = RedisState(url)
    assert isinstance(ends(lambda: state.load("t")), BackendUnavailable)
    state.close()


async def _got(cache: CacheManager) -> Any:
    return await cache.aget("k")


@pytest.mark.parametrize("size", [1, 2, 7, 1000])
def test_answers_are_followed_through_parts_of_any_size(size: int) -> None:
    whole = (
        b"*3\r\n$5\r\nhe\r\no\r\n:7\r\n*2\r\n$-1\r\n*0\r\n%1\r\n+a\r\n_\r\n|1\r\n+a\r\n+b\r\n$0\r\n\r\n"
        b"*-1\r\n$11\r\n*999999999\r\r\n>2\r\n$1\r\na\r\n#t\r\n-ERR no\r\n$300\r\n" + b"\r\n" * 150 + b"\r\n"
    )
    follows = Answers()
    for _ in range(3):
        for at in range(0, len(whole), size):
            follows.look(whole[at : at + size])
        assert (follows._open, follows._skip, follows._part, follows._size) == ([], 0, b"", 0)
    with pytest.raises(Misread):
        for at in range(0, 20, size):
            follows.look(b"*2\r\n:1\r\n*999999999\r\n"[at : at + size])


def test_a_claim_inside_of_a_text_is_a_text() -> None:
    inside = b"*4000000000\r\n$99999999999\r\n" * 10
    Answers().look(b"*2\r\n$%d\r\n%b\r\n$%d\r\n%b\r\n" % (len(inside), inside, len(inside), inside))
