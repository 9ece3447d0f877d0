"""What the query and the options of a request ask for, or the refusal of what no server understands."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Final

from .http import Request
from .resources import Resource
from .store import ApiError, Object

_LONGEST_S: Final = 86_400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """The options of one request, read."""

    manager: str
    is_dry: bool
    is_strict: bool
    limit: int
    timeout_s: float
    since: str
    uid: str = ""
    version: str = ""

    @classmethod
    def of(cls, request: Request) -> Asked:
        """Read the options of a request.

        Raises:
            ApiError: 400, an option has no value of its kind.
        """
        query = request.query
        given = _options(request) if request.method == "DELETE" else {}
        dry, strict = query.get("dryRun", ""), query.get("fieldValidation", "")
        if dry not in ("", "All"):
            raise _unsupported("dryRun", dry, '"All"')
        if strict not in ("", "Ignore", "Warn", "Strict"):
            raise _unsupported("fieldValidation", strict, '"", "Ignore", "Strict", "Warn"')
        since = query.get("resourceVersion", "")
        if since:
            _whole("resourceVersion", since)
        before = given.get("preconditions")
        before = before if isinstance(before, dict) else {}
        return cls(
            # as it says, or as its program is called
            manager=query.get("fieldManager") or request.headers.get("user-agent", "").partition("/")[0],
            is_dry=dry == "All" or given.get("dryRun") == ["All"],
            is_strict=strict == "Strict",
            limit=max(0, _whole("limit", query.get("limit") or "0")),
            timeout_s=min(
                _LONGEST_S, max(0, _whole("timeoutSeconds", query.get("timeoutSeconds") or "1800"))
            ),
            since=since,
            uid=str(before.get("uid") or ""),
            version=str(before.get("resourceVersion") or ""),
        )

    def check_preconditions(self, resource: Resource, obj: Object) -> None:
        """Refuse to delete another object than the one that was meant.

        Raises:
            ApiError: 409.
        """
        meta = obj["metadata"]
        for name, given, held in (("UID", self.uid, meta["uid"]),
                                  ("ResourceVersion", self.version, meta["resourceVersion"])):  # fmt: skip
            if given and given != held:
                text = f"Precondition failed: {name} in precondition: {given}, {name} in object meta: {held}"
                what = f'Operation cannot be fulfilled on {resource.qualified} "{meta["name"]}"'
                raise ApiError(409, "Conflict", f"{what}: {text}")


def _options(request: Request) -> Object:
    """Return the options that a DELETE has as its body; kubectl sends them so."""
    if not request.body or "protobuf" in request.headers.get("content-type", ""):
        return {}
    try:
        found = json.loads(request.body)
    except (ValueError, RecursionError) as error:
        raise ApiError(400, "BadRequest", f"the options of the request are no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ApiError(400, "BadRequest", "the options of the request are no object")
    if found.get("dryRun") not in (None, [], ["All"]):
        raise _unsupported("dryRun", str(found["dryRun"])[:80], '"All"')
    return found


def _whole(name: str, text: str) -> int:
    try:
        return int(text if len(text) < 20 and text.isascii() else "")
    except ValueError:
        why = f'strconv.ParseInt: parsing "{text[:80]}": invalid syntax'
        raise ApiError(400, "BadRequest", f'unable to convert query parameter "{name}": {why}') from None


def _unsupported(name: str, given: str, known: str) -> ApiError:
    text = f'{name}: Unsupported value: "{given[:80]}": supported values: {known}'
    return ApiError(422, "Invalid", f'Options.meta.k8s.io "" is invalid: {text}')
