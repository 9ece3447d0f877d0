"""Keys: text that is the same in every process, and that no two different things share."""

from __future__ import annotations

from .arguments import Unstable, encode
from .identity import Identity
from .patterns import escape, glob
from .space import FOREIGN, MAX_KEY, Reserved, Space, fit, fit_tag, is_odd, quote_part
from .templates import Template

__all__ = [
    "FOREIGN", "MAX_KEY", "Identity", "Reserved", "Space", "Template", "Unstable", "encode", "escape", "fit",
    "fit_tag", "glob", "is_odd", "quote_part",
]  # fmt: skip
