"""The command line against a real server, and invalidation with a transaction."""

from __future__ import annotations

import json

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from eventperf.cache import CacheManager, RedisStore, invalidate_on_commit
from eventperf.cli.main import main
from faults import wait_until


@pytest.fixture
def cache(redis_url):
    with CacheManager(RedisStore(redis_url, timeout=2), namespace="cli") as made:
        made.clear()
        made.set_many({"event:1": 1, "event:2": 2}, tags=["events"])
        made.set("big", "x" * 10_000)
        yield made
        made.clear()


def output(capsys, *arguments):
    code = main(["cache", *arguments, "--namespace", "cli", "--json"])
    return code, json.loads(capsys.readouterr().out)


@pytest.mark.integration
def test_the_command_line(cache, redis_url, capsys):
    code, figures = output(capsys, "stats", redis_url)
    assert code == 0
    assert figures["entries"] == 3
    code, found = output(capsys, "get", redis_url, "event:1")
    assert (code, found["value"], found["tags"]) == (0, "1", "events")
    code, found = output(capsys, "get", redis_url, "absent")
    assert (code, found["state"]) == (1, "absent")
    code, rows = output(capsys, "big", redis_url, "--limit", "1")
    assert rows[0]["key"] == "big"
    assert output(capsys, "hot", redis_url)[0] == 0
    asked = ("--key", "big", "--tag", "events", "--pattern", "event:*")
    code, gone = output(capsys, "invalidate", redis_url, *asked, "--dry-run")
    assert [row["entries"] for row in gone["invalidated"]] == [1, 2, 2]
    assert cache.get("event:1") == 1
    output(capsys, "invalidate", redis_url, "--tag", "events", "--key", "big")
    # Another manager invalidated: this one's process memory hears of it a moment later.
    wait_until(lambda: cache.get_many(["event:1", "event:2", "big"]) == {}, what="the invalidation to arrive")


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
