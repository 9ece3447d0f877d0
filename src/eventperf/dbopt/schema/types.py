"""Families of declared types, and what an index can hold of them."""

from __future__ import annotations

import re
from typing import Final

_LENGTH: Final = re.compile(r"(char|binary|bit)[a-z ]*\((\d+)\)")
_SHORT: Final = (
    *("int", "serial", "float", "double", "real", "num", "dec", "bool", "date", "time", "year", "money"),
    *("uuid", "inet", "cidr", "macaddr", "oid", "pg_lsn", "xid"),
)
_NUMBER_BYTES: Final = 32  # numerics of sane length, and everything fixed, are far below any limit


def category(type_: str) -> str:
    """Return a declared type's family.

    >>> category("bigint(20)"), category("VARCHAR(30)"), category("timestamp without time zone")
    ('int', 'text', 'time')
    """
    lowered = type_.lower()
    if "interval" in lowered or "point" in lowered or "[]" in lowered or "range" in lowered:
        return "other"
    for family, words in (
        ("text", ("enum", "char", "text", "clob", "citext")),
        ("zoned", ("with time zone", "timestamptz")),
        ("time", ("timestamp", "datetime")),
        ("date", ("date",)),
        ("bool", ("bool",)),
        ("int", ("int", "serial")),
        ("num", ("dec", "num", "real", "float", "double")),
    ):
        if any(word in lowered for word in words):
            return "other" if "citext" in lowered else family
    return "other"


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
    is_short = lowered.startswith(_SHORT) or any(word in lowered for word in ("int", "serial"))
    return _NUMBER_BYTES if is_short and not lowered.endswith(("[]", "range")) else None
