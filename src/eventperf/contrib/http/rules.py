"""What of HTTP a shared cache may keep, and for whom (RFC 9110, RFC 9111). Pure decisions."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Final

from .dates import moment
from .who import in_headers, is_silent

Headers = Sequence[Sequence[str]]

SUCCESS: Final = frozenset({200, 203, 204, 300, 301, 308})
"""Statuses that are kept as long as the host says where the answer does not."""
KEPT: Final = SUCCESS | {404, 405, 410, 414, 501}
"""Statuses that are kept where the answer says for how long: of RFC 9110, 15.1, without 206."""

STREAMS: Final = (
    "text/event-stream", "multipart/", "application/x-ndjson", "application/ndjson", "application/jsonl",
    "application/x-jsonlines", "application/jsonlines", "application/x-jsonl", "application/json-seq",
    "application/stream+json", "application/x-json-stream", "application/json-lines", "application/grpc",
)  # fmt: skip
"""Beginnings of types that are read while they are made: they are handed through and not kept."""

HOPS: Final = frozenset({
    "connection", "keep-alive", "proxy-authenticate", "proxy-authentication-info", "proxy-authorization",
    "proxy-connection", "te", "trailer", "transfer-encoding", "upgrade",
})  # fmt: skip
"""What concerns one connection and is never kept (RFC 9111, 3.1)."""

NOT_MODIFIED: Final = frozenset(
    {"cache-control", "content-location", "date", "etag", "expires", "last-modified", "vary"}
)
"""What a 304 tells again (RFC 9110, 15.4.5)."""

CONDITIONS: Final = frozenset(
    {"if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "if-range", "range"}
)
SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What a host said.

    Attributes:
        ttl_s: Life of answers that do not say one themselves; ``None`` keeps only those that do.
        stale_s: How long after its life an answer may stand in while one caller has a new one made.
        grace_s: How long after its life it may stand in for an error (5xx).
        max_body_bytes: Longest body that is kept.
        ignore_cookies: Cookies that change nothing (analytics); with any other a request is its own.
        authorized: Whether answers to requests that say who asks (``Authorization``, ``X-Api-Key`` and their
            like) may be kept where they say ``public``.
        harmless: Headers that look as if they said who asks, and do not.
    """

    ttl_s: float | None = None
    stale_s: float = 0.0
    grace_s: float = 0.0
    max_body_bytes: int = 1 << 20
    ignore_cookies: frozenset[str] = frozenset()
    authorized: bool = False
    harmless: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request.

    Attributes:
        url: Scheme, host, path and query: what it asks for.
        path: Scheme, host and path: what a change of it invalidates.
        headers: By their names in small letters; several of one name joined by commas.
        known: Whether the server, or a middleware outside, knows who asks.
        around: What else the answer depends on, as ``name=value`` (the language that is set).
        harmless: Headers that change no answer, as the host says.
    """

    method: str
    url: str
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    known: bool = False
    around: tuple[str, ...] = ()
    harmless: Collection[str] = ()

    @property
    def has_body(self) -> bool:
        """Whether a body is announced: the answer may depend on it, and no key can say so."""
        return "transfer-encoding" in self.headers or self.headers.get("content-length", "") not in ("", "0")

    def says_who(self, rules: Rules) -> bool:
        """Tell whether the request says who asks, so that its answer may be for him alone."""
        return self.known or in_headers(self.headers, rules.harmless)

    def key(self) -> str:
        """Return what names the answer, before ``Vary``.

        What the URL does not say stands before it: whatever a visitor writes into a URL comes after.
        """
        return f"{self._unlisted()}|{self.url}"

    def _unlisted(self) -> str:
        """Return what stands for the headers that may change the answer without a word in ``Vary``.

        Whoever sends one that an application heeds gets an answer made for it; nobody else may get that one.
        """
        said = [n for n in self.headers if not is_silent(n) and n not in self.harmless]
        extra = [*self.around, *(f"{name}={self.headers[name]}" for name in sorted(said))]
        return _digest(extra) if extra else ""

    def variant(self, names: Sequence[str]) -> dict[str, str]:
        """Return what the request says in the headers that an answer varies by."""
        return {name: _plain(self.headers.get(name, "")) for name in names}

    def variant_key(self, names: Sequence[str]) -> str:
        """Return what names the answer for this request's variant."""
        said = self.variant(sorted(names))
        return f"{self._unlisted()}.{_digest([f'{k}={v}' for k, v in said.items()])}|{self.url}"


