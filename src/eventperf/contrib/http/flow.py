"""From a request to a kept answer: looked up, or made once for all who ask at once."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import TYPE_CHECKING, Any, Final

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError

from . import rules
from .rules import Asked, Headers, Rules

if TYPE_CHECKING:
    from eventperf.cache import CacheManager

_KEEP_S: Final = 86_400.0  # an entry's own life is in the answer; this only bounds what nobody asks for

Record = dict[str, Any]
"""An answer as it is kept: ``status``, ``headers``, ``body``, ``at``, ``until``, ``vary``, ``tags``."""


class Unstorable(Exception):
    """The answer that was made is nobody's but the asker's."""

    def __init__(self, status: int = 200) -> None:
        super().__init__(status)
        self.status = status


@dataclass(slots=True)
class Marks:
    """What the view that is running says about its answer."""

    ttl_s: float | None = None
    tags: list[str] = field(default_factory=list)


marks: ContextVar[Marks | None] = ContextVar("eventperf_http_marks", default=None)


class HttpCache:
    """The one behind every adapter.

    Args:
        cache: Where answers are kept.
        ttl: Life of answers that do not say one themselves; without it only those that do are kept.
        tags: Of every answer.
        stale_while_revalidate: How long after its life an answer may stand in while one caller has a new one
            made.
        grace: How long after its life it may stand in for an error (5xx).
        max_body_bytes: Longest body that is kept.
        ignore_cookies: Cookies that change nothing; with any other a request is answered by the application.
        authorized: Whether answers to requests that say who asks (``Authorization``, ``X-Api-Key`` and their
            like) may be kept where they say ``public``.
        clock: Time, for tests.

    Raises:
        ConfigurationError: One of them is something else.
    """

    def __init__(
        self,
        cache: CacheManager,
        *,
        ttl: Duration | None = None,
        tags: Sequence[str] = (),
        stale_while_revalidate: Duration = 0.0,
        grace: Duration = 0.0,
        max_body_bytes: int = 1 << 20,
        ignore_cookies: Iterable[str] = (),
        authorized: bool = False,
        clock: Clock | None = None,
    ) -> None:
        if not callable(getattr(cache, "get_or_load", None)):
            raise ConfigurationError("cache", type(cache).__name__, "a CacheManager")
        if isinstance(max_body_bytes, bool) or not isinstance(max_body_bytes, int) or max_body_bytes < 1:
            raise ConfigurationError("max_body_bytes", max_body_bytes, "a positive number of bytes")
        for name, given in (("tags", tags), ("ignore_cookies", ignore_cookies)):
            if isinstance(given, str):
                raise ConfigurationError(name, given, "a list of texts")
        self.cache: CacheManager = cache
        self.tags: list[str] = list(tags)
        self.rules: Rules = Rules(
            ttl_s=None if ttl is None else seconds(ttl, name="ttl"),
            stale_s=seconds(stale_while_revalidate, name="stale_while_revalidate", zero=True),
            grace_s=seconds(grace, name="grace", zero=True),
            max_body_bytes=max_body_bytes,
            ignore_cookies=frozenset(ignore_cookies),
            authorized=authorized,
        )
        self._clock = clock or SystemClock()
        self._mu = threading.Lock()
        self._renewing: set[str] = set()

    # -- what is kept ------------------------------------------------------------------------------

    def life_of(self, asked: Asked, status: int, headers: Headers, said: Marks) -> float | None:
        """Return how long an answer may be kept, ``None`` if not at all; its body is not looked at."""
        return rules.lifetime(asked, status, headers, self.rules, said.ttl_s, self._clock.time())

    def record(self, asked: Asked, status: int, headers: Headers, body: bytes, said: Marks) -> Record:
        """Return an answer as it is kept.

        Raises:
            Unstorable: It may not be kept.
        """
        life = self.life_of(asked, status, headers, said)
        if life is None or len(body) > self.rules.max_body_bytes:
            raise Unstorable(status)
        now = self._clock.time()
        kept = [[k, v] for k, v in headers if k.lower() not in rules.HOPS | {"age", "content-length"}]
        if not rules.has(headers, "etag") and status == 200:
            kept.append(["ETag", rules.etag(body, rules.values(headers, "content-encoding"))])
        if not rules.has(headers, "date"):
            kept.append(["Date", formatdate(now, usegmt=True)])
        vary = asked.variant(rules.varies(headers) or [])
        tags = [*self.tags, *said.tags, f"http:{asked.path}"]
        return {
            "status": status,
            "headers": kept,
            "body": body,
            "at": now,
            "until": now + life,
            "vary": vary,
            "tags": tags,
        }

    def sent(self, asked: Asked, record: Record, *, hit: bool) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return status, headers and body for this client: a 304 where it has the answer already."""
        now = self._clock.time()
        left = max(0, int(record["until"] - now))
        headers = [(k, v) for k, v in record["headers"]]
        headers.append(
            ("Cache-Status", f"eventperf; hit; ttl={left}" if hit else "eventperf; fwd=miss; stored")
        )
        if hit:
            headers.append(("Age", str(max(0, int(now - record["at"])))))
        if rules.not_modified(asked, headers):
            told = rules.NOT_MODIFIED | {"cache-status", "age"}
            return 304, [(k, v) for k, v in headers if k.lower() in told], b""
        headers.append(("Content-Length", str(len(record["body"]))))
        return record["status"], headers, b"" if asked.method == "HEAD" else record["body"]

    # -- looking up --------------------------------------------------------------------------------

    def peek(self, asked: Asked) -> Record | None:
        """Return a fresh answer that is kept, without having one made."""
        for key in self._keys(asked):
            record = self.cache.get(key)
            if record is None:
                return None
            if self._fits(asked, record):
                return record if record["until"] > self._clock.time() else None
        return None

    def answer(self, asked: Asked, load: Callable[[], Record]) -> Record:
        """Return the answer to a request, having it made once for all who ask at once.

        Raises:
            Unstorable: It was made and may not be kept; who had it made has it, all others make their own.
        """
        key, new = asked.key(), rules.wants_new(asked)
        for _ in range(2):
            ways = self.cache.refresh if new else self.cache.get_or_load
            record = ways(key, load, ttl=_KEEP_S, tags=_tags)
            now = self._clock.time()
            if self._fits(asked, record):
                if record["until"] > now:
                    return record
                if self._stands_in(key, record, now):
                    return record
                try:
                    return self.cache.refresh(key, load, ttl=_KEEP_S, tags=_tags)
                except Unstorable as error:
                    return self._graced(record, error)
                finally:
                    self._renewed(key)
            key = asked.variant_key(list(record["vary"]))
        raise Unstorable

    async def aanswer(self, asked: Asked, load: Callable[[], Awaitable[Record]]) -> Record:
        """Return the answer to a request; see :meth:`answer`."""
        key, new = asked.key(), rules.wants_new(asked)
        for _ in range(2):
            ways = self.cache.arefresh if new else self.cache.aget_or_load
            record: Record = await ways(key, load, ttl=_KEEP_S, tags=_tags)
            now = self._clock.time()
            if self._fits(asked, record):
                if record["until"] > now:
                    return record
                if self._stands_in(key, record, now):
                    return record
                try:
                    return await self.cache.arefresh(key, load, ttl=_KEEP_S, tags=_tags)
                except Unstorable as error:
                    return self._graced(record, error)
                finally:
                    self._renewed(key)
            key = asked.variant_key(list(record["vary"]))
        raise Unstorable

    def changed(self, asked: Asked, status: int) -> bool:
        """Tell whether an unsafe request has made what is kept of its URL old (RFC 9111, 4.4)."""
        return asked.method not in rules.SAFE and 200 <= status < 400

    def tag(self, asked: Asked) -> str:
        """Return the tag that every answer of a path carries."""
        return f"http:{asked.path}"

    def _keys(self, asked: Asked) -> Iterable[str]:
        key = asked.key()
        yield key
        record = self.cache.get(key)
        if record is not None:
            yield asked.variant_key(list(record["vary"]))

    @staticmethod
    def _fits(asked: Asked, record: Record) -> bool:
        vary: dict[str, str] = record["vary"]
        return asked.variant(list(vary)) == vary

    def _stands_in(self, key: str, record: Record, now: float) -> bool:
        """Tell whether an old answer is handed out while another caller has a new one made."""
        if now >= record["until"] + self.rules.stale_s:
            return False
        with self._mu:
            if key in self._renewing:
                return True
            self._renewing.add(key)
            return False

    def _renewed(self, key: str) -> None:
        with self._mu:
            self._renewing.discard(key)

    def _graced(self, record: Record, error: Unstorable) -> Record:
        if error.status >= 500 and self._clock.time() < record["until"] + self.rules.grace_s:
            return record
        raise error


def _tags(record: Record) -> list[str]:
    found: list[str] = record["tags"]
    return found
