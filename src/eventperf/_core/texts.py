"""Texts from outside on their way to people: names and reasons must not steer a terminal or forge a line."""

from __future__ import annotations


def one_line(text: str) -> str:
    r"""Return ``text`` with what could end a line, steer a terminal or turn its direction written out.

    >>> print(one_line("tick\nDROP TABLE t"), one_line("\x1b[2J\u202e"))
    tick\nDROP TABLE t \x1b[2J\u202e
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def plain(text: str) -> str:
    r"""Return ``text`` of several lines as a terminal may get it.

    >>> print(plain("a\n\x07b"))
    a
    \x07b
    """
    return "\n".join(one_line(line) for line in text.split("\n"))


def whole(text: str, *, digits: int = 18) -> int | None:
    """Return the whole number that ``text`` writes in plain digits, ``None`` for anything else.

    ``int`` raises for some of what ``str.isdigit`` is true of: superscripts, thousands of digits.

    >>> whole("42"), whole("\u00b2"), whole("9" * 5000), whole("-1")
    (42, None, None, None)
    """
    return int(text) if len(text) <= digits and text.isascii() and text.isdigit() else None
