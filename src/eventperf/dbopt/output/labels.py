"""How statements are named to people."""

from __future__ import annotations

import re
from typing import Final

from eventperf._core.texts import one_line

_LIST: Final = 40  # a select list of fewer letters is worth reading
_SELECT: Final = re.compile(r"SELECT (DISTINCT )?", re.IGNORECASE)
_FROM: Final = re.compile(r"\bFROM\b", re.IGNORECASE)


def label(statement: str, width: int = 110) -> str:
    """Return a statement for people, on one line: what it reads and by what, without what is in the middle.

    >>> columns = ", ".join(f'"shop_order"."column_{n}"' for n in range(20))
    >>> label(f"SELECT {columns} FROM shop_order WHERE (SELECT 1 FROM x) = ? AND b = ?", 70)
    'SELECT … FROM shop_order WHERE (SELECT 1 FROM x) = ? AND b = ?'
    >>> label("SELECT a FROM t WHERE b = ?")
    'SELECT a FROM t WHERE b = ?'
    """
    text = one_line(" ".join(statement.split()))
    head = _SELECT.match(text)
    if len(text) > width and head is not None:
        at = _from(text)
        if at - head.end() > _LIST:
            text = f"{head.group().strip()} … {text[at:]}"
    if len(text) <= width:
        return text
    tail = width * 2 // 5  # by its end one of many statements that begin alike is known
    return f"{text[: width - tail - 1]}…{text[-tail:]}"


def _from(text: str) -> int:
    """Return where the FROM stands that is in no parentheses; -1 without one."""
    depth = done = 0
    for found in _FROM.finditer(text):
        depth += text.count("(", done, found.start()) - text.count(")", done, found.start())
        done = found.start()
        if depth == 0:
            return done
    return -1
