"""A second tier as a stranger writes it: from ``cache.protocols`` and its page of the docs alone."""

from __future__ import annotations

import hashlib
import json
import re
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from eventperf.cache import CacheManager, CounterOverflow, MemoryStore, StoreUnavailable
from eventperf.cache.protocols import CacheStore
from eventperf.testing.cache import CacheStoreSuite


class FolderStore:
    """One file a key in a folder: its name, its end and its bytes. Processes of one machine share it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mu = threading.Lock()

    @property
    def url(self) -> str:
        return f"folder:{self._folder.name}"

    def _path(self, key: str) -> Path:
        return self._folder / hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()

    def _read(self, path: Path) -> tuple[str, bytes] | None:
        try:
            head, _, blob = path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise StoreUnavailable(self.url, str(error)) from error
        key, end = json.loads(head)
        return None if end is not None and time.time() >= end else (key, blob)

    def get(self, key: str, /) -> bytes | None:
        found = self._read(self._path(key))
        return None if found is None else found[1]

    def get_many(self, keys: Sequence[str], /) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def set_many(self, items: Sequence[tuple[str, bytes, float]], /) -> None:
        for key, blob, ttl_s in items:
            end = None if ttl_s == float("inf") else time.time() + ttl_s
            path = self._path(key)
            new = path.with_name(f"{path.name}.{threading.get_ident()}")
            try:
                new.write_bytes(json.dumps([key, end]).encode() + b"\n" + blob)
                new.replace(path)
            except OSError as error:
                raise StoreUnavailable(self.url, str(error)) from error

    def delete(self, keys: Sequence[str], /) -> int:
        there = 0
        for key in keys:
            there += self.get(key) is not None
            self._path(key).unlink(missing_ok=True)
        return there

    def delete_pattern(self, pattern: str, /, *, dry_run: bool = False) -> int:
        matches = re.compile(_regex(pattern), re.DOTALL).fullmatch
        found = [entry[0] for path in self._folder.iterdir() if (entry := self._read(path)) is not None]
        keys = [key for key in found if matches(key)]
        return len(keys) if dry_run else self.delete(keys)

    def incr(self, key: str, amount: int, /, *, ttl_s: float) -> int:
        with self._mu:
            value = int(self.get(key) or b"0") + amount
            if not -(2**63) <= value < 2**63:
                raise CounterOverflow(key, amount)
            self.set_many([(key, str(value).encode(), ttl_s)])
            return value

    def ping(self) -> None:
        if not self._folder.is_dir():
            raise StoreUnavailable(self.url, "there is no such folder", True)

    def close(self) -> None:
        return None


def _regex(pattern: str) -> str:
    """Return the regular expression of a glob with ``*``, ``?``, ``[ab]`` and the backslash."""

    def part(found: re.Match[str]) -> str:
        text = found[0]
        if text[0] == "\\":
            return re.escape(text[1:])
        return {"*": ".*", "?": "."}.get(text) or (text if text[0] == "[" else re.escape(text))

    return re.sub(r"\\.|\[[^\]]*\]|.", part, pattern, flags=re.DOTALL)


class TestFolderStore(CacheStoreSuite):
    @pytest.fixture
    def store(self, tmp_path: Path) -> FolderStore:
        return FolderStore(tmp_path)


def test_what_a_stranger_wrote_is_a_cache_store(tmp_path: Path) -> None:
    assert isinstance(FolderStore(tmp_path), CacheStore)


def test_it_stands_behind_process_memory_and_is_shared(tmp_path: Path) -> None:
    one, other = (CacheManager(FolderStore(tmp_path), l1=MemoryStore(), namespace="p") for _ in range(2))
    assert one.get_or_load("k", lambda: [1, 2], tags=["t"]) == [1, 2]
    assert other.get_or_load("k", lambda: pytest.fail("it is there"), tags=["t"]) == [1, 2]
    one.invalidate_tags("t")
    assert one.get("k") is None
    assert one.stats().coherence == "ttl"


def test_an_outage_of_it_is_an_outage_of_a_cache(tmp_path: Path) -> None:
    class Sleeping(FolderStore):
        awake = True

        def get(self, key: str, /) -> bytes | None:
            if not self.awake:
                raise StoreUnavailable(self.url, "asleep", True)
            return super().get(key)

        def ping(self) -> None:
            if not self.awake:
                raise StoreUnavailable(self.url, "asleep", True)

    store = Sleeping(tmp_path)
    with CacheManager(store, l1=None) as cache:
        cache.set("k", 1)
        store.awake = False
        assert cache.get("k", "away") == "away"
        assert cache.stats().breaker == "open"
        store.awake = True
        end = time.monotonic() + 10
        while cache.stats().breaker == "open" and time.monotonic() < end:
            time.sleep(0.02)
        assert cache.get("k") == 1
