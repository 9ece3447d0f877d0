"""Who may do what, and that a form comes from the console's own page."""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from hashlib import sha256
from typing import Any, Final
from urllib.parse import urlsplit

from .web import Request

May = Callable[[Any, str, "str | None"], bool]
"""``may(request, action, subject) -> bool``: the host's answer to who may do what."""

COOKIE: Final = "eventperf_console"
FIELD: Final = "csrf"

HEADERS: Final = (
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
)
"""What every answer carries, its policy first: a page sends nothing but to itself, and cannot be framed."""


def read_only(request: Any, action: str, subject: str | None) -> bool:
    """Let everybody whom the host lets through look, and nobody act; payloads and literals stay hidden."""
    return action == "view"


def staff_only(request: Any, action: str, subject: str | None) -> bool:
    """Let those do everything whom Django calls active staff; everybody else nothing.

    Reads ``request.user`` or, in an ASGI scope, ``scope["user"]``.
    """
    user = request.get("user") if isinstance(request, dict) else getattr(request, "user", None)
    return bool(getattr(user, "is_active", False)) and bool(getattr(user, "is_staff", False))


def name_of(native: Any) -> str:
    """Return who asks, for the audit: the host's user, else the address, else ``"unknown"``."""
    if isinstance(native, dict):
        user = native.get("user") or native.get("REMOTE_USER")
        address = native.get("REMOTE_ADDR") or (native.get("client") or ("",))[0]
    else:
        user = getattr(native, "user", None) or getattr(native, "remote_user", None)
        address = getattr(native, "remote_addr", "") or getattr(native, "META", {}).get("REMOTE_ADDR", "")
    if user is not None and getattr(user, "is_authenticated", True):
        return str(getattr(user, "username", None) or user)[:200]
    return str(address or "unknown")[:200]


def cookie_of(request: Request) -> str:
    """Return the console's own cookie, empty where there is none."""
    for part in request.headers.get("cookie", "").split(";"):
        name, _, value = part.strip().partition("=")
        if name == COOKIE and len(value) >= 32 and value.isalnum():
            return value
    return ""


def fresh_cookie() -> str:
    """Return a cookie nobody can guess."""
    return secrets.token_hex(24)


def token_of(cookie: str) -> str:
    """Return what a form must carry beside ``cookie``: it follows from it, and is useless without it."""
    return sha256(b"eventperf console form\0" + cookie.encode()).hexdigest()


def refusal(request: Request) -> str:
    """Return why a form is not taken, empty if it is.

    Two independent answers must agree: the browser's own word on where the form comes from (``Origin``,
    else ``Sec-Fetch-Site``, else ``Referer``), and a token that only the console's page could carry.
    """
    host = request.headers.get("host", "")
    origin = request.headers.get("origin") or request.headers.get("referer", "")
    site = request.headers.get("sec-fetch-site", "")
    if origin:
        if not host or urlsplit(origin).netloc.lower() != host.lower():
            return "origin"
    elif site != "same-origin":
        return "origin"
    cookie = cookie_of(request)
    if not cookie or not hmac.compare_digest(
        request.sent(FIELD).encode("utf-8", "replace"), token_of(cookie).encode()
    ):
        return "token"
    return ""
