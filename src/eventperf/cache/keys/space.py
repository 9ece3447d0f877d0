"""Namespaces, and what becomes of a key on its way to the tiers."""

from __future__ import annotations

import hashlib
import re
import secrets
from typing import Final

from eventperf._core.errors import ConfigurationError

from .names import percent

MAX_KEY: Final = 512
"""Longest key in characters that is kept as it is; longer ones keep a prefix and gain a digest."""

_PART: Final = re.compile(r"[%:{}*?\[\]\\\s\x00-\x1f\x7f\ud800-\udfff]")
_ODD: Final = re.compile(r"[\x02\ud800-\udfff]")
_ODD_IN_TAGS: Final = re.compile(r"[\x00-\x02\ud800-\udfff]")
_MARK: Final = "\x02"
"""Before the digest of a key that is not kept as it is; no key that is kept has it."""
_DIGEST: Final = 32
FOREIGN: Final = f"\x00{secrets.token_hex(8)}"
"""How local keys of other namespaces begin: no key of the home namespace, whatever its text, reaches one."""


def quote_part(text: str) -> str:
    """Return ``text`` so that it can stand between colons: what separates or groups is percent-encoded."""
    return _PART.sub(percent, text)


def is_odd(key: str) -> bool:
    """Tell whether a key is too long, or holds what cannot be sent."""
    return len(key) > MAX_KEY or not (key.isprintable() or _ODD.search(key) is None)


def fit(key: str) -> str:
    """Return ``key``, or if it is odd its readable beginning and a digest; patterns match the beginning.

    >>> fit("event:42"), len(fit("x" * 10_000))
    ('event:42', 512)
    """
    return _shortened(key) if is_odd(key) else key


def fit_tag(tag: str) -> str:
    """Return ``tag`` as it is kept beside values: also without what separates tags there."""
    odd = len(tag) > MAX_KEY or not (tag.isprintable() or _ODD_IN_TAGS.search(tag) is None)
    return _shortened(tag) if odd else tag


def _shortened(text: str) -> str:
    start = _ODD_IN_TAGS.sub(percent, text[:MAX_KEY])[: MAX_KEY - _DIGEST - 1]
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=_DIGEST // 2).hexdigest()
    return f"{start}{_MARK}{digest}"


class Reserved(str):
    """The key of a part of this package, in the same namespace: no text of a caller writes to it.

    It begins as no other kept key does, whatever the text of that is; tags and patterns reach both.
    """

    __slots__ = ()

    @classmethod
    def of(cls, part: str, text: str) -> Reserved:
        """Return the key of ``text`` for a part."""
        return cls(f"{_MARK}{part}:{fit(text)}")


class Space:
    """One namespace: how its keys look outside (in Redis) and inside (in process memory).

    The manager's own namespace uses the caller's key itself inside, so that it costs no second text.
    """

    __slots__ = ("_version", "inner", "name", "outer", "tag_prefix")

    def __init__(self, name: str, *, version: str = "1", home: bool = True) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigurationError("namespace", name, "a non-empty text")
        self.name: str = name
        self._version: str = version
        quoted = quote_part(name)
        self.outer: str = f"{quoted}:{version}:"
        self.tag_prefix: str = f"{quoted}:t:"
        self.inner: str = "" if home else f"{FOREIGN}{quoted}:"

    def local(self, key: str) -> str:
        """Return the key in process memory."""
        if len(key) > MAX_KEY or not key.isprintable():
            key = key if type(key) is Reserved else fit(key)
        return self.inner + key if self.inner else key

    def local_of(self, outer: str) -> tuple[str, bool] | None:
        """Return what an outer key of any namespace is in a process whose own namespace this is.

        Returns:
            The local key or the tag as process memory knows it, and whether it is a tag's record; ``None``
            for a key of somebody else.
        """
        quoted, _, rest = outer.partition(":")
        kind, colon, text = rest.partition(":")
        if not colon or kind not in ("t", self._version):
            return None
        inner = self.inner if self.outer.startswith(quoted + ":") else f"{FOREIGN}{quoted}:"
        return inner + text, kind == "t"

    def whole_of(self, outer: str) -> str:
        """Return the pattern of all entries in the namespace of an outer key or tag's record."""
        return f"{outer.partition(':')[0]}:{self._version}:*"
