"""Whole answers of a Django view kept, as ``cache_page`` does, for everybody and once."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from asgiref.sync import iscoroutinefunction, sync_to_async
from django.conf import settings
from django.core.exceptions import BadRequest, PermissionDenied, SuspiciousOperation
from django.http import Http404, HttpResponse
from django.utils import timezone, translation
from django.utils.functional import LazyObject

from eventperf._core.durations import Duration
from eventperf._core.errors import ConfigurationError
from eventperf.contrib.http import tagging
from eventperf.contrib.http.flow import HttpCache
from eventperf.contrib.http.rules import Asked, bypass
from eventperf.contrib.http.stored import Marks, Record, Unstorable
from eventperf.contrib.http.who import in_scope
from eventperf.contrib.http.wsgi import asked_of

if TYPE_CHECKING:
    from eventperf.cache import CacheManager

__all__ = ["cached_view"]

F = TypeVar("F", bound=Callable[..., Any])


def cached_view(
    ttl: Duration,
    cache: CacheManager,
    *,
    tags: Sequence[str] | Callable[..., Sequence[str]] = (),
    **options: Any,
) -> Callable[[F], F]:
    """Keep the answers of a view, ``def`` or ``async def``; who says who he is is answered by the view.

    What stays out, and who, is in :doc:`/how-to/http-cache`. As with ``cache_page`` the language and the time
    zone that are set (``USE_I18N``, ``USE_TZ``) are part of what names an answer.

    Args:
        ttl: How long, where the answer does not say itself (``cache_control``, ``never_cache`` and
            ``vary_on_headers`` on the view count).
        cache: Where they are kept.
        tags: Of its answers, or a function of the view's arguments (without the request) that returns them.
        options: See :class:`~eventperf.contrib.http.HttpCache`.

    Raises:
        ConfigurationError: An option that is none, or tags that the view has none of.
    """
    tagging.checked(tags)
    http = HttpCache.made(cache, {"ttl": ttl, **options})
    http.refusals = (Http404, PermissionDenied, SuspiciousOperation, BadRequest)

    def decorate(view: F) -> F:
        tagging.fits(tags, view, without=1)
        if iscoroutinefunction(view):

            @functools.wraps(view)
            async def akept(request: Any, *args: Any, **given: Any) -> Any:
                found = tagging.found(tags, args, given)
                return await _aanswered(http, request, found, lambda: view(request, *args, **given))

            return cast("F", akept)

        @functools.wraps(view)
        def kept(request: Any, *args: Any, **given: Any) -> Any:
            found = tagging.found(tags, args, given)
            return _answered(http, request, found, lambda: view(request, *args, **given))

        return cast("F", kept)

    return decorate


def _asked(http: HttpCache, request: Any) -> Asked:
    environ = {
        **request.META,
        "REQUEST_METHOD": request.method,
        "wsgi.url_scheme": request.scheme,
        "PATH_INFO": request.path,
        "SCRIPT_NAME": "",
    }
    around = []
    if settings.USE_I18N:  # of middlewares that say so in Vary only when the view has answered
        around.append(f"language={translation.get_language()}")
    if settings.USE_TZ:
        around.append(f"zone={timezone.get_current_timezone_name()}")
    return asked_of(environ, http.rules.harmless, around=tuple(around), known=_is_known(request))


def _is_known(request: Any) -> bool:
    """Tell whether a middleware of the host has found out who asks, other than by a cookie."""
    user = request.__dict__.get("user")
    if in_scope(getattr(request, "scope", {})):
        return True
    return not isinstance(user, LazyObject) and bool(getattr(user, "is_authenticated", False))


def _is_personal(request: Any) -> bool:
    """Tell whether a cookie will follow that the page belongs to: of a form's token, or of a session."""
    return "CSRF_COOKIE" in request.META or bool(
        getattr(getattr(request, "session", None), "modified", False)
    )


def _had_body(request: Any) -> bool:
    """Tell whether the view has read a body that was not announced, as HTTP/2 allows."""
    return bool(request._read_started) and getattr(request, "_body", None) != b""


def _answered(http: HttpCache, request: Any, tags: list[str], view: Callable[[], Any]) -> Any:
    asked = _asked(http, request)
    if bypass(asked, http.rules):
        answer = view()
        if http.changed(asked, answer.status_code):
            http.cache.invalidate_tags(http.tag(asked))
        return answer
    if asked.method == "HEAD":
        kept = http.peek(asked)
        return view() if kept is None else _response(http, asked, kept, hit=True)
    made: list[Any] = []

    def load() -> Record:
        answer = view()
        if inspect.isawaitable(answer):
            getattr(answer, "close", lambda: None)()
            allowed = "a def; or an async def, or a function that markcoroutinefunction has marked"
            raise ConfigurationError("view", "a function that returns a coroutine", allowed)
        if callable(getattr(answer, "render", None)):
            answer = answer.render()
        made.append(answer)
        return _record(http, asked, request, answer, tags)

    try:
        record = http.answer(asked, load)
    except Unstorable:
        return made[0] if made else view()
    return _response(http, asked, record, hit=not made)


async def _aanswered(http: HttpCache, request: Any, tags: list[str], view: Callable[[], Any]) -> Any:
    asked = _asked(http, request)
    if bypass(asked, http.rules):
        answer = await view()
        if http.changed(asked, answer.status_code):
            await http.cache.ainvalidate_tags(http.tag(asked))
        return answer
    if asked.method == "HEAD":
        kept = await http.apeek(asked)
        return await view() if kept is None else _response(http, asked, kept, hit=True)
    made: list[Any] = []

    async def load() -> Record:
        answer = await view()
        if callable(getattr(answer, "render", None)):
            answer = await sync_to_async(answer.render, thread_sensitive=True)()
        made.append(answer)
        return _record(http, asked, request, answer, tags)

    try:
        record = await http.aanswer(asked, load)
    except Unstorable:
        return made[0] if made else await view()
    return _response(http, asked, record, hit=not made)


def _record(http: HttpCache, asked: Asked, request: Any, answer: Any, tags: list[str]) -> Record:
    if answer.streaming or answer.cookies or _is_personal(request) or _had_body(request):
        raise Unstorable(answer.status_code)
    return http.record(asked, answer.status_code, list(answer.items()), answer.content, Marks(tags=tags))


def _response(http: HttpCache, asked: Asked, record: Record, *, hit: bool) -> HttpResponse:
    status, headers, body = http.sent(asked, record, hit=hit)
    told = dict(headers)
    answer = HttpResponse(body, status=status, headers=told, content_type="")  # Django adds one where none is
    if not answer.headers["Content-Type"]:
        del answer.headers["Content-Type"]
    return answer
