"""What a shared cache does with a sequence of requests, by the sections of RFC 9110, 9111, 8246 and 5861."""

from __future__ import annotations

from email.utils import formatdate

from http_origins import KEPT, MADE, Case, ask

NOW = 1_700_000_000  # where the clock of every case begins
FRESH = "Cache-Control: max-age=60"
CHANGED = "Tue, 14 Nov 2023 00:00:00 GMT"
MODIFIED = f"Last-Modified: {CHANGED}"
SINCE = f"If-Modified-Since: {CHANGED}"


def at(seconds: float) -> str:
    return formatdate(NOW + seconds, usegmt=True)


def kept_for(section: str, name: str, seconds: int, *told: str) -> Case:
    """Return a case of an answer that is fresh for so many seconds, and no longer."""
    fresh = [ask(KEPT, FRESH, after=seconds - 1)] if seconds > 1 else []
    return Case(section, name, [ask(MADE, *told), *fresh, ask(MADE, FRESH, after=2)])


def not_kept(section: str, name: str, *told: str, status: int = 200) -> Case:
    """Return a case of an answer that is for its asker alone, now and later."""
    return Case(section, name, [ask(MADE, *told, status=status), ask(MADE, FRESH), ask(KEPT)])


LIFE = [
    kept_for("9111 4.2.1", "max-age", 60, FRESH),
    kept_for("9111 4.2.1", "s-maxage before max-age, longer", 60, "Cache-Control: max-age=1, s-maxage=60"),
    kept_for("9111 4.2.1", "s-maxage before max-age, shorter", 5, "Cache-Control: s-maxage=5, max-age=60"),
    kept_for("9111 4.2.1", "directives on several lines", 5, FRESH, "Cache-Control: s-maxage=5"),
    kept_for("9111 4.2.1", "the first of two values", 5, "Cache-Control: max-age=5, max-age=60"),
    kept_for("9111 4.2.1", "max-age before Expires", 60, FRESH, f"Expires: {at(-100)}"),
    kept_for("9111 4.2.1", "max-age before an Expires that is none", 60, FRESH, "Expires: soon"),
    kept_for("9111 4.2.1", "Expires minus Date", 60, f"Expires: {at(60)}", f"Date: {at(0)}"),
    kept_for("9111 4.2.1", "Expires without Date", 60, f"Expires: {at(60)}"),
    not_kept("9111 4.2.1", "max-age=0 before Expires", "Cache-Control: max-age=0", f"Expires: {at(60)}"),
    Case("9111 4.2.2", "no guess where nothing is said", [ask(MADE), ask(MADE)], bare=True),
    Case("9111 4.2.2", "no guess by Last-Modified", [ask(MADE, MODIFIED), ask(MADE)], bare=True),
    Case("9111 4.2.2", "no guess by an ETag", [ask(MADE, 'ETag: "1"'), ask(MADE)], bare=True),
    Case("9111 4.2.2", "no guess by public", [ask(MADE, "Cache-Control: public"), ask(MADE)], bare=True),
    kept_for("9111 5.2", "names of directives in any case", 60, "Cache-Control: MAX-age=60"),
    kept_for("9111 5.2", "directives that nobody knows", 60, "Cache-Control: max-age=60, colour=red, loud"),
    kept_for("9111 5.2", "empty members of the list", 60, "Cache-Control: , max-age=60,, ,"),
    kept_for("9111 5.2", "leading zeros", 60, "Cache-Control: max-age=00060"),
    kept_for("9111 5.2", "a quoted number", 60, 'Cache-Control: max-age="60"'),
    kept_for("9111 5.2", "a number in quotes before", 5, 'Cache-Control: x="a, max-age=60", max-age=5'),
    kept_for("9111 5.2", "a number in quotes after", 5, 'Cache-Control: max-age=5, x="a, s-maxage=60"'),
    kept_for("9111 5.2", "an escaped quote in a text", 5, r'Cache-Control: x="a\", max-age=60", max-age=5'),
    not_kept("9111 5.2", "a number that is negative", "Cache-Control: max-age=-60"),
    not_kept("9111 5.2", "a number with a fraction", "Cache-Control: max-age=60.5"),
    not_kept("9111 5.2", "a number with a letter before", "Cache-Control: max-age=a60"),
    not_kept("9111 5.2", "a number with a letter after", "Cache-Control: max-age=60s"),
    not_kept("9111 5.2", "a number in single quotes", "Cache-Control: max-age='60'"),
    not_kept("9111 5.2", "an empty number", "Cache-Control: max-age="),
    not_kept("9111 5.2", "a list that is none", "Cache-Control: max-age=60; private"),
    Case("9111 1.2.2", "more seconds than 31 bits hold", [
        ask(MADE, "Cache-Control: max-age=99999999999"), ask(KEPT, after=80_000), ask(KEPT, after=5_000),
    ]),
]  # fmt: skip