def place(scheme: str, host: str, base: str, path: str) -> str:
    """Return scheme, host and path so that no part reads as the next one, whatever stands in it."""
    return f"{scheme}://{_MEANT.sub(_coded, host.lower())}{base}|{_MEANT.sub(_coded, path)}"


_MEANT: Final = re.compile(r"[%|?\s]")


def _coded(found: re.Match[str]) -> str:
    return f"%{ord(found[0]):02X}"


def _digest(parts: Sequence[str]) -> str:
    """Return what stands for some texts; no letter in one of them reads as the border between two."""
    return sha256(repr([*parts]).encode("utf-8", "surrogateescape")).hexdigest()[:32]


def _plain(value: str) -> str:
    return ",".join(part.strip() for part in value.split(","))


def directives(text: str) -> dict[str, str]:
    """Return the directives of a Cache-Control header; of a doubled one the first, quotes taken away.

    >>> directives('max-age=60, PUBLIC, no-cache="Set-Cookie, max-age=5"')
    {'max-age': '60', 'public': '', 'no-cache': 'Set-Cookie, max-age=5'}
    """
    found: dict[str, str] = {}
    for part in _PART.findall(text):
        name, _, value = part.strip().partition("=")
        if name:
            found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found


_QUOTED: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_PART: Final = re.compile(r'(?:"(?:[^"\\]|\\.?)*(?:"|\Z)|[^,])+', re.DOTALL)
"""What stands between commas that are in no quotes; one that nothing closes runs to the end."""
_WORD: Final = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_DIRECTIVE: Final = re.compile(rf'{_WORD}(?:[ \t]*=[ \t]*(?:{_WORD}|"))?')


def is_sound(text: str) -> bool:
    """Tell whether a Cache-Control header is one: of others nobody knows what they were to forbid.

    >>> is_sound('max-age=60, no-cache="Set-Cookie, a"'), is_sound("private;x")
    (True, False)
    """
    parts = (part.strip(" \t") for part in _QUOTED.sub('"', text).split(","))
    return all(not part or _DIRECTIVE.fullmatch(part) for part in parts)


def bypass(asked: Asked, rules: Rules) -> str:
    """Return why the cache stays out of a request, empty if it does not."""
    headers = asked.headers
    if asked.method not in ("GET", "HEAD"):
        return "method"
    if asked.has_body:
        return "body"
    if not rules.authorized and asked.says_who(rules):
        return "authorization"
    if "cookie" in headers and not _are_ignored(headers["cookie"], rules.ignore_cookies):
        return "cookie"
    if "range" in headers or "if-match" in headers or "if-unmodified-since" in headers:
        return "partial"
    if "cache-control" in headers and "no-store" in directives(headers["cache-control"]):
        return "no-store"
    return "upgrade" if "upgrade" in headers else ""


_COOKIE: Final = re.compile(r"[ \t]*([^\s=;,\"]+)=[!#-+\--:<-\[\]-~]*[ \t]*")
"""A pair as every reader of cookies reads it (RFC 6265, 4.1.1)."""


def _are_ignored(cookies: str, ignored: Collection[str]) -> bool:
    """Tell whether all cookies are ignored ones; what readers may read in two ways is some other cookie."""
    for part in cookies.split(";"):
        pair = _COOKIE.fullmatch(part)
        if part.strip(" \t") and (pair is None or pair[1] not in ignored):
            return False
    return True


def wants_new(asked: Asked) -> bool:
    """Tell whether the client asks for an answer made now (a reload)."""
    if "cache-control" not in asked.headers and "pragma" not in asked.headers:
        return False
    said = directives(asked.headers.get("cache-control", ""))
    if not said and "no-cache" in asked.headers.get("pragma", "").lower():
        return True
    return "no-cache" in said or said.get("max-age") == "0"


def values(headers: Headers, name: str) -> str:
    """Return all values of a header, joined by commas; empty where there is none."""
    return ", ".join([value for key, value in headers if key.lower() == name])


def has(headers: Headers, name: str) -> bool:
    """Tell whether a header is there."""
    return any(key.lower() == name for key, _ in headers)


