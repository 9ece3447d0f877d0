"""Waiting for PostgreSQL's ``NOTIFY``."""

from __future__ import annotations

import selectors
import socket
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy.engine import Engine


class Listener:
    """One PostgreSQL connection that hears ``NOTIFY``."""

    def __init__(self, engine: Engine, channel: str) -> None:
        import psycopg

        args, options = engine.dialect.create_connect_args(engine.url)
        options.setdefault("connect_timeout", 5)
        self._conn: Any = psycopg.connect(*args, **options, autocommit=True)
        self._ears, self._poke = socket.socketpair()
        # No select(): in a process with many open files it takes none of the newer ones.
        self._both = selectors.DefaultSelector()
        try:
            for one in (self._conn.pgconn.socket, self._ears):
                self._both.register(one, selectors.EVENT_READ)
            self._conn.execute(f'LISTEN "{channel}"')
        except BaseException:
            self.close()
            raise

    def wait(self, end: float) -> bool | str:
        """Tell whether a notification came before the monotonic time ``end``."""
        pg = self._conn.pgconn
        try:
            while True:
                heard = set()
                while (notice := pg.notifies()) is not None:
                    heard.add(notice.extra)
                if heard:
                    return "message" if b"message" in heard else True
                left = end - time.monotonic()
                if left <= 0:
                    return False
                ready = [key.fileobj for key, _ in self._both.select(left)]
                if self._ears in ready:
                    return False
                if ready:
                    pg.consume_input()
        except ValueError as error:  # closed under our feet, by close() in another thread
            raise ConnectionError(str(error)) from error

    def interrupt(self) -> None:
        try:
            self._poke.send(b".")
        except OSError:  # closed meanwhile: nobody waits on it any more
            return

    def close(self) -> None:
        self._both.close()
        self._conn.close()
        self._ears.close()
        self._poke.close()
