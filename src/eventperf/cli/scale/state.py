"""Where what was learned is kept, as ``--state`` and ``scaler.state`` of a file say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventperf._core.errors import ConfigurationError
from eventperf._core.urls import redact
from eventperf.scaling import FileState, LearnedState

if TYPE_CHECKING:
    from eventperf.scaling.backends.kubernetes.api import KubernetesApi
    from eventperf.scaling.protocols import StateStore

_DATABASES = ("postgresql", "mysql", "mariadb", "sqlite")
_ALLOWED = "configmap:NAME, redis://..., the URL of a database (such as postgresql://...), or a folder"


def open_state(
    where: str, *, argument: str, api: KubernetesApi | None = None, namespace: str | None = None
) -> LearnedState:
    """Return the state that ``where`` names: ``configmap:NAME``, the URL of a Redis or database, or a folder.

    Raises:
        ConfigurationError: It names none of them.
    """
    return LearnedState(_store(where, argument, api, namespace))


def _store(where: str, argument: str, api: KubernetesApi | None, namespace: str | None) -> StateStore:
    kind, _, name = where.partition(":")
    if kind == "configmap":
        if not name or not all(c.islower() or c.isdigit() or c in "-." for c in name):
            raise ConfigurationError(argument, where, "configmap:NAME, the name of a ConfigMap")
        from eventperf.scaling import ConfigMapState

        return ConfigMapState(name, namespace=namespace, api=api)
    if "://" in where:
        if kind.startswith(("redis", "rediss", "unix")):
            from eventperf.scaling import RedisState

            return RedisState(where)
        if not kind.startswith(_DATABASES):
            raise ConfigurationError(argument, redact(where), _ALLOWED)
        from eventperf.scaling import SqlState

        return SqlState(where)
    folder = name if kind == "file" and name else where
    if not folder:
        raise ConfigurationError(argument, where, _ALLOWED)
    return FileState(folder)