def lifetime(
    asked: Asked, status: int, headers: Headers, rules: Rules, ttl_s: float | None, now: float
) -> float | None:
    """Return for how many seconds an answer may be kept, ``None`` if not at all.

    Args:
        ttl_s: What the view said about itself, ``None`` for the rules' own.
    """
    text = values(headers, "cache-control")
    said = directives(text)
    if not is_sound(text) or not _may_be_kept(said, status, headers):
        return None
    if asked.says_who(rules) and not ({"public", "s-maxage", "must-revalidate"} & said.keys()):
        return None
    length = values(headers, "content-length")
    if length and not 0 <= number(length, -1) <= rules.max_body_bytes:
        return None
    life = _said_life(said, headers, now)
    if life is None and status in SUCCESS:
        life = ttl_s if ttl_s is not None else rules.ttl_s
    if life is None:
        return None
    left = life - aged(headers, now)
    return left if left > 0 else None


def _may_be_kept(said: Mapping[str, str], status: int, headers: Headers) -> bool:
    if "no-store" in said or "private" in said or "no-cache" in said or has(headers, "set-cookie"):
        return False
    if status not in KEPT or has(headers, "content-range") or varies(headers) is None:
        return False
    return not (has(headers, "trailer") or values(headers, "content-type").lower().startswith(STREAMS))


def number(text: str, otherwise: int = 0) -> int:
    """Return a number of seconds or bytes as HTTP writes them: digits of ASCII, at most 2**31.

    >>> number("60"), number("²"), number("9" * 5_000)
    (60, 0, 2147483648)
    """
    if not _DIGITS.fullmatch(text):
        return otherwise
    return min(int(text.lstrip("0")[:11] or "0"), 1 << 31)


_DIGITS: Final = re.compile("[0-9]+")


def aged(headers: Headers, now: float) -> float:
    """Return how old an answer is already, by its ``Age`` or its ``Date`` (RFC 9111, 4.2.3)."""
    said = number(values(headers, "age").partition(",")[0].strip())  # of a list the first one (5.1)
    made = moment(values(headers, "date"))
    return max(said, 0.0 if made is None else now - made)


def stand_ins(headers: Headers, rules: Rules) -> tuple[float, float]:
    """Return how long after its life an answer may stand in: while a new one is made, and for an error.

    The host's own wish, at most what the answer allows (RFC 9111, 4.2.4; RFC 5861).
    """
    said = directives(values(headers, "cache-control"))
    if {"must-revalidate", "proxy-revalidate", "s-maxage"} & said.keys():
        return 0.0, 0.0
    wished = (("stale-while-revalidate", rules.stale_s), ("stale-if-error", rules.grace_s))
    stale, grace = (min(wish, number(said[name])) if name in said else wish for name, wish in wished)
    return stale, grace


def is_whole(headers: Headers, body: bytes) -> bool:
    """Tell whether a body has the length that was announced."""
    length = values(headers, "content-length")
    return not length or number(length, -1) == len(body)


def kept_headers(headers: Headers) -> list[list[str]]:
    """Return the headers that belong to an answer and not to one connection."""
    named = {name.strip().lower() for name in values(headers, "connection").split(",")}
    dropped = HOPS | named | {"age", "content-length"}
    return [[k, v] for k, v in headers if k.lower() not in dropped]


def _said_life(said: Mapping[str, str], headers: Headers, now: float) -> float | None:
    for name in ("s-maxage", "max-age"):
        if name in said:
            return float(number(said[name]))  # what cannot be read is stale
    if not has(headers, "expires"):
        return None
    until, since = moment(values(headers, "expires")), moment(values(headers, "date"))
    return 0.0 if until is None else until - (now if since is None else since)


def varies(headers: Headers) -> list[str] | None:
    """Return the request headers that an answer depends on; ``None`` if it depends on more than headers."""
    names = {part.strip().lower() for part in values(headers, "vary").split(",") if part.strip()}
    return None if "*" in names else sorted(names)


def not_modified(asked: Asked, status: int, headers: Headers) -> bool:
    """Tell whether the client has this answer already (RFC 9110, 13.2)."""
    told = asked.headers.get("if-none-match")
    if (told is None and "if-modified-since" not in asked.headers) or not 200 <= status < 300:
        return False
    if told is not None:
        tag = values(headers, "etag").removeprefix("W/")
        if told == "*" or (tag and told.removeprefix("W/") == tag):
            return True
        return bool(tag) and tag in [one.removeprefix("W/") for one in _TAGS.findall(told)]
    since = moment(asked.headers["if-modified-since"])
    changed = moment(values(headers, "last-modified"))
    return since is not None and changed is not None and changed <= since


_TAGS: Final = re.compile(r'(?:W/)?"[^"]*"|[^\s,]+')


def etag(body: bytes, encoding: str) -> str:
    """Return a weak validator for a body that came without one."""
    return f'W/"{sha256(encoding.encode() + b"|" + body).hexdigest()[:32]}"'
