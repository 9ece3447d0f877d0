"""Objects of the user's own program, by name."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from eventperf._core.errors import ConfigurationError
from eventperf._core.urls import redact


def load_object(name: str, argument: str, *, call: bool = True) -> Any:
    """Import ``module:object``; a function or class is called without arguments where ``call`` says so.

    Raises:
        ConfigurationError: There is no such module or object.
    """
    module, colon, attribute = name.partition(":")
    if not colon or not module or not attribute:
        raise ConfigurationError(argument, redact(name), "module:object")
    sys.path.insert(0, str(Path.cwd()))  # as `python -m` does
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(
            argument, redact(name), f"something that can be imported ({error})"
        ) from error
    finally:
        sys.path.remove(str(Path.cwd()))
    return found() if call and callable(found) else found