EXPIRES = [
    kept_for("9110 5.6.7", "the form of RFC 850", 60, "Expires: Tuesday, 14-Nov-23 22:14:20 GMT"),
    kept_for("9110 5.6.7", "the form of asctime", 60, "Expires: Tue Nov 14 22:14:20 2023"),
    kept_for("9111 4.2", "a date in any case", 60, "Expires: tue, 14 NOV 2023 22:14:20 gmt"),
    Case("9111 5.3", "a date far ahead", [
        ask(MADE, "Expires: Sun, 14 Nov 2199 22:14:20 GMT"), ask(KEPT, after=80_000)]),
    *(
        not_kept("9111 5.3", name, f"Expires: {text}")
        for name, text in {
            "0": "0",
            "a date that is past": at(-60),
            "the moment of Date itself": at(0),
            "another zone": "Sat, 14 Nov 2099 22:14:20 UTC",
            "a numbered zone": "Sat, 14 Nov 2099 22:14:20 +0000",
            "no zone": "Sat, 14 Nov 2099 22:14:20",
            "a year of two digits": "Sat, 14 Nov 99 22:14:20 GMT",
            "no comma": "Sat 14 Nov 2099 22:14:20 GMT",
            "more blanks": "Sat,  14  Nov  2099 22:14:20 GMT",
            "dashes": "Sat, 14-Nov-2099 22:14:20 GMT",
            "points in the time": "Sat, 14 Nov 2099 22.14.20 GMT",
            "an hour of one digit": "Sat, 14 Nov 2099 2:14:20 GMT",
            "an hour that is none": "Sat, 14 Nov 2099 25:14:20 GMT",
            "a day that is none": "Sat, 31 Feb 2099 22:14:20 GMT",
            "a bare number": "4098384860",
        }.items()
    ),
    not_kept("9111 5.3", "two lines", f"Expires: {at(600)}", f"Expires: {at(6000)}"),
]  # fmt: skip

