"""Whole answers kept: what a shared cache may keep, for whom, and that nobody sees another's."""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from typing import Any

import pytest

from eventperf.cache import CacheManager
from eventperf.contrib.http import HttpCacheMiddleware, WsgiCacheMiddleware, http_cached
from eventperf.errors import ConfigurationError
from http_sites import Site, says


@pytest.fixture(params=["asgi", "wsgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_the_second_answer_is_the_first_one_kept(kind: str) -> None:
    site = Site(kind, says(cache_control="max-age=60"))
    first, second = site.ask(), site.ask()
    assert site.calls == 1
    assert (first[0], first[2]) == (second[0], second[2]) == (200, "hello")
    assert "hit" not in first[1]["cache-status"]
    assert "hit" in second[1]["cache-status"]
    assert second[1]["age"] == "0"
    site.clock.advance(61)
    site.ask()
    assert site.calls == 2


KEPT = [
    ({"cache_control": "max-age=60"}, {}),
    ({"cache_control": "public, s-maxage=60, max-age=0"}, {}),
    ({"expires": formatdate(4e9, usegmt=True)}, {}),
    ({}, {"ttl": "1m"}),
    ({"cache_control": "max-age=60", "status": 404}, {}),
    ({"cache_control": "max-age=60", "status": 301}, {}),
]
NOT_KEPT: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"cache_control": "no-store"}, {"ttl": "1m"}),
    ({"cache_control": "private, max-age=60"}, {"ttl": "1m"}),
    ({"cache_control": "no-cache"}, {"ttl": "1m"}),
    ({"cache_control": 'private="Set-Cookie", max-age=60'}, {"ttl": "1m"}),
    ({"cache_control": "max-age=0"}, {"ttl": "1m"}),
    ({"cache_control": "max-age=nonsense"}, {"ttl": "1m"}),
    ({"cache_control": "max-age=60", "age": "61"}, {"ttl": "1m"}),
    ({"expires": "0"}, {"ttl": "1m"}),
    ({"expires": "Thu, 01 Jan 1970 00:00:00 GMT"}, {"ttl": "1m"}),
    ({"set_cookie": "id=1", "cache_control": "max-age=60"}, {"ttl": "1m"}),
    ({"vary": "*", "cache_control": "max-age=60"}, {"ttl": "1m"}),
    ({"status": 206, "content_range": "bytes 0-1/5", "cache_control": "max-age=60"}, {"ttl": "1m"}),
    ({"status": 500}, {"ttl": "1m"}),
    ({"status": 302}, {"ttl": "1m"}),
    ({"content_type": "text/event-stream"}, {"ttl": "1m"}),
    ({"body": "x" * 2000}, {"ttl": "1m", "max_body_bytes": 1000}),
]


@pytest.mark.parametrize(("told", "options"), KEPT, ids=str)
def test_what_may_be_kept_is(kind: str, told: dict[str, Any], options: dict[str, Any]) -> None:
    site = Site(kind, says(**told), **options)
    assert site.ask()[2] == site.ask()[2]
    assert site.calls == 1


@pytest.mark.parametrize(("told", "options"), NOT_KEPT, ids=str)
def test_what_may_not_be_kept_goes_through_whole(
    kind: str, told: dict[str, Any], options: dict[str, Any]
) -> None:
    site = Site(kind, says(**told), **options)
    answers = [site.ask(), site.ask()]
    assert site.calls == 2
    assert [a[0] for a in answers] == [told.get("status", 200)] * 2
    assert [a[2] for a in answers] == [told.get("body", "hello")] * 2


@pytest.mark.parametrize(
    "mine",
    [
        {"cookie": "session=alice"},
        {"authorization": "Bearer alice"},
        {"proxy_authorization": "Basic alice"},
        {"x_api_key": "alice"},
        {"remote_user": "alice"},
        {"x_forwarded_user": "alice"},
        {"x_auth_request_email": "alice@example.org"},
        {"cf_access_jwt_assertion": "alice"},
        {"cookie": "_ga=1; session=alice"},
        {"cache_control": "no-store"},
        {"range": "bytes=0-1"},
        {"if_match": '"x"'},
        {"method": "POST"},
        {"method": "PURGE"},
    ],
    ids=str,
)
def test_an_answer_made_for_one_is_never_another_s(kind: str, mine: dict[str, str]) -> None:
    def made(sent: dict[str, str]) -> tuple[int, dict[str, str], str]:
        return 200, {"cache-control": "max-age=60"}, "for alice" if "alice" in str(sent) else "for all"

    site = Site(kind, made)
    site.ask(**mine)
    assert site.ask()[2] == "for all"
    site.ask(**mine)
    assert site.calls >= 3, "kept answers are not handed to such requests either"


