"""Manifests as people write them: files of them, and parts that are what they should be or are named."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from eventperf._core.errors import ConfigurationError
from eventperf._core.extras import require
from eventperf.scaling.backends.kubernetes.names import quantity


def objects(path: str) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of a YAML or JSON file, those of lists one by one.

    Raises:
        ConfigurationError: It cannot be read.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
        if path.endswith(".json"):
            found = [json.loads(text)]
        else:
            yaml = require("yaml", extra="scaling", needed_by="eventperf scale import")
            found = list(yaml.safe_load_all(text))
    except (OSError, ValueError) as error:
        raise ConfigurationError("FILE", path, f"a manifest to read ({error})") from None
    except Exception as error:  # yaml's own
        raise ConfigurationError("FILE", path, f"YAML ({str(error)[:200]})") from None
    for document in found:
        for obj in document if isinstance(document, list) else [document]:
            items = obj.get("items") if isinstance(obj, Mapping) else None
            for item in items if isinstance(items, list) else [obj]:
                if isinstance(item, Mapping):
                    yield item


def table(value: object, path: str) -> Mapping[str, Any]:
    """Return a mapping; nothing is an empty one."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ConfigurationError(path, value, "a mapping")
    return value


def rows(value: object, path: str) -> list[Mapping[str, Any]]:
    """Return a list of mappings; nothing is an empty one."""
    if value is None:
        return []
    if not isinstance(value, list):
        raise ConfigurationError(path, value, "a list")
    return [table(part or None, f"{path}[{number}]") for number, part in enumerate(value)]


def whole(value: object, path: str) -> int:
    """Return a whole number from 0, also one in quotes."""
    try:
        number = int(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else -1
    except ValueError:
        number = -1
    if number < 0:
        raise ConfigurationError(path, "nothing" if value is None else value, "a whole number")
    return number


def amount(value: object, path: str) -> float:
    """Return a quantity above 0, such as 30, ``500m`` or ``1Ki``."""
    try:
        number = quantity(str(value)) if isinstance(value, (int, float, str)) else math.nan
    except ValueError:
        number = math.nan
    if isinstance(value, bool) or not 0 < number < math.inf:
        given = "nothing" if value in (None, "") else value
        raise ConfigurationError(path, given, "a quantity above 0, such as 30 or 500m")
    return number
