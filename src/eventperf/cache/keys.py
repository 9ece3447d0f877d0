"""Keys: text that is the same in every process, and that no two different things share."""

from __future__ import annotations

import hashlib
import re
import string
from collections.abc import Callable
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

from eventperf._core.errors import ConfigurationError

MAX_KEY: Final = 512
"""Longest key in characters that is kept as it is; longer ones keep a prefix and gain a digest."""

_SPECIAL: Final = re.compile(r"([*?\[\]\\^])")
_PART: Final = re.compile(r"[%:{}*?\[\]\\\s\x00-\x1f]")


def escape(text: str) -> str:
    """Make ``text`` match only itself inside a pattern for ``invalidate_pattern``.

    >>> escape("50% [off]*")
    '50% \\\\[off\\\\]\\\\*'
    """
    return _SPECIAL.sub(r"\\\1", text)


def quote_part(text: str) -> str:
    """Return ``text`` so that it can stand between colons: what separates or groups is percent-encoded."""
    return _PART.sub(lambda m: f"%{ord(m[0]):02X}", text)


def fit(key: str) -> str:
    """Return ``key``, shortened with a digest when it is too long; the readable prefix stays for patterns."""
    if len(key) <= MAX_KEY:
        return key
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{key[: MAX_KEY - 40]}~{digest}"


class Space:
    """One namespace: how its keys look outside (in Redis) and inside (in process memory).

    The manager's own namespace uses the caller's key itself inside, so that it costs no second text.
    """

    __slots__ = ("inner", "name", "outer", "tag_prefix")

    def __init__(self, name: str, *, version: str = "1", home: bool = True) -> None:
        if not isinstance(name, str) or not name:
            raise ConfigurationError("namespace", name, "a non-empty text")
        self.name: str = name
        quoted = quote_part(name)
        self.outer: str = f"{quoted}:{version}:"
        self.tag_prefix: str = f"{quoted}:t:"
        self.inner: str = "" if home else f"\x00{quoted}:"

    def local(self, key: str) -> str:
        """Return the key in process memory."""
        if len(key) > MAX_KEY:
            key = fit(key)
        return self.inner + key if self.inner else key

    def local_of(self, outer: str) -> tuple[str, bool] | None:
        """Return what an outer key of any namespace is in a process whose own namespace this is.

        Returns:
            The local key or the tag as process memory knows it, and whether it is a tag's record; ``None``
            for a key of somebody else.
        """
        quoted, _, rest = outer.partition(":")
        kind, colon, text = rest.partition(":")
        version = self.outer[len(self.tag_prefix) - 2 : -1]
        if not colon or kind not in ("t", version):
            return None
        inner = self.inner if self.outer.startswith(quoted + ":") else f"\x00{quoted}:"
        return inner + text, kind == "t"

    def whole_of(self, outer: str) -> str:
        """Return the pattern of all entries in the namespace of an outer key or tag's record."""
        version = self.outer[len(self.tag_prefix) - 2 : -1]
        return f"{outer.partition(':')[0]}:{version}:*"


def glob(pattern: str) -> Callable[[str], bool]:
    """Return a matcher with Redis's glob rules (``*``, ``?``, ``[a-z]``, ``[^a]``, backslash escapes).

    >>> glob("ev:?:*")("ev:4:x"), glob(r"a\\*b")("axb")
    (True, False)
    """
    out, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            out.append(".*")
        elif char == "?":
            out.append(".")
        elif char == "\\" and at < len(pattern):
            out.append(re.escape(pattern[at]))
            at += 1
        elif char == "[":
            text, at = _char_class(pattern, at)
            out.append(text)
        else:
            out.append(re.escape(char))
    match = re.compile("".join(out), re.DOTALL).fullmatch
    return lambda text: match(text) is not None


def _char_class(pattern: str, at: int) -> tuple[str, int]:
    negated = pattern[at : at + 1] == "^"
    at += negated
    chars = []
    while at < len(pattern) and pattern[at] != "]":
        if pattern[at] == "\\" and at + 1 < len(pattern):
            at += 1
            chars.append(re.escape(pattern[at]))
        elif pattern[at + 1 : at + 2] == "-" and at + 2 < len(pattern):
            low, high = sorted((pattern[at], pattern[at + 2]))
            chars.append(f"{re.escape(low)}-{re.escape(high)}")
            at += 2
        else:
            chars.append(re.escape(pattern[at]))
        at += 1
    body = "".join(chars)
    if not body:
        return ("." if negated else r"(?!)"), at + 1
    return f"[{'^' if negated else ''}{body}]", at + 1


class Unstable(TypeError):
    """An object without stable text; the caller turns it into an error that names the argument."""


_PLAIN: Final = re.compile(r"[^%:,(){}\[\]=*?\\\s]*")


