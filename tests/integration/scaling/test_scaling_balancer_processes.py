"""The balancer against real processes that die and come back."""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from eventperf.scaling import Balancer

pytestmark = pytest.mark.integration

_SERVER = """
import socketserver, sys
class Echo(socketserver.StreamRequestHandler):
    def handle(self): self.wfile.write(self.rfile.readline())
class Server(socketserver.ThreadingTCPServer): allow_reuse_address = daemon_threads = True
with Server(("127.0.0.1", int(sys.argv[1])), Echo) as server:
    print("ready", flush=True)
    server.serve_forever()
"""


def start(port: int) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", _SERVER, str(port)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


@contextmanager
def processes(n: int) -> Iterator[dict[int, subprocess.Popen[bytes]]]:
    ports = []
    for _ in range(n):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            ports.append(free.getsockname()[1])
    running = {port: start(port) for port in ports}
    try:
        yield running
    finally:
        for process in running.values():
            end(process)


def request(balancer: Balancer[int]) -> tuple[int, bool]:
    try:
        with balancer.pick() as port, socket.create_connection(("127.0.0.1", port), timeout=2) as connection:
            connection.sendall(b"hello\n")
            if connection.recv(16) != b"hello\n":
                raise ConnectionError("cut")
        return port, True
    except OSError:
        return port, False


@pytest.mark.parametrize("strategy", ["p2c-ewma", "round-robin", "least-connections", "random"])
def test_processes_that_are_killed_cost_a_few_requests_and_return_when_they_are_back(strategy: str) -> None:
    with processes(4) as running:
        balancer = Balancer(list(running), strategy=strategy, eject_for="500ms", slow_start="500ms")
        assert all(ok for _, ok in (request(balancer) for _ in range(100)))
        dead = list(running)[:3]
        for port in dead:
            end(running[port])
        for _ in range(200):
            request(balancer)
        found = [request(balancer) for _ in range(1000)]
        assert sum(not ok for _, ok in found) <= 20
        running[dead[0]] = start(dead[0])
        back: set[int] = set()
        deadline = time.monotonic() + 30
        while dead[0] not in back and time.monotonic() < deadline:
            back.update(port for port, ok in (request(balancer) for _ in range(50)) if ok)
        assert dead[0] in back
