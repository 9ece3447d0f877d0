"""Optional dependencies: imported when a backend is built, with the cure in the error."""

from __future__ import annotations

import importlib
from types import ModuleType

from .errors import MissingExtra


def require(module: str, *, extra: str, needed_by: str) -> ModuleType:
    """Import ``module`` or say which extra brings it.

    Args:
        module: Dotted module name, for example ``"redis.asyncio"``.
        extra: Name of the extra of eventperf that installs it.
        needed_by: The feature that asks, for the error text.

    Raises:
        MissingExtra: The package is not installed. A package that is installed but fails in its
            own import raises its own error, unchanged.

    >>> require("json", extra="cache", needed_by="RedisStore").__name__
    'json'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name is None or error.name.partition(".")[0] != package:
            raise
        raise MissingExtra(needed_by, package, extra) from error
