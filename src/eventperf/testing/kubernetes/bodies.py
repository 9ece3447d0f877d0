"""From the bytes of a request to an object, or to the refusal that the real server gives."""

from __future__ import annotations

import json
from typing import Any, Final

from eventperf._core.extras import require

from .http import Request
from .protobuf import MEDIA_TYPE, read
from .store import ApiError, Object

_DEEPEST: Final = 200


def media_type(request: Request) -> str:
    """Return the kind of a body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip()


def body_of(request: Request) -> Object:
    """Return the object a request carries.

    Raises:
        ApiError: 400 or 415.
    """
    found = parsed(request)
    if not isinstance(found, dict):
        raise ApiError(400, "BadRequest", "the body of the request is not an object")
    return found


def parsed(request: Request) -> Any:
    """Return the JSON, YAML or protobuf that a request carries.

    Raises:
        ApiError: 400 or 415.
    """
    kind = media_type(request)
    if kind == MEDIA_TYPE:
        try:
            found = read(request.body)
        except ValueError as error:
            raise ApiError(400, "BadRequest", f"the body cannot be read: {error}") from error
        if found is not None:
            return found
    if kind.startswith("application/vnd.kubernetes") or kind == "application/cbor":
        text = f"the body of the request was in an unknown format: {kind}; this server reads JSON and YAML"
        raise ApiError(415, "UnsupportedMediaType", text)
    return (
        _yaml(request.body)
        if kind in ("application/yaml", "application/apply-patch+yaml")
        else _json(request.body)
    )


def _json(body: bytes) -> Any:
    try:
        found = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "BadRequest", f"the body of the request is no JSON: {error}") from error
    return refuse_deep(found)


def _no_number(text: str) -> None:
    raise ValueError(f"invalid character in {text}")


def _yaml(body: bytes) -> Any:
    try:
        return refuse_deep(json.loads(body, parse_constant=_no_number))
    except (ValueError, RecursionError):
        pass
    loader = require("yaml", extra="kubernetes", needed_by="a body of YAML")
    try:
        if any(isinstance(token, loader.AliasToken) for token in loader.scan(body)):
            raise ApiError(400, "BadRequest", "error decoding YAML: aliases are not read here")
        # as plain JSON: dates and the like become text, and what no JSON has is refused
        found = json.loads(json.dumps(loader.safe_load(body), default=str))
    except (loader.YAMLError, ValueError, TypeError, RecursionError) as error:
        raise ApiError(400, "BadRequest", f"error decoding YAML: {error}") from error
    return refuse_deep(found)


def refuse_deep(value: Any) -> Any:
    """Return ``value``, unless it is nested too deeply to be walked.

    Raises:
        ApiError: 400.
    """
    level = [value]
    for _ in range(_DEEPEST):
        level = [
            inner
            for each in level
            if isinstance(each, (dict, list))
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return value
    raise ApiError(400, "BadRequest", f"the body of the request exceeded max depth ({_DEEPEST})")


def doubled(body: bytes) -> list[str]:
    """Return the names that an object of a JSON body has twice."""
    found: list[str] = []

    def pairs(given: list[tuple[str, Any]]) -> dict[str, Any]:
        seen: set[str] = set()
        for name, _ in given:
            if name in seen:
                found.append(name)
            seen.add(name)
        return dict(given)

    if body.startswith(b"{"):
        json.loads(body, object_pairs_hook=pairs)
    return found
