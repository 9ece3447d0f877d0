"""Which line of an application sends a statement: libraries and template engines are passed over."""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

_LIBRARIES: Final = (
    *("sqlalchemy", "greenlet", "asyncio", "concurrent", "contextlib", "threading", "functools"),
    *("flask_sqlalchemy", "sqlmodel", "aiosqlite", "jinja2", "mako"),
    *("django.db", "django.utils.functional", "django.template", "django.core.paginator"),
)
_INSTALLED: Final = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
_MINE, _INSTALLED_CODE, _NOBODYS = 0, 1, 2
_PARTS: Final = ("_core", "cache", "contrib", "dbopt", "queues", "scaling")  # the cache wraps statements too
_DEEPEST: Final = 400
_STANDARD: Final = tuple(
    os.path.normcase(os.path.realpath(sysconfig.get_path(kind))) + os.sep for kind in ("stdlib", "platstdlib")
)


class Callers:
    """Finds the frames of an application on a stack.

    Code that was installed (``site-packages``) is passed over, whoever wrote it: tracing, tagging and
    template libraries stand between an application and its database. Where a stack has nothing else, the
    nearest installed code is the caller after all.

    Args:
        skip: Names of packages, or folders, whose frames are passed over as well.
        frames: How many frames of the application are told.
        own: Names of packages that are the application, also where it was installed itself.
    """

    def __init__(self, skip: Iterable[str] = (), frames: int = 1, own: Iterable[str] = ()) -> None:
        self._skip = tuple(skip)
        self._frames = frames
        self._own = _found(own)
        self._places = _places(self._skip)
        self._kinds: dict[str, int] = {}

    def find(self, frame: Any) -> Any:
        """Return ``((file, line), ...)``, the nearest frame first."""
        kinds, wanted = self._kinds, self._frames
        greenlet: Any = None
        out: tuple[Any, ...] = ()
        installed: Any = None
        depth = 0
        while frame is not None and depth < _DEEPEST:
            depth += 1
            # File names are hashed once in their life, code objects each time.
            name = frame.f_code.co_filename
            kind = kinds.get(name)
            if kind is None:
                kind = kinds[name] = self._kind(name)
            if kind == _MINE:
                out += ((name, frame.f_lineno),)
                if len(out) >= wanted:
                    return out
            elif kind == _INSTALLED_CODE and installed is None:
                installed = ((name, frame.f_lineno),)
            frame = frame.f_back
            if frame is None and "greenlet" in sys.modules:
                # SQLAlchemy's asyncio runs the driver in a greenlet: its caller is in the parent.
                greenlet = (greenlet or sys.modules["greenlet"].getcurrent()).parent
                frame = greenlet.gr_frame if greenlet is not None else None
        return out or installed or (("unknown", 0),)

    def _kind(self, name: str) -> int:
        if name.startswith("<"):
            return _NOBODYS
        whole = _normal(name)
        if whole.startswith(self._places):
            return _NOBODYS
        if any(part in whole for part in _INSTALLED):
            return _MINE if self._own and whole.startswith(self._own) else _INSTALLED_CODE
        return _NOBODYS if whole.startswith(_STANDARD) else _MINE


def shown(caller: Any) -> str:
    """Return ``file:line``, or several of them, the nearest first."""
    if isinstance(caller, str):
        return caller
    return " < ".join(f"{name}:{line}" for name, line in caller)


def _normal(name: str) -> str:
    return os.path.normcase(os.path.abspath(name))


def _places(skip: Iterable[str]) -> tuple[str, ...]:
    """Return where the files of libraries lie, whose frames are nobody's code.

    Real places, not parts of names: an application may live in a folder called eventperf or sqlalchemy.
    """
    loaded = (n for n in _LIBRARIES if n.partition(".")[0] in sys.modules)  # finding one would import it
    here = Path(__file__).resolve().parents[2]
    mine = (str(here / part) for part in _PARTS)
    return _found((*mine, *loaded, *skip))


def _found(names: Iterable[str]) -> tuple[str, ...]:
    """Return the files and folders of packages; a name with a separator is a folder or a file itself."""
    found = []
    for name in names:
        if os.sep in name:
            found.append(name if name.endswith(".py") else name.rstrip(os.sep) + os.sep)
            continue
        place = getattr(sys.modules.get(name), "__file__", None)
        if place is None:
            with suppress(ImportError, ValueError, AttributeError):
                spec = importlib.util.find_spec(name)
                place = spec.origin if spec is not None else None
        if place is not None:
            path = Path(place)
            found.append(str(path.parent) + os.sep if path.name == "__init__.py" else str(path))
    return tuple(_normal(f) + os.sep if f.endswith(os.sep) else _normal(f) for f in found)
