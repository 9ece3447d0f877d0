"""Encrypted connections check who answers, on every kind of Redis, for threads and for tasks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from eventperf._redis.connect import Wanted, open_client, reason
from eventperf._redis.url import parse
from servers import tls_settings

pytestmark = pytest.mark.integration

KINDS = ("private_redis", "private_redis_cluster", "private_redis_sentinel")
WANTED = Wanted(extra="cache", needed_by="this test", connections=2, settings={"socket_timeout": 5.0})


@pytest.fixture(scope="module", params=KINDS)
def foreign_url(request: pytest.FixtureRequest, foreign_certificates: Path) -> Any:
    """The URL of servers that show a certificate made for another host, its authority trusted."""
    kind = request.param.removeprefix("private_")
    from servers import RedisCluster, RedisSentinel, RedisServer

    make: Callable[..., Any] = {
        "redis": RedisServer,
        "redis_cluster": RedisCluster,
        "redis_sentinel": RedisSentinel,
    }[kind]
    server = make(**tls_settings(foreign_certificates)).start()
    certificate = foreign_certificates / "cert.pem"
    alone = f"rediss://127.0.0.1:{getattr(server, 'tls_port', 0)}/0?ssl_ca_certs={certificate}"
    yield alone if kind == "redis" else server.tls_url
    (getattr(server, "close", None) or server.stop)()


def ping(url: str, *, asynchronous: bool) -> object:
    if asynchronous:
        return asyncio.run(_aping(url))
    client = open_client(parse(url), WANTED, asynchronous=False)
    try:
        return client.set("k", "v")
    finally:
        client.close()
        if not hasattr(client, "nodes_manager"):
            client.connection_pool.disconnect()


async def _aping(url: str) -> object:
    client = open_client(parse(url), WANTED, asynchronous=True)
    try:
        return await client.set("k", "v")
    finally:
        await getattr(client, "aclose", client.close)()
        if not hasattr(client, "nodes_manager"):
            await client.connection_pool.disconnect()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_certificate_for_another_host_is_refused(foreign_url, asynchronous):
    with pytest.raises(Exception) as caught:
        ping(foreign_url, asynchronous=asynchronous)
    assert "certificate" in reason(caught.value).lower()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_url_can_turn_the_check_off_and_is_warned_of(foreign_url, asynchronous, caplog):
    with caplog.at_level(logging.WARNING, "eventperf.redis"):
        assert ping(f"{foreign_url}&ssl_check_hostname=false", asynchronous=asynchronous)
    assert "do not check who answers (ssl_check_hostname in the URL)" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_right_certificate_is_taken_without_a_word(kind, asynchronous, certificates, request, caplog):
    if kind == "private_redis":
        server = request.getfixturevalue(kind)(**tls_settings(certificates))
        url = f"rediss://127.0.0.1:{server.tls_port}/0?ssl_ca_certs={certificates / 'cert.pem'}"
    else:
        url = request.getfixturevalue(kind)(**tls_settings(certificates)).tls_url
    assert ping(url, asynchronous=asynchronous)
    assert not [r for r in caplog.records if r.name.startswith("eventperf")]
