"""Backend URLs: from a scheme to the object that serves it, without importing its driver."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import SplitResult, parse_qsl, unquote

from .errors import ConfigurationError, UnknownScheme

_OPTION: Final = re.compile(r"([?&][^=&#?]*=)[^&#]*")
_SECRET: Final = re.compile(r"pass|pwd|secret|token|credential|api_?key", re.IGNORECASE)
_DATABASE: Final = re.compile(r"(?:postgres|mysql|mariadb|sqlite|oracle|mssql)", re.IGNORECASE)
_SCHEME: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendURL:
    """A URL taken apart; ``repr`` and ``str`` never show its password.

    Attributes:
        scheme: Lower case, for example ``redis+cluster``.
        hosts: ``(host, port)`` pairs; port is ``None`` where the URL has none.
        path: Decoded, without the leading slash (the database number or name, a file).
        options: The query string as a mapping; a repeated name keeps its last value.
        text: The URL exactly as given.
    """

    scheme: str
    hosts: tuple[tuple[str, int | None], ...]
    username: str | None
    password: str | None = field(repr=False)
    path: str
    options: Mapping[str, str] = field(repr=False)  # may hold a password too
    text: str = field(repr=False)

    def __str__(self) -> str:
        return redact(self.text)


def redact(url: str) -> str:
    """Return ``url`` with its password, or a token in the user's place, replaced by ``***``.

    >>> redact("redis://app:s3cret@cache:6379/0")
    'redis://app:***@cache:6379/0'
    >>> redact("redis:/app:s3cret@cache")
    '***@cache'
    """
    scheme, mark, rest = url.partition("://")
    if not mark:  # someone forgot the scheme, but perhaps not the password
        return f"***@{url.rpartition('@')[2]}" if "@" in url else url
    # Up to the last "@": an unescaped "/" or "?" in a password must not let its rest through.
    userinfo, at, tail = rest.rpartition("@")
    username, colon, _ = userinfo.partition(":")
    if username and not colon and not _DATABASE.match(scheme):
        username = "***"  # where a token stands for both
    text = f"{scheme}://{username}{':***' if colon else ''}{at}{tail}"
    return _OPTION.sub(lambda found: f"{found[1]}***" if _SECRET.search(found[1]) else found[0], text)


def _split(url: str) -> SplitResult:
    """Like ``urlsplit``, which in some Pythons refuses IPv6 hosts inside a list of hosts."""
    scheme, _, rest = url.partition("://")
    rest, _, fragment = rest.partition("#")
    rest, _, query = rest.partition("?")
    netloc, slash, path = rest.partition("/")
    return SplitResult(scheme, netloc, slash + path, query, fragment)


def parse_url(url: str, *, argument: str = "url") -> BackendURL:
    """Take ``url`` apart; several hosts may be separated by commas.

    Raises:
        ConfigurationError: Not a URL with a scheme, or a port that is not a number.

    >>> parse_url("redis+cluster://h1:7000,h2:7001").hosts
    (('h1', 7000), ('h2', 7001))
    """
    allowed = "a URL such as redis://host:6379/0"
    if not isinstance(url, str):
        raise ConfigurationError(argument, url, allowed)
    parts = _split(url)
    if "://" not in url or not _SCHEME.fullmatch(parts.scheme):
        raise ConfigurationError(argument, redact(url), allowed)
    userinfo, at, rest = parts.netloc.rpartition("@")
    username, colon, password = userinfo.partition(":")
    hosts = tuple(_host(part, argument, url) for part in rest.split(",") if part)
    return BackendURL(
        scheme=parts.scheme.lower(),
        hosts=hosts,
        username=unquote(username) or None if at else None,
        password=unquote(password) if at and colon else None,
        path=unquote(parts.path).removeprefix("/"),
        options=dict(parse_qsl(parts.query, keep_blank_values=True)),
        text=url,
    )


def _host(part: str, argument: str, url: str) -> tuple[str, int | None]:
    if part.startswith("["):
        host, closed, tail = part[1:].partition("]")
        port = tail.removeprefix(":")
        if not closed or (tail and not tail.startswith(":")):
            raise ConfigurationError(argument, redact(url), "IPv6 hosts as [::1] or [::1]:6379")
    else:
        host, _, port = part.partition(":")
    if not port:
        return host, None
    if not re.fullmatch("[0-9]{1,5}", port) or not 0 < int(port) < 65536:
        raise ConfigurationError(argument, redact(url), "ports between 1 and 65535")
    return host, int(port)


class Registry:
    """From scheme to backend for one room: built-in names first, then entry points of third parties.

    A backend is named as ``"module:object"`` and imported only when a URL asks for it. Third parties
    register under the entry-point group ``eventperf.<room>`` with the scheme as name.
    """

    def __init__(self, room: str, builtin: Mapping[str, str]) -> None:
        self._room = room
        self._targets = dict(builtin)

    def register(self, scheme: str, target: str) -> None:
        """Serve ``scheme`` with ``target`` (``"module:object"``) in this process."""
        self._targets[scheme.lower()] = target

    def schemes(self) -> tuple[str, ...]:
        """Return every known scheme, sorted."""
        return tuple(sorted({*self._targets, *self._entry_points()}))

    def resolve(self, scheme: str, *, argument: str = "url", given: str = "") -> Any:
        """Return the object that serves ``scheme``; an error shows ``given``, a URL without its password.

        Raises:
            UnknownScheme: No backend of this room answers to it.
        """
        target = self._targets.get(scheme) or self._entry_points().get(scheme)
        if target is None:
            known = self.schemes()
            near = _near(scheme, known)
            said = (given or f"{scheme}://") + (f" (write {near}://)" if near else "")
            raise UnknownScheme(argument, said, [f"{s}://" for s in known])
        module, _, name = target.partition(":")
        return getattr(importlib.import_module(module), name)

    def _entry_points(self) -> dict[str, str]:
        from importlib.metadata import entry_points  # late: 45 ms of imports few programs need

        return {p.name: p.value for p in entry_points(group=f"eventperf.{self._room}")}


def _near(scheme: str, known: tuple[str, ...]) -> str | None:
    """Return the scheme that is probably meant: the same database with the driver that serves it, or a slip.

    >>> _near("postgresql", ("mysql+pymysql", "postgresql+psycopg")), _near("reddis", ("memory", "redis"))
    ('postgresql+psycopg', 'redis')
    """
    from difflib import get_close_matches  # late: only an error needs it

    base = scheme.partition("+")[0]
    base = {"postgres": "postgresql"}.get(base, base)
    drivers = [s for s in known if s.startswith(f"{base}+") and base not in known]
    return next(iter(drivers or get_close_matches(scheme, known, 1, 0.75)), None)
