"""Database transactions that have written: what is read inside one is not what others may see.

A cached read in such a transaction loads for itself, neither from the cache (which may hold what the
transaction just changed) nor into it (the change may be rolled back). Writes are noticed where SQLAlchemy and
Django run their statements, in this process, whichever of their interfaces made them.

Inside are the thread or task that wrote and those that it starts with its context (``gather``, ``wait_for``,
``to_thread``). A load from anywhere else that reads through such a transaction is noticed at its statements,
and what it read is not kept. While nobody writes, the cost is one look at an empty mapping; what others read
is never affected.
"""

from __future__ import annotations

import re
import sys
import threading
import weakref
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any, Final

DIRTY: Final[dict[Any, list[Callable[[], bool]]]] = {}
"""By thread or task: for each of its transactions that has written, what tells whether it is still open."""

LOADS: Final[ContextVar[tuple[Any, ...]]] = ContextVar("eventperf_cache_loads", default=())
"""The loads under way here, outermost first: each has ``has_read_uncommitted`` and a list ``wrote``."""

_inherited: ContextVar[tuple[Callable[[], bool], ...]] = ContextVar("eventperf_cache_wrote", default=())
_written: weakref.WeakKeyDictionary[Any, Callable[[], bool]] = weakref.WeakKeyDictionary()
"""Transactions that have written, with what tells whether they are still open."""
_MOST: Final = 1_000
_READS: Final = re.compile(
    r"(?:\s|\(|--[^\n]*\n|/\*[^*]*\*+(?:[^/*][^*]*\*+)*/)*"  # a comment in one way only: none is tried twice
    r"(?:select|show|explain|describe|pragma|values|table|set|begin|start|commit|rollback|savepoint|release|end|"
    r"fetch|declare|close|use|(with))\b",
    re.IGNORECASE | re.DOTALL,
)
_WRITES: Final = re.compile(r"\b(?:insert|update|delete|merge)\b", re.IGNORECASE)
_mu = threading.RLock()
_watched: set[str] = set()


def writes(statement: str) -> bool:
    """Tell whether a statement may change data; what is not known to read only, may.

    >>> writes("SELECT 1"), writes("-- note\\nUPDATE t SET a = 1"), writes("WITH x AS (DELETE FROM t) TABLE")
    (False, True, True)
    """
    found = _READS.match(statement)
    return found is None or (found[1] is not None and _WRITES.search(statement) is not None)


def inside() -> bool:
    """Tell whether this thread or task is inside a transaction that has written."""
    me = _me()
    open_ones = DIRTY.get(me)
    if open_ones is not None:
        open_ones[:] = [is_open for is_open in open_ones if is_open()]
        if open_ones:
            return True
        DIRTY.pop(me, None)
    above = _inherited.get()
    if above and not any(is_open() for is_open in above):
        _inherited.set(above := ())
    return bool(above)


def mark(is_open: Callable[[], bool]) -> None:
    """Note that a transaction of this thread or task has written; ``is_open`` tells when it has ended."""
    if len(DIRTY) >= _MOST:
        for owner, open_ones in list(DIRTY.items()):
            if not any(still() for still in list(open_ones)):
                DIRTY.pop(owner, None)
    mine = DIRTY.setdefault(_me(), [])
    if is_open not in mine:
        mine.append(is_open)
    above = _inherited.get()
    if is_open not in above:
        _inherited.set((*(known for known in above if known()), is_open))
    for load in LOADS.get():
        if is_open not in load.wrote:
            load.wrote.append(is_open)


def _mark(transaction: Any, make: Callable[[], Callable[[], bool]]) -> None:
    """Note that ``transaction`` has written, once for each thread or task; ``make`` what tells its end."""
    is_open = _written.get(transaction)
    if is_open is None:
        is_open = _written[transaction] = make()
    mark(is_open)


def _read(transaction: Any) -> None:
    """Tell the loads under way that they have read through ``transaction``."""
    loads = LOADS.get()
    if loads and transaction in _written:
        for load in loads:
            load.has_read_uncommitted = True


def _me() -> Any:
    asyncio = sys.modules.get("asyncio")
    loop = asyncio._get_running_loop() if asyncio is not None else None
    task = asyncio.current_task(loop) if asyncio is not None and loop is not None else None
    return threading.get_ident() if task is None else (threading.get_ident(), id(task))


def watch() -> None:
    """Begin to notice writes of the libraries that this process has loaded."""
    for library, begin in _LIBRARIES.items():
        if library in sys.modules and library not in _watched:
            with _mu:
                if library not in _watched:
                    begin()
                    _watched.add(library)


# -- SQLAlchemy --------------------------------------------------------------------------------------


def _watch_sqlalchemy() -> None:
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    event.listen(Engine, "after_cursor_execute", _executed)


def _executed(connection: Any, cursor: Any, statement: str, *rest: Any) -> None:
    del cursor, rest
    if writes(statement):
        mark_connection(connection)
    elif DIRTY and (transaction := connection.get_transaction()) is not None:
        _read(transaction)


def mark_connection(connection: Any) -> None:
    """Note that the transaction of a SQLAlchemy connection has written."""
    transaction = connection.get_transaction()
    if transaction is None:
        return
    at, held = weakref.ref(connection), weakref.ref(transaction)

    def is_open() -> bool:
        still, it = at(), held()
        return still is not None and it is not None and still.get_transaction() is it and bool(it.is_active)

    _mark(transaction, lambda: is_open)


def mark_session(session: Any) -> None:
    """Note that the transaction of a SQLAlchemy session is about to write, or has in a way nobody noticed."""
    transaction = session.get_transaction()
    if transaction is not None:
        held = weakref.ref(transaction)
        _mark(transaction, lambda: lambda: (at := held()) is not None and bool(at.is_active))


# -- Django ------------------------------------------------------------------------------------------


def _watch_django() -> None:
    from django.conf import settings
    from django.db import connections
    from django.db.backends.signals import connection_created

    connection_created.connect(_connected, dispatch_uid="eventperf.cache.transactions")
    for connection in connections.all(initialized_only=True) if settings.configured else ():
        _connected(None, connection)


def _connected(sender: Any, connection: Any, **rest: Any) -> None:
    del sender, rest
    if _django_executed not in connection.execute_wrappers:
        connection.execute_wrappers.append(_django_executed)


def _django_executed(execute: Any, sql: Any, params: Any, many: bool, context: Any) -> Any:
    result = execute(sql, params, many, context)
    connection = context["connection"]
    if connection.in_atomic_block:
        if writes(str(sql)):
            mark_django(connection)
        elif DIRTY and (block := _block(connection)) is not None:
            _read(block)
    return result


def mark_django(connection: Any) -> None:
    """Note that the transaction of a Django connection has written.

    Blocks that a ``TestCase`` wraps around its tests count as no transaction: inside them a commit commits.
    """
    block = _block(connection)
    if block is not None:
        at, held = weakref.ref(connection), weakref.ref(block)

        def is_open() -> bool:
            still = at()
            return still is not None and any(b is held() for b in still.atomic_blocks)

        _mark(block, lambda: is_open)


def _block(connection: Any) -> Any:
    """Return the outermost block that commits or rolls back, or ``None``."""
    return next((b for b in connection.atomic_blocks if not getattr(b, "_from_testcase", False)), None)


_LIBRARIES: Final[dict[str, Callable[[], None]]] = {
    "sqlalchemy.engine": _watch_sqlalchemy,
    "django.db.backends.base.base": _watch_django,
}