AGE = [
    Case("9111 5.1", "a kept answer says its age", [
        ask(MADE, FRESH), ask(KEPT, has="Age: 0"), ask(KEPT, after=59, has="Age: 59")]),
    Case("9111 5.1", "also where Expires says its life", [
        ask(MADE, f"Expires: {at(60)}"), ask(KEPT, after=30, has="Age: 30")]),
    Case("9111 4.2.3", "it goes on from that of the origin", [
        ask(MADE, FRESH, "Age: 40"), ask(KEPT, after=10, has="Age: 50"), ask(MADE, FRESH, after=11)]),
    Case("9111 4.2.3", "it goes on from Date", [
        ask(MADE, FRESH, f"Date: {at(-40)}"), ask(KEPT, after=10, has="Age: 50"),
        ask(MADE, FRESH, after=11)]),
    Case("9111 4.2.3", "a Date ahead of our clock makes nothing younger", [
        ask(MADE, FRESH, f"Date: {at(500)}"), ask(KEPT, after=59, has="Age: 59"), ask(MADE, FRESH, after=2)]),
    not_kept("9111 4.2.3", "older than its life", FRESH, "Age: 61"),
    not_kept("9111 4.2.3", "a Date older than its life", FRESH, f"Date: {at(-61)}"),
    not_kept("9111 1.2.2", "an age of 31 bits", FRESH, "Age: 2147483647"),
    not_kept("9111 1.2.2", "an age of more", FRESH, "Age: 99999999999"),
    not_kept("9111 5.1", "the first of several", FRESH, "Age: 7200, 0"),
    not_kept("9111 5.1", "the first of several lines", FRESH, "Age: 7200", "Age: 0"),
    *(
        kept_for("9111 5.1", f"{text} says nothing", 60, FRESH, f"Age: {text}")
        for text in ("old", "-7200", "7200.0", "0, 7200", "7200;x=1", "x=7200")
    ),
    Case("9110 6.6.1", "Date is that of the origin", [
        ask(MADE, FRESH, f"Date: {at(-3)}"), ask(KEPT, after=9, has=f"Date: {at(-3)}")]),
    Case("9110 6.6.1", "an answer without one gets one, and keeps it", [
        ask(MADE, FRESH), ask(KEPT, after=9, has=f"Date: {at(0)}")]),
    Case("9111 3.2", "Expires stays as it is", [
        ask(MADE, f"Expires: {at(60)}"), ask(KEPT, after=9, has=f"Expires: {at(60)}")]),
]  # fmt: skip

FORBIDDEN = [
    *(
        not_kept("9111 5.2.2", said, f"Cache-Control: {said}", f"Expires: {at(600)}")
        for said in (
            "no-store", "no-store, max-age=60", "NO-store, max-age=60", "private, max-age=60", "no-cache",
            "no-cache, max-age=60", 'no-cache="X-Hint", max-age=60', 'private="X-Hint", max-age=60',
            "max-age=60, public, private", "no-store, must-understand, max-age=60",
        )
    ),
    Case("9111 5.2.2.5", "a later no-store leaves what was kept to its end", [
        ask(MADE, "Cache-Control: max-age=5"), ask(MADE, "Cache-Control: no-store", after=6),
        ask(MADE, "Cache-Control: no-store")]),
    not_kept("9111 7.3", "an answer that sets a cookie", FRESH, "Set-Cookie: a=1"),
    not_kept("9110 6.5", "an answer with trailers", FRESH, "Trailer: X-Sum"),
    Case("9111 5.2.2.6", "must-understand alone", [
        ask(MADE, "Cache-Control: must-understand, max-age=60"), ask(KEPT)]),
    kept_for("9111 5.2.2.2", "must-revalidate is kept", 60, "Cache-Control: max-age=60, must-revalidate"),
    kept_for("8246 2", "immutable is no longer life", 60, "Cache-Control: max-age=60, immutable"),
    Case("9111 5.4", "Pragma of an answer says nothing", [ask(MADE, FRESH, "Pragma: no-cache"), ask(KEPT)]),
]  # fmt: skip

STATUS = [
    *(
        Case("9111 3", f"{status} with a life of its own", [
            ask(MADE, FRESH, status=status), ask(KEPT, gets=status), ask(MADE, FRESH, after=61)])
        for status in (200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501)
    ),
    *(
        not_kept("9111 3", f"{status} is never kept", FRESH, status=status)
        for status in (201, 202, 205, 299, 302, 303, 304, 307, 400, 401, 403, 412, 416, 429, 500, 503, 599)
    ),
    *(
        Case("9111 4.2.2", f"{status} without a life of its own", [ask(MADE, status=status), ask(MADE)],
             options={"ttl": "1m"})
        for status in (404, 405, 410, 414, 501)
    ),
    not_kept("9111 3.3", "a part of an answer", FRESH, "Content-Range: bytes 0-1/9", status=206),
    not_kept("9111 3.3", "a range under another status", FRESH, "Content-Range: bytes 0-1/9"),
    Case("9110 8.6", "204 has no length", [
        ask(MADE, FRESH, status=204), ask(KEPT, gets=204, lacks="Content-Length")]),
]  # fmt: skip

