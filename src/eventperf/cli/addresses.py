"""Where a command gets an address from: a command line is read by every user of the machine (``ps``).

Wherever a URL stands it may also be ``env:NAME``, ``file:PATH``, or ``module:attribute``.
"""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from pathlib import Path
from typing import Any, Final

from eventperf._core.errors import ConfigurationError

OPTIONS: Final = ("url", "database", "what_if", "ddl", "cache", "redis", "log")
ATTRIBUTE: Final = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_MOST: Final = 65_536


def resolve(args: argparse.Namespace) -> None:
    """Replace what the options of ``args`` say of an address by the address."""
    for name in OPTIONS:
        value = getattr(args, name, None)
        if isinstance(value, str):
            setattr(args, name, address(value, name, attributes=name != "log"))
        elif isinstance(value, list):
            setattr(args, name, [address(one, name) for one in value])


def address(text: str, argument: str, *, attributes: bool = True) -> str:
    """Return the address that ``text`` is or leads to; it is never shown.

    Args:
        argument: Its name in messages.
        attributes: Whether it may be an attribute of a module.

    Raises:
        ConfigurationError: It leads nowhere.
    """
    kind, _, rest = text.partition(":")
    if kind == "env":
        found = os.environ.get(rest, "").strip()
        if not found:
            raise ConfigurationError(argument, text, "env:NAME of an environment variable that is set")
        return found if argument == "log" else _sound(found, argument, text)
    if kind == "file":
        found = _first_line(Path(rest.removeprefix("//")), argument, text)
        return found if argument == "log" else _sound(found, argument, text)
    if attributes and ATTRIBUTE.fullmatch(text):
        return _attribute(text, argument)
    return text


def _sound(found: str, argument: str, text: str) -> str:
    """Refuse what is no address here, where it is not shown: it may be a password by itself."""
    if "://" not in found and not ATTRIBUTE.fullmatch(found):
        kind = text.partition(":")[0]
        raise ConfigurationError(
            argument, text, f"{kind}: of an address such as redis://host/0; it holds none"
        )
    return found


def _first_line(path: Path, argument: str, text: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read(_MOST).split()
    except (OSError, UnicodeError) as error:
        why = f"file:PATH of a file that can be read ({type(error).__name__})"
        raise ConfigurationError(argument, text, why) from error
    if len(lines) != 1:
        raise ConfigurationError(argument, text, "file:PATH of a file with one address and nothing else")
    return lines[0]


def _attribute(text: str, argument: str) -> str:
    module, _, names = text.partition(":")
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: Any = importlib.import_module(module)
        for name in names.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError) as error:
        allowed = f"a URL, env:NAME, file:PATH, or module:attribute with a URL ({error})"
        raise ConfigurationError(argument, text, allowed) from error
    found = getattr(found, "url", found)  # an SQLAlchemy engine
    whole = getattr(found, "render_as_string", None)
    if whole is not None:
        return str(whole(hide_password=False))
    if not isinstance(found, str):
        what = f"{names} in {module} being a URL, not a {type(found).__name__}"
        raise ConfigurationError(argument, text, what)
    return found
