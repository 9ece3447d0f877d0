"""Clients that a host hands over: those that cannot work are refused where they are given."""

from __future__ import annotations

import inspect
from typing import Any, NamedTuple

from eventperf._core.errors import ConfigurationError
from eventperf._core.urls import parse_url, redact


class Given(NamedTuple):
    """What a store was given; equal ones share a server."""

    url: str | None
    client: Any
    async_client: Any
    timeout: float | str
    max_connections: int

    @property
    def shared_by(self) -> tuple[Any, ...]:
        """Return what those who share have in common; clients of the host are themselves alone."""
        return (self.url, id(self.client), id(self.async_client), self.timeout, self.max_connections)


def check_given(url: str | None, client: Any, async_client: Any) -> None:
    """Look at a URL and at clients before anything is done with them.

    Raises:
        ConfigurationError: They answer with text in place of bytes, are no client, or the one for tasks
            stands where the one for threads belongs.
    """
    if url is not None and parse_url(url).options.get("decode_responses", "").lower() not in (
        "",
        "false",
        "0",
    ):
        raise ConfigurationError("url", redact(url), "a URL without decode_responses: values are bytes")
    for argument, given, is_async in (("client", client, False), ("async_client", async_client, True)):
        if given is not None:
            _check(argument, given, is_async)


def _check(argument: str, given: Any, is_async: bool) -> None:
    kind = f"{type(given).__module__}.{type(given).__qualname__}"
    execute = getattr(given, "execute_command", None)
    if not callable(execute) or hasattr(given, "command_stack") or isinstance(given, type):
        module = "redis.asyncio" if is_async else "redis"
        raise ConfigurationError(
            argument, kind, f"a client: {module}.Redis(...) or {module}.RedisCluster(...)"
        )
    if inspect.iscoroutinefunction(execute) is not is_async:
        other = "client" if is_async else "async_client"
        forms = ("a blocking client", "an asyncio client")
        raise ConfigurationError(argument, kind, f"{forms[is_async]}; {forms[not is_async]} goes to {other}=")
    if _decodes(given):
        raise ConfigurationError(
            argument, f"{kind} with decode_responses=True", "a client made without it: values are bytes"
        )


def _decodes(given: Any) -> bool:
    pool = getattr(given, "connection_pool", None) or getattr(given, "nodes_manager", None)
    options = getattr(pool, "connection_kwargs", None) or getattr(given, "connection_kwargs", None) or {}
    return bool(options.get("decode_responses"))
