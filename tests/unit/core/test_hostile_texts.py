"""Texts and bytes from outside: never separators, sizes to allocate, time without end, or secrets shown."""

from __future__ import annotations

import importlib
import re
import sys
import tracemalloc
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventperf import DatabaseOptimizer, QueueManager
from eventperf._core.errors import ConfigurationError
from eventperf._core.urls import redact
from eventperf.cache.keys.patterns import escape, glob
from eventperf.cache.values.envelope import open_payload, seal, unseal
from eventperf.cache.values.instances import Undecodable
from eventperf.cache.values.serializers import MsgpackSerializer
from eventperf.dbopt.errors import DatabaseUnavailable
from eventperf.queues.producing.spec import check_text

HOSTILE = st.text(st.sampled_from("a*?[]\\^-|\x00\x1e\x1f\n\u202e"), max_size=12)


@given(HOSTILE)
def test_an_escaped_text_matches_only_itself(text: str) -> None:
    assert glob(escape(text))(text)
    assert not glob(escape(text))(text + "a")


@given(st.text("ab*?", max_size=8), st.text("ab", max_size=10))
def test_a_pattern_matches_what_its_expression_does(pattern: str, text: str) -> None:
    expression = re.escape(pattern).replace(r"\*", ".*").replace(r"\?", ".")
    assert glob(pattern)(text) == (re.fullmatch(expression, text) is not None)


def test_a_pattern_of_many_stars_ends() -> None:
    assert not glob("*a" * 30 + "*b")("a" * 5_000)


@pytest.mark.parametrize("name", ["fairness_key", "unique_key"])
@pytest.mark.parametrize("char", ["\x00", "\x1e", "\x1f", "\n", "\x7f", "\ud800"])
def test_a_key_with_a_control_character_is_refused_at_the_edge(name: str, char: str) -> None:
    queues = QueueManager("memory://")
    with pytest.raises(ConfigurationError, match=name):
        queues.enqueue("t", 1, **{name: f"x{char}victim"})  # type: ignore[arg-type]
    assert check_text("a|b:c ü", name) == "a|b:c ü"


@pytest.mark.parametrize("code", [1, 2, 3, 14, 15])
def test_a_number_is_never_a_size(code: int) -> None:
    packed = pytest.importorskip("msgspec").msgpack
    entry = packed.encode(packed.Ext(code, packed.encode(64 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(Undecodable):
            MsgpackSerializer().loads(entry)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def _packed(code: int, body: Any) -> bytes:
    packed = pytest.importorskip("msgspec").msgpack
    return bytes(packed.encode(packed.Ext(code, packed.encode(body))))


def test_decoding_imports_no_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lazy module imports what it is asked for."""
    (tmp_path / "lazy_door.py").write_text(
        "def __getattr__(name):\n    import lazy_room\n    return lazy_room.Room\n"
    )
    (tmp_path / "lazy_room.py").write_text("class Room: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.import_module("lazy_door")
    for code in (10, 11):
        for path in (
            ["lazy_door", "Room"],
            ["lazy_room", "Room"],
            ["os", "path.join"],
            ["eventperf", "AutoScaler"],
        ):
            with pytest.raises(Undecodable):
                MsgpackSerializer().loads(_packed(code, [*path, "a", [], None][: 5 if code == 10 else 4]))
    assert "lazy_room" not in sys.modules


@pytest.mark.parametrize(
    "zone", ["America", "../../etc", "", "\x00", 1e300, [1e300, "x"], {}, "Nowhere/At_All", True]
)
@pytest.mark.parametrize("code", [6, 8])
def test_odd_time_zones_are_misses(zone: Any, code: int) -> None:
    moment = "2026-01-01T00:00:00" if code == 6 else "00:00:00"
    try:
        MsgpackSerializer().loads(_packed(code, [moment, 0, zone]))
    except Undecodable:
        return
    assert zone is True, "a number of seconds"


def test_a_compressed_entry_inflates_to_the_limit_and_costs_no_more() -> None:
    squeeze = zlib.compressobj(9)
    body = b"".join([squeeze.compress(bytes(1 << 20)) for _ in range(65)] + [squeeze.flush()])
    sealed = unseal(seal("M", body, created=0, soft=1, hard=1))
    assert sealed is not None
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="inflates to more than"):
            open_payload(sealed, len, "m", 8 << 20)
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()
    assert open_payload(sealed, len, "m", 65 << 20) == 65 << 20, "at the limit it is a value"


@given(st.binary(max_size=3000), st.integers(1, 3000), st.booleans())
def test_what_fits_the_limit_is_read_and_what_does_not_is_not(
    data: bytes, limit: int, squeezed: bool
) -> None:
    body = zlib.compress(data) if squeezed else data
    sealed = unseal(seal("M" if squeezed else "m", body, created=0, soft=1, hard=1))
    assert sealed is not None
    if max(len(data), len(body)) <= limit:
        assert open_payload(sealed, bytes, "m", limit) == data
    else:
        with pytest.raises(ValueError, match="max_value_bytes"):
            open_payload(sealed, bytes, "m", limit)


def test_a_compressed_entry_without_its_end_is_damaged() -> None:
    sealed = unseal(seal("M", zlib.compress(b"x" * 99)[:-5], created=0, soft=1, hard=1))
    assert sealed is not None
    with pytest.raises(ValueError, match="without its end"):
        open_payload(sealed, len, "m", 1000)


@pytest.mark.parametrize("option", ["password", "pwd", "sslpassword", "api_key", "token"])
def test_a_secret_in_the_query_string_is_hidden(option: str) -> None:
    assert "S3cr3t" not in redact(f"postgresql://u@h/x?a=1&{option}=S3cr3t")


def test_an_unreachable_database_shows_no_password() -> None:
    pytest.importorskip("psycopg")
    with pytest.raises(DatabaseUnavailable) as caught:
        DatabaseOptimizer("postgresql+psycopg://u@127.0.0.1:1/x?password=S3cr3t").advise()
    assert "S3cr3t" not in str(caught.value)


@dataclass
class _WithProperty:
    a: int
    set_to: ClassVar[list[Any]] = []

    @property
    def wish_(self) -> Any:
        return None

    @wish_.setter
    def wish_(self, value: Any) -> None:
        self.set_to.append(value)


def test_what_stands_beside_the_fields_runs_no_property() -> None:
    """An entry names what it holds beside its fields; where others write it may name anything."""
    serializer = MsgpackSerializer()
    written = _WithProperty(7)
    written.__dict__["extra"] = 1
    data = serializer.dumps(written)
    assert serializer.loads(data).extra == 1
    found = serializer.loads(data.replace(b"\xa5extra", b"\xa5wish_"))
    assert (found.a, found.__dict__["wish_"], _WithProperty.set_to) == (7, 1, [])
