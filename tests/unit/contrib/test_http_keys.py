"""One request's answer never stands in another's place, whatever a visitor writes into URL and headers."""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from eventperf.contrib.http import asgi, wsgi
from eventperf.contrib.http.rules import Asked
from eventperf.contrib.http.who import is_silent

PART = st.text(st.sampled_from("ab/?|:&=%.#\n "), max_size=6)
HEADERS = st.dictionaries(
    st.sampled_from(["x-forwarded-host", "x-original-url", "x-workspace", "accept-language", "accept"]),
    PART,
    max_size=2,
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[dict[str, str], dict[str, str]]:
    words = {name: draw(PART) for name in ("host", "path", "query")}
    return words | {"path": "/" + words["path"]}, draw(HEADERS)


def _wsgi(words: dict[str, str], headers: dict[str, str]) -> Asked:
    environ = {
        "REQUEST_METHOD": "GET", "HTTP_HOST": words["host"] + "h",
        "PATH_INFO": words["path"], "QUERY_STRING": words["query"],
        **{f"HTTP_{k.upper().replace('-', '_')}": v for k, v in headers.items()},
    }  # fmt: skip
    return wsgi.asked_of(environ)


def _asgi(words: dict[str, str], headers: dict[str, str]) -> Asked:
    given_ = {"host": words["host"] + "h", **headers}
    scope: dict[str, Any] = {
        "method": "GET", "path": words["path"], "query_string": words["query"].encode(),
        "headers": [(k.encode(), v.encode()) for k, v in given_.items()],
    }  # fmt: skip
    return asgi.asked_of(scope)


def _same(one: Any, other: Any, vary: tuple[str, ...]) -> bool:
    def kept(headers: dict[str, str]) -> dict[str, str]:
        out = {k: v for k, v in headers.items() if not is_silent(k)}
        return out | {k: ",".join(p.strip() for p in headers.get(k, "").split(",")) for k in vary}

    return bool(one[0] == other[0] and kept(one[1]) == kept(other[1]))


@settings(max_examples=150, deadline=None)
@given(one=requests(), other=requests())
@example(
    one=({"host": "", "path": "/a%3Fb", "query": ""}, {}),
    other=({"host": "", "path": "/a?b", "query": ""}, {}),
)
@example(
    one=({"host": "", "path": "/a?b", "query": ""}, {}), other=({"host": "", "path": "/a", "query": "b?"}, {})
)
def test_two_requests_share_a_key_only_when_they_are_one(one: Any, other: Any) -> None:
    for asked_of in (_wsgi, _asgi):
        first, second = asked_of(*one), asked_of(*other)
        mine = {first.key(), first.variant_key(["accept-language"])}
        theirs = {second.key(), second.variant_key(["accept-language"])}
        assert (first.key() == second.key()) == _same(one, other, ())
        same = _same(one, other, ("accept-language",))
        assert (first.variant_key(["accept-language"]) == second.variant_key(["accept-language"])) == same
        assert len(mine) == len(theirs) == 2
        if one[0] != other[0]:
            assert first.path != second.path or one[0]["query"] != other[0]["query"]
            assert not mine & theirs


def test_a_query_does_not_reach_the_place_of_a_variant() -> None:
    """Its digest is known to everybody: a visitor could have put his answer in everybody's place."""
    victim = Asked(method="GET", url="http://h|/p?", path="http://h|/p", headers={"accept-language": "de"})
    digest = victim.variant_key(["accept-language"]).partition("|")[0].rpartition(".")[2]
    for query in (f"|{digest}", f".{digest}|", f"%7C{digest}"):
        asked = _wsgi({"host": "", "path": "/p", "query": query}, {})
        assert asked.key() != victim.variant_key(["accept-language"])
        assert digest not in asked.key().partition("|")[0]


def test_a_path_as_it_was_written_is_another_one_in_either_interface() -> None:
    """A server hands on ``/a%2Fb`` as ``/a/b``; an application may look at what was written and show it."""
    for name in ("RAW_URI", "REQUEST_URI"):
        environ = {"REQUEST_METHOD": "GET", "HTTP_HOST": "h", "PATH_INFO": "/a/b", "QUERY_STRING": "x=%2F"}
        same = [{}, {name: "/a/b?x=%2F"}]
        others = [
            "/a%2Fb?x=%2F",
            "/a%2fb?x=%2F",
            "http://evil/a/b?x=%2F",
            "//evil/a/b?x=%2F",
            "/a/b?x=%2F#evil",
        ]
        asked = [wsgi.asked_of({**environ, **more}) for more in [*same, *({name: raw} for raw in others)]]
        assert len({one.key() for one in asked}) == 1 + len(others)
        assert len({one.path for one in asked}) == 1, "a change of it reaches all"


def test_a_value_with_the_border_of_two_in_it_is_one_value() -> None:
    """Servers let no line break through; what stands before them may."""
    for one, other in (
        ({"x-a": "1\nx-b=2"}, {"x-a": "1", "x-b": "2"}),
        ({"x-a": "1', 'x-b=2"}, {"x-a": "1", "x-b": "2"}),
    ):
        words = {"host": "", "path": "/", "query": ""}
        assert _wsgi(words, one).key() != _wsgi(words, other).key()
