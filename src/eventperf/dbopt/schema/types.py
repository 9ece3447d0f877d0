"""Families of declared types, and what an index can hold of them."""

from __future__ import annotations


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
