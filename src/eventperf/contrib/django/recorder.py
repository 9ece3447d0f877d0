"""Record what Django's ORM sends, for :class:`eventperf.dbopt.DatabaseOptimizer`."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from contextvars import ContextVar
from time import perf_counter
from types import TracebackType
from typing import Any, Final

from django.conf import settings
from django.core.signals import request_started
from django.db import connections
from django.db import models as django_models
from django.db.backends.signals import connection_created
from django.db.models import Model, QuerySet
from django.db.models.fields.related_descriptors import ForwardManyToOneDescriptor, ReverseOneToOneDescriptor

from eventperf._core.errors import ConfigurationError
from eventperf.dbopt.statements.loaders import Guess
from eventperf.dbopt.statements.recorder import NPlusOne, QueryRecorder
from eventperf.dbopt.statements.workload import Workload

__all__ = ["DjangoRecorder"]

_DIALECTS: Final = {"sqlite": "sqlite", "postgresql": "postgres", "mysql": "mysql"}
_ORM: Final = os.path.dirname(django_models.__file__) + os.sep
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
        options.setdefault("own", _project())
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
        self._recorder.observe(
            text, sample, took, scope=None if many else self._scope.get(), fix=eager_loading
        )
        return result


def _project() -> list[str]:
    """Return the packages of the project: it may be installed, as its libraries are."""
    named = (getattr(settings, "ROOT_URLCONF", None), os.environ.get("DJANGO_SETTINGS_MODULE"))
    return sorted({str(name).partition(".")[0] for name in named if name})


def eager_loading() -> str:
    """Name what fetches the rows of the running loop at once, from the ORM's frames on the stack."""
    frame: Any = sys._getframe(1)
    general = Guess(
        "fetch all rows at once: .filter(pk__in=...), in_bulk(), select_related or prefetch_related"
    )
    called = ""
    while frame is not None:
        if frame.f_code.co_filename.startswith(_ORM):
            given = frame.f_locals.get("self")
            if isinstance(given, (ForwardManyToOneDescriptor, ReverseOneToOneDescriptor)):
                return _single(given)
            if isinstance(given, QuerySet):
                if frame.f_code.co_name in ("count", "exists", "aggregate"):
                    called = frame.f_code.co_name
                found = _many(given, called)
                if found is not None:
                    return found
            if isinstance(given, Model) and frame.f_code.co_name == "refresh_from_db":
                fields = frame.f_locals.get("fields")
                if fields:
                    return f"{type(given).__name__}: no defer()/only() that leaves out {', '.join(fields)}"
        frame = frame.f_back
    return general


def _single(descriptor: Any) -> str:
    if isinstance(descriptor, ForwardManyToOneDescriptor):
        field = descriptor.field
        return f"{field.model.__name__}.objects.select_related({field.name!r})"
    related = descriptor.related
    return f"{related.model.__name__}.objects.select_related({related.get_accessor_name()!r})"


def _many(rows: Any, called: str) -> str | None:
    owner = rows._hints.get("instance")
    if not isinstance(owner, Model):
        return None
    names = [
        relation.get_accessor_name() if relation.auto_created else relation.name
        for relation in owner._meta.get_fields()
        if relation.is_relation
        and relation.related_model is rows.model
        and (relation.one_to_many or relation.many_to_many)
    ]
    known = [field.remote_field.get_accessor_name() for field in rows._known_related_objects]
    name = next((n for n in known if n in names), names[0] if names else None)
    if name is None:
        return None
    if called == "count":
        return f"{type(owner).__name__}.objects.annotate(n=Count({name!r}))"
    if called == "exists":
        return f"{type(owner).__name__}.objects.annotate(found=Exists(...)) over {name!r}"
    return f"{type(owner).__name__}.objects.prefetch_related({name!r})"