HEADERS = [
    Case("9111 3.1", "what Connection names is of that connection", [
        ask(MADE, FRESH, "Connection: X-Hop, keep-alive", "X-Hop: 1", "X-Stays: 1"),
        ask(KEPT, lacks=("Connection", "X-Hop"), has="X-Stays: 1")]),
    *(
        Case("9111 3.1", f"{name} is not kept", [ask(MADE, FRESH, f"{name}: x"), ask(KEPT, lacks=name)])
        for name in ("Keep-Alive", "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Connection",
                     "Upgrade")
    ),
    *(
        Case("9111 3.1", f"{name} is kept", [ask(MADE, FRESH, f"{name}: x"), ask(KEPT, has=f"{name}: x")])
        for name in ("X-Own", "Content-Language", "Content-Disposition", "Link", "Content-Security-Policy",
                     "Access-Control-Allow-Origin", "Clear-Site-Data", "Server", "Warning")
    ),
    Case("9110 5.3", "lines of one name stay together", [
        ask(MADE, FRESH, "X-Two: 1", "X-Two: 2"), ask(KEPT, has="X-Two: 1, 2")]),
]  # fmt: skip

TOLD_AGAIN = (FRESH, 'ETag: "1"', "Vary: Accept", "Content-Location: /b")
CONDITIONS = [
    *(
        Case("9110 13.1.2", name, [
            ask(MADE, FRESH, f"ETag: {ours}"),
            ask(KEPT, sent=f"If-None-Match: {theirs}", gets=gets, has=f"ETag: {ours}")])
        for name, ours, theirs, gets in (
            ("the same tag", '"1"', '"1"', 304),
            ("another tag", '"1"', '"2"', 200),
            ("a weak tag", 'W/"1"', 'W/"1"', 304),
            ("strong here, weak there", '"1"', 'W/"1"', 304),
            ("weak here, strong there", 'W/"1"', '"1"', 304),
            ("a small w is no weak tag", 'W/"1"', 'w/"1"', 200),
            ("any", '"1"', "*", 304),
            ("the first of a list", '"1"', '"1", "2", "3"', 304),
            ("the middle of a list", '"2"', '"1", W/"2","3"', 304),
            ("the last of a list", '"3"', '"1","2","3"', 304),
            ("none of a list", '"4"', '"1","2","3"', 200),
            ("a comma in a tag", '"1,2"', '"0", "1,2"', 304),
            ("a piece of a tag", '"2"', '"1,"2",3"', 200),
            ("a star in a tag", '"1"', '"*"', 200),
            ("a tag of nothing", '""', '""', 304),
            ("no tag at all", '"1"', "", 200),
            ("a weak nothing", '"1"', "W/", 200),
        )
    ),
    Case("9111 4.3.2", "an answer without a tag has one here", [
        ask(MADE, FRESH), ask(KEPT, sent="If-None-Match: *", gets=304),
        ask(KEPT, sent='If-None-Match: "x"')]),
    Case("9110 13.1.3", "not changed since", [
        ask(MADE, FRESH, MODIFIED), ask(KEPT, sent=SINCE, gets=304)]),
    *(
        Case("9110 13.1.3", name, [
            ask(MADE, FRESH, MODIFIED), ask(KEPT, sent=f"If-Modified-Since: {since}", gets=gets)])
        for name, since, gets in (
            ("later than its change", at(0), 304),
            ("in the form of RFC 850", "Tuesday, 14-Nov-23 00:00:00 GMT", 304),
            ("in the form of asctime", "Tue Nov 14 00:00:00 2023", 304),
            ("before its change", "Mon, 13 Nov 2023 23:59:59 GMT", 200),
            ("no date", "yesterday", 200),
            ("a date of another zone", "Tue, 14 Nov 2023 00:00:00 CET", 200),
        )
    ),
    Case("9110 13.2.2", "the tag decides before the date", [
        ask(MADE, FRESH, 'ETag: "1"', MODIFIED),
        ask(KEPT, sent=('If-None-Match: "2"', f"If-Modified-Since: {at(0)}")),
        ask(KEPT, sent=('If-None-Match: "1"', f"If-Modified-Since: {at(-9e6)}"), gets=304)]),
    *(
        Case("9110 13.2.1", f"{status} has no condition", [
            ask(MADE, FRESH, 'ETag: "1"', MODIFIED, status=status),
            ask(KEPT, sent='If-None-Match: "1"', gets=status), ask(KEPT, sent=SINCE, gets=status),
            ask(KEPT, sent="If-None-Match: *", gets=status)])
        for status in (301, 404, 410)
    ),
    Case("9110 15.4.5", "a 304 says what concerns the kept answer, and no more", [
        ask(MADE, *TOLD_AGAIN, MODIFIED, "Content-Language: en"),
        ask(KEPT, sent='If-None-Match: "1"', gets=304, has=(*TOLD_AGAIN, f"Date: {at(0)}", "Age: 0"),
            lacks=("Content-Type", "Content-Length", "Content-Language"))]),
    Case("9110 13.1.1", "If-Match is for the origin", [
        ask(MADE, FRESH, 'ETag: "1"'), ask(MADE, sent='If-Match: "2"', status=412)]),
    Case("9110 13.1.4", "If-Unmodified-Since is for the origin", [
        ask(MADE, FRESH, MODIFIED), ask(MADE, sent=f"If-Unmodified-Since: {at(-9e6)}", status=412)]),
]  # fmt: skip

