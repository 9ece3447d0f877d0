"""Lua scripts as package data: read once, named by their digest."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple


class Script(NamedTuple):
    """A script's text and the digest under which servers keep it."""

    text: str
    sha: str


@cache
def read_script(package: str | None, *names: str) -> Script:
    """Return the ``lua/*.lua`` files ``names`` beside ``package``, one after the other, as one script."""
    assert package is not None  # a module's own __package__
    folder = files(package).joinpath("lua")
    text = "".join(folder.joinpath(f"{name}.lua").read_text(encoding="utf-8") for name in names)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
