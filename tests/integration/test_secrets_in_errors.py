"""Passwords and tokens never show: in no error, no cause, no log line, and not in what objects say."""

from __future__ import annotations

import asyncio
import logging
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from eventperf import CacheManager, DatabaseOptimizer, QueueManager
from eventperf.errors import EventPerfError
from eventperf.scaling import Alert, PrometheusMetrics, WebhookAlerts

SECRET = "S3cr3t"
ODD = "S3cr3t%2F%40x"  # a slash and an at sign, as they stand in a URL

REDIS = [
    "redis://u:{}@127.0.0.1:1/0", "redis://:{}@127.0.0.1:1", "redis://127.0.0.1:1/0?password={}", "redis://{}@127.0.0.1:1",
    "rediss://u:{}@127.0.0.1:1/0", "redis+cluster://u:{}@127.0.0.1:1,127.0.0.1:1",
    "redis+sentinel://u:{}@127.0.0.1:1/mymaster", "redis+sentinel://127.0.0.1:1/mymaster?sentinel_password={}",
    "redis://u:{}@127.0.0.1:port/0", "redis://u:{}@[::1/0", "redis://u:{}@127.0.0.1:1/0?nonsense=1",
]  # fmt: skip
SQL = [
    "postgresql+psycopg://u:{}@127.0.0.1:1/d", "postgresql+psycopg://127.0.0.1:1/d?user=u&password={}",
    "postgresql+psycopg://u@127.0.0.1:1/d?sslpassword={}", "mysql+pymysql://u:{}@127.0.0.1:1/d",
    "mysql+pymysql://127.0.0.1:1/d?user=u&password={}", "postgresql+nodriver://u:{}@127.0.0.1:1/d",
    "nothing://u:{}@127.0.0.1/d", "postgresql+psycopg://u:{}@127.0.0.1:port/d", "u:{}@127.0.0.1/d",
]  # fmt: skip


def whole(error: BaseException) -> str:
    """Return everything that an error report holds: texts, attributes and causes."""
    out = traceback.format_exception(error)
    seen: BaseException | None = error
    while seen is not None:
        out += [str(seen), repr(seen), repr(vars(seen)) if isinstance(seen, EventPerfError) else ""]
        seen = seen.__cause__ or seen.__context__
    # lines of this file's own source stand in the traceback
    return "\n".join(line for line in "\n".join(out).split("\n") if "url.format" not in line)


def fails_in_silence(act: Callable[[], Any], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        said = ""
        try:
            act()
        except Exception as error:
            said = whole(error)
        assert SECRET not in said
    for record in caplog.records:
        if record.name.startswith("eventperf"):
            assert SECRET not in record.getMessage()
            assert record.exc_info is None or SECRET not in "".join(
                traceback.format_exception(*record.exc_info)
            )


@pytest.mark.parametrize("secret", [SECRET, ODD])
@pytest.mark.parametrize("url", REDIS)
def test_cache(url: str, secret: str, caplog: pytest.LogCaptureFixture) -> None:
    def use() -> None:
        with CacheManager(url.format(secret), timeout="50ms") as cache:
            assert SECRET not in repr(cache)
            assert SECRET not in repr(cache.stats())
            cache.get_or_load("k", lambda: 1)
            cache.ping()  # type: ignore[attr-defined]

    fails_in_silence(use, caplog)


@pytest.mark.parametrize("secret", [SECRET, ODD])
@pytest.mark.parametrize("url", REDIS + SQL)
def test_queues(url: str, secret: str, caplog: pytest.LogCaptureFixture) -> None:
    def use() -> None:
        with QueueManager(url.format(secret)) as queues:
            assert SECRET not in repr(queues)
            queues.enqueue("t", 1)

    async def ause() -> None:
        async with QueueManager(url.format(secret)) as queues:
            await queues.aenqueue("t", 1)

    fails_in_silence(use, caplog)
    fails_in_silence(lambda: asyncio.run(ause()), caplog)


@pytest.mark.parametrize("secret", [SECRET, ODD])
@pytest.mark.parametrize("url", SQL)
def test_databases(url: str, secret: str, caplog: pytest.LogCaptureFixture) -> None:
    def use() -> None:
        with DatabaseOptimizer(url.format(secret)) as optimizer:
            assert SECRET not in repr(optimizer)
            optimizer.advise()

    fails_in_silence(use, caplog)


@pytest.mark.parametrize(
    "url",
    ["http://u:{}@127.0.0.1:1", "http://{}@127.0.0.1:1", "http://127.0.0.1:1?token={}", "ftp://u:{}@h",
     "http://u:{}@h:x"],
)  # fmt: skip
def test_prometheus(url: str, caplog: pytest.LogCaptureFixture) -> None:
    def use() -> None:
        source = PrometheusMetrics(url.format(SECRET), "up", headers={"X-Token": SECRET})
        assert SECRET not in repr(source.queries)
        assert SECRET not in str(source.read())

    fails_in_silence(use, caplog)


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:1/{}", "http://u:{}@127.0.0.1:1/x", "ftp://h/{}", "http://127.0.0.1:x/{}"]
)
def test_webhooks(url: str, caplog: pytest.LogCaptureFixture) -> None:
    def use() -> None:
        with WebhookAlerts(url.format(SECRET), headers={"Authorization": SECRET}, every=0.01) as sink:
            assert SECRET not in repr(sink)
            sink(Alert(at=0.0, target="t", kind="k", text="x"))

    fails_in_silence(use, caplog)