REQUESTS = [
    Case("9111 5.2.1.4", "no-cache has a new one made, for all", [
        ask(MADE, FRESH), ask(MADE, FRESH, sent="Cache-Control: no-cache"), ask(KEPT, of=1)]),
    Case("9111 5.2.1.1", "max-age=0 too", [
        ask(MADE, FRESH), ask(MADE, FRESH, sent="Cache-Control: max-age=0"), ask(KEPT, of=1)]),
    Case("9111 5.2.1.5", "no-store passes by", [
        ask(MADE, FRESH, sent="Cache-Control: no-store"), ask(MADE, FRESH), ask(KEPT)]),
    Case("9111 5.4", "Pragma: no-cache where nothing else is said", [
        ask(MADE, FRESH), ask(MADE, FRESH, sent="Pragma: no-cache"),
        ask(KEPT, sent=("Pragma: no-cache", "Cache-Control: x=1")), ask(KEPT, sent="Pragma: other")]),
    Case("9111 4", "each query is another answer", [
        ask(MADE, FRESH, path="/a?x=1"), ask(MADE, FRESH, path="/a?x=2"), ask(KEPT, path="/a?x=1", of=0)]),
    Case("9111 4", "a query in another order too", [
        ask(MADE, FRESH, path="/a?x=1&y=2"), ask(MADE, FRESH, path="/a?y=2&x=1")]),
    Case("9110 14.2", "a range passes by and spoils nothing", [
        ask(MADE, FRESH), ask(MADE, FRESH, "Content-Range: bytes 0-1/9", status=206, sent="Range: bytes=0-1"),
        ask(KEPT, of=0), ask(MADE, FRESH, status=416, sent="Range: bytes=99-")]),
    Case("9110 13.1.5", "If-Range without a range says nothing", [
        ask(MADE, FRESH), ask(KEPT, sent='If-Range: "x"')]),
    Case("9110 9.3.2", "HEAD is answered from what GET made", [
        ask(MADE, FRESH, "X-Own: 1"), ask(KEPT, method="HEAD", has=("X-Own: 1", "Content-Length: 8"))]),
    Case("9111 4", "GET is never answered from what HEAD made", [
        ask(MADE, FRESH, method="HEAD"), ask(MADE, FRESH), ask(KEPT)]),
    Case("9111 4", "HEAD is not answered from what is old", [
        ask(MADE, FRESH), ask(MADE, FRESH, after=61, method="HEAD"), ask(MADE, FRESH)]),
    Case("9110 13.1.2", "HEAD with a condition", [
        ask(MADE, FRESH, 'ETag: "1"'), ask(KEPT, method="HEAD", sent='If-None-Match: "1"', gets=304)]),
    Case("9110 9.3.3", "answers to POST are not kept", [
        ask(MADE, FRESH, "Content-Location: /a", method="POST"), ask(MADE, FRESH)]),
]  # fmt: skip

