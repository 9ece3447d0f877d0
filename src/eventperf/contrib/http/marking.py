"""``http_cached``: a view says how long its answer may be kept."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from eventperf._core.durations import Duration, seconds
from eventperf._core.errors import ConfigurationError

from . import tagging
from .flow import HttpCache
from .stored import Marks, Record, Unstorable, marks

if TYPE_CHECKING:
    from eventperf.cache import CacheManager

    from .rules import Asked

F = TypeVar("F", bound=Callable[..., Any])


def http_cached(
    cache: CacheManager | None = None,
    *,
    ttl: Duration,
    tags: Sequence[str] | Callable[..., Sequence[str]] = (),
    **options: Any,
) -> Callable[[F], F]:
    """Keep the answers of one view.

    Below :class:`HttpCacheMiddleware` or :class:`WsgiCacheMiddleware` (FastAPI, Starlette, Flask) the view
    says what the middleware shall do. Without one, in Flask, ``cache`` keeps them itself. The order is that
    of every decorator of a view: the framework's on top.

    Args:
        cache: Where a Flask view without middleware keeps its answers.
        ttl: How long, where the answer does not say itself.
        tags: Of its answers, or a function of the view's arguments that returns them.
        options: As of :class:`HttpCache`, where ``cache`` keeps the answers.

    Raises:
        ConfigurationError: No middleware, and no cache to do without; or tags that the view has none of.
    """
    ttl_s = seconds(ttl, name="ttl")
    tagging.checked(tags)
    if cache is None and options:
        name, value = next(iter(options.items()))
        raise ConfigurationError(name, value, "options with cache=; without one they are the middleware's")
    alone = None if cache is None else HttpCache.made(cache, {"ttl": ttl, **options})

    def tags_of(args: tuple[Any, ...], given: dict[str, Any]) -> list[str]:
        return tagging.found(tags, args, given)

    def say(said: Marks, args: tuple[Any, ...], given: dict[str, Any]) -> None:
        said.ttl_s = ttl_s
        said.tags += tags_of(args, given)

    def decorate(view: F) -> F:
        tagging.fits(tags, view)
        if inspect.iscoroutinefunction(view):

            @functools.wraps(view)
            async def amarked(*args: Any, **given: Any) -> Any:
                said = marks.get()
                if said is None:
                    raise nowhere("http_cached", _name(view))
                say(said, args, given)
                return await view(*args, **given)

            return cast("F", amarked)

        @functools.wraps(view)
        def marked(*args: Any, **given: Any) -> Any:
            said = marks.get()
            if said is not None:
                say(said, args, given)
                return view(*args, **given)
            if alone is None or not _in_flask():
                raise nowhere("http_cached", _name(view))
            return _flask(alone, tags_of(args, given), lambda: view(*args, **given))

        return cast("F", marked)

    return decorate


def _name(view: Callable[..., Any]) -> str:
    return str(getattr(view, "__qualname__", "a view"))


def nowhere(argument: str, given: str) -> ConfigurationError:
    """Return the error of a mark that nothing reads."""
    allowed = (
        "HttpCacheMiddleware or WsgiCacheMiddleware around the application, or http_cached(cache) in Flask"
    )
    return ConfigurationError(argument, given, allowed)


def _in_flask() -> bool:
    flask: Any = sys.modules.get("flask")
    return flask is not None and bool(flask.has_request_context())


def _flask(http: HttpCache, tags: list[str], view: Callable[[], Any]) -> Any:
    import flask

    from .rules import bypass
    from .wsgi import asked_of

    asked = asked_of(flask.request.environ, http.rules.harmless)
    if bypass(asked, http.rules):
        answer = flask.make_response(view())
        if http.changed(asked, answer.status_code):
            http.cache.invalidate_tags(http.tag(asked))
        return answer
    made: list[Any] = []

    def load() -> Record:
        answer = flask.make_response(view())
        made.append(answer)
        if answer.is_streamed or flask.session.modified:  # its cookie comes after the view
            raise Unstorable(answer.status_code)
        headers = list(answer.headers.items())
        return http.record(asked, answer.status_code, headers, answer.get_data(), Marks(tags=tags))

    if asked.method == "HEAD":
        kept = http.peek(asked)
        return view() if kept is None else _response(http, asked, kept, hit=True)
    try:
        record = http.answer(asked, load)
    except Unstorable:
        return made[0] if made else view()
    return _response(http, asked, record, hit=not made)


def _response(http: HttpCache, asked: Asked, record: Record, *, hit: bool) -> Any:
    import flask

    status, headers, body = http.sent(asked, record, hit=hit)
    answer = flask.Response(body, status=status)
    answer.headers.clear()
    for name, value in headers:
        answer.headers.add(name, value)
    return answer
