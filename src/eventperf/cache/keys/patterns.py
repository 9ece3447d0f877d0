"""Patterns over keys, with the rules of Redis."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

_SPECIAL: Final = re.compile(r"([*?\[\]\\^])")


def escape(text: str) -> str:
    """Make ``text`` match only itself inside a pattern for ``invalidate_pattern``.

    >>> escape("50% [off]*")
    '50% \\\\[off\\\\]\\\\*'
    """
    return _SPECIAL.sub(r"\\\1", text)


def glob(pattern: str) -> Callable[[str], bool]:
    """Return a matcher with Redis's glob rules (``*``, ``?``, ``[a-z]``, ``[^a]``, backslash escapes).

    >>> glob("ev:?:*")("ev:4:x"), glob(r"a\\*b")("axb")
    (True, False)
    """
    parts: list[list[str]] = [[]]  # between the stars, one expression per character
    at = 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            parts.append([])
        elif char == "?":
            parts[-1].append(".")
        elif char == "\\" and at < len(pattern):
            parts[-1].append(re.escape(pattern[at]))
            at += 1
        elif char == "[":
            text, at = _char_class(pattern, at)
            parts[-1].append(text)
        else:
            parts[-1].append(re.escape(char))
    first, *rest = [re.compile("".join(part), re.DOTALL) for part in parts]
    if not rest:
        return lambda text: first.fullmatch(text) is not None
    *middle, last = rest
    size = len(parts[-1])

    def matches(text: str) -> bool:
        # Each part takes the first place it fits, and never gives it back: nothing is tried twice.
        found = first.match(text)
        for part in middle:
            if found is None:
                return False
            found = part.search(text, found.end())
        start = len(text) - size
        return found is not None and start >= found.end() and last.match(text, start) is not None

    return matches


def widened(pattern: str) -> str:
    """Return a pattern of which a server that compares bytes finds at least what ``pattern`` matches as text.

    Where one character may be several bytes, it takes any number of them.

    >>> widened("ev:?:[a-c]:*"), widened("[é]x"), widened(r"a\\?b")
    ('ev:*:[a-c]:*', '*x', 'a\\\\?b')
    """
    out, at = "", 0
    while at < len(pattern):
        start, char = at, pattern[at]
        at += 1
        if char == "\\":
            at += 1
        elif char == "[":
            text, at = _char_class(pattern, at)
            if text[:2] == "[^" or text == "." or not pattern[start:at].isascii():
                out += "*"
                continue
        out += "*" if char == "?" else pattern[start:at]
    return out


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
