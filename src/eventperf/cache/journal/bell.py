"""PostgreSQL's ``NOTIFY``: a connection that waits for it."""

from __future__ import annotations

import select
import socket
import time
from typing import Any


class Bell:
    """One connection that hears a channel.

    Attributes:
        was_heard: It rang at least once: the triggers were made to ring it.
    """

    def __init__(self, engine: Any, channel: str) -> None:
        self._conn: Any = None
        self.was_heard: bool = False
        self._ears, self._poke = socket.socketpair()
        try:
            raw = engine.raw_connection()
            self._conn = raw.driver_connection
            raw.detach()  # never back into the pool: it listens
            self._conn.autocommit = True
            with self._conn.cursor() as cursor:
                cursor.execute(f'LISTEN "{channel}"')
        except BaseException:
            self.close()
            raise

    def wait(self, seconds: float) -> bool:
        """Tell whether it rang within so many seconds; what rang before counts."""
        end = time.monotonic() + seconds
        while not self._rang():
            left = end - time.monotonic()
            if left <= 0:
                return False
            ready = select.select([self._conn, self._ears], [], [], left)[0]
            if self._ears in ready:
                return False
            if ready and hasattr(self._conn, "pgconn"):
                self._conn.pgconn.consume_input()
        self.was_heard = True
        return True

    def _rang(self) -> bool:
        if not hasattr(self._conn, "pgconn"):  # psycopg2
            self._conn.poll()
            found = bool(self._conn.notifies)
            self._conn.notifies.clear()
            return found
        found = False
        while self._conn.pgconn.notifies() is not None:
            found = True
        return found

    def interrupt(self) -> None:
        """End a wait."""
        try:
            self._poke.send(b".")
        except OSError:  # closed meanwhile
            return

    def close(self) -> None:
        """Close the connection."""
        self._ears.close()
        self._poke.close()
        if self._conn is not None:
            self._conn.close()


def bell_for(engine: Any, channel: str) -> Bell | None:
    """Return a bell, or ``None`` where the driver has none and polling has to do."""
    return Bell(engine, channel) if engine.dialect.driver in ("psycopg", "psycopg2") else None
