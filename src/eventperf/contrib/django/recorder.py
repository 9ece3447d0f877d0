"""Record what Django's ORM sends, for :class:`eventperf.dbopt.DatabaseOptimizer`."""

from __future__ import annotations

import re
from collections.abc import Callable
from contextvars import ContextVar
from time import perf_counter
from types import TracebackType
from typing import Any, Final

from django.core.signals import request_started
from django.db import connections
from django.db.backends.signals import connection_created

from eventperf._core.errors import ConfigurationError
from eventperf.dbopt.recorder import NPlusOne, QueryRecorder
from eventperf.dbopt.workload import Workload

__all__ = ["DjangoRecorder"]

_DIALECTS: Final = {"sqlite": "sqlite", "postgresql": "postgres", "mysql": "mysql"}
_FORMAT: Final = re.compile(r"(?<!%)%s")


class _Scope:
    """A request, or whatever runs between two of them: loops are counted inside one."""

    __slots__ = ("__weakref__",)


class DjangoRecorder:
    """Record the statements of one database, on every connection that this process has or opens.

    Start it once, for example in ``AppConfig.ready`` with ``DjangoRecorder().start()``, or use it as a
    context manager around the code to look at. Loops that send one statement per row are counted per request.

    Args:
        using: The database's alias.
        **options: As of :class:`eventperf.dbopt.QueryRecorder`.

    Raises:
        ConfigurationError: A database that the optimizer does not know.
    """

    def __init__(self, using: str = "default", **options: Any) -> None:
        vendor = connections[using].vendor
        if vendor not in _DIALECTS:
            raise ConfigurationError("using", f"{using} ({vendor})", f"a database of {', '.join(_DIALECTS)}")
        self._using = using
        self._qmark = vendor == "sqlite"
        self._recorder = QueryRecorder(dialect=_DIALECTS[vendor], **options)
        self._scope: ContextVar[_Scope | None] = ContextVar("eventperf_django_scope", default=None)
        self._started = False

    def start(self) -> DjangoRecorder:
        """Begin to record, here and on connections that are opened from now on."""
        if not self._started:
            self._started = True
            self._scope.set(_Scope())
            connection_created.connect(self._opened, weak=False, dispatch_uid=id(self))
            request_started.connect(self._next, weak=False, dispatch_uid=id(self))
            self._wrap(connections[self._using])
        return self

    def stop(self) -> None:
        """End recording; what was recorded stays."""
        self._started = False
        connection_created.disconnect(dispatch_uid=id(self))
        request_started.disconnect(dispatch_uid=id(self))
        wrappers = connections[self._using].execute_wrappers
        if self._observe in wrappers:
            wrappers.remove(self._observe)

    def __enter__(self) -> DjangoRecorder:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.stop()

    def workload(self) -> Workload:
        """Return what was recorded so far."""
        return self._recorder.workload()

    def n_plus_one(self) -> list[NPlusOne]:
        """Return the loops that were seen, the most statements first."""
        return self._recorder.n_plus_one()

    def clear(self) -> None:
        """Forget everything recorded so far."""
        self._recorder.clear()

    def _opened(self, *, connection: Any, **_: Any) -> None:
        if connection.alias == self._using:
            self._wrap(connection)

    def _next(self, **_: Any) -> None:
        self._scope.set(_Scope())

    def _wrap(self, connection: Any) -> None:
        if self._observe not in connection.execute_wrappers:
            connection.execute_wrappers.append(self._observe)

    def _observe(self, execute: Callable[..., Any], sql: str, params: Any, many: bool, context: Any) -> Any:
        if not self._started:  # a connection of another thread, after stop()
            return execute(sql, params, many, context)
        began = perf_counter()
        result = execute(sql, params, many, context)
        took = perf_counter() - began
        text = _FORMAT.sub("?", sql).replace("%%", "%") if self._qmark and params is not None else sql
        sample = (params[0] if params else None) if many else params
        self._recorder.observe(text, sample, took, scope=None if many else self._scope.get())
        return result
