"""Redis URLs: which are understood, what their options say, and whom an encrypted one trusts."""

from __future__ import annotations

import inspect
import re
from difflib import get_close_matches
from functools import cache
from importlib import import_module
from typing import Any, Final

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf._core.logs import logger
from eventperf._core.texts import whole
from eventperf._core.urls import BackendURL, parse_url, redact

_log = logger("eventperf.redis")

SENTINEL: Final = ("redis+sentinel", "rediss+sentinel")
SCHEMES: Final = ("redis", "rediss", "unix", "redis+cluster", "rediss+cluster", *SENTINEL)


def parse(url: str) -> BackendURL:
    """Take a Redis URL apart and refuse what could never connect.

    Raises:
        ConfigurationError: Another scheme, no host, several hosts where one is meant, a database that
            is no number, or an option with a value that it cannot have.

    >>> parse("redis+cluster://h1:7000,h2:7001").hosts
    (('h1', 7000), ('h2', 7001))
    """
    return check(parse_url(url))


def check(parsed: BackendURL) -> BackendURL:
    """Return ``parsed`` as it is, if a Redis can be meant by it; raise as :func:`parse` does."""
    shown = redact(parsed.text)
    if parsed.scheme not in SCHEMES:
        raise ConfigurationError("url", shown, [f"{scheme}://" for scheme in SCHEMES])
    if parsed.options.get("decode_responses", "").lower() in ("true", "t", "yes", "y", "1"):
        given = parsed.options["decode_responses"]
        raise ConfigurationError("decode_responses in the URL", given, "nothing: values are bytes here")
    if parsed.options and (known := _options(parsed.scheme)):
        for name in parsed.options.keys() - known:  # its value may be a password under a mistyped name
            near = get_close_matches(name, known) or ["socket_timeout"]
            allowed = f"what redis-py takes for {parsed.scheme}://, such as {', '.join(near)}"
            raise ConfigurationError("url", f"the option {name!r}", allowed)
    for name, text in parsed.options.items():
        _check_value(name, text)
    if parsed.scheme == "unix":
        return parsed
    if not parsed.hosts:
        raise ConfigurationError("url", shown, "a URL with a host, such as redis://host:6379/0")
    if parsed.scheme in SENTINEL:
        master_of(parsed)
    elif len(parsed.hosts) > 1 and not is_cluster(parsed):
        raise ConfigurationError(
            "url", shown, "one host, or redis+cluster:// or redis+sentinel:// for several"
        )
    elif parsed.path and not is_cluster(parsed) and whole(parsed.path) is None:
        raise ConfigurationError("url", shown, "a database number after the host, such as /0")
    return parsed


_NUMBERS: Final = {
    "max_connections": (1, 65_535),
    "socket_read_size": (1, 1 << 30),
    "health_check_interval": (0, 1_000_000),
    "cluster_error_retry_attempts": (0, 1_000),
    "connection_error_retry_attempts": (0, 1_000),
    "reinitialize_steps": (0, 1_000_000),
    "protocol": (2, 3),
    "db": (0, 1_000_000),
}
_SPANS: Final = frozenset({"socket_timeout", "socket_connect_timeout", "timeout"})
_WORDS: Final = {
    "socket_keepalive": ("true", "false"),
    "retry_on_timeout": ("true", "false"),
    "ssl_check_hostname": ("true", "false"),
    "ssl_cert_reqs": ("none", "optional", "required"),
}
_OBJECTS: Final = frozenset(
    {"address_remap", "cache", "cache_config", "cache_factory", "command_packer", "connection_class"}
    | {"credential_provider", "encoder_class", "event_dispatcher", "load_balancing_strategy", "parser_class"}
    | {"queue_class", "redis_connect_func", "retry", "retry_on_error", "socket_keepalive_options"}
    | {"socket_type", "ssl_ocsp_context", "startup_nodes"}
)


