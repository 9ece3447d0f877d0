"""What ``LOCATION`` means: a server, or process memory under a name."""

from __future__ import annotations

import re
from typing import Any, Final

from eventperf._core.errors import ConfigurationError
from eventperf._core.urls import parse_url, redact
from eventperf.cache.manager import BACKENDS

_NAME: Final = re.compile(r"[\w-]*")
_LIKE_A_SERVER: Final = re.compile(r"localhost|\d+|.*(?:redis|valkey|memcache).*", re.IGNORECASE)
_ALLOWED: Final = (
    "a URL such as redis://host:6379/0 (a cluster: redis+cluster://h1:7000,h2:7001); for process memory "
    "nothing, memory:// or a name of letters, digits, _ and -"
)


def server_of(location: Any) -> str | None:
    """Return the URL of the server that ``location`` names, or ``None`` for process memory.

    Raises:
        ConfigurationError: It may mean a server and does not say which.

    >>> server_of("REDIS://cache:6379/0"), server_of(["redis://cache:6379"]), server_of("unique-snowflake")
    ('redis://cache:6379/0', 'redis://cache:6379', None)
    """
    if isinstance(location, (list, tuple)):
        if len(location) != 1:
            raise ConfigurationError("LOCATION", [_shown(part) for part in location], f"one URL; {_ALLOWED}")
        location = location[0]
    if not isinstance(location, str):
        raise ConfigurationError("LOCATION", location, _ALLOWED)
    text = location.strip()
    if "://" not in text:
        if not _NAME.fullmatch(text) or _LIKE_A_SERVER.fullmatch(text):
            raise ConfigurationError("LOCATION", redact(text), _ALLOWED)
        return None
    if ";" in text or text.count("://") > 1:
        raise ConfigurationError("LOCATION", _shown(text), f"one URL; {_ALLOWED}")
    scheme = parse_url(text, argument="LOCATION").scheme
    if scheme == "memory":
        return None
    BACKENDS.resolve(scheme, argument="LOCATION")
    return scheme + text[len(scheme) :]


def _shown(part: Any) -> Any:
    """Return what an error may show of a list of URLs: no password of any."""
    return ";".join(map(redact, re.split(r"[;,](?=\w+://)", part))) if isinstance(part, str) else part
