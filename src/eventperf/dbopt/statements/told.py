"""What a parser or a server says of a statement, without the values in it."""

from __future__ import annotations

import re
from typing import Any, Final

from sqlglot.errors import ParseError, TokenError

from .lex import tokens

_QUOTED: Final = re.compile(r"\"([^\"]*)\"|'([^']*)'|`([^`]*)`|\u201c([^\u201d]*)\u201d")
_SHOWS: Final = re.compile("[<`']")
_SHORT: Final = 3  # texts below this stand in every sentence


def reason(error: Exception, sql: str, dialect: str) -> str:
    """Return an error's first line; what stands in quotes and is no name of the statement is ``?``.

    >>> error = ValueError('invalid input syntax for type integer: "s3cret"')
    >>> reason(error, "SELECT a FROM t WHERE a = 's3cret'", "postgres")
    'invalid input syntax for type integer: "?"'
    """
    if isinstance(error, TokenError):
        return "its text cannot be cut into words"
    found: dict[str, Any] = error.errors[0] if isinstance(error, ParseError) and error.errors else {}
    said = (str(found.get("description") or error).splitlines() or [type(error).__name__])[0]
    if found:  # a parser shows its own words, with what they hold
        place = f"at line {found.get('line')}, column {found.get('col')}"
        said = f"{_SHOWS.split(said)[0].strip()} {place}"
    return _without(said.partition(" near '")[0], sql, dialect)


def _without(said: str, sql: str, dialect: str) -> str:
    parts = tokens(sql, dialect)
    for text in (t.text for t in parts if t.kind == "string"):
        inner = text.strip("'\"$`")
        said = said.replace(inner, "?") if len(inner) >= _SHORT else said
    names = {t.text.strip('"`[]').lower() for t in parts if t.kind in ("word", "ident")}

    def judged(quoted: re.Match[str]) -> str:
        inner = next(g for g in quoted.groups() if g is not None)
        known = all(part.strip('"`').lower() in names for part in inner.split("."))
        return quoted.group() if known else f"{quoted.group()[0]}?{quoted.group()[-1]}"

    return _QUOTED.sub(judged, said)