@pytest.mark.parametrize(
    "header",
    [
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-original-url",
        "x-http-method-override",
        "forwarded",
        "x-script-name",
        "x-host-override",
        "x-http-host-override",
        "x-forwarded-uri",
        "x-url-scheme",
        "front-end-https",
        "x-workspace",
        "x-company",
        "x-plan",
        "x-age-verified",
        "origin",
        "cf-ipcountry",
        "x-never-heard-of",
    ],
)
def test_a_header_outside_the_key_poisons_nobody(kind: str, header: str) -> None:
    def made(sent: dict[str, str]) -> tuple[int, dict[str, str], str]:
        return 200, {"cache-control": "max-age=60"}, sent.get(header, "clean")

    site = Site(kind, made)
    assert site.ask(**{header: "evil.example"})[2] == "evil.example"
    assert site.ask()[2] == "clean"


def test_ignored_cookies_change_nothing_and_others_still_count(kind: str) -> None:
    site = Site(kind, says(cache_control="max-age=60"), ignore_cookies=["_ga"])
    for cookie in ("_ga=1", "_ga=2"):
        site.ask(cookie=cookie)
    assert site.calls == 1
    site.ask(cookie="_ga=1; session=x")
    assert site.calls == 2


def test_variants_are_kept_apart_and_each_is_kept(kind: str) -> None:
    def made(sent: dict[str, str]) -> tuple[int, dict[str, str], str]:
        lang = sent.get("accept-language", "none")
        return 200, {"cache-control": "max-age=60", "vary": "Accept-Language, Accept-Encoding"}, lang

    site = Site(kind, made)
    for _ in range(2):
        assert [site.ask(accept_language=lang)[2] for lang in ("en", "de", "fr")] == ["en", "de", "fr"]
    assert site.calls == 3


def test_query_host_and_scheme_are_part_of_what_is_asked(kind: str) -> None:
    site = Site(kind, says(cache_control="max-age=60"))
    for ask in ({"path": "/a?x=1"}, {"path": "/a?x=2"}, {"path": "/a", "host": "other"}, {"path": "/A"}):
        site.ask(**ask)
    assert site.calls == 4


def test_who_has_it_already_is_told_so(kind: str) -> None:
    site = Site(kind, says(cache_control="max-age=60", last_modified=formatdate(1e9, usegmt=True)))
    tag = site.ask()[1]["etag"]
    for known in (tag, f'"other", {tag}', tag.removeprefix("W/"), "*"):
        status, headers, body = site.ask(if_none_match=known)
        assert (status, body) == (304, "")
        assert headers["etag"] == tag
        assert "content-type" not in headers
    assert site.ask(if_none_match='"other"')[0] == 200
    assert site.ask(if_modified_since=formatdate(1e9, usegmt=True))[0] == 304
    assert site.ask(if_modified_since=formatdate(1e9 - 1, usegmt=True))[0] == 200
    assert site.calls == 1


def test_the_first_request_of_all_may_be_conditional(kind: str) -> None:
    def made(sent: dict[str, str]) -> tuple[int, dict[str, str], str]:
        return (
            (304 if "if-none-match" in sent else 200),
            {"cache-control": "max-age=60", "etag": '"1"'},
            "body",
        )

    site = Site(kind, made)
    assert site.ask(if_none_match='"1"')[0] == 304
    assert site.ask()[2] == "body"
    assert site.calls == 1


def test_a_reload_gets_an_answer_made_now_and_so_do_all_after(kind: str) -> None:
    number = iter(range(10))
    site = Site(kind, lambda sent: (200, {"cache-control": "max-age=60"}, str(next(number))))
    assert [site.ask()[2], site.ask(cache_control="no-cache")[2], site.ask()[2]] == ["0", "1", "1"]
    assert site.ask(pragma="no-cache")[2] == "2"


def test_head_is_answered_from_what_is_kept_without_its_body(kind: str) -> None:
    site = Site(kind, says(cache_control="max-age=60"))
    site.ask(method="HEAD")
    site.ask()
    status, headers, body = site.ask(method="HEAD")
    assert (status, body, headers["content-length"]) == (200, "", "5")
    assert site.calls == 2


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_change_makes_what_is_kept_of_its_url_old(kind: str, method: str) -> None:
    site = Site(kind, says(cache_control="max-age=60"))
    site.ask("/a?page=1")
    site.ask("/b")
    site.ask("/a", method=method)
    site.ask("/a?page=1")
    site.ask("/b")
    assert site.calls == 4


def test_a_refused_change_changes_nothing(kind: str) -> None:
    def made(sent: dict[str, str]) -> tuple[int, dict[str, str], str]:
        return (403 if "x-write" in sent else 200), {"cache-control": "max-age=60"}, "x"

    site = Site(kind, made)
    site.ask()
    site.ask(method="POST", x_write="1")
    site.ask()
    assert site.calls == 2


def test_tags_make_it_forget(kind: str) -> None:
    site = Site(kind, says(cache_control="max-age=60"), tags=["events"])
    site.ask()
    site.cache.invalidate_tags("events")
    site.ask()
    assert site.calls == 2


