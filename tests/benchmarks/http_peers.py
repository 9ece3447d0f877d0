"""The sites of the HTTP benchmark: one small page, bare and behind each cache; ``HTTP_SITE`` names which."""

from __future__ import annotations

import os
from typing import Any

from cache_report import PAYLOAD

ASGI = (
    "asgi",
    "fastapi",
    "fastapi-cache2",
    "starlette-caches",
    "eventperf",
    "eventperf-dependency",
    "eventperf-redis",
)
WSGI = (
    "wsgi",
    "flask",
    "flask-caching",
    "eventperf-flask",
    "eventperf-wsgi",
    "django",
    "django-page",
    "eventperf-django",
)
CACHED_S = 600


def _ours(**options: Any) -> Any:
    from eventperf.cache import CacheManager

    return CacheManager(os.environ["HTTP_REDIS"], namespace=os.environ["HTTP_SITE"], **options)


def _fastapi(name: str) -> Any:
    import fastapi

    url = os.environ["HTTP_REDIS"]
    app: Any = fastapi.FastAPI()
    around: Any = lambda view: view  # noqa: E731
    depends: list[Any] = []
    outer: Any = app
    if name == "fastapi-cache2":
        import redis.asyncio
        from fastapi_cache import FastAPICache
        from fastapi_cache.backends.redis import RedisBackend
        from fastapi_cache.decorator import cache

        FastAPICache.init(RedisBackend(redis.asyncio.from_url(url)), prefix="peer")
        around = cache(expire=CACHED_S)
    elif name == "starlette-caches":
        from aiocache import RedisCache
        from aiocache.serializers import JsonSerializer
        from starlette_caches.middleware import CacheMiddleware
        from starlette_caches.rules import Rule

        host, port = url.removeprefix("redis://").partition("/")[0].split(":")
        kept = RedisCache(endpoint=host, port=int(port), namespace="peer", serializer=JsonSerializer())
        outer = CacheMiddleware(app, cache=kept, rules=[Rule(ttl=CACHED_S)])
    elif name != "fastapi":
        from eventperf.contrib.http import HttpCacheMiddleware

        cache = _ours(l1=None) if name == "eventperf-redis" else _ours()
        if name == "eventperf-dependency":
            from eventperf.contrib.fastapi import cached_route

            depends = [fastapi.Depends(cached_route(CACHED_S))]
        outer = HttpCacheMiddleware(app, cache, ttl=None if depends else CACHED_S)

    @app.get("/page", dependencies=depends)
    @around
    async def page() -> dict[str, Any]:
        return PAYLOAD

    return outer


def _floor(name: str) -> Any:
    """The least that an application can do under the server: bytes that are there."""
    import json

    body = json.dumps(PAYLOAD).encode()

    async def asgi(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            told = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
            await send({"type": "http.response.start", "status": 200, "headers": told})
            await send({"type": "http.response.body", "body": body})

    def wsgi(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))])
        return [body]

    return asgi if name == "asgi" else wsgi


def _flask(name: str) -> Any:
    import flask

    app = flask.Flask("page")
    around: Any = lambda view: view  # noqa: E731
    if name == "flask-caching":
        from flask_caching import Cache

        app.config.from_mapping(CACHE_TYPE="RedisCache", CACHE_REDIS_URL=os.environ["HTTP_REDIS"])
        around = Cache(app).cached(timeout=CACHED_S, query_string=True)
    elif name == "eventperf-flask":
        from eventperf.contrib.http import http_cached

        around = http_cached(_ours(), ttl=CACHED_S)
    elif name == "eventperf-wsgi":
        from eventperf.contrib.http import WsgiCacheMiddleware

        app.wsgi_app = WsgiCacheMiddleware(app.wsgi_app, _ours(), ttl=CACHED_S)

    @app.get("/page")
    @around
    def page() -> Any:
        return flask.jsonify(PAYLOAD)

    return app


def _django(name: str) -> Any:
    from django.conf import settings

    backend = "django.core.cache.backends.redis.RedisCache"
    settings.configure(
        ALLOWED_HOSTS=["*"], ROOT_URLCONF=__name__, SECRET_KEY="x", USE_I18N=False,
        MIDDLEWARE=["django.middleware.common.CommonMiddleware"],
        CACHES={"default": {"BACKEND": backend, "LOCATION": os.environ["HTTP_REDIS"]}},
    )  # fmt: skip
    import django
    from django.core.wsgi import get_wsgi_application
    from django.http import JsonResponse
    from django.urls import path
    from django.views.decorators.cache import cache_page
    from django.views.decorators.http import condition

    django.setup()

    def page(request: Any) -> Any:
        return JsonResponse(PAYLOAD)

    view: Any = page
    if name == "django-page":
        view = cache_page(CACHED_S)(condition()(page))
    elif name == "eventperf-django":
        from eventperf.contrib.django.http import cached_view

        view = cached_view(CACHED_S, _ours())(page)
    globals()["urlpatterns"] = [path("page", view)]
    return get_wsgi_application()


def _named(name: str) -> Any:
    if name in ("asgi", "wsgi"):
        return _floor(name)
    if name in ASGI:
        return _fastapi(name)
    return _django(name) if "django" in name else _flask(name)


if _name := os.environ.get("HTTP_SITE"):
    site = _named(_name)
