"""Shared state by list and watch: read once, then told of every change."""

from __future__ import annotations

import random as _random
import threading
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from eventperf._core.clock import Clock, SystemClock
from eventperf._core.errors import EventPerfError
from eventperf._core.logs import logger

from .api import JSON, KubernetesApi, KubernetesStream
from .errors import KubernetesApiError, KubernetesGone, KubernetesThrottled, KubernetesUnavailable

_log = logger("eventperf.scaling.kubernetes")

T = TypeVar("T")
Key = tuple[str, str]
"""Namespace and name."""

_PAGE = 500
_WATCH_S = 300.0
_SILENCE_S = 90.0  # a server that sends bookmarks speaks at least once a minute
_BACKOFF_MAX_S = 30.0


class WatchedCollection(Generic[T]):
    """All objects of one resource in one namespace (or all), kept current by one watch.

    What is kept per object is what ``extract`` returns, so that thousands of objects stay small. The
    watch resumes where it stopped, lists again on 410 Gone, and backs off while the server is away.

    Args:
        path: Path of the collection.
        extract: From the API's object to what is kept.
        selector: Label selector.
        listener: Told of every change as namespace, old and new item (None where there is none).
    """

    def __init__(
        self,
        api: KubernetesApi,
        path: str,
        extract: Callable[[JSON], T],
        *,
        selector: str = "",
        listener: Callable[[str, T | None, T | None], None] | None = None,
        clock: Clock | None = None,
        random: _random.Random | None = None,
    ) -> None:
        self._api, self._path, self._extract, self._selector = api, path, extract, selector
        self._listener = listener
        self._clock = clock or SystemClock()
        self._random = random or _random.Random()
        self._items: dict[Key, T] = {}
        self._ahead: dict[Key, str] = {}
        self._version = ""
        self._heard_at = float("-inf")
        self._mu = threading.Lock()
        self._synced = threading.Event()
        self._tried = threading.Event()
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._running: KubernetesStream | None = None
        self.error: EventPerfError | None = None
        self.lists: int = 0

    # -- reading --------------------------------------------------------------------------------------

    def get(self, namespace: str, name: str) -> T | None:
        """Return what is known of one object, or None when there is no such object."""
        return self._items.get((namespace, name))

    def snapshot(self) -> dict[Key, T]:
        """Return all objects known now, as a copy."""
        with self._mu:
            return dict(self._items)

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_synced(self) -> bool:
        """Whether the first list is complete."""
        return self._synced.is_set()

    @property
    def is_running(self) -> bool:
        """Whether its thread is there; a forked child has to start its own."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def path(self) -> str:
        """Path of the collection."""
        return self._path

    @property
    def silent_s(self) -> float:
        """Seconds since the server was last heard of; while it is small the state is current."""
        return self._clock.monotonic() - self._heard_at

    def wait_synced(self, timeout_s: float) -> bool:
        """Start if needed, and wait until the first list is complete or was refused."""
        self.start()
        self._tried.wait(timeout_s)
        return self._synced.is_set()

    def put(self, namespace: str, name: str, item: T, version: str) -> None:
        """Enter a state this process has just written, ahead of the watch.

        Older events of the object that are still under way are then passed over.
        """
        with self._mu:
            if (namespace, name) in self._items:
                self._items[namespace, name] = item
                self._ahead[namespace, name] = version

    # -- life -----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to follow, from a background thread."""
        with self._mu:
            if self._thread is None or not self._thread.is_alive():
                self._stopping.clear()
                self._thread = threading.Thread(target=self._run, name="eventperf-watch", daemon=True)
                self._thread.start()

    def close(self, timeout_s: float = 2.0) -> None:
        """Stop following; what is known stays readable."""
        self._stopping.set()
        thread, running = self._thread, self._running
        if running is not None:
            running.close()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout_s)
        self._thread = None

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stopping.wait(pause_s):
            try:
                if not self._version:
                    self._list()
                self._follow()
                pause_s = 0.0
            except KubernetesGone:
                self._version, pause_s = "", self._random.uniform(0.0, 1.0)
            except KubernetesApiError as error:
                if self._stopping.is_set():
                    return
                self.error = error
                self._tried.set()
                _log.warning("watch of %s: %s", self._path, error)
                asked = error.retry_after_s if isinstance(error, KubernetesThrottled) else None
                pause_s = asked or self._back_off(pause_s)
            except Exception as error:  # no kubeconfig, an object of another shape: told, and tried again
                _log.exception("watch of %s", self._path)
                text = f"{type(error).__name__}: {error}"
                self.error = KubernetesUnavailable("WATCH", self._path, text)
                if isinstance(error, EventPerfError):
                    self.error = error
                self._version = ""
                self._tried.set()
                pause_s = self._back_off(pause_s)

    def _back_off(self, pause_s: float) -> float:
        return min(_BACKOFF_MAX_S, max(0.25, pause_s * 2)) * self._random.uniform(0.5, 1.0)

    def _list(self) -> None:
        items: dict[Key, T] = {}
        query: dict[str, Any] = {"limit": _PAGE}
        if self._selector:
            query["labelSelector"] = self._selector
        while True:
            page = self._api.request("GET", self._path, query=query)
            for obj in page["items"]:
                items[_key(obj)] = self._extract(obj)
            token = page["metadata"].get("continue")
            if not token:
                break
            query["continue"] = token
        with self._mu:
            before, self._items = self._items, items
            self._ahead.clear()
        if self._listener is not None:
            for key in before.keys() | items.keys():
                self._listener(key[0], before.get(key), items.get(key))
        self._version = page["metadata"]["resourceVersion"]
        self.lists += 1
        self._heard()
        self._synced.set()
        self._tried.set()

    def _follow(self) -> None:
        query = {
            "watch": "1",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": int(_WATCH_S * self._random.uniform(0.8, 1.2)),
        }
        if self._selector:
            query["labelSelector"] = self._selector
        stream = self._api.stream(self._path, query=query, timeout_s=_SILENCE_S)
        self._running = stream
        self._heard()
        try:
            if self._stopping.is_set():  # close() came while the stream was being opened
                stream.close()
            for event in stream:
                self._take(event)
                if self._stopping.is_set():
                    return
        finally:
            self._running = None

    def _take(self, event: JSON) -> None:
        kind, obj = event["type"], event["object"]
        if kind == "ERROR":
            code = int(obj.get("code") or 500)
            raised = KubernetesGone if code == 410 else KubernetesApiError
            raise raised("WATCH", self._path, str(obj.get("message")), status=code)
        if kind != "BOOKMARK":
            self._enter(_key(obj), None if kind == "DELETED" else self._extract(obj), obj)
        self._version = obj["metadata"]["resourceVersion"]
        self._heard()

    def _enter(self, key: Key, new: T | None, obj: JSON) -> None:
        with self._mu:
            ahead = self._ahead.get(key)
            if ahead is not None:
                if new is not None and _is_older(obj["metadata"]["resourceVersion"], ahead):
                    return
                del self._ahead[key]
            old = self._items.pop(key, None) if new is None else self._items.get(key)
            if new is not None:
                self._items[key] = new
        if self._listener is not None:
            self._listener(key[0], old, new)

    def _heard(self) -> None:
        self._heard_at = self._clock.monotonic()
        self.error = None


def _key(obj: JSON) -> Key:
    meta = obj["metadata"]
    return meta.get("namespace", ""), meta["name"]


def _is_older(version: str, than: str) -> bool:
    """Compare resourceVersions: whole numbers in practice; what is no number counts as not older."""
    try:
        return int(version) < int(than)
    except ValueError:
        return False
