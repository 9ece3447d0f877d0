"""Hostile bytes and texts against everything that reads them: ``nox -s fuzz``, or ``python tests/fuzzing.py 600``.

Each target says what a reader may answer; anything else that it raises is a defect. Examples that failed are kept in
``.hypothesis/fuzz`` and tried first the next time. Every target also runs a few examples in the ordinary tests.
"""

from __future__ import annotations

import json
import math
import re
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from hypothesis.database import DirectoryBasedExampleDatabase

from eventperf._core.cron import Cron
from eventperf._core.durations import seconds, show
from eventperf._core.errors import ConfigurationError, EventPerfError
from eventperf._core.urls import parse_url, redact
from eventperf.cache.keys import Space, escape, fit, glob
from eventperf.cache.keys.templates import Template
from eventperf.cache.values.envelope import open_payload, seal, unseal
from eventperf.cache.values.instances import Undecodable
from eventperf.cache.values.serializers import MsgpackSerializer
from eventperf.dbopt import Advice, Workload
from eventperf.dbopt.errors import AdviceMismatch
from eventperf.dbopt.schema.vetting import expression
from eventperf.dbopt.statements.fingerprint import fingerprint, parse, statements
from eventperf.dbopt.statements.lex import split, tokens
from eventperf.queues.backends.redis import wire
from eventperf.queues.codec import Codec
from eventperf.queues.errors import PayloadError
from eventperf.queues.job import JobRecord, NewJob
from eventperf.queues.soundness import fault
from eventperf.scaling.calendar.ics import read_ics
from eventperf.scaling.model import ScalingDecision

DIALECTS = st.sampled_from(["sqlite", "postgres", "mysql"])
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
TARGETS: dict[str, Callable[[], None]] = {}
_MSGPACK, _CODEC = MsgpackSerializer(), Codec(1 << 20)
_VALUES = [None, 7, "text", [1, 2.5], {"a": (1, {2})}, b"x" * 40, 2**80, 1j]
_TIMES: dict[str, Any] = {"created": 0.0, "soft": 4e9, "hard": 4e9}


