"""Events of any room as log records."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ._facts import fields_of, name_of

__all__ = ["LoggingSink"]

_WARN = (
    "failed",
    "lost",
    "unavailable",
    "dropped",
    "stalled",
    "dead",
    "alert",
    "opened",
    "reverted",
    "error",
)


class LoggingSink:
    """Write each event to a logger, one line, with its fields in ``record.eventperf``.

    Cache keys, tags, SQL texts, job ids and payloads are left out unless ``private=True``: they may
    carry what users typed.

    Args:
        logger: The logger; ``eventperf`` when ``None``.
        level: Level of ordinary events; those whose name tells of a failure are written as warnings.
        levels: Level by event class, before both rules.
        private: Write every field.

    >>> import logging
    >>> from eventperf._core.events import Hooks
    >>> hooks = Hooks()
    >>> stop = hooks.subscribe(LoggingSink(logging.getLogger("app.events")))
    """

    def __init__(
        self,
        logger: logging.Logger | None = None,
        *,
        level: int = logging.INFO,
        levels: Mapping[type, int] | None = None,
        private: bool = False,
    ) -> None:
        self._logger = logger if logger is not None else logging.getLogger("eventperf")
        self._level = level
        self._levels = dict(levels or {})
        self._private = private

    def __call__(self, event: object, /) -> None:
        """Write ``event``."""
        name = name_of(event)
        level = self._levels.get(type(event))
        if level is None:
            failed = any(word in name.lower() for word in _WARN)
            level = max(self._level, logging.WARNING) if failed else self._level
        if not self._logger.isEnabledFor(level):
            return
        facts = fields_of(event, private=self._private)
        text = " ".join(f"{field}={value!r}" for field, value in facts.items())
        self._logger.log(
            level,
            "%s%s",
            name,
            f" {text}" if text else "",
            extra={"eventperf": {"event": name, **facts}},
        )
