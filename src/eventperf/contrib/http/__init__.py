"""Whole answers kept: a shared HTTP cache in front of ASGI and WSGI applications and around views."""

from .asgi import HttpCacheMiddleware
from .flow import HttpCache
from .marking import http_cached
from .wsgi import WsgiCacheMiddleware

__all__ = ["HttpCache", "HttpCacheMiddleware", "WsgiCacheMiddleware", "http_cached"]
