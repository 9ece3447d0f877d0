"""A cache in plain Python: one load for many callers, tags, and a warm start.

Process memory here; ``CacheManager("redis://host:6379/0")`` shares it among processes.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from eventperf.cache import CacheManager

cache = CacheManager(namespace="shop")
queries = 0


@dataclass(frozen=True)
class Event:
    id: int
    name: str
    seats: int


@cache.cached(ttl="1m", key="event:{event_id}", tags=["event:{event_id}", "events"])
def load_event(event_id: int) -> Event:
    global queries
    queries += 1
    time.sleep(0.05)  # the database
    return Event(event_id, f"Event {event_id}", 300)


@cache.cached(ttl="1m", key="seats:{event_id}", tags=["event:{event_id}"])
async def free_seats(event_id: int) -> int:
    event = load_event(event_id)
    return event.seats - 12


@cache.warmer("active_events", ttl="5m")
def active_events() -> list[int]:
    return [1, 2, 3]


def main() -> None:
    with ThreadPoolExecutor(50) as pool:
        events = list(pool.map(load_event, [42] * 200))
    print(f"200 calls of 50 threads: {queries} query, {len(set(events))} distinct answer")

    print(f"free seats: {asyncio.run(free_seats(42))}")

    cache.invalidate_tags("event:42")
    load_event(42)
    print(f"after the invalidation: {queries} queries")

    cache.warm()
    print(f"warm: {cache.get('active_events')}")

    stats = cache.stats()
    print(f"hits {stats.hits}, loads {stats.loads}, entries {stats.entries}")


if __name__ == "__main__":
    with cache:
        main()
