"""HTML by elements: text is escaped unless it is :class:`Html` already, so that nobody has to remember to."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from html import escape
from typing import Final

from .style import STYLE

#: Control and direction characters, and halves of characters: they would turn the words around them.
_STEERS: Final = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_VOID = frozenset({"br", "col", "hr", "img", "input", "link", "meta", "rect", "line", "polyline", "path"})


class Html(str):
    """Markup that is safe as it stands; template engines know it by ``__html__``."""

    __slots__ = ()

    def __html__(self) -> str:
        return self


def markup(*parts: object) -> Html:
    r"""Join ``parts``; whatever is no :class:`Html` is text and gets escaped.

    Characters that would turn the direction of a line are written out.

    >>> markup("a < b ", tag("b", "&\u202e"))
    'a &lt; b <b>&amp;\\u202e</b>'
    """
    return Html("".join(p if isinstance(p, Html) else escape(_STEERS.sub(_written, str(p))) for p in parts))


def _written(found: re.Match[str]) -> str:
    return found.group().encode("unicode_escape").decode()


def tag(name: str, *children: object, **attributes: object) -> Html:
    """Return one element; ``class_`` and the like lose their underscore, ``None`` leaves an attribute out.

    >>> tag("p", "5 > 4", class_="muted")
    '<p class="muted">5 &gt; 4</p>'
    """
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID and not children:
        return Html(f"<{name}{given}/>")
    return Html(f"<{name}{given}>{markup(*children)}</{name}>")


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], numbers: Collection[int] = ()) -> Html:
    """Return a table; columns at the places ``numbers`` are set to the right, so that digits line up."""
    kinds = ["n" if i in numbers else None for i in range(len(columns))]

    def line(cell: str, row: Sequence[object]) -> Html:
        return tag("tr", *(tag(cell, c, class_=k) for c, k in zip(row, kinds, strict=True)))

    head = tag("thead", line("th", columns)) if any(columns) else ""
    return tag("table", head, tag("tbody", *(line("td", row) for row in rows)))


def listed(items: Iterable[object]) -> Html:
    """Return a bulleted list."""
    return tag("ul", *(tag("li", item) for item in items))


def page(title: str, *body: object) -> str:
    """Return a whole page that may load nothing and run nothing."""
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("meta", name_="viewport", content="width=device-width"),
        tag(
            "meta",
            http_equiv="Content-Security-Policy",
            content="default-src 'none'; style-src 'unsafe-inline'",
        ),
        tag("title", title),
        tag("style", Html(STYLE)),
    )
    return f"<!doctype html>\n{tag('html', head, tag('body', *body), lang='en')}\n"
