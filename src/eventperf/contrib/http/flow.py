"""From a request to a kept answer: looked up, or made once for all who ask at once."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Awaitable, Callable, Iterable, Mapping
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError
from eventperf._core.logs import logger
from eventperf.cache.keys import Reserved

from . import rules
from .rules import Asked, Headers, Rules
from .stored import KEEP_S, Marks, Record, Unstorable
from .streams import Streams

if TYPE_CHECKING:
    from eventperf.cache import CacheManager

_log = logger("eventperf.contrib.http")


class HttpCache:
    """The one behind every adapter.

    Args:
        cache: Where answers are kept.
        ttl: Life of answers that do not say one themselves; without it only those that do are kept.
        tags: Of every answer.
        stale_while_revalidate: How long after its life an answer may stand in while one caller has a new one
            made, unless the answer itself allows less.
        grace: How long after its life it may stand in for an error (5xx, or one that is raised), unless the
            answer itself allows less (``must-revalidate``, ``stale-if-error``).
        max_body_bytes: Longest body that is kept.
        ignore_cookies: Cookies that change nothing; with any other a request is answered by the application.
        authorized: Whether answers to requests that say who asks (``Authorization``, ``X-Api-Key`` and their
            like) may be kept where they say ``public``.
        harmless_headers: Headers that look as if they said who asks, and do not.
        clock: Time, for tests.

    Raises:
        ConfigurationError: One of them is something else.
    """

    def __init__(
        self,
        cache: CacheManager,
        *,
        ttl: Duration | None = None,
        tags: Iterable[str] = (),
        stale_while_revalidate: Duration = 0.0,
        grace: Duration = 0.0,
        max_body_bytes: int = 1 << 20,
        ignore_cookies: Iterable[str] = (),
        authorized: bool = False,
        harmless_headers: Iterable[str] = (),
        clock: Clock | None = None,
    ) -> None:
        if not callable(getattr(cache, "get_or_load", None)):
            raise ConfigurationError("cache", type(cache).__name__, "a CacheManager")
        if isinstance(max_body_bytes, bool) or not isinstance(max_body_bytes, int) or max_body_bytes < 1:
            raise ConfigurationError("max_body_bytes", max_body_bytes, "a positive number of bytes")
        if not isinstance(authorized, bool):
            raise ConfigurationError("authorized", authorized, "True or False")
        self.cache: CacheManager = cache
        self.tags: list[str] = texts("tags", tags)
        self.rules: Rules = Rules(
            ttl_s=None if ttl is None else seconds(ttl, name="ttl"),
            stale_s=seconds(stale_while_revalidate, name="stale_while_revalidate", zero=True),
            grace_s=seconds(grace, name="grace", zero=True),
            max_body_bytes=max_body_bytes,
            ignore_cookies=frozenset(texts("ignore_cookies", ignore_cookies)),
            authorized=authorized,
            harmless=frozenset(n.lower() for n in texts("harmless_headers", harmless_headers)),
        )
        self._clock = clock or SystemClock()
        self._mu = threading.Lock()
        self._renewing: set[str] = set()
        self._told: set[str] = set()
        self.streams: Streams = Streams(self)
        self.refusals: tuple[type[Exception], ...] = ()  # what a framework turns into an answer below 500

    @classmethod
    def made(cls, cache: CacheManager, options: Mapping[str, Any]) -> HttpCache:
        """Return one with the options that an adapter was given.

        Raises:
            ConfigurationError: There is no such option, or it is something else.
        """
        known = list(inspect.signature(cls).parameters)[1:]
        for name, given in options.items():
            if name not in known:
                raise ConfigurationError(name, given, f"no such option; there are {', '.join(known)}")
        return cls(cache, **options)

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
        if life is None or len(body) > self.rules.max_body_bytes or not rules.is_whole(headers, body):
            raise Unstorable(status)
        now = self._clock.time()
        kept = rules.kept_headers(headers)
        if not rules.has(headers, "etag") and status == 200:
            kept.append(["ETag", rules.etag(body, rules.values(headers, "content-encoding"))])
        if not rules.has(headers, "date"):
            kept.append(["Date", formatdate(now, usegmt=True)])
        stale_s, grace_s = rules.stand_ins(headers, self.rules)
        return Record(
            status=status,
            headers=kept,
            body=body,
            at=now - rules.aged(headers, now),
            until=now + life,
            stale_s=stale_s,
            grace_s=grace_s,
            vary=asked.variant(rules.varies(headers) or []),
            tags=[*self.tags, *said.tags, self.tag(asked)],
        )

    def sent(self, asked: Asked, record: Record, *, hit: bool) -> tuple[int, list[tuple[str, str]], bytes]:
        """Return status, headers and body for this client: a 304 where it has the answer already."""
        now = self._clock.time()
        left, age = max(0, int(record.until - now)), max(0, int(now - record.at))
        told = [("Cache-Status", f"eventperf; hit; ttl={left}" if hit else "eventperf; fwd=miss; stored")]
        if hit or age:
            told.append(("Age", str(age)))
        if rules.not_modified(asked, record.status, record.headers):
            told += [(k, v) for k, v in record.headers if k.lower() in rules.NOT_MODIFIED]
            return 304, told, b""
        told += [(k, v) for k, v in record.headers]
        if record.status != 204:  # which has no length (RFC 9110, 8.6)
            told.append(("Content-Length", str(len(record.body))))
        return record.status, told, b"" if asked.method == "HEAD" else record.body

    # -- looking up --------------------------------------------------------------------------------

    def peek(self, asked: Asked) -> Record | None:
        """Return a fresh answer that is kept, without having one made."""
        record = self._checked(self.cache.get(self.key(asked.key())))
        if record is not None and not _fits(asked, record):
            record = self._checked(self.cache.get(self.key(asked.variant_key(list(record.vary)))))
        return self._fresh(asked, record)

    async def apeek(self, asked: Asked) -> Record | None:
        """Return a fresh answer that is kept; see :meth:`peek`."""
        record = self._checked(await self.cache.aget(self.key(asked.key())))
        if record is not None and not _fits(asked, record):
            record = self._checked(await self.cache.aget(self.key(asked.variant_key(list(record.vary)))))
        return self._fresh(asked, record)

    def answer(self, asked: Asked, load: Callable[[], Record]) -> Record:
        """Return the answer to a request, having it made once for all who ask at once.

        Raises:
            Unstorable: It was made and may not be kept; who had it made has it, all others make their own.
        """
        key, new = self.key(asked.key()), rules.wants_new(asked)
        for _ in range(2):
            ways = self.cache.refresh if new else self.cache.get_or_load
            record = self._checked(ways(key, load, ttl=self.keeps, tags=_tags))
            if record is None:
                record = self.cache.refresh(key, load, ttl=self.keeps, tags=_tags)
            if _fits(asked, record):
                if self._will_do(key, record):
                    return record
                try:
                    return self.cache.refresh(key, load, ttl=self.keeps, tags=_tags)
                except Exception as error:
                    return self._graced(asked, record, error)
                finally:
                    self._renewed(key)
            key = self.key(asked.variant_key(list(record.vary)))
        raise Unstorable

    async def aanswer(self, asked: Asked, load: Callable[[], Awaitable[Record]]) -> Record:
        """Return the answer to a request; see :meth:`answer`."""
        key, new = self.key(asked.key()), rules.wants_new(asked)
        for _ in range(2):
            ways = self.cache.arefresh if new else self.cache.aget_or_load
            record = self._checked(await ways(key, load, ttl=self.keeps, tags=_tags))
            if record is None:
                record = await self.cache.arefresh(key, load, ttl=self.keeps, tags=_tags)
            if _fits(asked, record):
                if self._will_do(key, record):
                    return record
                try:
                    return await self.cache.arefresh(key, load, ttl=self.keeps, tags=_tags)
                except Exception as error:
                    return self._graced(asked, record, error)
                finally:
                    self._renewed(key)
            key = self.key(asked.variant_key(list(record.vary)))
        raise Unstorable

    def changed(self, asked: Asked, status: int) -> bool:
        """Tell whether an unsafe request has made what is kept of its URL old (RFC 9111, 4.4)."""
        return asked.method not in rules.SAFE and 200 <= status < 400

    def tag(self, asked: Asked) -> str:
        """Return the tag that every answer of a path carries."""
        return f"http:{asked.path}"

    def key(self, text: str) -> str:
        """Return the key of an entry of this part: none of the application's reaches it."""
        return Reserved.of("http", text)

    def place_of(self, asked: Asked, record: Record, there: Any) -> str:
        """Return the key of an answer, where ``there`` stands under that which does not tell variants."""
        is_other = isinstance(there, Record) and not _fits(asked, there)
        return self.key(asked.variant_key(list(there.vary)) if is_other else asked.key())

    def keeps(self, record: Record) -> float:
        """Return for how many seconds an entry stays: its life, what it may stand in, and some more."""
        left = record.until - self._clock.time() + max(record.stale_s, record.grace_s)
        return min(KEEP_S, max(0.0, left) * 1.5 + 60.0)

    def _checked(self, found: Any) -> Record | None:
        """Return what was found if it is an answer; what is not is told once and made again."""
        if found is None or isinstance(found, Record):
            return found
        kind = type(found).__name__
        if kind not in self._told:
            self._told.add(kind)
            _log.warning("a kept HTTP answer is none (%s): it is made again; who else writes there?", kind)
        return None

    def _fresh(self, asked: Asked, record: Record | None) -> Record | None:
        fits = record is not None and _fits(asked, record) and record.until > self._clock.time()
        return record if fits else None

    def _will_do(self, key: str, record: Record) -> bool:
        """Tell whether an answer is handed out as it is: fresh, or another caller has a new one made."""
        now = self._clock.time()
        if record.until > now:
            return True
        if now >= record.until + record.stale_s:
            return False
        with self._mu:
            if key in self._renewing:
                return True
            self._renewing.add(key)
            return False

    def _renewed(self, key: str) -> None:
        with self._mu:
            self._renewing.discard(key)

    def _graced(self, asked: Asked, record: Record, error: Exception) -> Record:
        """Return the old answer in place of an error.

        Raises:
            Exception: The error, where it is none of the server's or the answer is too old.
        """
        if self._is_refusal(error) or self._clock.time() >= record.until + record.grace_s:
            raise error
        if not isinstance(error, Unstorable):
            _log.error("an old answer stands in for an error at %s", asked.path, exc_info=error)
        return record

    def _is_refusal(self, error: Exception) -> bool:
        if isinstance(error, Unstorable):
            return error.status < 500
        said = getattr(error, "status_code", None) or getattr(error, "code", None)  # as frameworks raise them
        return isinstance(error, self.refusals) or (isinstance(said, int) and said < 500)


def texts(argument: str, given: Any) -> list[str]:
    """Return a list of texts that was given as an argument.

    Raises:
        ConfigurationError: It is something else.
    """
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        raise ConfigurationError(argument, given, "a list of texts")
    found: list[Any] = list(given)
    if not all(isinstance(text, str) for text in found):
        raise ConfigurationError(argument, found, "a list of texts")
    return found


def _fits(asked: Asked, record: Record) -> bool:
    return not record.vary or asked.variant(list(record.vary)) == record.vary


def _tags(record: Record) -> list[str]:
    return record.tags
