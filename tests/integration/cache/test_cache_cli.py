"""The command line against a real server, and invalidation with a transaction."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from eventperf.cache import CacheManager, RedisStore, invalidate_on_commit
from eventperf.cli.main import main
from faults import wait_until


@pytest.fixture(params=["redis", "cluster"])
def url(request):
    return request.getfixturevalue("redis_url" if request.param == "redis" else "redis_cluster_url")


@pytest.fixture
def cache(url):
    with CacheManager(RedisStore(url, timeout=5), namespace="cli") as made:
        made.clear()
        made.set_many({"event:1": 1, "event:2": 2}, tags=["events"])
        made.set("big", "x" * 10_000)
        yield made
        made.clear()


def output(capsys, *arguments):
    code = main(["cache", *arguments, "--namespace", "cli", "--json"])
    return code, json.loads(capsys.readouterr().out)


def gone(cache, *keys):
    """Another manager invalidated: this one's process memory hears of it a moment later."""
    wait_until(lambda: cache.get_many(keys) == {}, what="the invalidation to arrive")


@pytest.mark.integration
def test_the_command_line(cache, url, capsys):
    code, figures = output(capsys, "stats", url)
    assert code == 0
    assert figures["entries"] == 3
    assert figures["bytes"] > 10_000
    assert figures["server_eviction"] == "noeviction"
    code, found = output(capsys, "get", url, "event:1")
    assert (code, found["value"], found["tags"]) == (0, "1", "events")
    code, found = output(capsys, "get", url, "absent")
    assert (code, found["state"]) == (1, "absent")
    code, rows = output(capsys, "big", url, "--limit", "1")
    assert [row["key"] for row in rows] == ["big"]
    code, rows = output(capsys, "hot", url)
    assert code == 0
    assert {row["key"] for row in rows} == {"event:1", "event:2", "big"}
    asked = ("--key", "big", "--tag", "events", "--pattern", "event:*")
    code, dry = output(capsys, "invalidate", url, *asked, "--dry-run")
    assert [row["entries"] for row in dry["invalidated"]] == [1, 2, 2]
    assert cache.get("event:1") == 1
    code, done = output(capsys, "invalidate", url, "--tag", "events", "--key", "big")
    assert [row["entries"] for row in done["invalidated"]] == [1, 2]
    gone(cache, "event:1", "event:2", "big")
    code, dry = output(capsys, "invalidate", url, "--tag", "events", "--dry-run")
    assert [row["entries"] for row in dry["invalidated"]] == [
        0
    ]  # their bytes are there, but nobody reads them


@pytest.mark.integration
def test_the_command_line_takes_keys_of_every_shape(cache, url, capsys):
    keys = ["two words", "two\nlines", "[a]*?", "smörgås 🎫", "k" * 10_000]
    cache.set_many(dict.fromkeys(keys, "x"), tags=["a tag: [1]*"])
    for key in keys:
        assert output(capsys, "get", url, key)[1]["value"] == "'x'"
        assert output(capsys, "invalidate", url, "--key", key)[1]["invalidated"][0]["entries"] == 1
    gone(cache, *keys)
    cache.set_many(dict.fromkeys(keys, "y"), tags=["a tag: [1]*"])
    assert output(capsys, "invalidate", url, "--tag", "a tag: [1]*")[1]["invalidated"][0]["entries"] == 5
    gone(cache, *keys)


@pytest.mark.integration
def test_processes_on_the_bus_hear_of_the_command_line(redis_url, capsys):
    with CacheManager(RedisStore(redis_url, timeout=5), namespace="cli", coherence="bus") as cache:
        cache.set_many({"a": 1, "b": 1, "c": 1}, tags=["t"])
        for way, key in (("--key", "a"), ("--pattern", "b*"), ("--tag", "t")):
            wait_until(lambda: cache.stats().coherence == "bus", what="the bus")
            assert cache.get("c") == 1
            output(capsys, "invalidate", redis_url, way, key)
            gone(cache, {"--tag": "c"}.get(way, key[0]))


@pytest.mark.integration
def test_tables_are_for_people(cache, url, capsys):
    for arguments in (("stats",), ("get",), ("hot",), ("big",), ("invalidate", "--pattern", "*")):
        extra = ("event:1",) if arguments == ("get",) else ()
        assert main(["cache", arguments[0], url, *extra, *arguments[1:], "--namespace", "cli"]) == 0
        assert capsys.readouterr().out.strip()
    assert main(["cache", "big", url, "--namespace", "cli"]) == 1
    assert "no entries" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [["stats", "memcached://h"], ["stats", "redis://127.0.0.1:1/0"], ["invalidate", "redis://127.0.0.1:1/0"]],
)
def test_bad_input_is_one_sentence_and_exit_code_2(arguments, capsys):
    assert main(["cache", *arguments]) == 2
    said = capsys.readouterr().err.strip()
    assert said
    assert "Traceback" not in said
    assert "\n" not in said


def test_a_rollback_invalidates_nothing_and_a_commit_does():
    cache = CacheManager()
    engine = sa.create_engine("sqlite://")
    with Session(engine) as session:
        cache.set("k", 1, tags=["t"])
        session.execute(sa.text("select 1"))
        invalidate_on_commit(cache, session, "k")
        session.rollback()
        assert cache.get("k") == 1
        session.execute(sa.text("select 1"))
        invalidate_on_commit(cache, session, tags=["t"])
        assert cache.get("k") == 1
        session.commit()
        assert cache.get("k", "gone") == "gone"
    engine.dispose()
