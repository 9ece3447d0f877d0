"""Names and reasons inside comments: one line, whatever they hold."""

from __future__ import annotations


def one_line(text: str) -> str:
    r"""Return ``text`` with what could end a line or steer a terminal written out.

    >>> print(one_line("tick\nDROP TABLE t"))
    tick\nDROP TABLE t
    """
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
