"""Label and field selectors as the API server reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

Matcher = Callable[[Mapping[str, Any]], bool]

_SET = re.compile(r"^(\S+)\s+(in|notin)\s*\(([^)]*)\)$")
_SPLIT = re.compile(r",(?![^(]*\))")


def label_matcher(text: str) -> Matcher | None:
    """Return a test on objects for a label selector, or None when it selects everything.

    Equality, inequality, set and existence requirements, joined by commas.

    >>> match = label_matcher("app=web,tier notin (test, dev),!legacy")
    >>> match({"metadata": {"labels": {"app": "web", "tier": "prod"}}})
    True

    Raises:
        ValueError: Not a selector.
    """
    parts = [_requirement(part.strip()) for part in _SPLIT.split(text) if part.strip()]
    if not parts:
        return None

    def match(obj: Mapping[str, Any]) -> bool:
        labels = obj.get("metadata", {}).get("labels") or {}
        return all(part(labels) for part in parts)

    return match


def _requirement(part: str) -> Callable[[Mapping[str, str]], bool]:
    found = _SET.match(part)
    if found:
        key, operator, values = found.groups()
        wanted = {v.strip() for v in values.split(",")}
        if operator == "in":
            return lambda labels: labels.get(key) in wanted
        return lambda labels: labels.get(key) not in wanted
    for sign, equal in (("!=", False), ("==", True), ("=", True)):
        if sign in part:
            key, _, value = part.partition(sign)
            key, value = key.strip(), value.strip()
            if equal:
                return lambda labels: labels.get(key) == value
            return lambda labels: labels.get(key) != value
    if " " in part:
        raise ValueError(f"unable to parse requirement: {part!r}")
    if part.startswith("!"):
        absent = part[1:].strip()
        return lambda labels: absent not in labels
    return lambda labels: part in labels


def field_matcher(text: str) -> Matcher | None:
    """Return a test on objects for a field selector (``metadata.name=web``), or None for all."""
    parts: list[tuple[list[str], str, bool]] = []
    for part in filter(None, (p.strip() for p in text.split(","))):
        sign = "!=" if "!=" in part else "==" if "==" in part else "="
        if sign not in part:
            raise ValueError(f"invalid field selector: {part!r}")
        path, _, value = part.partition(sign)
        parts.append((path.strip().split("."), value.strip(), sign != "!="))
    if not parts:
        return None

    def match(obj: Mapping[str, Any]) -> bool:
        return all((_at(obj, path) == value) is equal for path, value, equal in parts)

    return match


def _at(obj: Any, path: list[str]) -> str:
    for step in path:
        obj = obj.get(step) if isinstance(obj, Mapping) else None
    return "" if obj is None else str(obj)


def selector_text(selector: Mapping[str, Any] | None) -> str:
    """Return a LabelSelector object as text, as the Scale view shows it.

    >>> selector_text({"matchLabels": {"app": "web"}})
    'app=web'
    """
    if not isinstance(selector, Mapping):
        return ""
    chosen = selector.get("matchLabels")
    parts = [f"{k}={v}" for k, v in sorted(chosen.items())] if isinstance(chosen, Mapping) else []
    for rule in selector.get("matchExpressions") or ():
        key, values = rule.get("key", ""), ",".join(rule.get("values") or ())
        parts.append(
            {"In": f"{key} in ({values})", "NotIn": f"{key} notin ({values})", "Exists": key}.get(
                rule.get("operator"), f"!{key}"
            )
        )
    return ",".join(parts)