def encode(value: Any) -> str:
    """Return the text of an argument inside a key.

    Arguments that compare equal give equal text (1, 1.0 and True share an entry, as in ``lru_cache``), and
    different kinds of argument never share one (the text "1" is not the number 1).

    Raises:
        Unstable: The value has no text that every process would agree on.

    >>> encode(42), encode("42"), encode((1, "a b")), encode(None)
    ('42', "'42", "(1,'a%20b)", '~')
    """
    if type(value) is str:
        return "'" + (value if _PLAIN.fullmatch(value) else _quote(value))
    if type(value) is int:
        return str(value)
    return _encode_other(value)


def _quote(text: str) -> str:
    return re.sub(r"[%:,(){}\[\]=*?\\\s]", lambda m: f"%{ord(m[0]):02X}", text)


def _encode_other(value: Any) -> str:
    if value is None:
        return "~"
    if isinstance(value, Enum) and not isinstance(value, (int, str)):
        return f"{type(value).__qualname__}.{value.name}"
    if isinstance(value, str):
        return encode(str.__str__(value)) if not isinstance(value, Enum) else encode(value.value)
    if isinstance(value, (bool, int)):
        return str(int(value))
    if isinstance(value, (float, Decimal)):
        if value != value or value in (float("inf"), float("-inf")):
            return f"f{value}"
        return str(int(value)) if value == int(value) else f"f{_quote(str(value))}"
    if isinstance(value, (bytes, bytearray)):
        return "b" + bytes(value).hex()
    if isinstance(value, UUID):
        return f"u{value.hex}"
    if isinstance(value, datetime):
        if value.tzinfo is not None:
            value = value.astimezone(timezone.utc)
        return "d" + _quote(value.isoformat())
    if isinstance(value, (date, time)):
        return "d" + _quote(value.isoformat())
    if isinstance(value, timedelta):
        return f"p{value.total_seconds()!r}"
    return _encode_group(value)


def _encode_group(value: Any) -> str:
    if isinstance(value, type):
        return f"<{value.__module__}.{value.__qualname__}>"
    if isinstance(value, tuple):
        return "(" + ",".join(map(encode, value)) + ")"
    if isinstance(value, list):
        return "[" + ",".join(map(encode, value)) + "]"
    if isinstance(value, (set, frozenset)):
        return "{" + ",".join(sorted(map(encode, value))) + "}"
    if isinstance(value, dict):
        return "{" + ",".join(sorted(f"{encode(k)}={encode(v)}" for k, v in value.items())) + "}"
    fields = getattr(type(value), "__dataclass_fields__", None)
    if fields is not None and type(value).__dataclass_params__.frozen:
        body = ",".join(f"{name}={encode(getattr(value, name))}" for name in fields)
        return f"{type(value).__qualname__}({body})"
    raise Unstable(type(value).__name__)


def template_text(value: Any) -> str:
    """Return the text of an argument in a template such as ``"event:{event_id}"``.

    Plain text stays readable; what separates or matches in a pattern is percent-encoded, so that
    ``"a:b"`` in one field never looks like two fields.
    """
    if type(value) is int:
        return str(value)
    if type(value) is str:
        return value if _PLAIN.fullmatch(value) else _quote(value)
    text = _encode_other(value) if not isinstance(value, str) else encode(value)[1:]
    return text


class Template:
    """A key or tag such as ``"event:{event_id}"``, taken apart once.

    Fields are parameter names; ``{user.id}`` and ``{row[0]}`` reach inside; ``{{`` is a brace.
    """

    def __init__(self, text: str, *, argument: str = "key") -> None:
        self.text = text
        self.fields: list[str] = []
        self._parts: list[tuple[str, str | None]] = []
        try:
            for literal, field, spec, conversion in string.Formatter().parse(text):
                if spec or conversion:
                    raise ConfigurationError(argument, text, "plain fields, like {event_id}")
                self._parts.append((literal, field))
                if field is not None:
                    self.fields.append(re.split(r"[.\[]", field, maxsplit=1)[0])
        except ValueError as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(argument, text, "text with {parameter} fields") from error
        self._formatter = string.Formatter()

    @property
    def reaches(self) -> list[str]:
        """What the text is made of: parameters, or what lies inside them."""
        return [field for _, field in self._parts if field is not None]

    def check(self, names: set[str], *, argument: str, where: str) -> None:
        """Refuse fields that are none of the function's parameters."""
        for field in self.fields:
            if field not in names:
                allowed = f"fields out of the parameters of {where}: {', '.join(sorted(names)) or 'none'}"
                raise ConfigurationError(argument, self.text, allowed)

    def render(self, bound: dict[str, Any]) -> str:
        """Return the text for ``bound`` arguments."""
        out = []
        for literal, field in self._parts:
            out.append(literal)
            if field is not None:
                value, _ = self._formatter.get_field(field, (), bound)
                out.append(template_text(value))
        return "".join(out)
