"""The frame around every page."""

from __future__ import annotations

from collections.abc import Sequence

from eventperf._pages.html import Html, tag

from .texts import say
from .view import Attention, View


def frame(
    view: View,
    *,
    title: str,
    site: str,
    parts: Sequence[tuple[str, str]],
    current: str,
    body: Sequence[object],
) -> str:
    """Return a whole page.

    Args:
        view: Of the request.
        title: Of this page; ``site`` of the console.
        parts: Path and name of each part that is connected.
        current: Path of the part that is shown.
        body: What stands in the page.
    """
    request = view.request
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="robots", content="noindex"),
        tag("title", f"{title} – {site}"),
        tag("link", rel="stylesheet", href=request.link("/console.css")),
        tag("script", src=request.link("/console.js"), defer=""),
    )
    links = [
        tag(
            "li",
            tag("a", name, href=request.link(path), aria_current="page" if path == current else None),
        )
        for path, name in parts
    ]
    live = tag(
        "label", tag("input", type="checkbox", id="live", checked=""), " ", say("pause_live"), hidden=""
    )
    header = tag(
        "header",
        tag("a", say("skip"), href="#main", class_="skip"),
        tag("strong", site),
        tag("nav", tag("ul", *links), aria_label=site),
        live,
    )
    main = tag("main", tag("h1", title), *body, id="main", tabindex="-1")
    status = tag(
        "p", "", id="said", role="status", class_="muted", data_late=say("not_live", error="{error}", n="{n}")
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', header, main, status), lang='en')}\n"


def attentions(view: View, items: Sequence[Attention]) -> Html:
    """Return what needs attention, the worst first."""
    if not items:
        return tag("p", say("all_well"), class_="good")
    worst = sorted(items, key=lambda a: a.level != "bad")
    return tag(
        "ul", *(tag("li", view.link(a.path, a.text), class_=a.level) for a in worst), class_="attention"
    )
