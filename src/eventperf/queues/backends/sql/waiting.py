"""How a worker hears of something to do: PostgreSQL's ``NOTIFY``, elsewhere a look now and then."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from sqlalchemy import func, select

from eventperf.queues.errors import QueueError
from eventperf.queues.protocols import WorkerCard

from . import tables as s
from .listen import Listener
from .tx import Tx

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine

_FIRST_S = 0.005


class Doorbell:
    """Rung when this process has changed something, so that its own workers need not wait for a look."""

    def __init__(self) -> None:
        self.bell: threading.Condition = threading.Condition()
        self.rung: int = 0

    def ring(self) -> None:
        """Wake the waiting workers of this process."""
        with self.bell:
            self.rung += 1
            self.bell.notify_all()


class House(Protocol):
    """What an ear needs of the backend."""

    poll_s: float

    @property
    def listens(self) -> bool: ...
    @property
    def doorbell(self) -> Doorbell: ...
    def engine(self) -> Engine: ...
    def lost(self, error: Exception) -> QueueError: ...


class Ear:
    """One worker's waiting, in the thread that calls :meth:`wait`."""

    def __init__(self, house: House, channel: str, look: Callable[[Callable[[Tx], Any]], Any]) -> None:
        self._house = house
        self._channel = channel
        self._look = look
        self._listener: Any = None
        self._seen: tuple[int, int] | None = None
        self._left = False

    def wait(self, card: WorkerCard, timeout_s: float) -> bool | str:
        """Block until something came, at most ``timeout_s``."""
        end = time.monotonic() + timeout_s
        if self._house.listens:
            return self._hear(card, end)
        self.close()
        house, pause = self._house.doorbell, _FIRST_S
        rung = house.rung
        while True:
            if news := self._news(card):
                return news
            left = end - time.monotonic()
            if left <= 0 or self._left:
                return False
            with house.bell:
                if house.rung == rung and not self._left:
                    house.bell.wait(min(pause, left))
                rung = house.rung
            pause = min(pause * 1.5, self._house.poll_s)

    def _news(self, card: WorkerCard) -> bool | str:
        """Tell whether jobs or messages came since the last look; at the first look, whether jobs wait."""
        t, names = s.tallies.c, sorted(card.room_by_queue)
        asked = select(func.sum(t.woke), func.sum(t.called), func.sum(t.waiting))

        def work(tx: Tx) -> Any:
            return tx.conn.execute(asked.where(t.ns == tx.ns, t.queue.in_(names))).one()

        woke, called, waiting = (int(n or 0) for n in self._look(work))
        seen, self._seen = self._seen, (woke, called)
        if seen is None:
            return waiting > 0
        return "message" if called != seen[1] else woke != seen[0]

    def _hear(self, card: WorkerCard, end: float) -> bool | str:
        import psycopg

        try:
            if self._listener is None:
                self._listener = Listener(self._house.engine(), self._channel)
                if news := self._news(card):
                    return news
            heard: bool | str = not self._left and self._listener.wait(end)
            return heard
        except (psycopg.Error, OSError) as error:
            self.close()
            raise self._house.lost(error) from error
        except QueueError:
            self.close()
            raise

    def close(self) -> None:
        """Close the connection that listens."""
        listener, self._listener = self._listener, None
        if listener is not None:
            self._seen = None
            listener.close()

    def interrupt(self) -> None:
        """End a running :meth:`wait`, and every later one at once."""
        self._left = True
        self._house.doorbell.ring()
        listener = self._listener
        if listener is not None:
            listener.interrupt()
