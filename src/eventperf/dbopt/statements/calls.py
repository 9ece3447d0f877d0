"""What a statement calls, by name: the ground to decide on before one that somebody recorded is run.

Names are taken from tokens, not from a tree: no parser knows all that an engine takes for a call, and what
cannot be read with certainty is not run.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from .lex import Token, tokens

_NAME: Final = re.compile(r"\w[\w$]*")
_CALL: Final = re.compile(r"(\w[\w$]*)[`\"]?\s*\(")
_CHANGES: Final = frozenset({"insert", "update", "delete", "merge"})
_BEGINS: Final = frozenset({"select", "with", "(", "values"})


class Calls(NamedTuple):
    """The names in a statement, as written and in lower case.

    Attributes:
        words: All of them.
        called: Those before a bracket.
        dotted: Those behind a dot: ``row.function`` is a call on PostgreSQL.
        qualified: Those that are both at one place.
        unread: Why the statement cannot be read with certainty; ``None`` when it can.
    """

    words: frozenset[str]
    called: frozenset[str]
    dotted: frozenset[str]
    qualified: frozenset[str]
    unread: str | None = None


@lru_cache(maxsize=2_000)
def calls(sql: str, dialect: str) -> Calls:
    """Return the names in a text and what is done with them.

    >>> sorted(calls("SELECT lower(a), t.b FROM t WHERE c IN (1)", "postgres").called)
    ['IN', 'in', 'lower']
    """
    words: set[str] = set()
    called: set[str] = set()
    dotted: set[str] = set()
    qualified: set[str] = set()
    unread = None
    before, last, is_behind = "", frozenset[str](), False
    for token in tokens(sql, dialect):
        unread = unread or _unread(token, dialect)
        if token.kind in ("space", "comment"):
            continue
        if token.text == "(":
            called |= last
            qualified |= last if is_behind else frozenset()
        names = _names(token)
        if token.kind == "string" and dialect == "mysql" and _is_doubtful(token.text):
            # Another SQL mode reads it otherwise: as a name, or as ended earlier.
            called |= {n.lower() for n in _CALL.findall(token.text)}
            names = frozenset({token.text[1:-1].lower()})
        words |= names
        is_behind = before == "."
        if is_behind:
            dotted |= names
        last, before = names, token.text
    return Calls(frozenset(words), frozenset(called), frozenset(dotted), frozenset(qualified), unread)


def one_query(sql: str, dialect: str, *, or_change: bool = False) -> str | None:
    """Return why a text is not one query (``or_change``: or one change of data); ``None`` when it is."""
    parts = [t for t in tokens(sql, dialect) if t.kind not in ("space", "comment")]
    while parts and parts[-1].text == ";":
        parts.pop()
    if not parts or parts[0].text.lower() not in (_BEGINS | _CHANGES if or_change else _BEGINS):
        return "it is no SELECT"
    return "it is more than one statement" if any(t == ("op", ";") for t in parts) else None


def _names(token: Token) -> frozenset[str]:
    kind, text = token
    if kind == "word":
        return frozenset({text, text.lower()})
    if kind == "ident":
        inner = text[1:-1].replace('""', '"').replace("``", "`")
        return frozenset({inner, inner.lower()})
    if kind == "param":  # a[1:f(2)], or 5 %s(1), before values are put in
        return frozenset(n for found in _NAME.findall(text) for n in (found, found.lower()))
    return frozenset()


def _is_doubtful(text: str) -> bool:
    return "\\" in text or text[-1] != "'"


def _unread(token: Token, dialect: str) -> str | None:
    kind, text = token
    if kind in ("space", "op", "number") and not text.isascii():
        return "it has characters that engines read differently"
    if kind == "word" and text[0].isdigit() and dialect != "mysql":
        return f"a name begins with a digit: {text[:20]}"
    if kind == "comment" and text[:3] in ("/*!", "/*M", "/*m"):
        return "it has a comment that is run"
    if kind == "comment" and text[:2] == "--" and ("\r" in text or (dialect == "mysql" and text[2:3] > " ")):
        return "it has a comment that engines end differently"
    if kind == "ident" and text[0] in "uU":
        return "it has a name in escapes"
    return None
