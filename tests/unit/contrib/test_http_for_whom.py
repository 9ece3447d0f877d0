"""Nobody gets what was made for another, from another's body or by another key."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from eventperf.cache import CacheManager
from eventperf.cache.values.serializers import MsgpackSerializer
from eventperf.contrib.http import HttpCacheMiddleware, WsgiCacheMiddleware, http_cached
from eventperf.contrib.http.stored import Record
from eventperf.contrib.http.who import in_scope, is_silent, says_who
from eventperf.errors import ConfigurationError
from http_sites import Site, says


@pytest.fixture(params=["asgi", "wsgi"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# -- who asks --------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize(
    "said",
    [
        {"content_length": "4"},
        {"transfer_encoding": "chunked"},
        {"content_length": "00"},
        {"content_length": "x"},
    ],
    ids=str,
)
def test_a_request_with_a_body_neither_fills_the_cache_nor_is_answered_by_it(
    kind: str, method: str, said: dict[str, str]
) -> None:
    site = Site(kind, says(cache_control="max-age=60"))
    site.ask(method=method, **said)
    assert "cache-status" not in site.ask(method=method, **said)[1]
    assert "hit" not in site.ask()[1]["cache-status"], "nothing was stored"
    site.ask(method=method, **said)
    assert site.calls == 4
    assert "hit" in site.ask(content_length="0")[1]["cache-status"]


def test_a_body_that_was_not_announced_keeps_an_answer_from_others() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        body = (await receive()).get("body", b"")
        headers = [(b"cache-control", b"max-age=60")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body or b"clean"})

    async def ask(body: bytes) -> bytes:
        got: list[Any] = []

        async def receive() -> Any:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            got.append(message)

        scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "scheme": "http"}
        await site(scope, receive, send)
        return b"".join(m.get("body", b"") for m in got)

    site = HttpCacheMiddleware(app, CacheManager())
    assert [asyncio.run(ask(b)) for b in (b"evil", b"", b"")] == [b"evil", b"clean", b"clean"]


def test_a_wsgi_application_reads_no_body_that_was_not_announced() -> None:
    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Cache-Control", "max-age=60")])
        return [environ["wsgi.input"].read() or b"clean"]

    import io

    site = WsgiCacheMiddleware(app, CacheManager())
    environ = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.input": io.BytesIO(b"evil")}
    assert b"".join(site(environ, lambda *_: None)) == b"clean"


NAMES_SOMEBODY = """
Authorization Private-Token X-Gitlab-Token X-Webauth-User Tailscale-User-Login X-Authentik-Email
X-Authentik-Groups X-Auth-Username Remote-Groups Remote-Name X-Rh-Identity Kubeflow-Userid
X-Pomerium-Jwt-Assertion X-Pomerium-Claim-Email X-Oidc-Claim-Sub Client-Cert
X-Forwarded-Tls-Client-Cert X-Appengine-User-Email X-Jwt X-Session-Id X-Token Shib-Session-Id
X-Consumer-Id X-Credential-Identifier X-Api-Key X-Secret X-Access-Key Dpop Signature-Input
X-Ssl-Client-S-Dn X-Role X-Amzn-Oidc-Data X-Ms-Client-Principal-Name X-Goog-Iap-Jwt-Assertion
Cf-Access-Authenticated-User-Email X-Vouch-Idp-Claims-Name Api_Key X_Api_Key X_Sid Access_Token X-Cookie
X-Admin X-Staff X-Employee X-Mail X-Pass X-Pin X-Ticket X-Sub
""".lower().split()

NAMES_NOBODY = """
Accept Accept-Encoding Accept-Language User-Agent Sec-Fetch-User Sec-Fetch-Site Sec-Ch-Ua Sec-Gpc
Dnt Referer Origin Host Connection Cache-Control Pragma If-None-Match X-Forwarded-For X-Real-Ip
X-Request-Id X-Correlation-Id Traceparent Tracestate Baggage X-B3-Traceid X-Amzn-Trace-Id
X-Cloud-Trace-Context Cf-Ray Cf-Connecting-Ip Cf-Ipcountry Cdn-Loop Via X-Requested-With Priority Te
Upgrade-Insecure-Requests X-Remote-Addr Save-Data Viewport-Width X-Original-User-Agent
X-Envoy-External-Address Content-Type
""".lower().split()


def test_names_of_headers_tell_who_asks() -> None:
    assert [name for name in NAMES_SOMEBODY if not says_who(name)] == []
    assert [name for name in NAMES_NOBODY if says_who(name)] == []


SHARED = [name for name in NAMES_NOBODY if name not in ("origin", "cf-ipcountry", "x-requested-with")]


def test_headers_of_every_visitor_and_every_request_share_an_answer() -> None:
    assert [name for name in SHARED if not is_silent(name)] == []


def test_answers_are_shared_by_requests_that_differ_in_what_everybody_sends(kind: str) -> None:
    site = Site(kind, says(cache_control="max-age=60"))
    for n in ("1", "2"):
        site.ask(user_agent=n, x_forwarded_for=n, traceparent=n, referer=n, sec_fetch_site=n, x_request_id=n)
    assert site.calls == 1
    site.ask(x_never_heard_of="1"), site.ask(x_never_heard_of="1"), site.ask(x_never_heard_of="2")
    assert site.calls == 3
    site = Site(kind, says(cache_control="max-age=60"), harmless_headers=["X-Never-Heard-Of"])
    site.ask(x_never_heard_of="1"), site.ask(x_never_heard_of="2"), site.ask()
    assert site.calls == 1


@pytest.mark.parametrize(
    "said", ["private;x", "max-age=60; private", "no store, max-age=60", "max-age=60, pri vate"]
)
def test_what_cannot_be_read_as_a_directive_forbids(kind: str, said: str) -> None:
    site = Site(kind, says(cache_control=said), ttl="1m")
    site.ask(), site.ask()
    assert site.calls == 2


@pytest.mark.parametrize(
    "said", ["max-age=60", 'max-age="60"', "Max-Age = 60,, public", 'max-age=60, x="a, b;c"']
)
def test_what_can_be_read_is_kept(kind: str, said: str) -> None:
    site = Site(kind, says(cache_control=said))
    site.ask(), site.ask()
    assert site.calls == 1


def test_scopes_of_a_middleware_outside_say_who_asks() -> None:
    class Credentials:
        def __init__(self, *scopes: str) -> None:
            self.scopes = list(scopes)

    assert in_scope({"auth": Credentials("authenticated")})
    assert not in_scope({"auth": Credentials()})
    assert in_scope({"auth": {"id": 7}})


def test_who_says_who_he_is_is_answered_by_the_application(kind: str) -> None:
    site = Site(kind, says(cache_control="max-age=60"))
    site.ask()
    site.ask(private_token="alice")
    assert site.calls == 2
    site = Site(kind, says(cache_control="max-age=60"), harmless_headers=["X-Concert-Hall"])
    site.ask(x_concert_hall="1"), site.ask(x_concert_hall="1")
    assert site.calls == 1


@pytest.mark.parametrize(
    "said",
    [
        "REMOTE_USER",
        "LOGON_USER",
        "AUTH_TYPE",
        "SSL_CLIENT_S_DN",
        "SSL_CLIENT_CERT",
        "OIDC_CLAIM_sub",
        "Shib-Session-ID",
    ],
)
def test_what_a_server_knows_of_who_asks_counts(said: str) -> None:
    site = Site("wsgi", says(cache_control="max-age=60"))
    site.ask(around={said: "alice"}), site.ask(), site.ask(around={said: "alice"})
    assert site.calls == 3


def test_what_a_process_is_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_SESSION_ID", "3")
    site = Site("wsgi", says(cache_control="max-age=60"))
    around = {
        "XDG_SESSION_ID": "3",
        "SSL_CLIENT_VERIFY": "NONE",
        "SSL_SERVER_S_DN": "CN=h",
        "REMOTE_ADDR": "::1",
    }
    site.ask(around=around), site.ask(around=around)
    assert site.calls == 1


class _User:
    def __init__(self, known: bool) -> None:
        self.is_authenticated = known


@pytest.mark.parametrize(
    ("around", "calls"),
    [
        ({"user": _User(True)}, 2),
        ({"user": {"name": "alice"}}, 2),
        ({"user": _User(False)}, 1),
        ({"session": {"user": "alice"}}, 2),
        ({"session": {}}, 1),
        ({"extensions": {"tls": {"client_cert_chain": ["PEM"]}}}, 2),
        ({"extensions": {"tls": {"client_cert_name": None, "client_cert_chain": []}}}, 1),
    ],
    ids=str,
)
def test_what_a_middleware_outside_knows_counts(around: dict[str, Any], calls: int) -> None:
    site = Site("asgi", says(cache_control="max-age=60"))
    site.ask(around=around), site.ask(around=around)
    assert site.calls == calls


@pytest.mark.parametrize(
    ("cookie", "calls"),
    [
        ("_ga=1", 1), ("_ga=GA1.2.3; _ga=2;", 1), ("", 1),
        ("_ga=1 sid=evil", 2), ("_ga=1, sid=evil", 2), ('_ga="1; sid=evil"', 2), ("=x", 2), ("_ga", 2),
        ("_ga=1\tsid=2", 2), ("_ga =1", 2), ("_ga=\\054", 2),
    ],
)  # fmt: skip
def test_cookies_are_ignored_only_where_no_reader_sees_another(kind: str, cookie: str, calls: int) -> None:
    site = Site(kind, says(cache_control="max-age=60"), ignore_cookies=["_ga"])
    site.ask(cookie=cookie), site.ask(cookie=cookie)
    assert site.calls == calls


def test_the_path_that_the_application_sees_names_the_answer() -> None:
    site = Site("asgi", says(cache_control="max-age=60"))
    for path, raw in (("/de/a", b"/a"), ("/en/a", b"/a"), ("/a/b", b"/a%2Fb"), ("/a/b", b"/a/b")):
        site.ask(path, around={"raw_path": raw})
    assert site.calls == 4
    site.ask("/a/b", "POST")
    site.ask("/a/b", around={"raw_path": b"/a%2Fb"})
    assert site.calls == 6, "a change counts however its path was written"


# -- what is kept ----------------------------------------------------------------------------------


def test_keys_of_the_application_and_of_answers_never_meet(kind: str) -> None:
    site = Site(kind, says(cache_control="max-age=60"), tags=["all"])
    site.ask()
    kept = site.cache.keys()
    assert len(kept) == 1
    forged = {"status": 200, "headers": [], "body": b"evil", "at": 0.0, "until": 9e9, "vary": {}, "tags": []}
    for key in (
        *kept,
        f"http:{kept[0].partition(':')[2]}",
        kept[0].partition(":")[2],
        "http:|http://site|/a?",
    ):
        for value in ({"a": 1}, forged):
            site.cache.set(key, value)
        site.cache.delete(key)
    assert site.ask()[2] == "hello"
    assert site.calls == 1
    site.cache.invalidate_tags("all")
    site.ask()
    assert site.calls == 2


def test_what_is_no_answer_is_told_once_and_made_again(kind: str, caplog: pytest.LogCaptureFixture) -> None:
    from eventperf.cache.keys import Reserved

    site = Site(kind, says(cache_control="max-age=60"))
    site.ask()
    key = Reserved.of("http", site.cache.keys()[0].partition(":")[2])
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            site.cache.set(key, {"a": 1})
            assert [site.ask(method="HEAD")[0], site.ask()[2], site.ask()[2]] == [200, "hello", "hello"]
    assert [r.getMessage() for r in caplog.records if "is none (dict)" in r.getMessage()][1:] == []
    assert len([r for r in caplog.records if "is none (dict)" in r.getMessage()]) == 1
    assert site.calls == 5, "a HEAD and one answer each time"


def test_an_answer_comes_back_from_a_second_tier_as_it_was() -> None:
    record = Record(
        status=200, headers=[["a", "b"]], body=b"x", at=1.0, until=2.0, stale_s=0.0, grace_s=0.0,
        vary={"a": "b"}, tags=["t"],
    )  # fmt: skip
    plain = MsgpackSerializer()
    assert plain.loads(plain.dumps(record)) == record


@pytest.mark.parametrize("length", ["10", "3", "-1", "5, 5", "²"])
def test_a_part_of_an_answer_is_handed_through_as_it_is(kind: str, length: str) -> None:
    site = Site(kind, says(cache_control="max-age=60", content_length=length))
    for _ in range(2):
        _, headers, body = site.ask()
        assert (headers["content-length"], body, headers.get("cache-status")) == (length, "hello", None)
    assert site.calls == 2


def test_an_answer_that_ends_early_is_handed_through_as_far_as_it_came() -> None:
    got: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})

    async def send(message: Any) -> None:
        got.append(message)

    site = HttpCacheMiddleware(app, CacheManager(), ttl="1m")
    scope = {"type": "http", "method": "GET", "path": "/", "headers": [], "scheme": "http"}
    asyncio.run(site(scope, None, send))  # type: ignore[arg-type]
    assert [m["type"] for m in got] == ["http.response.start", "http.response.body"]
    assert (got[1]["body"], got[1]["more_body"]) == (b"half", True)


@pytest.mark.parametrize(
    "told",
    [
        {"content_type": "application/x-ndjson"},
        {"content_type": "multipart/x-mixed-replace; boundary=a"},
        {"trailer": "Server-Timing"},
        {"status": 404},
        {"status": 410},
        {"status": 501},
        {"cache_control": "max-age=²"},
        {"cache_control": "max-age=٣"},
        {"expires": "Thu, 01 Jan 0001 00:00:00 -0000"},
    ],
    ids=str,
)
def test_what_is_not_kept_although_there_is_a_ttl(kind: str, told: dict[str, Any]) -> None:
    if kind == "asgi" and not str(told).isascii():
        told = {k: str(v).encode().decode("latin-1") for k, v in told.items()}
    site = Site(kind, says(**told), ttl="1m")
    assert [site.ask()[0], site.ask()[0]] == [told.get("status", 200)] * 2
    assert site.calls == 2


def test_an_endless_number_of_seconds_is_a_long_life(kind: str) -> None:
    site = Site(kind, says(cache_control=f"max-age={'9' * 5_000}"))
    site.ask(), site.ask()
    assert site.calls == 1


def test_age_goes_on_from_that_of_the_origin_and_headers_of_a_connection_end(kind: str) -> None:
    site = Site(kind, says(cache_control="max-age=60", age="7", connection="X-Hop, close", x_hop="1"))
    assert site.ask()[1]["age"] == "7"
    site.clock.advance(5)
    headers = site.ask()[1]
    assert headers["age"] == "12"
    assert not {"x-hop", "connection"} & headers.keys()
    site.clock.advance(49)
    site.ask()
    assert site.calls == 2


# -- old answers -----------------------------------------------------------------------------------


def test_an_old_answer_stands_in_for_an_error_that_is_raised(
    kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    state: dict[str, Exception] = {}

    def made(sent: dict[str, str]) -> tuple[int, dict[str, str], str]:
        if state:
            raise state["error"]
        return 200, {"cache-control": "max-age=10"}, "body"

    site = Site(kind, made, grace="1m")
    site.ask()
    state["error"] = LookupError("broken view")
    site.clock.advance(11)
    assert site.ask()[2] == "body"
    assert "broken view" in caplog.text, "and is not silent"
    refused = LookupError("no such page")
    refused.code = 404  # type: ignore[attr-defined]
    state["error"] = refused
    with pytest.raises(LookupError, match="no such page"):
        site.ask()
    state["error"] = LookupError("too late")
    site.clock.advance(61)
    with pytest.raises(LookupError, match="too late"):
        site.ask()


@pytest.mark.parametrize(
    "said",
    ["must-revalidate", "proxy-revalidate", "s-maxage=10", "stale-if-error=0", "stale-if-error=nonsense"],
)
@pytest.mark.parametrize("raised", [False, True])
def test_an_answer_that_allows_no_old_one_does_not_stand_in(kind: str, said: str, raised: bool) -> None:
    state = {"status": 200}

    def made(sent: dict[str, str]) -> tuple[int, dict[str, str], str]:
        if raised and state["status"] > 200:
            raise LookupError("broken view")
        return state["status"], {"cache-control": f"max-age=10, {said}"}, "body"

    site = Site(kind, made, grace="1m")
    site.ask()
    state["status"] = 503
    site.clock.advance(11)
    if raised:
        with pytest.raises(LookupError):
            site.ask()
    else:
        assert site.ask()[0] == 503


def test_fastapi_errors_that_nobody_handles_are_stood_in_for() -> None:
    fastapi, testing = pytest.importorskip("fastapi"), pytest.importorskip("fastapi.testclient")
    from eventperf.testing import FakeClock

    clock, broken = FakeClock(), []
    for inside in (True, False):
        app = fastapi.FastAPI()
        outer: Any = app
        options: dict[str, Any] = {"ttl": "10s", "grace": "1m", "clock": clock}
        if inside:
            app.add_middleware(HttpCacheMiddleware, cache=CacheManager(clock=clock), **options)
        else:
            outer = HttpCacheMiddleware(app, CacheManager(clock=clock), **options)

        @app.get("/")
        def page() -> str:
            if broken:
                raise LookupError("broken view")
            return "fine"

        client = testing.TestClient(outer)
        broken.clear()
        client.get("/")
        broken.append(True)
        clock.advance(11)
        assert client.get("/").json() == "fine", inside


def test_a_flask_view_that_raises_is_stood_in_for_and_one_that_refuses_is_not() -> None:
    flask = pytest.importorskip("flask")
    from eventperf.testing import FakeClock

    app, clock, state = flask.Flask("shop"), FakeClock(), {"how": "fine"}

    @app.get("/a")
    @http_cached(CacheManager(clock=clock), ttl="10s", grace="1m", clock=clock)
    def a() -> str:
        if state["how"] == "broken":
            raise LookupError("broken view")
        if state["how"] == "gone":
            flask.abort(404)
        return "fine"

    client = app.test_client()
    seen = []
    for how in ("fine", "broken", "gone"):
        state["how"] = how
        clock.advance(11)
        seen.append(client.get("/a").status_code)
    assert seen == [200, 200, 404]


# -- arguments -------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [HttpCacheMiddleware, WsgiCacheMiddleware])
@pytest.mark.parametrize(
    ("argument", "given"),
    [("foo", 1), ("ignore_cookies", 5), ("ignore_cookies", [5]), ("tags", 5), ("tags", [None]),
     ("authorized", "no"), ("harmless_headers", "x"), ("app", None), ("cache", None)],
)  # fmt: skip
def test_arguments_that_cannot_be_are_named(made: Any, argument: str, given: Any) -> None:
    def app(*_: Any) -> None: ...

    options: dict[str, Any] = {"app": app, "cache": CacheManager(), argument: given}
    with pytest.raises(ConfigurationError) as caught:
        made(options.pop("app"), options.pop("cache"), **options)
    assert caught.value.argument == argument


@pytest.mark.parametrize("given", [5, "one", [None], lambda other: [other], lambda: []])
def test_tags_that_a_view_has_none_of_are_refused_when_it_is_decorated(given: Any) -> None:
    with pytest.raises(ConfigurationError) as caught:

        @http_cached(ttl="1m", tags=given)
        def view(event_id: int) -> str:
            return ""

    assert caught.value.argument == "tags"


@pytest.mark.parametrize("given", [lambda event_id: [event_id], lambda **given: [], lambda event_id, n=1: []])
def test_tags_that_a_view_has_are_taken(given: Any) -> None:
    @http_cached(ttl="1m", tags=given)
    def view(event_id: int) -> str:
        return ""


def test_tags_that_fail_are_told_with_their_argument(kind: str) -> None:
    @http_cached(ttl="1m", tags=lambda: {}["missing"])
    def view() -> tuple[int, dict[str, str], str]:
        return 200, {}, "x"

    with pytest.raises(ConfigurationError, match=r"tags: got .*KeyError"):
        Site(kind, lambda sent: view()).ask()


def test_options_without_a_cache_are_said_to_belong_to_the_middleware() -> None:
    with pytest.raises(ConfigurationError, match="grace"):
        http_cached(ttl="1m", grace="1m")


@pytest.mark.parametrize(
    ("told", "options", "most_s"),
    [
        ({"cache_control": "max-age=10"}, {}, 10),
        ({"cache_control": "max-age=10"}, {"grace": "10m"}, 610),
        (
            {"cache_control": "max-age=10, stale-if-error=5"},
            {"grace": "10m", "stale_while_revalidate": "20s"},
            30,
        ),
        ({"cache_control": "max-age=99999999"}, {}, 86_400),
    ],
)
def test_what_nobody_asks_for_again_is_not_kept_for_a_day(
    kind: str, told: dict[str, Any], options: dict[str, Any], most_s: float
) -> None:
    """A visitor makes an entry by each query that he thinks of: it stays little longer than it is of use."""
    site = Site(kind, says(**told), **options)
    site.ask()
    site.clock.advance(min(most_s, 80_000))
    assert len(site.cache.keys()) == 1
    site.clock.advance(min(most_s * 0.6 + 61, 6_401))
    assert site.cache.keys() == []
