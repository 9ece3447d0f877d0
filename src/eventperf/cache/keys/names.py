"""Names of classes and functions inside keys, the same in every process that runs the same code.

Where a name does not tell one thing from another (a class made inside a function, a lambda, a closure), what
stands behind it is told apart: by its code and what it encloses where that has a text, else by a number that
this process alone understands, marked with ``#`` so that nothing of the kind reaches a shared store.
"""

from __future__ import annotations

import itertools
import os
import re
import sys
import weakref
from typing import Any, Final

OURS: Final = "#"
"""Marks what only this process can tell apart."""

_PLAIN: Final = re.compile(r"[^%:,(){}\[\]=*?\\\s#\x00-\x1f\x7f\ud800-\udfff]*")
_OTHER: Final = re.compile(r"[%:,(){}\[\]=*?\\\s#\x00-\x1f\x7f\ud800-\udfff]")

_MAINS: Final = ("__main__", "__mp_main__")  # the second: in a child of multiprocessing
_numbers = itertools.count(1)
_numbered: weakref.WeakKeyDictionary[type, int] = weakref.WeakKeyDictionary()


def quote(text: str) -> str:
    """Return ``text`` without what separates, groups, matches or cannot be sent: that is percent-encoded."""
    return text if _PLAIN.fullmatch(text) else _OTHER.sub(percent, text)


def percent(found: re.Match[str]) -> str:
    """Return a character as ``%2A`` or ``%u2003``."""
    code = ord(found[0])
    return f"%{code:02X}" if code < 256 else f"%u{code:04X}"


def number() -> int:
    """Return a number that nothing else in this process has."""
    return next(_numbers)


def is_script(module: str) -> bool:
    """Tell whether ``module`` is a program started by its file: another one may have the same name."""
    return (
        module in ("__main__", "__mp_main__") and getattr(sys.modules.get(module), "__spec__", None) is None
    )


def module_name(module: str) -> str:
    """Return the name by which other programs would import ``module``.

    >>> module_name("app.views")
    'app.views'
    """
    if module not in _MAINS:
        return module
    main = sys.modules.get(module)
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name:
        return str(spec.name)
    file = getattr(main, "__file__", None)
    return os.path.splitext(os.path.basename(file))[0] if file else "__main__"


def path_of(thing: Any) -> str:
    """Return module and qualified name of a function or class."""
    return f"{quote(module_name(thing.__module__ or '?'))}:{quote(thing.__qualname__)}"


def class_text(kind: type) -> str:
    """Return the text of a class: its name, and a number of this process when the name does not lead to it.

    >>> import decimal
    >>> class_text(decimal.Decimal)
    '<decimal:Decimal>'
    """
    if find(kind.__module__, kind.__qualname__) is kind:
        return f"<{path_of(kind)}>"
    mine = _numbered.get(kind)
    if mine is None:
        mine = _numbered.setdefault(kind, number())
    return f"<{path_of(kind)}{OURS}{mine}>"


def find(module: str, qualname: str) -> Any:
    """Return what a qualified name leads to in a module that is loaded, or ``None``.

    Only what lies there already: asking a lazy module for a name would import others.
    """
    at: Any = sys.modules.get(module)
    for name in qualname.split("."):
        at = getattr(at, "__dict__", {}).get(name)
    return at
