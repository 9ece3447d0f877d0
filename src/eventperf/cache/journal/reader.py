"""The reader of the change journal: drops the tags of what was committed, whoever committed it."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from eventperf._core.durations import Duration, show
from eventperf._core.errors import ConfigurationError
from eventperf._core.logs import logger
from eventperf.cache.checks import check_span
from eventperf.cache.errors import CacheError, JournalMissing, StoreUnavailable
from eventperf.cache.following import ANY_TABLE, all_tags

from .bell import Bell, bell_for
from .layout import READERS, TABLES, LostPlace, name_for, tags_of
from .making import dialect_of, reading, reading_engine, translated, where

if TYPE_CHECKING:
    from typing_extensions import Self

    from eventperf.cache.manager import CacheManager

__all__ = ["Journal"]

_log = logger("eventperf.cache")
_CHUNK: Final = 500
_SAVE_S: Final = 0.5
"""How often a place is kept: what was read since is read again after a crash."""
_ALIVE_S: Final = 10.0
_LISTENING_POLL_S: Final = 5.0
_FIRST_S, _LAST_S = 0.1, 5.0
_LAGS_S: Final = 30.0
_LEAVE_S: float = 30.0
_UNTOLD: Final = "!"
"""Before a place whose reader has not invalidated yet what it may have missed before."""
_inherited: list[Bell] = []  # a parent's connections: closing them here would end them there


class Journal:
    """Reads the change journal of a database and invalidates what follows the changed tables and rows.

    The journal is made by ``eventperf cache journal URL``. Its triggers write within the transaction of the
    change, so that what a crash, ``psql`` or another application commits is told too, and a rollback is not.
    One reader for each cache is enough when the cache is on Redis: a thread of some process
    (:meth:`start`), or a process of its own (``eventperf cache follow``). A cache in process memory needs
    one in each process.

    Args:
        cache: The manager; several with the same store, or a list of them, when namespaces differ.
        database: A URL of SQLAlchemy's, or an engine that is not asynchronous.
        name: The reader's place is kept under it; by default it is made of namespace and store. A cache in
            process memory gets one of its own, which begins with what is given.
        poll: Longest pause between two looks. PostgreSQL's ``NOTIFY`` ends it early.
        keep: A reader that was not heard of for so long is forgotten, and its rows are removed; should it
            come back it invalidates everything that follows a table.

    >>> from eventperf.cache import CacheManager
    >>> Journal(CacheManager(), "sqlite:///site.db").state
    'stopped'
    """

    def __init__(
        self,
        cache: CacheManager | Sequence[CacheManager],
        database: Any,
        *,
        name: str | None = None,
        poll: Duration = "250ms",
        keep: Duration = "1d",
    ) -> None:
        caches: list[Any] = list(cache) if isinstance(cache, (list, tuple)) else [cache]
        if not caches or not all(hasattr(one, "invalidate_tags") for one in caches):
            raise ConfigurationError("cache", cache, "a CacheManager, or a list of them")
        if name is not None and (not isinstance(name, str) or not 0 < len(name) <= 200):
            raise ConfigurationError("name", name, "a text of 1 to 200 characters")
        self._caches = caches
        self._given: Any = database
        self._poll_s: float = check_span(poll, argument="poll")
        self._keep_s: float = check_span(keep, argument="keep")
        if self._poll_s <= 0 or self._keep_s < 60:
            raise ConfigurationError("poll, keep", (poll, keep), "a pause above 0, and at least a minute")
        self._engine, self._is_ours = reading_engine(database)
        self._dialect = dialect_of(self._engine)
        self._own: bool = any(one.store is None for one in caches)
        self._named: str | None = name
        self._mu = threading.RLock()
        self._stop = threading.Event()
        self._fresh()

    def _fresh(self) -> None:
        self.name: str = name_for(self._caches, self._own, self._named)
        self._untold_tables: set[str] = set()
        self._position: str | None = None
        self._saved: tuple[str, float] = ("", 0.0)
        self._bell: Bell | None = None
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()
        self._trouble: str = ""
        self._lags = self._is_left = False
        self._read_at: float = time.monotonic()
        self.changes: int = 0
        self.lost: int = 0

    def __repr__(self) -> str:
        return f"Journal({where(self._engine)}, name={self.name!r}, state={self.state!r})"

    @property
    def state(self) -> str:
        """``"stopped"``, ``"following"``, or ``"blind"`` while database or cache do not answer."""
        if self._trouble:
            return "blind"
        return "following" if self._thread is not None and self._thread.is_alive() else "stopped"

    @property
    def lag_s(self) -> float:
        """Seconds since the last look began that found, and invalidated, all that was committed by then."""
        return time.monotonic() - self._read_at

    # -- one round -----------------------------------------------------------------------------------

    def once(self) -> int:
        """Read what was committed since the last round, invalidate it, and return how many changes it was.

        The place moves on only when the cache has taken the invalidations: what was read is read again
        after a crash, and nothing is passed over.

        Raises:
            ~eventperf.cache.JournalMissing: There is no journal.
            ~eventperf.cache.StoreUnavailable: The database, or the cache, does not answer.
            ~eventperf.cache.CacheError: The database refuses.
        """
        with self._mu:
            try:
                return self._round()
            except (StoreUnavailable, JournalMissing):
                self._dialect.forget()
                raise

    def _round(self) -> int:
        before = self.changes
        if self._position is None and not self._found_place():
            self._begin_anew()
        while True:
            assert self._position is not None
            began = time.monotonic()
            try:
                with translated(self._engine), reading(self._engine) as conn:
                    batch = self._dialect.read(conn, self._position)
            except LostPlace as why:
                self._lost(str(why))
                return self.changes - before
            if batch.changes:
                self._tell(tags_of(batch.changes))
                self.changes += len(batch.changes)
            self._position = batch.position
            if batch.is_all:
                self._read_at, self._lags = began, False
                break
            self._say_lag()
            self._keep_place()
            if self._stop.is_set():
                break
        self._keep_place()
        return self.changes - before

    def _say_lag(self) -> None:
        if self.lag_s > _LAGS_S and not self._lags:
            self._lags = True
            _log.warning(
                "change journal at %s: reader %r is %s behind: more is written than it can drop one by one; "
                "leave tables out that no cached function follows (eventperf cache journal --exclude)",
                where(self._engine), self.name, show(self.lag_s),
            )  # fmt: skip

    def _tell(self, tags: Sequence[str]) -> None:
        for cache in self._caches:
            for start in range(0, len(tags), _CHUNK):
                cache.invalidate_tags(*tags[start : start + _CHUNK])
            if cache.stats().replay_queue:
                raise StoreUnavailable(cache.store.url, "an invalidation waits for it", True)

    # -- the place -----------------------------------------------------------------------------------

    def _found_place(self) -> bool:
        """Take up the place that was kept; without one the journal may have been purged of what we missed."""
        with translated(self._engine), reading(self._engine) as conn:
            self._position = conn.execute(
                _sql(f"SELECT position FROM {READERS} WHERE name = :name"), {"name": self.name}
            ).scalar()
        if self._position is None or self._position.startswith(_UNTOLD):
            self._position = None
            return False
        self._saved = (self._position, 0.0)
        return True

    def _lost(self, why: str) -> None:
        self.lost += 1
        _log.warning(
            "change journal at %s: reader %r lost its place (%s): all that follows a table is invalidated",
            where(self._engine), self.name, why,
        )  # fmt: skip
        self._begin_anew()

    def _begin_anew(self) -> None:
        """Take the place of this moment, then invalidate all that may have been missed before."""
        with translated(self._engine), reading(self._engine) as conn:
            position = self._dialect.here(conn)
            tables = [name for (name,) in conn.execute(_sql(f"SELECT tbl FROM {TABLES}"))]
        self._save(_UNTOLD + position)  # before anybody may purge what comes after it
        self._tell([ANY_TABLE, *all_tags(tables)])
        self._position = position

    def _keep_place(self) -> None:
        at, when = self._saved
        age = time.monotonic() - when
        if age < (_SAVE_S if at != self._position else _ALIVE_S) and not at.startswith(_UNTOLD):
            return
        assert self._position is not None
        if not self._save(self._position, only_known=True):
            self._lost(f"it was not heard of for {show(self._keep_s)}, or was removed")
        self._purge()
        self._look_at_triggers()

    def _look_at_triggers(self) -> None:
        """Say which tables tell nothing any more, and invalidate what follows them until they do again."""
        with translated(self._engine), reading(self._engine) as conn:
            tables = {name for (name,) in conn.execute(_sql(f"SELECT tbl FROM {TABLES}"))}
            telling = self._dialect.telling(conn)
        silent = set() if telling is None else tables - telling
        if silent - self._untold_tables:
            _log.warning(
                "change journal at %s: no triggers on %s (dropped, off, or the table is a new one): what "
                "follows it is invalidated every %s until `eventperf cache journal URL --apply` has run",
                where(self._engine), ", ".join(sorted(silent)), show(_ALIVE_S),
            )  # fmt: skip
        self._untold_tables = silent
        if silent:
            self._tell(all_tags(silent))

    def _save(self, position: str, only_known: bool = False) -> bool:
        values = {"name": self.name, "position": position}
        change = _sql(
            f"UPDATE {READERS} SET position = :position, seen_at = {self._dialect.now} WHERE name = :name"
        )
        add = _sql(
            f"INSERT INTO {READERS} (name, position, seen_at) VALUES (:name, :position, {self._dialect.now})"
        )
        with translated(self._engine), reading(self._engine) as conn:
            known = conn.execute(change, values).rowcount > 0
            if not known and not only_known:
                conn.execute(add, values)
            conn.commit()
        self._saved = (position, time.monotonic())
        return known or not only_known

    def _purge(self) -> None:
        """Forget readers that are gone, and remove what those that are there have read."""
        gone = _sql(f"DELETE FROM {READERS} WHERE seen_at < {self._dialect.now} - :keep")
        with translated(self._engine), reading(self._engine) as conn:
            conn.execute(gone, {"keep": self._keep_s})
            rows = conn.execute(_sql(f"SELECT position FROM {READERS}"))
            positions = [row[0].removeprefix(_UNTOLD) for row in rows]
            conn.commit()
            with suppress(LostPlace):  # one that cannot be read may need anything: its reader begins anew
                for _ in range(20):
                    if not positions or self._dialect.purge(conn, positions) < 10_000:
                        break
                    conn.commit()
            conn.commit()

    # -- all the time --------------------------------------------------------------------------------

    def start(self) -> Self:
        """Read in a thread of this process until :meth:`close`; it starts again in a forked child.

        The first round is made before this returns, so that nothing that is cached from here on is missed.
        Trouble does not raise: it is said once, and tried again.
        """
        if self._thread is not None and self._thread.is_alive() and self._pid == os.getpid():
            return self
        self._stop.clear()
        self._attempt()
        self._thread = threading.Thread(target=self.run, name="eventperf-cache-journal", daemon=True)
        self._thread.start()
        _started.add(self)
        return self

    def run(self) -> None:
        """Read until :meth:`stop`; trouble is said once and waited out."""
        pause = _FIRST_S
        try:
            while not self._stop.is_set():
                if self._attempt():
                    pause = _FIRST_S
                    self._wait()
                else:
                    self._stop.wait(pause)
                    pause = min(pause * 2, _LAST_S)
        finally:  # close() may have given up waiting for this
            self._drop_bell()
            if self._is_left and self._is_ours:
                self._engine.dispose()

    def _attempt(self) -> bool:
        try:
            if self._bell is None and self._dialect.channel:
                self._bell = bell_for(self._engine, self._dialect.channel)
            self.once()
        except Exception as error:  # whatever it is, what follows the database must not stop for good
            self._say_blind(error)
            self._drop_bell()
            return False
        if self._trouble:
            self._trouble = ""
            _log.warning("change journal at %s: reader %r follows again", where(self._engine), self.name)
        return True

    def _say_blind(self, error: Exception) -> None:
        told = str(error) if isinstance(error, CacheError) else f"{type(error).__name__}: {error}"
        is_new, self._trouble = not self._trouble, told
        if is_new:
            _log.warning(
                "change journal at %s: reader %r is blind (%s); what other programs change is kept in the "
                "cache until it reads again, or by TTL",
                where(self._engine), self.name, told,
            )  # fmt: skip
        if self.lag_s > self._keep_s:  # nobody else may be there to end the growth of the journal
            self._position = None
            with suppress(Exception):  # it is blind, and that was said
                self._forget_me()

    def _wait(self) -> None:
        bell = self._bell
        if bell is None:
            self._stop.wait(self._poll_s)
            return
        try:
            bell.wait(max(self._poll_s, _LISTENING_POLL_S) if bell.was_heard else self._poll_s)
        except Exception as error:  # the connection is gone; the next round says whether the server is
            _log.debug("change journal: %s", error)
            self._drop_bell()

    def _drop_bell(self) -> None:
        bell, self._bell = self._bell, None
        if bell is not None:
            bell.close()

    def _forget_me(self) -> None:
        with translated(self._engine), reading(self._engine) as conn:
            conn.execute(_sql(f"DELETE FROM {READERS} WHERE name = :name"), {"name": self.name})
            conn.commit()
        self._purge()

    def stop(self) -> None:
        """End :meth:`run` after the round it is at; may be called from anywhere."""
        self._stop.set()
        if bell := self._bell:
            bell.interrupt()

    def close(self) -> None:
        """Stop, keep the place, and close what was opened; caches and a given engine are left alone.

        A database that does not answer is waited for half a minute; what is open is closed when it does.
        """
        self.stop()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(_LEAVE_S)
            self._is_left = self._thread.is_alive()
        self._thread = None
        _started.discard(self)
        if self._is_left or not self._mu.acquire(timeout=_LEAVE_S):
            _log.warning(
                "change journal at %s: reader %r was left in a statement that does not end",
                where(self._engine), self.name,
            )  # fmt: skip
            return
        try:
            self._drop_bell()
            self._keep_or_forget()
            self._trouble = ""
        finally:
            self._mu.release()
            if self._is_ours:
                self._engine.dispose()

    def _keep_or_forget(self) -> None:
        try:
            if self._own and self._saved[0]:
                self._forget_me()  # nobody comes back under this name
            elif self._position is not None and self._saved[0] != self._position:
                self._save(self._position, only_known=True)
        except CacheError as error:
            _log.debug("change journal: the place was not kept: %s", error)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.close()

    def after_fork(self) -> None:
        """Go on in a child: with connections, and where the cache is its own a name, of its own."""
        if self._is_ours:
            self._engine.dispose(close=False)
        if self._bell is not None:
            _inherited.append(self._bell)
        self._mu = threading.RLock()
        self._stop = threading.Event()
        self._fresh()
        self._thread = threading.Thread(target=self.run, name="eventperf-cache-journal", daemon=True)
        self._thread.start()


_started: weakref.WeakSet[Journal] = weakref.WeakSet()
_held: list[Journal] = []
_FORK_WAIT_S = 5.0


def _between_rounds() -> None:
    """Let a process fork between two rounds: inside of a library, a child inherits the locks of that."""
    _held.extend(journal for journal in list(_started) if journal._mu.acquire(timeout=_FORK_WAIT_S))


def _go_on_in_parent() -> None:
    while _held:
        _held.pop()._mu.release()


def _go_on_in_child() -> None:
    _held.clear()
    for journal in list(_started):
        journal.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_between_rounds, after_in_parent=_go_on_in_parent, after_in_child=_go_on_in_child
    )


def _sql(statement: str) -> Any:
    from sqlalchemy import text

    return text(statement)