def _check_value(name: str, text: str) -> None:
    """Refuse what an option cannot be, of those that redis-py would take as it is and fail with later.

    Raises:
        ConfigurationError: A number out of bounds, another word, an option that no text can be.
    """
    argument = f"{name} in the URL"
    if name in _OBJECTS:  # the text is not shown: whatever stands here was meant for something else
        raise ConfigurationError(argument, "text", "nothing: it is an object; give a client of your own")
    if name in _NUMBERS:
        low, high = _NUMBERS[name]
        if not re.fullmatch("[0-9]{1,10}", text) or not low <= int(text) <= high:
            raise ConfigurationError(argument, text, f"a whole number from {low:,} to {high:,}")
    elif name in _SPANS:
        if not re.fullmatch(r"[0-9]{0,7}(\.[0-9]{0,9})?", text) or not 0 < float(f"0{text}") <= 1_000_000:
            raise ConfigurationError(argument, text, "seconds, more than 0 and up to 1,000,000")
    elif name in _WORDS:
        words: tuple[str, ...] = _WORDS[name]
        known = (*words, "t", "f", "yes", "no", "y", "n", "1", "0") if "true" in words else words
        if (text.lower() if "true" in words else text) not in known:
            raise ConfigurationError(argument, text, words)


@cache
def _options(scheme: str) -> frozenset[str]:
    """Names of options that the redis-py here takes for this kind of URL; none without redis-py."""
    kind = "UnixDomainSocketConnection" if scheme == "unix" else "Connection"
    wanted = ["SSLConnection" if scheme.startswith("rediss") else kind, "BlockingConnectionPool"]
    names = {"sentinel_username", "sentinel_password"} if scheme in SENTINEL else set[str]()
    try:
        modules = [import_module(f"{package}.connection") for package in ("redis", "redis.asyncio")]
        if scheme.endswith("cluster"):
            modules += [import_module(f"{package}.cluster") for package in ("redis", "redis.asyncio")]
            wanted.append("RedisCluster")
    except ImportError:
        return frozenset()  # told, with the extra's name, when a client is made
    for made in [getattr(module, name) for module in modules for name in wanted if hasattr(module, name)]:
        for base in made.__mro__[:-1]:
            names |= {*inspect.signature(base.__init__).parameters}
    return frozenset(names - {"self", "args", "kwargs", "connection_kwargs"})


def is_cluster(url: BackendURL) -> bool:
    """Tell whether a cluster is meant."""
    return url.scheme.endswith("+cluster")


def is_tls(url: BackendURL) -> bool:
    """Tell whether connections are encrypted."""
    return url.scheme.startswith("rediss")


def master_of(url: BackendURL) -> tuple[str, int]:
    """Return the service and the database that ``redis+sentinel://host:26379,host/SERVICE/DB`` names.

    Raises:
        ConfigurationError: No service, or a database that is no number.

    >>> master_of(parse_url("redis+sentinel://a:26379,b:26379/mymaster/2"))
    ('mymaster', 2)
    """
    service, _, database = url.path.partition("/")
    number = whole(database or "0")
    if not service or number is None:
        allowed = "redis+sentinel://host:26379,host:26379/SERVICE or .../SERVICE/DATABASE"
        raise ConfigurationError("url", redact(url.text), allowed)
    return service, number


def query_options(url: BackendURL, *, extra: str, needed_by: str) -> dict[str, Any]:
    """Return what a URL says after the question mark, read as redis-py does for a single server.

    Raises:
        ConfigurationError: A value that its option cannot have.
    """
    parsers: Any = require("redis.connection", extra=extra, needed_by=needed_by).URL_QUERY_ARGUMENT_PARSERS
    out: dict[str, Any] = {}
    for name, text in url.options.items():
        try:
            out[name] = parsers.get(name, str)(text)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{name} in the URL", text, f"a value for redis-py's {name}") from error
    return out


def user(url: BackendURL) -> dict[str, str]:
    """Return the credentials that the URL holds."""
    given = {"username": url.username, "password": url.password}
    return {name: value for name, value in given.items() if value is not None}


def trust(url: BackendURL) -> dict[str, Any]:
    """Return how an encrypted connection judges the server: its certificate must be for this host.

    redis-py before 6 checks the chain but not the name, so that any certificate of the same authority
    would do. ``ssl_check_hostname=false`` in the URL turns the check off, and is warned of.
    """
    if not is_tls(url):
        return {}
    unchecked = url.options.get("ssl_cert_reqs", "").lower() == "none"
    said = url.options.get("ssl_check_hostname", "").lower()
    if unchecked or said in ("false", "f", "no", "n", "0"):
        _log.warning(
            "connections to %s do not check who answers (%s in the URL): anybody on the way can read and "
            "change what they carry",
            redact(url.text),
            "ssl_cert_reqs" if unchecked else "ssl_check_hostname",
        )
        return {"ssl_check_hostname": False}
    return {"ssl_check_hostname": True}
