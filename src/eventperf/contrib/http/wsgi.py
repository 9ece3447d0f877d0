"""Answers kept in front of a WSGI application."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import lru_cache
from http import HTTPStatus
from io import BytesIO
from itertools import chain
from typing import TYPE_CHECKING, Any, Final

from eventperf._core.contexts import reset
from eventperf._core.errors import ConfigurationError

from .flow import HttpCache
from .rules import CONDITIONS, Asked, Headers, bypass, has, is_whole, number, place, values, wants_new
from .stored import Marks, Record, Unstorable, marks
from .streams import Copy
from .who import in_environ

if TYPE_CHECKING:
    from eventperf.cache import CacheManager

StartResponse = Callable[..., Any]
App = Callable[[dict[str, Any], StartResponse], Iterable[bytes]]

_CONDITIONS: Final = frozenset(f"HTTP_{name.upper().replace('-', '_')}" for name in CONDITIONS)


class WsgiCacheMiddleware:
    """Keep the answers of a WSGI application; what and for whom as :class:`HttpCacheMiddleware` does."""

    def __init__(self, app: App, cache: CacheManager, **options: Any) -> None:
        self.http: HttpCache = HttpCache.made(cache, options)
        if not callable(app):
            raise ConfigurationError("app", app, "a WSGI application")
        self.app: App = app

    def __call__(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request."""
        asked = asked_of(environ, self.http.rules.harmless)
        if bypass(asked, self.http.rules):
            return self._around(asked, environ, start_response)
        if asked.method == "HEAD":
            kept = self.http.peek(asked)
            if kept is None:
                return self._around(asked, environ, start_response)
            return _respond(self.http, asked, kept, start_response, hit=True)
        if self.http.streams.knows(asked):
            kept = None if wants_new(asked) else self.http.peek(asked)
            if kept is None:
                return self._along(asked, environ, start_response)
            return _respond(self.http, asked, kept, start_response, hit=True)
        run = _Run(self, asked, environ)
        try:
            record = self.http.answer(asked, run.load)
        except Unstorable:
            if run.rest is None:  # another's answer, which is not ours to see
                return self._around(asked, environ, start_response)
            start_response(*run.start)
            return run.rest
        return _respond(self.http, asked, record, start_response, hit=record is not run.record)

    def _along(self, asked: Asked, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """Hand a stream through as it is made, and keep a copy of it at its end."""
        copy = self.http.streams.begin(asked)

        def started(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            write = start_response(status, headers, exc_info) if exc_info else start_response(status, headers)
            copy.start(int(status[:3]), headers)

            def written(part: bytes) -> None:
                copy.add(part)
                write(part)

            return written

        token = marks.set(copy.said)
        answer: Iterable[bytes] = ()
        try:
            answer = self.app({**environ, "wsgi.input": BytesIO()}, started)
            parts = iter(answer)
            first = next(parts, b"")
        except BaseException:
            copy.drop()
            copy.end()
            _close(answer)
            raise
        finally:
            reset(marks, token)
        return _Copied(copy, first, parts, answer)

    def _around(
        self, asked: Asked, environ: dict[str, Any], start_response: StartResponse
    ) -> Iterable[bytes]:
        def started(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if self.http.changed(asked, int(status[:3])):
                self.http.cache.invalidate_tags(self.http.tag(asked))
            return start_response(status, headers, exc_info) if exc_info else start_response(status, headers)

        token = marks.set(Marks())
        try:
            return self.app(environ, started)
        finally:
            reset(marks, token)


class _Run:
    """The application at work on an answer that may be kept."""

    def __init__(self, middleware: WsgiCacheMiddleware, asked: Asked, environ: dict[str, Any]) -> None:
        self._http, self._app, self._asked = middleware.http, middleware.app, asked
        self._environ = environ
        self.start: tuple[Any, ...] = ()
        self.rest: Iterable[bytes] | None = None
        self.record: Record | None = None

    def load(self) -> Record:
        """Return the answer of the application.

        Raises:
            Unstorable: It goes through to the client instead: :attr:`start` and :attr:`rest`.
        """
        environ = {k: v for k, v in self._environ.items() if k not in _CONDITIONS}
        environ["wsgi.input"] = BytesIO()  # none is announced: the answer cannot depend on one
        written: list[bytes] = []

        def started(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            self.start = (status, headers, exc_info) if exc_info else (status, headers)
            return written.append

        said = Marks()
        token = marks.set(said)
        answer: Iterable[bytes] = ()
        try:
            answer = self._app(environ, started)
            parts = iter(answer)
            seen = [next(parts, b"")]  # an application may say its status as late as with its first bytes
        except BaseException:
            _close(answer)
            raise
        finally:
            reset(marks, token)
        return self._gathered(answer, [*written, *seen], parts, said)

    def _gathered(
        self, answer: Iterable[bytes], seen: list[bytes], parts: Iterator[bytes], said: Marks
    ) -> Record:
        status, headers = int(self.start[0][:3]), self.start[1]
        size = sum(map(len, seen))
        if self._http.life_of(self._asked, status, headers, said) is None:
            pass
        elif not _is_made(answer, headers, size):
            self._http.streams.note(self._asked, said.tags)
        else:
            try:
                while size <= self._http.rules.max_body_bytes and (part := next(parts, None)) is not None:
                    seen.append(part)
                    size += len(part)
            except BaseException:
                _close(answer)
                raise
            body = b"".join(seen)
            if size <= self._http.rules.max_body_bytes and is_whole(headers, body):
                _close(answer)
                self.record = self._http.record(self._asked, status, headers, body, said)
                return self.record
        self.rest = _Rest(seen, parts, answer)
        raise Unstorable(status)


class _Rest:
    """What was taken of an answer, and the rest of it."""

    def __init__(self, seen: list[bytes], parts: Iterator[bytes], answer: Iterable[bytes]) -> None:
        self._parts, self._answer = chain(seen, parts), answer

    def __iter__(self) -> Iterator[bytes]:
        return self._parts

    def close(self) -> None:
        """Tell the application that nobody reads on."""
        _close(self._answer)


class _Copied:
    """A stream that is handed on piece by piece while a copy grows; at its end the copy is kept."""

    def __init__(self, copy: Copy, first: bytes, parts: Iterator[bytes], answer: Iterable[bytes]) -> None:
        self._copy, self._parts, self._answer = copy, chain([first], parts), answer
        self._ended = False

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        part = next(self._parts, None)
        if part is None:
            self._end()
            raise StopIteration
        self._copy.add(part)
        return part

    def _end(self) -> None:
        if not self._ended:
            self._ended = True
            self._copy.end()

    def close(self) -> None:
        """Tell the application that nobody reads on; what was not read to its end is not kept."""
        if not self._ended:
            self._copy.drop()
            self._end()
        _close(self._answer)


def _is_made(answer: Any, headers: Headers, size: int) -> bool:
    """Tell whether an answer is there already, so that taking all of it waits for nothing."""
    if isinstance(answer, (list, tuple)) or getattr(answer, "streaming", True) is False:
        return True
    return has(headers, "content-length") and number(values(headers, "content-length"), -1) <= size


def _close(answer: Any) -> None:
    close = getattr(answer, "close", None)
    if close is not None:
        close()


def _respond(
    http: HttpCache, asked: Asked, record: Record, start_response: StartResponse, *, hit: bool
) -> Iterable[bytes]:
    status, headers, body = http.sent(asked, record, hit=hit)
    start_response(f"{status} {phrase(status)}", headers)
    return [body]


@lru_cache(maxsize=2_000)
def _name(name: str) -> str:
    """Return the header that stands under a name of an environment, empty for what is none."""
    return name[5:].replace("_", "-").lower() if name.startswith("HTTP_") else ""


@lru_cache(maxsize=1_000)
def phrase(status: int) -> str:
    """Return the words of a status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def asked_of(
    environ: Mapping[str, Any],
    harmless: Collection[str] = (),
    *,
    around: tuple[str, ...] = (),
    known: bool = False,
) -> Asked:
    """Return what an environment asks for; the rest as in :class:`HttpCache` and :class:`Asked`."""
    headers = {header: str(environ[name]) for name in environ if (header := _name(name))}
    for name, header in (("CONTENT_LENGTH", "content-length"), ("CONTENT_TYPE", "content-type")):
        if environ.get(name):
            headers[header] = str(environ[name])
    host = headers.get("host") or f"{environ.get('SERVER_NAME', '')}:{environ.get('SERVER_PORT', '')}"
    base, path = str(environ.get("SCRIPT_NAME", "")), str(environ.get("PATH_INFO", ""))
    where = place(str(environ.get("wsgi.url_scheme", "http")), host, base, path)
    query = str(environ.get("QUERY_STRING", ""))
    raw = str(environ.get("RAW_URI") or environ.get("REQUEST_URI") or "")
    seen = f"{base}{path}?{query}" if query else f"{base}{path}"
    exact = place("", "", "", raw) if raw and raw != seen else ""  # a%2Fb is not a/b, nor a#b or http://b/a
    return Asked(
        method=environ["REQUEST_METHOD"],
        url=f"{where}{exact}?{query}",
        path=where,
        headers=headers,
        known=known or in_environ(environ, harmless),
        around=around,
        harmless=harmless,
    )
