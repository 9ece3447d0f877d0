"""Families of declared types, and what an index can hold of them."""

from __future__ import annotations

import re
from typing import Final

_LENGTH: Final = re.compile(r"(char|binary|bit)[a-z ]*\((\d+)\)")
#: Whole words: a type that somebody called print_state or birthdate is neither a number nor a date.
_INT: Final = r"(?:big|small|medium|tiny|u)?(?:int(?:eger)?|serial)\d*"
_NUM: Final = r"dec(?:imal)?|num(?:eric|ber)?|real|float\d*|double"
_FAMILIES: Final = tuple(
    (family, re.compile(rf"\b(?:{words})\b"))
    for family, words in (
        ("text", r"enum|n?(?:var)?char2?|n?character|bpchar|(?:tiny|medium|long)?text|n?clob"),
        ("zoned", r"timestamptz|with time zone"),
        ("time", r"timestamp|datetime"),
        ("date", r"date"),
        ("bool", r"bool(?:ean)?"),
        ("int", _INT),
        ("num", _NUM),
    )
)
_OTHER: Final = re.compile(r"\b(?:interval|point|\w*range)\b|\[\]")
_SHORT: Final = re.compile(
    rf"(?:{_INT}|{_NUM}|bool(?:ean)?|date|datetime|time|timetz|timestamp|timestamptz|year|money"
    r"|uuid|inet\d*|cidr|macaddr8?|oid|reg\w+|pg_lsn|xid8?)\b"
)
_NUMBER_BYTES: Final = 32  # numerics of sane length, and everything fixed, are far below any limit


def category(type_: str) -> str:
    """Return a declared type's family.

    >>> category("bigint(20)"), category("VARCHAR(30)"), category("timestamp without time zone")
    ('int', 'text', 'time')
    >>> category("print_state"), category("birthdate"), category("citext")
    ('other', 'other', 'other')
    """
    lowered = type_.lower()
    if _OTHER.search(lowered):
        return "other"
    return next((family for family, words in _FAMILIES if words.search(lowered)), "other")


def longest(type_: str) -> int | None:
    """Return the most bytes a value of a declared type takes; ``None`` where nothing limits it.

    >>> longest("character varying(40)"), longest("bigint"), longest("text"), longest("varchar")
    (160, 32, None, None)
    """
    lowered = type_.lower()
    found = _LENGTH.search(lowered)
    if found is not None and not lowered.endswith("[]"):
        number = int(found[2])
        return {"char": 4 * number, "binary": number, "bit": number // 8 + 1}[found[1]]
    if lowered in ("char", "character", '"char"', "bit"):
        return 4
    if lowered.startswith(("enum", "set(")):
        return 8
    return _NUMBER_BYTES if _SHORT.match(lowered) and not lowered.endswith("[]") else None
