"""Columns whose values are of their type when they are read, also in SQLite, which stores anything anywhere.

What is not of the type reads as something that a sound job never has, so that no reader stops at it and the
job ends in the dead letter: whole numbers as -1, others as 0.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sqlalchemy import BigInteger, Boolean, Double, Integer, LargeBinary, SmallInteger, String, Text
from sqlalchemy.dialects import mysql
from sqlalchemy.types import TypeEngine

FAMILY = ("mysql", "mariadb")

PARTIAL = ("postgresql", "sqlite")
"""Servers on which an index may leave rows out."""


def _whole(value: Any) -> Any:
    return value if value is None or type(value) is int else -1


def _real(value: Any) -> Any:
    return value if value is None or type(value) in (int, float) else 0.0


def _flag(value: Any) -> Any:
    return None if value is None else value == 1


def _written(value: Any) -> Any:
    if value is None or type(value) is str:
        return value
    return value.decode("utf-8", "backslashreplace") if type(value) is bytes else str(value)


def _data(value: Any) -> Any:
    """Never ``bytes(number)``: a number is no size."""
    return value if value is None or type(value) is bytes else str(value).encode("utf-8", "backslashreplace")


def _reading(kind: type[TypeEngine[Any]], read: Callable[[Any], Any]) -> type[TypeEngine[Any]]:
    def result_processor(self: Any, dialect: Any, coltype: Any) -> Callable[[Any], Any]:
        return read

    return type(kind.__name__, (kind,), {"result_processor": result_processor, "cache_ok": True})


_INTEGER, _DOUBLE = _reading(Integer, _whole), _reading(Double, _real)
_STRING, _TEXT = _reading(String, _written), _reading(Text, _written)

INTEGER: TypeEngine[Any] = Integer().with_variant(_INTEGER(), "sqlite")
BIG: TypeEngine[Any] = BigInteger().with_variant(_INTEGER(), "sqlite")
WIDE: TypeEngine[Any] = BigInteger().with_variant(_reading(BigInteger, _whole)(), "sqlite")
SMALL: TypeEngine[Any] = SmallInteger().with_variant(_reading(SmallInteger, _whole)(), "sqlite")
DOUBLE: TypeEngine[Any] = Double().with_variant(_DOUBLE(), "sqlite")
FLAG: TypeEngine[Any] = Boolean().with_variant(_reading(Boolean, _flag)(), "sqlite")
BINARY: TypeEngine[Any] = (
    LargeBinary()
    .with_variant(mysql.LONGBLOB(), *FAMILY)
    .with_variant(_reading(LargeBinary, _data)(), "sqlite")
)
LONG: TypeEngine[Any] = (
    Text().with_variant(mysql.LONGTEXT(charset="utf8mb4"), *FAMILY).with_variant(_TEXT(), "sqlite")
)


def text_type(length: int) -> TypeEngine[Any]:
    """Return the type of a short text."""
    loose: Any = _STRING
    return String(length).with_variant(loose(length), "sqlite")


def name_type(length: int = 200) -> TypeEngine[Any]:
    """Return the type of a name: compared exactly, on every server."""
    exact = mysql.VARCHAR(length, charset="utf8mb4", collation="utf8mb4_bin")
    kind: TypeEngine[Any] = text_type(length).with_variant(exact, *FAMILY)
    return kind