def target(**given_by: st.SearchStrategy[Any]) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register a function of drawn arguments as a target."""

    def keep(function: Callable[..., None]) -> Callable[..., None]:
        TARGETS[function.__name__] = given(**given_by)(function)
        return function

    return keep


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Draw bytes that were good until somebody changed, cut or doubled some of them."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, max(0, len(data) - 1)))
        how = draw(st.integers(0, 3))
        if how == 0 and data:
            data[at] = draw(st.integers(0, 255))
        elif how == 1:
            del data[at:]
        elif how == 2:
            data[at:at] = draw(st.binary(max_size=6))
        else:
            data[at:at] = data[: at + 1]
    return bytes(data)


# -- decoders --------------------------------------------------------------------------------------


@target(
    blob=st.binary(max_size=200)
    | damaged(
        st.sampled_from(_VALUES).map(
            lambda v: seal("m", _MSGPACK.dumps(v), **_TIMES, compress_over=20, tags={"t": "1"})
        )
    )
)
def cache_entries(blob: bytes) -> None:
    before = set(sys.modules)
    sealed = unseal(blob)
    if sealed is not None:
        try:
            open_payload(sealed, _MSGPACK.loads, "m", 10_000)
        except (ValueError, Undecodable):
            pass
    assert {m for m in set(sys.modules) - before if "zoneinfo" not in m} == set(), (
        "decoding imports no module"
    )


@target(data=st.binary(max_size=200) | damaged(st.sampled_from(_VALUES).map(_MSGPACK.dumps)))
def cache_values(data: bytes) -> None:
    try:
        _MSGPACK.loads(data)
    except Undecodable:
        pass


@target(data=st.binary(max_size=100) | damaged(JSONS.map(lambda v: b"j" + json.dumps(v).encode())))
def queue_payloads(data: bytes) -> None:
    for shape in (Any, int, list[float], dict[str, str]):
        try:
            _CODEC.decode(data, shape)
        except PayloadError:
            pass


_RECORD = wire._header(
    JobRecord(
        id="1",
        type="t",
        queue="q",
        priority=5,
        payload=b"",
        key="k",
        headers={"a": "b"},
        unique_key="u",
        tags=("x",),
    ),
    0.0,
    60.0,
)


@target(blob=damaged(st.just(b"1700000000000" + _RECORD + b"m\x01")), no_deadline=st.booleans())
def queue_records(blob: bytes, no_deadline: bool) -> None:
    wire.shown("1", blob)
    try:
        record = wire.record_of("1", blob, no_deadline)
    except wire.Unreadable:
        return
    assert not fault(record)


@target(
    row=damaged(st.just(b"d\x1f1\x1f1\x1f0\x1f1\x1f0\x1f-1\x1f1\x1f1700000000000" + _RECORD)),
    text=st.binary(max_size=20),
)
def queue_answers(row: bytes, text: bytes) -> None:
    wire.infos(["1", "2", "3"], [[b"r", row], [b"w", row, b"", text, text, text, text, text], None])
    wire.cards([row, text, b"9" * 20 + b"\x1f" + text], 0)
    wire.claimed([-1, [b"1", 1, 0, 0, text, row], [text, text, text, 1, 0], [text] * 4])


# -- texts -----------------------------------------------------------------------------------------

SQL = st.lists(
    st.sampled_from(
        [
            "SELECT",
            "FROM",
            "WHERE",
            "a",
            "b",
            "'x'",
            '"y"',
            "`z`",
            "(",
            ")",
            ",",
            ".",
            ";",
            "=",
            "<>",
            "1",
            "2.5",
            "?",
            ":p",
            "%s",
            "$1",
            "--",
            "/*",
            "*/",
            "#",
            "\n",
            "E'\\''",
            "N'x'",
            "_utf8'x'",
            "$t$",
            "$$",
            "X'00'",
            "0x1F",
            "B'1'",
            "||",
            "->",
            "IN",
            "LIKE",
            "AND",
            "OR",
            "NOT",
            "NULL",
            "::",
            "[",
            "]",
            "{",
            "}",
            "...",
            "INSERT",
            "VALUES",
            "UPDATE",
            "SET",
            "WITH",
            "AS",
            "LIMIT",
        ]
    )
    | st.text(max_size=5),
    max_size=25,
).map(" ".join)


@target(sql=SQL | st.text(max_size=60), dialect=DIALECTS)
def sql_texts(sql: str, dialect: str) -> None:
    assert "".join(token.text for token in tokens(sql, dialect)) == sql
    split(sql, dialect)
    once = fingerprint(sql, dialect)
    assert len(once.id) == 16
    for statement in statements(sql, dialect):
        parse(statement, dialect)


@target(
    values=st.lists(st.text("abc'\\\"$%-/*#;\n\x00ü", max_size=12), min_size=1, max_size=3), dialect=DIALECTS
)
def sql_literals_are_hidden(values: list[str], dialect: str) -> None:
    marked = [f"Qx{value}Xq" for value in values]
    literals = [_literal(value, dialect, n) for n, value in enumerate(marked)]
    sql = f"SELECT a FROM t WHERE b IN ({', '.join(literals)}) AND c = 1"
    text = fingerprint(sql, dialect).text
    assert "qx" not in text.lower()
    assert text.startswith("select a from t where b in (")
    assert text.endswith("and c = ?")


def _literal(value: str, dialect: str, n: int) -> str:
    quoted = "'" + value.replace("'", "''") + "'"
    if dialect == "mysql":
        quoted = quoted.replace("\\", "\\\\")
        return [quoted, "N" + quoted, "_utf8mb4" + quoted, '"' + quoted[1:-1].replace('"', '""') + '"'][n % 4]
    if dialect == "postgres":
        escaped = "E" + quoted.replace("\\", "\\\\")
        dollars = f"$qq${value}$qq$" if "$" not in value else escaped
        return [quoted, escaped, dollars, "N" + quoted][n % 4]
    return quoted


@target(text=st.text(max_size=40) | SQL, dialect=DIALECTS)
def index_expressions(text: str, dialect: str) -> None:
    try:
        once = expression(text, dialect)
    except AdviceMismatch:
        return
    assert ";" not in re.sub(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`", "", once)


@target(data=JSONS)
def plan_files(data: Any) -> None:
    for given_data in (data, {**(data if isinstance(data, dict) else {}), "format": "eventperf-advice-1"}):
        try:
            str(Advice.from_dict(given_data))
        except AdviceMismatch:
            pass


@target(text=st.text("0123456789*/-,? @abcdefghijklmnopqrstuvwxyz²", max_size=20), at=st.floats(0, 4e9))
def cron_expressions(text: str, at: float) -> None:
    try:
        following = Cron(text).after(at)
    except ConfigurationError:
        return
    assert following is None or at < following < at + 10 * 366 * 86_400


_URL = st.lists(st.sampled_from(["redis", "rediss+cluster", "://", ":", "@", "/", "?", "&", "=", "#", "[", "]", "%", ",", ":²", ":99999"])
                | st.text(max_size=6), max_size=14).map("".join)  # fmt: skip


@target(text=_URL)
def urls(text: str) -> None:
    redact(text)
    try:
        parse_url(text)
    except ConfigurationError:
        pass


@target(
    secret=st.text("abcXYZ019:/?#[]@!$&'()*+,;=%\n é", min_size=1, max_size=12).map(lambda s: f"s3C{s}t"),
    at=st.sampled_from(["redis://u:{}@h/0", "redis://:{}@h", "postgresql://h/d?password={}&a=1", "redis://h?x=1&token={}",
                        "mysql+pymysql://u:{}@h:3306/d?charset=utf8"]),
)  # fmt: skip
def secrets_in_urls(secret: str, at: str) -> None:
    url = at.format(quote(secret, safe=""))
    shown = redact(url)
    assert quote(secret, safe="") not in shown
    assert secret not in shown
    try:
        assert secret not in str(parse_url(url))
    except ConfigurationError as error:
        assert secret not in str(error)


@target(text=st.text(max_size=12) | st.from_regex(r"\d+(\.\d+)?\s?(ms|s|m|h|d)", fullmatch=True))
def durations(text: str) -> None:
    try:
        value = seconds(text, name="x")
    except ConfigurationError:
        return
    assert 0 < value < math.inf
    show(value)


@target(key=st.text(max_size=20), pattern=st.text("a*?[]\\^-b\x00", max_size=12))
def cache_keys(key: str, pattern: str) -> None:
    assert glob(escape(key))(key)
    glob(pattern)(key)
    space = Space("ns")
    assert (space.outer + fit(key)).startswith(space.outer)
    try:
        Template(key, strict=True)
    except EventPerfError:
        pass


@target(line=JSONS.map(json.dumps) | st.text(max_size=30))
def decisions(line: str) -> None:
    try:
        ScalingDecision.from_json(line)
    except ValueError:
        pass


@target(
    lines=st.lists(
        st.sampled_from(["BEGIN:VCALENDAR", "BEGIN:VEVENT", "END:VEVENT", "END:VCALENDAR", "DTSTART:20260101T000000Z",
                         "DTSTART;TZID=Europe/Berlin:20260101T000000", "RRULE:FREQ=DAILY;COUNT=3", "RRULE:FREQ=", "UID:1",
                         "DTEND:x", "SUMMARY:a", " folded", "DURATION:PT1H"])
        | st.text(max_size=10), max_size=12,
    )
)  # fmt: skip
def calendars(lines: list[str]) -> None:
    try:
        read_ics("\r\n".join(lines))
    except ConfigurationError:
        pass


@target(text=st.lists(st.sampled_from(["# Query_time: 1.0  Lock_time: 0 Rows_sent: 1  Rows_examined: 2\n", "SET timestamp=1;\n",
                                       "SELECT 1;\n", "# User@Host: a[b] @ [c]\n", "# Time: x\n"]) | st.text(max_size=9),
                      max_size=12).map("".join))  # fmt: skip
def slow_logs(text: str) -> None:
    file = Path(FOLDER) / "slow.log"
    file.write_text(text, encoding="utf-8", errors="replace", newline="")
    Workload.from_slow_log(str(file))


FOLDER = "."


# -- Lua -------------------------------------------------------------------------------------------

HOSTILE = st.text(st.sampled_from("\x1e\x1f\x00|:{}\n'\"\\a1é"), max_size=8)


def lua(url: str) -> Callable[[], None]:
    """Return a target that sends jobs of any texts through the scripts of a Redis, and takes them back."""
    from eventperf.queues import QueueManager
    from eventperf.testing.queues.tools import Station

    @given(
        id=HOSTILE, headers=st.dictionaries(HOSTILE, HOSTILE, max_size=2), payload=st.binary(max_size=20),
        key=HOSTILE, unique=HOSTILE,
    )  # fmt: skip
    def lua_arguments(id: str, headers: dict[str, str], payload: bytes, key: str, unique: str) -> None:
        with QueueManager(url, namespace=f"fuzz-{time.monotonic_ns()}") as queues:
            try:
                job = queues.enqueue(
                    "t",
                    1,
                    id=id or None,
                    headers=headers,
                    fairness_key=key or None,
                    unique_key=unique or None,
                )
            except ConfigurationError:
                record = JobRecord(
                    id="1", type="t", queue="normal", priority=5, payload=payload, headers=headers
                )
                (job_id,) = queues.backend.sync().push([NewJob(record)])
                (lease,) = Station(queues, "t").take()
                assert (lease.record.id, lease.record.payload) == (job_id, payload)
                assert dict(lease.record.headers or {}) == headers
                return
            (lease,) = Station(queues, "t").take()
            assert (lease.unreadable, lease.record.id) == ("", job.id)
            assert (lease.record.key, lease.record.unique_key) == (key, unique or None)
            assert dict(lease.record.headers or {}) == headers

    return lua_arguments


# -- the session -----------------------------------------------------------------------------------


def main(budget_s: float, names: list[str]) -> int:
    """Run the targets in turns until the time is over; return 1 when one failed."""
    from tempfile import TemporaryDirectory

    from servers import RedisServer, ServerMissing

    global FOLDER
    database = DirectoryBasedExampleDatabase(".hypothesis/fuzz")
    quiet = settings(
        max_examples=200, database=database, derandomize=False, deadline=None,
        suppress_health_check=list(HealthCheck), phases=[Phase.reuse, Phase.generate, Phase.target, Phase.shrink],
    )  # fmt: skip
    targets = dict(TARGETS)
    rounds: Counter[str] = Counter()
    failed: set[str] = set()
    with TemporaryDirectory() as FOLDER:
        server: Any = None
        try:
            server = RedisServer()
            server.start()
            targets["lua_arguments"] = lua(server.url)
        except ServerMissing as reason:
            server = None
            print(f"without Redis, so without Lua: {reason}")
        chosen = {name: quiet(run) for name, run in targets.items() if not names or name in names}
        end = time.monotonic() + budget_s
        try:
            while time.monotonic() < end and failed != set(chosen):
                for name, run in chosen.items():
                    if name in failed or time.monotonic() > end:
                        continue
                    try:
                        run()
                        rounds[name] += 1
                    except Exception:
                        failed.add(name)
                        print(f"FAILED {name}")
                        traceback.print_exc()
        finally:
            if server is not None:
                server.stop()
    for name in chosen:
        print(f"{name:<26} {200 * rounds[name]:>8,} examples{'  FAILED' if name in failed else ''}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]) if len(sys.argv) > 1 else 600.0, sys.argv[2:]))
