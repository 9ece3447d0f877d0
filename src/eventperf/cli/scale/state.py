"""Where what was learned is kept, as ``--state`` and ``scaler.state`` of a file say it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from eventperf._core.errors import ConfigurationError
from eventperf._core.urls import redact
from eventperf.scaling import FileState, LearnedState

if TYPE_CHECKING:
    from eventperf.scaling.backends.kubernetes.api import KubernetesApi
    from eventperf.scaling.protocols import StateStore


def open_state(
    where: str, *, argument: str, api: KubernetesApi | None = None, namespace: str | None = None
) -> LearnedState:
    """Return the state that ``where`` names: ``configmap:NAME``, a Redis URL, or a folder.

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
        if not kind.startswith(("redis", "rediss", "unix")):
            allowed = "configmap:NAME, redis://..., or a folder (a database keeps it as [log] database)"
            raise ConfigurationError(argument, redact(where), allowed)
        from eventperf.scaling import RedisState

        return RedisState(where)
    folder = name if kind == "file" and name else where
    if not folder:
        raise ConfigurationError(argument, where, "configmap:NAME, redis://..., or a folder")
    return FileState(folder)
