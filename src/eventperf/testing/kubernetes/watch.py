"""Watch streams: resume from a version, selectors, bookmarks, and 410 when history is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from .selectors import Matcher
from .store import ApiError, Change, Item, Shelf, Store, dumps


class Watch:
    """One running watch.

    Changes may come from any thread; they are written on the server's loop.
    """

    def __init__(
        self,
        store: Store,
        shelf: Shelf,
        *,
        namespace: str | None,
        matchers: tuple[Matcher, ...],
        since: str,
        timeout_s: float,
        bookmark_s: float | None,
    ) -> None:
        self._store, self._shelf = store, shelf
        self._namespace, self._matchers = namespace, matchers
        self._since, self._timeout_s, self._bookmark_s = since, timeout_s, bookmark_s
        self._timers: list[asyncio.TimerHandle] = []
        self._loop: asyncio.AbstractEventLoop
        self._write: Callable[[bytes], None]
        self._finish: Callable[[], None]

    def start(self, write: Callable[[bytes], None], finish: Callable[[], None], /) -> None:
        self._loop = asyncio.get_running_loop()
        self._write, self._finish = write, finish
        with self._store.lock:
            if not self._replay():
                return
            self._shelf.listeners.append(self._heard)
        self._timers.append(self._loop.call_later(self._timeout_s, self.end))
        if self._bookmark_s is not None:
            self._timers.append(self._loop.call_later(self._bookmark_s, self._bookmark))

    def _replay(self) -> bool:
        if self._since in ("", "0"):
            for item in self._store.select(self._shelf, self._namespace, *self._matchers):
                self._send("ADDED", item.raw)
            return True
        since = int(self._since)
        if since < self._shelf.oldest:
            gone = ApiError(410, "Expired", f"too old resource version: {since} ({self._shelf.oldest})")
            self._send("ERROR", dumps(gone.body()))
            self._loop.call_soon(self._finish)
            return False
        for change in self._shelf.history:
            if change.version > since:
                self._deliver(change)
        return True

    def _heard(self, change: Change) -> None:
        self._loop.call_soon_threadsafe(self._deliver, change)

    def _deliver(self, change: Change) -> None:
        before, after = self._wants(change.old), self._wants(change.new)
        if change.type == "DELETED":
            kind = "DELETED" if before else None
        elif after:
            kind = "MODIFIED" if before else "ADDED"
        else:
            kind = "DELETED" if before else None
        if kind is not None:
            self._send(kind, change.new.raw)

    def _wants(self, item: Item | None) -> bool:
        if item is None:
            return False
        if self._namespace is not None and item.obj["metadata"].get("namespace", "") != self._namespace:
            return False
        return all(match(item.obj) for match in self._matchers)

    def _send(self, kind: str, raw: bytes) -> None:
        self._write(b'{"type":"%b","object":%b}\n' % (kind.encode(), raw))

    def _bookmark(self) -> None:
        resource = self._shelf.resource
        head = {"kind": resource.kind, "apiVersion": resource.api_version}
        with self._store.lock:
            version = str(self._store.version)
        self._send("BOOKMARK", dumps({**head, "metadata": {"resourceVersion": version}}))
        assert self._bookmark_s is not None
        self._timers.append(self._loop.call_later(self._bookmark_s, self._bookmark))

    def end(self) -> None:
        """Finish the stream in order, as the server does after ``timeoutSeconds``."""
        self.stop()
        self._finish()

    def stop(self) -> None:
        """Hear no more changes."""
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        with self._store.lock:
            if self._heard in self._shelf.listeners:
                self._shelf.listeners.remove(self._heard)
