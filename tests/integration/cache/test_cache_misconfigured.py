"""What cannot work is refused where it is given, or said with the reason and the next step."""

from __future__ import annotations

import json

import pytest

redis = pytest.importorskip("redis")
import redis.asyncio as aredis  # noqa: E402

from eventperf._core.errors import ConfigurationError  # noqa: E402
from eventperf.cache import CacheManager, RedisStore, StoreUnavailable  # noqa: E402
from eventperf.cache.backends.redis.cures import cure_of  # noqa: E402
from eventperf.cli.main import main  # noqa: E402

WRONG = [
    (lambda: {"client": aredis.Redis()}, "client: .*async_client="),
    (lambda: {"async_client": redis.Redis()}, "async_client: .* goes to client="),
    (lambda: {"client": redis.Redis(decode_responses=True)}, "client: .*decode_responses"),
    (lambda: {"async_client": aredis.Redis(decode_responses=True)}, "async_client: .*decode_responses"),
    (lambda: {"client": redis.Redis().pipeline()}, "client: .*redis.Redis"),
    (lambda: {"client": redis.Redis}, "client: .*redis.Redis"),
    (lambda: {"client": "redis://h"}, "client: .*redis.Redis"),
    (lambda: {"client": redis.ConnectionPool()}, "client: .*redis.Redis"),
    (lambda: {"url": "redis://:secret@h?decode_responses=true"}, r"url: .*\*\*\*.*without decode_responses"),
]


@pytest.mark.parametrize(("made", "words"), WRONG, ids=range(len(WRONG)))
def test_what_cannot_work_is_refused_where_it_is_given(made, words):
    with pytest.raises(ConfigurationError, match=words):
        RedisStore(**made())


def test_clients_that_work_are_taken(redis_server, redis_cluster):
    port = redis_server.port
    for client in (redis.Redis(port=port), redis.Redis(port=port, decode_responses=False)):
        with CacheManager(RedisStore(client=client), namespace="given") as cache:
            cache.set("k", 1)
            assert cache.get("k") == 1
    RedisStore(async_client=aredis.Redis(port=port))
    node = redis_cluster.nodes[0] if hasattr(redis_cluster, "nodes") else None
    if node is not None:
        text = redis.RedisCluster("127.0.0.1", node.port, decode_responses=True)
        with pytest.raises(ConfigurationError, match="decode_responses"):
            RedisStore(client=text)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://:wrong@127.0.0.1:{port}/0", "password"), ("redis://127.0.0.1:1/0", "host and port"),
        ("rediss://127.0.0.1:{port}/0", "speaks no TLS"),
        ("redis://127.0.0.1:{port}/99", "number of the database"),
        ("redis://no-such-host.invalid:6379", "name of the host"),
    ],
)  # fmt: skip
def test_an_error_of_the_server_says_what_to_do(redis_server, url, words):
    store = RedisStore(url.format(port=redis_server.port), timeout=2)
    with pytest.raises(StoreUnavailable, match=words):
        store.set_many([("k", b"1", 1.0)])


def test_cures():
    assert cure_of("ResponseError: OOM command not allowed").startswith("give the server memory")
    assert cure_of("anything else") == ""


def test_ping_says_what_works_and_what_does_not(redis_server, capsys):
    url = f"redis://127.0.0.1:{redis_server.port}/0"
    assert main(["cache", "ping", url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    names = ["answers", "is a master", "stores", "scripts", "tracking", "channels", "scan", "eviction"]
    assert [f["ability"] for f in found] == names
    redis_server.execute(
        "ACL", "SETUSER", "bare", "on", ">pw", "~*", "&*", "+@all", "-eval", "-scan", "-client"
    )
    try:
        assert main(["cache", "ping", url.replace("//", "//bare:pw@"), "--json"]) == 1
        found = {f["ability"]: f for f in json.loads(capsys.readouterr().out)}
        lost = {name for name, f in found.items() if not f["works"]}
        assert lost == {"scripts", "tracking", "scan"}
        assert "ACL SETUSER" in found["scan"]["detail"]
        assert "no patterns" in found["scan"]["detail"]
    finally:
        redis_server.execute("ACL", "DELUSER", "bare")
