"""What stands in the application's log: names from outside as data, nothing of what users typed into SQL."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Mapping

from .texts import one_line, plain


class Lines(str):
    """A text whose line ends are meant: a stack, an explanation."""

    __slots__ = ()


class _Shown:
    """An argument of a log record that would steer a terminal or forge a line as it is, or has no text."""

    __slots__ = ("_given",)

    def __init__(self, given: object) -> None:
        self._given = given

    def __str__(self) -> str:
        text = _text(str, self._given)
        return plain(text) if isinstance(self._given, Lines) else one_line(text)

    def __repr__(self) -> str:
        return one_line(_text(repr, self._given))


def _text(form: Callable[[object], str], given: object) -> str:
    try:
        return form(given)
    except Exception as error:  # an exception or object of the host's: telling of it must not fail
        return f"<{type(given).__name__}, whose text fails with {type(error).__name__}>"


class _NamesAreData(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        if isinstance(record.args, tuple):
            record.args = tuple(map(_shown, record.args))
        elif isinstance(record.args, Mapping):
            record.args = {name: _shown(given) for name, given in record.args.items()}
        if record.exc_info and record.exc_info[1] is not None and not record.exc_text:
            record.exc_text = _sound(record.exc_info[1])
        return True


def _sound(error: BaseException) -> str | None:
    """Return a traceback whose text would steer a terminal as it may be shown; of any other, nothing.

    Formatters take it in place of their own; the exception stays attached for those who collect them.
    """
    try:
        text = "".join(traceback.format_exception(error)).rstrip("\n")
        shown = plain(text)
    except Exception:  # a __str__ of the host's
        return None
    return None if shown == text else shown


def _shown(given: object) -> object:
    if given is None or isinstance(given, (int, float)):
        return given
    try:
        return given if str(given).isprintable() and repr(given).isprintable() else _Shown(given)
    except Exception:
        return _Shown(given)


_names_are_data = _NamesAreData()


class _Sound(logging.Logger):
    """A logger whose callers go on whatever the application's handlers and filters raise."""

    def handle(self, record: logging.LogRecord) -> None:
        try:
            super().handle(record)
        except KeyboardInterrupt:  # the user's own
            raise
        except BaseException:  # reported as handlers of the standard library report their own
            logging.Handler().handleError(record)


def logger(name: str) -> logging.Logger:
    r"""Return a logger of ours: texts and errors that it is given end no line and steer no terminal.

    >>> record = logging.makeLogRecord({"msg": "%s of %d", "args": ("a\nb", 2)})
    >>> logger("eventperf.doctest").filter(record), record.getMessage()
    (True, 'a\\nb of 2')
    """
    found = logging.getLogger(name)
    found.addFilter(_names_are_data)  # the same one once
    if type(found) is logging.Logger:  # else of a class that the application has chosen for all
        found.__class__ = _Sound
    return found


class _NotOurs(logging.Filter):
    """Let records of a library pass unless a call of ours led to them."""

    def __init__(self, library: str) -> None:
        super().__init__()
        self._own = ("logging", library, __name__)

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the nearest caller outside of the library and of logging is another's."""
        frame = sys._getframe(1)
        while frame.f_back is not None:
            module = str(frame.f_globals.get("__name__", ""))
            if not any(module == name or module.startswith(f"{name}.") for name in self._own):
                return not module.startswith("eventperf.")
            frame = frame.f_back
        return True


def hush(library: str) -> None:
    """Keep what ``library`` says of our calls out of the log.

    The parser of SQL warns with statements as they stand, and with what users typed into them. We report
    ourselves what it could not read, without values. What the application asks it stays in its log.
    """
    found = logging.getLogger(library)
    if not any(isinstance(f, _NotOurs) for f in found.filters):
        found.addFilter(_NotOurs(library))