AUTHORIZATION = [
    *(
        Case("9111 3.5", f"Authorization and {said}", [
            ask(MADE, f"Cache-Control: {said}", sent="Authorization: Basic x"), ask(MADE, FRESH), ask(KEPT),
            ask(MADE, FRESH, sent="Authorization: Basic x")])
        for said in ("max-age=60", "public, max-age=60", "s-maxage=60", "must-revalidate, max-age=60")
    ),
    Case("9111 3.5", "kept where the host and the answer say so", [
        ask(MADE, FRESH, sent="Authorization: Basic x"),
        ask(MADE, "Cache-Control: public, max-age=60", sent="Authorization: Basic x"), ask(KEPT),
        ask(KEPT, sent="Authorization: Basic y")], options={"authorized": True}),
    Case("9111 7.3", "a cookie passes by", [
        ask(MADE, FRESH, sent="Cookie: a=1"), ask(MADE, FRESH), ask(MADE, FRESH, sent="Cookie: a=1"),
        ask(KEPT, of=1)]),
]  # fmt: skip

EN, DE = "Accept-Language: en", "Accept-Language: de"
VARY = [
    Case("9111 4.1", "the same answer for the same words", [
        ask(MADE, FRESH, "Vary: Accept-Language", sent=EN), ask(KEPT, sent=EN)]),
    Case("9111 4.1", "other words, other answers, each kept", [
        ask(MADE, FRESH, "Vary: Accept-Language", sent=EN),
        ask(MADE, FRESH, "Vary: Accept-Language", sent=DE),
        ask(KEPT, sent=EN, of=0), ask(KEPT, sent=DE, of=1)]),
    Case("9111 4.1", "nothing said is something else", [
        ask(MADE, FRESH, "Vary: Accept-Language", sent=EN), ask(MADE, FRESH, "Vary: Accept-Language"),
        ask(KEPT, sent=EN, of=0), ask(KEPT, of=1)]),
    Case("9111 4.1", "what Vary does not name changes nothing", [
        ask(MADE, FRESH, "Vary: Accept-Language", sent=EN), ask(KEPT, sent=(EN, "Accept: text/html"))]),
    Case("9111 4.1", "several names, all must fit", [
        ask(MADE, FRESH, "Vary: Accept, Accept-Language", sent=(EN, "Accept: a/b")),
        ask(KEPT, sent=("Accept: a/b", EN)),
        ask(MADE, FRESH, "Vary: Accept, Accept-Language", sent=(DE, "Accept: a/b")),
        ask(MADE, FRESH, "Vary: Accept, Accept-Language", sent=(EN, "Accept: a/c"))]),
    Case("9111 4.1", "names on several lines", [
        ask(MADE, FRESH, "Vary: Accept", "Vary: Accept-Language", sent=EN), ask(MADE, FRESH, sent=DE)]),
    Case("9111 4.1", "names in any case", [
        ask(MADE, FRESH, "Vary: ACCEPT-language", sent=EN), ask(KEPT, sent=EN), ask(MADE, FRESH, sent=DE)]),
    Case("9111 4.1", "blanks in a list say nothing", [
        ask(MADE, FRESH, "Vary: Accept-Language", sent="Accept-Language: en, de"),
        ask(KEPT, sent="Accept-Language:  en,de ")]),
    Case("9111 4.1", "several lines are one", [
        ask(MADE, FRESH, "Vary: Accept-Language", sent=(EN, DE)), ask(KEPT, sent="Accept-Language: en, de")]),
    Case("9111 4.1", "another tag is another variant", [
        ask(MADE, FRESH, "Vary: Accept-Language", 'ETag: "en"', sent=EN),
        ask(MADE, FRESH, "Vary: Accept-Language", 'ETag: "de"', sent=DE),
        ask(KEPT, sent=(DE, 'If-None-Match: "de"'), gets=304), ask(KEPT, sent=(DE, 'If-None-Match: "en"'))]),
    *(
        not_kept("9111 4.1", f"Vary {said}", FRESH, f"Vary: {said}")
        for said in ("*", "*, *", ", *", "Accept, *", "*, Accept")
    ),
    not_kept("9111 4.1", "a star on a line of its own", FRESH, "Vary: Accept", "Vary: *"),
]  # fmt: skip

