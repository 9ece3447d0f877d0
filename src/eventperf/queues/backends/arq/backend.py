"""Jobs in arq's own queues: arq's keys, arq's worker, for hosts that already run it.

``arq+redis://host:6379/0`` keeps the queue ``normal`` in arq's queue ``arq:queue:normal``; a queue whose
name begins with ``arq:`` is arq's queue of that name. Stock arq producers and workers may be at the other
end. Options of the URL: ``serializer=json`` (stock ends then need ``dumps`` and ``loads`` of
:mod:`eventperf.queues.compat.arq`) or ``pickle``; ``poll=0.1``, seconds between looks at an empty queue.

arq knows neither priorities nor leases with tokens, so this backend declares less than the others; what it
cannot do raises :class:`~eventperf.queues.errors.Unsupported`.
"""

from __future__ import annotations

import threading
from importlib import import_module

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf._core.urls import BackendURL, parse_url
from eventperf.queues.backends.faces import AsyncFace
from eventperf.queues.codec import Codec
from eventperf.queues.engine import Engine
from eventperf.queues.protocols import Session, StoreSettings, WorkerCard, WorkerPlan

from .store import ArqPlace, ArqStore
from .wire import SERIALIZERS, ArqWire


class ArqBackend:
    """arq's queues in one Redis."""

    name = "arq"
    capabilities: frozenset[str] = frozenset({"shared", "schedules"})

    def __init__(self, url: BackendURL, settings: StoreSettings) -> None:
        require("arq", extra="arq", needed_by="arq+redis:// URLs")
        serializer = url.options.get("serializer", "json")
        if serializer not in SERIALIZERS:
            raise ConfigurationError("serializer", serializer, SERIALIZERS)
        middle = "" if settings.namespace == "default" else f"{settings.namespace}:"
        self._place = ArqPlace(
            url=parse_url(url.text.removeprefix("arq+").partition("?")[0]),
            settings=settings,
            wire=ArqWire(serializer, Codec(settings.options.max_payload_bytes)),
            keys={q: q if q.startswith("arq:") else f"arq:queue:{middle}{q}" for q in settings.queues},
            poll_s=_poll(url.options.get("poll", "0.1")),
        )
        self._mu = threading.Lock()
        self._stores: list[ArqStore] = []

    def sync(self) -> ArqStore:
        with self._mu:
            if not self._stores:
                self._stores.append(ArqStore(self._place))
            return self._stores[0]

    def waiter(self, card: WorkerCard, /) -> ArqStore:
        store = self.sync()
        store.cards[card.id] = card
        return store

    def aio(self) -> AsyncFace:
        return AsyncFace(self.sync(), in_threads=True)

    def session(self, plan: WorkerPlan, engine: Engine, /) -> Session:
        """Return one run by arq's own workers, one for each queue."""
        # Named, not imported: a session stands on the workers' floor, above the backends.
        kind = import_module("eventperf.queues.working.arq_session").ArqSession
        session: Session = kind(plan, engine, self._place, self.sync())
        return session

    def close(self) -> None:
        with self._mu:
            stores, self._stores = self._stores, []
        for store in stores:
            store.close()


def _poll(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.01 <= value <= 60:
        raise ConfigurationError("poll", text, "0.01 to 60 seconds")
    return value
