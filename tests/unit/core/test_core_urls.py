from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventperf._core.urls import Registry, parse_url, redact
from eventperf.errors import ConfigurationError, UnknownScheme


def test_takes_a_full_url_apart():
    url = parse_url("rediss://app:s%40cret@cache.local:6380/3?db=1&socket_timeout=2&db=4")
    assert (url.scheme, url.hosts, url.path) == ("rediss", (("cache.local", 6380),), "3")
    assert (url.username, url.password) == ("app", "s@cret")
    assert url.options == {"db": "4", "socket_timeout": "2"}


@pytest.mark.parametrize(
    ("text", "hosts"),
    [
        ("redis://h", (("h", None),)),
        ("memory://", ()),
        ("redis://[::1]:6379/0", (("::1", 6379),)),
        ("redis://[fe80::1]", (("fe80::1", None),)),
        ("redis+cluster://h1:7000,[::1]:7001,h3", (("h1", 7000), ("::1", 7001), ("h3", None))),
        ("sqlite:///jobs.db", ()),
    ],
)
def test_hosts_and_ports(text, hosts):
    assert parse_url(text).hosts == hosts


def test_file_paths_keep_their_root():
    assert parse_url("sqlite:///jobs.db").path == "jobs.db"
    assert parse_url("sqlite:////var/lib/jobs.db").path == "/var/lib/jobs.db"


@pytest.mark.parametrize(
    "refused",
    [
        "",
        "localhost:6379",
        "redis:/h",
        "redis://h:port",
        "redis://h:0",
        "redis://h:65536",
        "redis://[::1",
        None,
        6379,
    ],
)
def test_refuses_what_is_no_url(refused):
    with pytest.raises(ConfigurationError) as caught:
        parse_url(refused, argument="broker")
    assert str(caught.value).startswith("broker: ")


SECRET = st.text(st.characters(codec="ascii", categories=("L", "N")), min_size=12, max_size=12)


@given(SECRET)
def test_a_password_never_reaches_text(secret):
    for text in (
        f"redis://app:{secret}@h:6379/0",
        f"redis://:{secret}@h1,h2",
        f"redis://h?password={secret}&db=1",
        f"rediss://h?ssl_keyfile_Password={secret}",
        f"postgresql://u:{secret}@[::1]:5432/d?token={secret}",
    ):
        url = parse_url(text)
        assert secret not in redact(text)
        assert secret not in repr(url)
        assert secret not in str(url)
    with pytest.raises(ConfigurationError) as caught:
        parse_url(f"redis://app:{secret}@h:notaport")
    assert secret not in str(caught.value)
    assert secret not in str(caught.value.__dict__)


def test_redaction_keeps_the_rest():
    assert redact("redis://app:x@h:1/2?db=3&password=y#f") == "redis://app:***@h:1/2?db=3&password=***#f"
    assert redact("postgresql://app@h:1/2") == "postgresql://app@h:1/2"
    assert redact("redis://token@h:1/2") == "redis://***@h:1/2", (
        "a user alone is a token where it is no database"
    )
    assert redact("memory://") == "memory://"
    assert redact("sqlite:///jobs.db") == "sqlite:///jobs.db"


@pytest.mark.parametrize(
    "text",
    [
        "app:s3cret@h:6379",
        "redis:app:s3cret@h",
        "redis://app:s3\ncret@h",
        "redis://:s3cret@[h",
        "redis://app:s3/cret@h:1/0",
        "redis://app:s3?cret@h:1/0",
        "redis://app:s3@cret@h:1/0",
        "redis://app:s3#cret@h:1/0?password=cret",
    ],
)
def test_redaction_of_what_is_no_url(text):
    assert "cret" not in redact(text)
    try:
        shown = f"{parse_url(text)!s} {parse_url(text)!r}"
    except ConfigurationError as error:
        shown = str(error)
    assert "cret" not in shown


def test_registry_imports_a_backend_only_when_asked():
    registry = Registry("cache", {"memory": "collections:OrderedDict", "broken": "no_such_module_here:X"})
    import collections

    assert registry.resolve("memory") is collections.OrderedDict
    with pytest.raises(ModuleNotFoundError):
        registry.resolve("broken")


def test_unknown_scheme_lists_what_is_known():
    registry = Registry("cache", {"memory": "x:Y", "redis": "x:Y"})
    with pytest.raises(UnknownScheme) as caught:
        registry.resolve("memcached", argument="cache URL")
    assert str(caught.value) == "cache URL: got 'memcached://'; allowed: memory://, redis://"


def test_registered_scheme_answers_in_any_case():
    registry = Registry("cache", {})
    registry.register("Mine", "json:dumps")
    import json

    assert registry.schemes() == ("mine",)
    assert registry.resolve("mine") is json.dumps


@pytest.fixture
def third_party(monkeypatch, tmp_path):
    """An installed distribution with an entry point, as pip would leave it."""
    info = tmp_path / "acme_eventperf-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-eventperf\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[eventperf.cache]\n"
        "acme = acme_eventperf_backend:AcmeStore\n"
        "redis = acme_eventperf_backend:AcmeStore\n"
    )
    (tmp_path / "acme_eventperf_backend.py").write_text("class AcmeStore: ...\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "acme_eventperf_backend"
    sys.modules.pop("acme_eventperf_backend", None)


def test_third_party_backend_answers_by_entry_point(third_party):
    registry = Registry("cache", {"redis": "json:dumps"})
    assert registry.schemes() == ("acme", "redis")
    assert third_party not in sys.modules
    assert registry.resolve("acme").__module__ == third_party
    assert registry.resolve("redis").__name__ == "dumps", "a third party must not replace a built-in backend"
    assert Registry("queues", {}).schemes() == (), "entry points are kept by room"


@pytest.mark.parametrize("given", ["postgresql", "postgres", "postgresql+psycopg2", "postgresql+asyncpg"])
def test_a_database_without_its_driver_is_told_what_to_write(given: str) -> None:
    from eventperf.queues import QueueManager

    with pytest.raises(UnknownScheme, match=r"write postgresql\+psycopg://"):
        QueueManager(f"{given}://app@h/shop").status()