CHANGES = [
    *(
        Case("9111 4.4", f"{method} and {status} make it old", [
            ask(MADE, FRESH), ask(MADE, FRESH, path="/b"), ask(MADE, method=method, status=status),
            ask(MADE, FRESH), ask(KEPT, path="/b", of=1)])
        for method, status in (
            ("POST", 200), ("POST", 201), ("POST", 303), ("PUT", 204), ("PATCH", 200), ("DELETE", 202),
            ("PURGE", 200))
    ),
    *(
        Case("9111 4.4", f"{method} that failed with {status} does not", [
            ask(MADE, FRESH), ask(MADE, method=method, status=status), ask(KEPT, of=0)])
        for method, status in (("POST", 400), ("PUT", 409), ("PATCH", 412), ("DELETE", 404), ("DELETE", 500))
    ),
    Case("9111 4.4", "every query of the path", [
        ask(MADE, FRESH, path="/a?x=1"), ask(MADE, method="POST"), ask(MADE, FRESH, path="/a?x=1")]),
    Case("9111 4.4", "by one who says who he is too", [
        ask(MADE, FRESH), ask(MADE, method="DELETE", status=204, sent="Authorization: Basic x"),
        ask(MADE, FRESH)]),
    Case("9110 9.2.1", "OPTIONS changes nothing", [
        ask(MADE, FRESH), ask(MADE, method="OPTIONS", status=204), ask(KEPT, of=0)]),
]  # fmt: skip

GRACE = {"grace": "10m"}
STALE = {"stale_while_revalidate": "10m"}
OLD = [
    Case("9111 4.2.4", "an old answer is no answer", [
        ask(MADE, FRESH), ask(MADE, after=61, status=503), ask(MADE, FRESH)]),
    Case("5861 4", "an old answer stands in for an error", [
        ask(MADE, FRESH), ask(KEPT, after=61, status=503, has="Age: 61"), ask(MADE, after=600, status=503)],
        options=GRACE),
    Case("5861 4", "and not for a refusal", [
        ask(MADE, FRESH), ask(MADE, after=61, status=404)], options=GRACE),
    Case("5861 4", "no longer than the answer allows", [
        ask(MADE, "Cache-Control: max-age=60, stale-if-error=5"), ask(KEPT, after=64, status=500),
        ask(MADE, after=2, status=500)], options=GRACE),
    Case("5861 4", "only where the host says so", [
        ask(MADE, "Cache-Control: max-age=60, stale-if-error=500"), ask(MADE, after=61, status=500)]),
    *(
        Case("9111 4.2.4", f"{said} forbids it", [
            ask(MADE, f"Cache-Control: max-age=60, {said}"), ask(MADE, after=61, status=503)], options=GRACE)
        for said in ("must-revalidate", "proxy-revalidate", "s-maxage=60", "stale-if-error=0")
    ),
    Case("5861 3", "who asks first has a new one made", [
        ask(MADE, FRESH), ask(MADE, FRESH, after=61), ask(KEPT, after=1)], options=STALE),
    Case("5861 3", "not beyond the time", [
        ask(MADE, "Cache-Control: max-age=60, stale-while-revalidate=5"), ask(MADE, FRESH, after=70)],
        options=STALE),
]  # fmt: skip

CASES = {
    "life": LIFE, "expires": EXPIRES, "age": AGE, "forbidden": FORBIDDEN, "status": STATUS,
    "headers": HEADERS, "conditions": CONDITIONS, "requests": REQUESTS, "authorization": AUTHORIZATION,
    "vary": VARY, "changes": CHANGES, "old": OLD,
}  # fmt: skip
