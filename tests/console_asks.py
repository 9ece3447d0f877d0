"""What the tests of the console ask it, and what no page of it may ever be."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from eventperf.contrib.console import Console
from eventperf.contrib.console.guard import COOKIE, token_of
from eventperf.contrib.console.web import Request, Response

CURE = "0123456789abcdef" * 3
HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>\u202e\x1b[31m{{7*7}}"


def everything(request: Any, action: str, subject: str | None) -> bool:
    return True


def get(console: Console, path: str, **query: str) -> Response:
    headers = {"host": "ops.example", "cookie": f"{COOKIE}={CURE}"}
    given = {k: [v] for k, v in query.items()}
    return console.respond(Request(method="GET", path=path, base="/ops", query=given, headers=headers))


def post(console: Console, path: str, headers: dict[str, str] | None = None, **form: str) -> Response:
    sent = {"host": "ops.example", "origin": "https://ops.example", "cookie": f"{COOKIE}={CURE}"}
    fields = {"csrf": token_of(CURE), **form}
    given = {k: [v] for k, v in fields.items() if v}
    whole = {k: v for k, v in {**sent, **(headers or {})}.items() if v}
    return console.respond(Request(method="POST", path=path, base="/ops", form=given, headers=whole))


class Elements(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def assert_harmless(response: Response) -> Elements:
    page = Elements(response.body.decode())
    scripts = [attrs for name, attrs in page.tags if name == "script"]
    assert all(set(attrs) == {"src", "defer"} for attrs in scripts)
    assert not [t for t in page.tags if any(a.startswith("on") or a == "style" for a in t[1])]
    assert {name for name, _ in page.tags}.isdisjoint({"iframe", "object", "embed", "img", "style", "base"})
    return page
