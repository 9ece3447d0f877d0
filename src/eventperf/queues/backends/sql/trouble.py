"""What an error of a database means for us: wait, begin anew, say what is missing, or give up. No I/O."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import Enum
from typing import Any, Final


class Trouble(Enum):
    """What happened, in words that fit behind the server's name."""

    AWAY = "does not answer"
    CLOSED = "lets us not in"
    READ_ONLY = "takes no writes now"
    FULL = "has no room left"
    BUSY = "is too busy"
    CONFLICT = "gave up on a conflict with others"
    POOLED = (
        "is behind a pooler in statement mode, in which no store can work: use transaction or session mode"
    )
    LACKING = "lacks tables or columns"
    REFUSED = "refused a statement"

    @property
    def passes(self) -> bool:
        """Whether it may be over by itself or by what an operator does: an outage."""
        return self not in (Trouble.POOLED, Trouble.LACKING, Trouble.REFUSED)


_SQLITE: Final[Mapping[int, Trouble]] = {  # primary result codes
    3: Trouble.CLOSED, 5: Trouble.BUSY, 6: Trouble.BUSY, 8: Trouble.READ_ONLY, 10: Trouble.AWAY,
    13: Trouble.FULL, 14: Trouble.AWAY, 15: Trouble.BUSY, 23: Trouble.CLOSED,
}  # fmt: skip
_SQLITE_TEXTS: Final = (  # Python 3.10 has no codes
    ("no such table", Trouble.LACKING), ("no such column", Trouble.LACKING),
    ("has no column", Trouble.LACKING),
    ("readonly", Trouble.READ_ONLY), ("full", Trouble.FULL), ("locked", Trouble.BUSY),
    ("disk I/O", Trouble.AWAY), ("unable to open", Trouble.AWAY),
)  # fmt: skip

_POSTGRES: Final[Mapping[str, Trouble]] = {  # SQLSTATE, whole or its class
    "08": Trouble.AWAY, "28": Trouble.CLOSED, "3D000": Trouble.CLOSED, "57P": Trouble.AWAY,
    "58": Trouble.AWAY,
    "25006": Trouble.READ_ONLY, "53": Trouble.BUSY, "53100": Trouble.FULL, "57014": Trouble.BUSY,
    "55P03": Trouble.CONFLICT,
    "40": Trouble.CONFLICT, "42P01": Trouble.LACKING, "42703": Trouble.LACKING, "XX": Trouble.AWAY,
}  # fmt: skip

_MYSQL: Final[Mapping[int, Trouble]] = {
    1213: Trouble.CONFLICT, 1205: Trouble.CONFLICT, 1020: Trouble.CONFLICT,
    1062: Trouble.CONFLICT,  # two pushes of one id at once
    1044: Trouble.CLOSED, 1045: Trouble.CLOSED, 1049: Trouble.CLOSED, 1130: Trouble.CLOSED,
    1129: Trouble.CLOSED,
    1290: Trouble.READ_ONLY, 1792: Trouble.READ_ONLY, 1836: Trouble.READ_ONLY, 3100: Trouble.READ_ONLY,
    1021: Trouble.FULL, 1114: Trouble.FULL, 1026: Trouble.FULL, 3: Trouble.FULL, 28: Trouble.FULL,
    1040: Trouble.BUSY, 1041: Trouble.BUSY, 1203: Trouble.BUSY, 1226: Trouble.BUSY, 1317: Trouble.BUSY,
    1969: Trouble.BUSY, 3024: Trouble.BUSY, 1053: Trouble.AWAY, 1927: Trouble.AWAY, 1152: Trouble.AWAY,
    1158: Trouble.AWAY, 1159: Trouble.AWAY, 1160: Trouble.AWAY, 1161: Trouble.AWAY, 1184: Trouble.AWAY,
    1047: Trouble.AWAY,  # a Galera node that is not synced
    1054: Trouble.LACKING, 1146: Trouble.LACKING,
}  # fmt: skip


def of_sqlite(error: Any) -> Trouble:
    """Judge an error of :mod:`sqlite3`."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    if code is not None and (found := _SQLITE.get(code & 0xFF)) is not None:
        return found
    if type(error).__name__ not in ("OperationalError", "DatabaseError"):
        return Trouble.REFUSED
    text = str(error)
    return next((trouble for words, trouble in _SQLITE_TEXTS if words in text), Trouble.REFUSED)


def of_postgres(error: Any) -> Trouble:
    """Judge an error of psycopg; one without a state never reached the server, or lost it.

    >>> of_postgres(type("Deadlock", (Exception,), {"sqlstate": "40P01"})())
    <Trouble.CONFLICT: 'gave up on a conflict with others'>
    """
    state: str | None = getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)
    if state is None:
        if "statement pooling mode" in str(error):
            return Trouble.POOLED
        return Trouble.AWAY if type(error).__name__ in _LOST else Trouble.REFUSED
    if "statement pooling mode" in str(error):
        return Trouble.POOLED
    for length in (5, 3, 2):
        if (found := _POSTGRES.get(state[:length])) is not None:
            return found
    return Trouble.REFUSED


_LOST: Final = frozenset({"OperationalError", "InterfaceError", "ConnectionTimeout", "InternalError"})


def of_mysql(error: Any) -> Trouble:
    """Judge an error of PyMySQL; its own numbers from 2000 on are about the connection."""
    args: tuple[Any, ...] = getattr(error, "args", ())
    code = args[0] if args and isinstance(args[0], int) else 0
    if (found := _MYSQL.get(code)) is not None:
        return found
    if 2000 <= code < 3000 or (code == 0 and type(error).__name__ in _LOST):
        return Trouble.AWAY
    return Trouble.REFUSED


OF: Final[Mapping[str, Callable[[Any], Trouble]]] = {
    "sqlite": of_sqlite, "postgresql": of_postgres, "mysql": of_mysql, "mariadb": of_mysql,
}  # fmt: skip
"""The judge of each family of databases, as SQLAlchemy and Django name them."""
