"""What the console is asked and what it answers, whichever framework it is mounted in. Plain data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import parse_qs, urlencode

from eventperf._pages.html import Html

from .texts import say

BODY_LIMIT: Final = 65_536
"""Longest form in bytes; a longer one is refused with 413."""

_FIELDS: Final = 2_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request, as every adapter makes it.

    Attributes:
        method: In capitals.
        path: Below the place where the console is mounted; begins with a slash.
        base: That place, without a slash at its end; what links begin with.
        query: Parameters of the URL.
        form: Fields of the body.
        headers: By their names in small letters.
        is_secure: Whether it came over https, as far as the host knows.
        native: The framework's own request (Django's, Flask's, an ASGI scope, a WSGI environment): what
            ``may`` is asked with.
    """

    method: str
    path: str
    base: str
    query: Mapping[str, Sequence[str]] = field(default_factory=dict)
    form: Mapping[str, Sequence[str]] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    is_secure: bool = False
    native: Any = None

    def asked(self, name: str, default: str = "") -> str:
        """Return a parameter of the URL."""
        return self.query[name][0] if self.query.get(name) else default

    def sent(self, name: str, default: str = "") -> str:
        """Return a field of the form."""
        return self.form[name][0] if self.form.get(name) else default

    def link(self, path: str, /, **query: object) -> str:
        """Return the URL of a page of the console; what is empty stays out of the query."""
        given = {k: v for k, v in query.items() if v not in (None, "")}
        return self.base + path + ("?" + urlencode(given) if given else "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer.

    Attributes:
        status: HTTP's.
        headers: In the order they are sent; names may repeat.
        body: Its bytes.
    """

    status: int = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""


class Answers(Protocol):
    """What an adapter needs of the console."""

    def respond(self, request: Request, /) -> Response:
        """Answer one request; never raises."""
        ...


def html(text: str | Html, status: int = 200) -> Response:
    """Return a page."""
    return Response(
        status=status,
        headers=(("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store")),
        body=text.encode("utf-8", "replace"),
    )


def redirect(url: str) -> Response:
    """Return the way to a page after a form was taken (303: the browser asks with GET)."""
    kind = ("Content-Type", "text/plain; charset=utf-8")
    return Response(status=303, headers=(("Location", url), kind, ("Cache-Control", "no-store")))


def parsed(text: str | bytes) -> dict[str, list[str]]:
    """Return the fields of a query or a form; bytes that are no UTF-8 are replaced, too many cut off.

    >>> parsed("a=1&a=2&b=")
    {'a': ['1', '2'], 'b': ['']}
    """
    if isinstance(text, bytes):
        text = text.decode("latin-1")
    try:
        return parse_qs(text, keep_blank_values=True, errors="replace", max_num_fields=_FIELDS)
    except ValueError:
        return {}


def too_large() -> Response:
    """Return the refusal of a form that is longer than the console takes."""
    return Response(
        status=413, headers=(("Content-Type", "text/plain; charset=utf-8"),), body=say("too_large").encode()
    )
