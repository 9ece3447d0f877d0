"""Checked by mypy and pyright, never run: ``@cached`` keeps signatures, and wrong calls are errors."""

from __future__ import annotations

from typing_extensions import assert_type

import eventperf
from eventperf.cache import CacheManager

cache = CacheManager()


@cache.cached(ttl="1m", key="event:{event_id}")
def event(event_id: int, *, full: bool = False) -> dict[str, int]:
    return {"id": event_id}


@cache.cached
def bare(name: str) -> int:
    return len(name)


@eventperf.cached(ttl=60)
async def attendees(event_id: int) -> list[str]:
    return [str(event_id)]


class Repository:
    name = "main"

    @cache.cached(self_key="name")
    def find(self, user_id: int) -> str:
        return str(user_id)

    @cache.cached(self_key="name")
    async def afind(self, user_id: int) -> bytes:
        return b""


assert_type(event(1, full=True), dict[str, int])
assert_type(event.key(1), str)
assert_type(event.refresh(1), dict[str, int])
assert_type(event.bypass(1), dict[str, int])
assert_type(bare("x"), int)
assert_type(Repository().find(1), str)
assert_type(cache.get_or_load("k", lambda: 5), int)

event("one")  # type: ignore[arg-type]
event(1, nope=2)  # type: ignore[call-arg]
event.invalidate()  # type: ignore[call-arg]
bare(5)  # type: ignore[arg-type]
Repository().find("x")  # type: ignore[arg-type]
Repository().find.invalidate("x")  # type: ignore[arg-type]


async def main() -> None:
    assert_type(await attendees(5), list[str])
    assert_type(await attendees.arefresh(5), list[str])
    assert_type(await Repository().afind(5), bytes)
    await attendees("five")  # type: ignore[arg-type]
    await Repository().afind.ainvalidate(b"")  # type: ignore[arg-type]
    wrong: int = await attendees(5)  # type: ignore[assignment]
    del wrong
