"""What was learned, kept in Redis."""

from __future__ import annotations

from typing import Any

from eventperf._core.errors import BackendUnavailable
from eventperf._core.extras import require
from eventperf._core.urls import redact
from eventperf._redis.answers import Misread
from eventperf._redis.connect import Wanted, open_client, reason
from eventperf._redis.patience import within
from eventperf._redis.url import parse
from eventperf.scaling.records.state import FROZEN

_TIMEOUT_S = 2.0
_MOST_BYTES = 8 << 20
_NEEDED_BY = "the state of scaling in Redis"


class RedisState:
    """A :class:`~eventperf.scaling.protocols.StateStore` of string keys, for one server or a cluster.

    Args:
        url: As everywhere in eventperf: ``redis://``, ``rediss://``, ``redis+cluster://``, ``redis+sentinel://``.
        namespace: What the keys begin with.
        ttl_s: A target that nobody has scaled for so long is forgotten.
    """

    def __init__(self, url: str, *, namespace: str = "eventperf:scaling", ttl_s: int = 30 * 86400) -> None:
        self._url = parse(url)
        self._namespace, self._ttl_s = namespace, ttl_s
        self._errors: Any = require("redis.exceptions", extra="cache", needed_by=_NEEDED_BY)
        self._opened: Any = None

    def load(self, name: str, /) -> bytes | None:
        data = self._call("getrange", self._key(name), 0, _MOST_BYTES)
        return bytes(data) if data else None

    def save(self, name: str, data: bytes, /) -> None:
        holds = bool(data) and name.endswith(FROZEN)  # what people hold stays held
        self._call("set", self._key(name), data, ex=None if holds else self._ttl_s)

    def _key(self, name: str) -> str:
        return f"{self._namespace}:{name}"

    def _call(self, command: str, *args: Any, **options: Any) -> Any:
        try:
            if self._opened is None:
                self._opened = open_client(self._url, _WANTED, asynchronous=False)
            with within(_TIMEOUT_S):
                return getattr(self._opened, command)(*args, **options)
        except (self._errors.RedisError, self._errors.RedisClusterException, OSError, Misread) as error:
            text = f"Redis at {redact(self._url.text)} does not keep the state of scaling: {reason(error)}"
            raise BackendUnavailable(text) from error

    def close(self) -> None:
        """Close the connections."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None


_WANTED = Wanted(
    extra="cache",
    needed_by=_NEEDED_BY,
    connections=4,
    wait_s=_TIMEOUT_S,
    sentinel_timeout_s=_TIMEOUT_S,
    settings={"socket_timeout": _TIMEOUT_S, "socket_connect_timeout": _TIMEOUT_S},
    of_cluster={"require_full_coverage": False},
)
