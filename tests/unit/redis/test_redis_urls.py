"""Which Redis URLs are understood, and what is refused before anything connects."""

from __future__ import annotations

import logging
import re

import pytest

from eventperf._redis.url import parse, query_options, trust
from eventperf.errors import ConfigurationError


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://h:6379", "redis://"),
        ("redis://", "a host"),
        ("redis://a:1,b:2", "redis+cluster://"),
        ("redis://h/mydb", "database number"),
        ("redis+sentinel://a:26379", "SERVICE"),
        ("redis://h?decode_responses=True", "values are bytes"),
        ("redis://h?socket_timout=2", "such as socket_timeout"),
        (
            "redis://h?passwords=geheim",
            "the option 'passwords'\"; allowed: what redis-py takes for redis://, such as password",
        ),
        ("redis://h?ssl_ca_certs=/ca.pem", "for redis://"),
        ("redis://h?sentinel_password=x", "for redis://"),
        ("redis+cluster://h?x=1", "the option 'x'"),
        ("redis+sentinel://a:26379/service/first", "SERVICE"),
    ],
)
def test_what_could_never_connect_is_refused_in_words(url, allowed):
    with pytest.raises(ConfigurationError, match=re.escape(allowed)):
        parse(url)


@pytest.mark.parametrize("url", ["redis://:s3cret@/0", "http://u:s3cret@h", "redis://u:s3cret@a:1,b:2"])
def test_a_refusal_shows_no_password(url):
    with pytest.raises(ConfigurationError) as caught:
        parse(url)
    assert "s3cret" not in str(caught.value)


def test_an_option_that_is_no_number_is_named():
    with pytest.raises(ConfigurationError, match="socket_timeout in the URL: got 'soon'"):
        query_options(parse("redis://h?socket_timeout=soon"), extra="cache", needed_by="this test")


@pytest.mark.parametrize(
    ("options", "checked"),
    [
        ("", True),
        ("?ssl_check_hostname=true", True),
        ("?ssl_check_hostname=no", False),
        ("?ssl_cert_reqs=none", False),
    ],
)
def test_the_name_is_checked_unless_the_url_says_otherwise(options, checked, caplog):
    with caplog.at_level(logging.WARNING, "eventperf.redis"):
        assert trust(parse(f"rediss://u:s3cret@h{options}")) == {"ssl_check_hostname": checked}
    assert bool(caplog.records) is not checked
    assert "s3cret" not in caplog.text


def test_plain_connections_have_nothing_to_check():
    assert trust(parse("redis://h")) == {}


@pytest.mark.parametrize(
    "url",
    [
        "redis://h/0?socket_timeout=2&protocol=3&health_check_interval=5&max_connections=3&client_name=a&timeout=1",
        "rediss://h?ssl_ca_certs=/x&ssl_cert_reqs=none&ssl_check_hostname=no&socket_keepalive=yes",
        "unix:///tmp/redis.sock?db=2&username=u",
        "redis+cluster://h?cluster_error_retry_attempts=3&require_full_coverage=no&socket_connect_timeout=1",
        "rediss+sentinel://h/main?sentinel_username=u&sentinel_password=p&ssl_ca_certs=/x&socket_timeout=1",
    ],
)
def test_options_of_redis_py_are_taken(url: str) -> None:
    assert parse(url).options


NO_COUNT = ("0", "-1", "1" * 31, "1.5", "nan", "", "five", "0x10", "\u0665")


@pytest.mark.parametrize(
    ("option", "wrongs"),
    [
        ("max_connections", NO_COUNT),
        ("socket_read_size", NO_COUNT),
        ("health_check_interval", NO_COUNT[1:]),
        ("db", NO_COUNT[1:]),
        ("protocol", (*NO_COUNT, "1", "4")),
        *((name, ("0", "-1", "nan", "inf", "1e3", "", ".", "soon", "1" * 31)) for name in
          ("socket_timeout", "socket_connect_timeout", "timeout")),
        *((name, ("", "maybe", "on", "2")) for name in
          ("socket_keepalive", "retry_on_timeout", "ssl_check_hostname")),
        ("ssl_cert_reqs", ("NONE", "", "CERT_NONE", "no")),
        *((name, ("", "redis.Connection")) for name in
          ("connection_class", "queue_class", "retry", "retry_on_error", "parser_class")),
    ],
)  # fmt: skip
def test_an_option_with_a_value_it_cannot_have_is_refused_before_anything_connects(
    option: str, wrongs: tuple[str, ...]
) -> None:
    scheme = "rediss" if option.startswith("ssl") else "redis"
    for wrong in wrongs:
        with pytest.raises(ConfigurationError) as caught:
            parse(f"{scheme}://h?{option}={wrong}")
        assert caught.value.argument == f"{option} in the URL", wrong
        assert caught.value.allowed


def test_an_option_with_a_value_it_can_have_is_taken() -> None:
    numbers = ("max_connections=1", "socket_timeout=.5", "timeout=3", "socket_timeout=0.05", "db=3")
    words = ("socket_keepalive=No", "retry_on_timeout=1", "health_check_interval=0", "protocol=2")
    for text in (*numbers, *words):
        assert parse(f"redis://h?{text}").options
    for text in ("ssl_cert_reqs=required", "ssl_cert_reqs=none", "ssl_check_hostname=True"):
        assert parse(f"rediss://h?{text}").options