def test_an_old_answer_stands_in_for_an_error(kind: str) -> None:
    state = {"status": 200}
    site = Site(kind, lambda sent: (state["status"], {"cache-control": "max-age=10"}, "body"), grace="1m")
    site.ask()
    state["status"] = 503
    site.clock.advance(11)
    assert site.ask()[0] == 200
    site.clock.advance(61)
    assert site.ask()[0] == 503


def test_one_answer_is_made_for_all_who_ask_at_once_and_private_ones_for_each() -> None:
    site = Site("asgi", says(cache_control="max-age=60"))
    number = iter(range(100))
    mine = Site("asgi", lambda sent: (200, {"cache-control": "private"}, str(next(number))))

    async def main(one: Site) -> list[Any]:
        return await asyncio.gather(*(one.aask("/a", "", "GET", {"host": "site"}) for _ in range(20)))

    assert {a[2] for a in asyncio.run(main(site))} == {"hello"}
    assert site.calls == 1
    assert len({a[2] for a in asyncio.run(main(mine))}) == 20, "no private answer is handed to two"


def test_a_stream_flows_while_it_is_made() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"text/event-stream")],
            }
        )
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        seen.append("after the first")
        await send({"type": "http.response.body", "body": b"last"})

    async def send(message: Any) -> None:
        seen.append(message.get("body", b"start").decode())

    site = HttpCacheMiddleware(app, CacheManager(), ttl="1m")
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "scheme": "http"}
    asyncio.run(site(scope, None, send))  # type: ignore[arg-type]
    assert seen == ["start", "first", "after the first", "last"]


def test_an_error_of_the_application_is_its_own(kind: str) -> None:
    def made(sent: dict[str, str]) -> Any:
        raise LookupError("broken view")

    site = Site(kind, made, ttl="1m")
    for _ in range(2):
        with pytest.raises(LookupError, match="broken view"):
            site.ask()
    assert site.calls == 2


def test_fastapi_views_say_what_they_allow() -> None:
    fastapi, httpx = pytest.importorskip("fastapi"), pytest.importorskip("httpx")
    cache, calls = CacheManager(), []
    app = fastapi.FastAPI()
    app.add_middleware(HttpCacheMiddleware, cache=cache)

    @app.get("/events/{event_id}")
    @http_cached(ttl="1m", tags=lambda event_id: [f"event:{event_id}"])
    async def event(event_id: int) -> dict[str, int]:
        calls.append(event_id)
        return {"id": event_id}

    @app.get("/sync/{n}")
    @http_cached(ttl="1m")
    def sync(n: int) -> dict[str, int]:
        calls.append(n)
        return {"n": n}

    @app.get("/plain")
    async def plain() -> dict[str, int]:
        calls.append(0)
        return {}

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app), base_url="http://t") as client:
            for path in ("/events/1", "/events/1", "/sync/2", "/sync/2", "/plain", "/plain"):
                assert (await client.get(path)).status_code == 200
            assert calls == [1, 2, 0, 0]
            await cache.ainvalidate_tags("event:1")
            assert (await client.get("/events/1")).json() == {"id": 1}

    asyncio.run(main())
    assert calls == [1, 2, 0, 0, 1]


@pytest.mark.parametrize("how", ["decorator alone", "middleware"])
def test_flask_views_say_what_they_allow(how: str) -> None:
    flask = pytest.importorskip("flask")
    cache, calls = CacheManager(), []
    app = flask.Flask("shop")
    app.secret_key = "x"
    keep = http_cached(cache if how == "decorator alone" else None, ttl="1m", tags=["shop"])

    @app.get("/a")
    @keep
    def a() -> str:
        calls.append("a")
        return "hello"

    @app.get("/login")
    @keep
    def login() -> str:
        calls.append("login")
        flask.session["user"] = "alice"
        return "welcome alice"

    if how == "middleware":
        app.wsgi_app = WsgiCacheMiddleware(app.wsgi_app, cache)
    client = app.test_client(use_cookies=False)
    assert [client.get("/a").text for _ in range(2)] == ["hello"] * 2
    assert client.get("/a", headers={"If-None-Match": client.get("/a").headers["ETag"]}).status_code == 304
    assert client.get("/a", headers={"Cookie": "session=bob"}).text == "hello"
    for _ in range(2):
        assert "session=" in client.get("/login").headers["Set-Cookie"]
    cache.invalidate_tags("shop")
    client.get("/a")
    assert calls == ["a", "a", "login", "login", "a"]


def test_a_mark_that_nothing_reads_is_said() -> None:
    @http_cached(ttl="1m")
    def view() -> str:
        return ""

    with pytest.raises(ConfigurationError, match="HttpCacheMiddleware"):
        view()


@pytest.mark.parametrize(
    ("argument", "given"),
    [("ttl", -1), ("tags", "one"), ("ignore_cookies", "_ga"), ("max_body_bytes", 0), ("grace", "soon")],
)
def test_options_that_cannot_be_are_named(argument: str, given: Any) -> None:
    with pytest.raises(ConfigurationError, match=argument):
        HttpCacheMiddleware(None, CacheManager(), **{argument: given})  # type: ignore[arg-type]
