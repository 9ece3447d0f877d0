"""Whole answers of a Django view kept, as ``cache_page`` does, for everybody and once."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, cast

from django.http import HttpResponse

from eventperf._core.durations import Duration
from eventperf._core.errors import ConfigurationError
from eventperf.contrib.http.flow import HttpCache, Marks, Record, Unstorable
from eventperf.contrib.http.rules import Asked, bypass
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
    """Keep the answers of a view; requests with cookies or ``Authorization`` go to the view.

    Args:
        ttl: How long, where the answer does not say itself (``cache_control``, ``never_cache`` and
            ``vary_on_headers`` on the view count).
        cache: Where they are kept.
        tags: Of its answers, or a function of the view's arguments (without the request) that returns them.
        options: See :class:`~eventperf.contrib.http.HttpCache`.

    Raises:
        ConfigurationError: An option that is none.
    """
    if isinstance(tags, str):
        raise ConfigurationError("tags", tags, "a list of texts, or a function")
    http = HttpCache(cache, ttl=ttl, **options)

    def decorate(view: F) -> F:
        @functools.wraps(view)
        def kept(request: Any, *args: Any, **given: Any) -> Any:
            found = list(tags(*args, **given) if callable(tags) else tags)
            return _answered(http, request, found, lambda: view(request, *args, **given))

        return cast("F", kept)

    return decorate


def _asked(request: Any) -> Asked:
    environ = {k: v for k, v in request.META.items() if isinstance(v, str)}
    environ["REQUEST_METHOD"] = request.method
    environ["wsgi.url_scheme"] = request.scheme
    environ["PATH_INFO"], environ["SCRIPT_NAME"] = request.path, ""
    return asked_of(environ)


def _is_personal(request: Any) -> bool:
    """Tell whether a cookie will follow that the page belongs to: of a form's token, or of a session."""
    return "CSRF_COOKIE" in request.META or bool(
        getattr(getattr(request, "session", None), "modified", False)
    )


def _answered(http: HttpCache, request: Any, tags: list[str], view: Callable[[], Any]) -> Any:
    asked = _asked(request)
    if bypass(asked, http.rules) or asked.method == "HEAD":
        return view()
    made: list[Any] = []

    def load() -> Record:
        answer = view()
        if hasattr(answer, "render") and callable(answer.render):
            answer = answer.render()
        made.append(answer)
        if answer.streaming or answer.cookies or _is_personal(request):
            raise Unstorable(answer.status_code)
        return http.record(asked, answer.status_code, list(answer.items()), answer.content, Marks(tags=tags))

    try:
        record = http.answer(asked, load)
    except Unstorable:
        return made[0] if made else view()
    status, headers, body = http.sent(asked, record, hit=not made)
    answer = HttpResponse(body, status=status)
    for name in list(answer.headers):
        del answer.headers[name]
    for name, value in headers:
        answer.headers[name] = value
    return answer
