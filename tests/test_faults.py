"""The fault tools do what they say, on real connections."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest
import redis

from faults import TcpProxy, Worker, wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def proxy(redis_server):
    with TcpProxy(redis_server.host, redis_server.port) as proxy:
        yield proxy


@pytest.fixture
def client(proxy):
    with redis.Redis(host=proxy.host, port=proxy.port, socket_timeout=0.2, retry=None) as client:
        yield client


def test_forwards_and_counts(proxy, client):
    assert client.ping()
    assert client.echo(b"x" * 300_000) == b"x" * 300_000
    assert (proxy.accepted, proxy.open) == (1, 1)


def test_delays(proxy, client):
    client.ping()
    proxy.delay(0.05)
    start = time.monotonic()
    client.ping()
    assert time.monotonic() - start >= 0.1  # once in each direction


def test_cut_resets_open_connections_and_welcomes_new_ones(proxy):
    with contextlib.closing(socket.create_connection((proxy.host, proxy.port), 5)) as before:
        before.sendall(b"PING\r\n")
        assert before.recv(7) == b"+PONG\r\n"
        assert proxy.cut() == 1
        with pytest.raises(ConnectionResetError):
            before.recv(1)
    with contextlib.closing(socket.create_connection((proxy.host, proxy.port), 5)) as after:
        after.sendall(b"PING\r\n")
        assert after.recv(7) == b"+PONG\r\n"


def test_black_hole_answers_nothing_until_healed(proxy, client):
    client.ping()
    proxy.black_hole()
    with pytest.raises(redis.TimeoutError):
        client.ping()
    with pytest.raises(redis.TimeoutError):  # a new connection is accepted, and as silent
        client.ping()
    assert proxy.accepted >= 2
    proxy.heal()
    assert client.ping()


def test_refuse_until_healed(proxy, client):
    client.ping()
    proxy.refuse()
    with pytest.raises(redis.ConnectionError):
        client.ping()
    proxy.heal()
    assert client.ping()


def test_close_leaves_no_connection(redis_server):
    with TcpProxy(redis_server.host, redis_server.port) as proxy:
        proxy.black_hole()
        silent = redis.Redis(host=proxy.host, port=proxy.port, socket_timeout=0.05)
        with silent, pytest.raises(redis.TimeoutError):
            silent.ping()
    assert proxy.open == 0


def test_url_keeps_user_and_path(proxy):
    assert proxy.url("redis://u:p@h:1/2?a=b") == f"redis://u:p@127.0.0.1:{proxy.port}/2?a=b"


def test_worker_freezes_goes_on_and_dies():
    code = "import itertools, time\nfor n in itertools.count(): print(n, flush=True); time.sleep(0.01)"
    with Worker(code) as worker:
        worker.wait_for("3")
        worker.sigstop()
        time.sleep(0.1)
        seen = len(worker.lines)
        time.sleep(0.1)
        assert len(worker.lines) == seen
        worker.sigcont()
        wait_until(lambda: len(worker.lines) > seen)
        assert worker.kill9() == -9


def test_worker_that_fails_shows_its_output():
    with Worker("raise SystemExit('no luck')") as worker:
        with pytest.raises(AssertionError, match="no luck"):
            worker.wait_for("ready")
        assert worker.wait() == 1
