"""From a body to an object that may be stored: read, checked, filled in; or the refusal with its causes."""

from __future__ import annotations

from eventperf._core.errors import MissingExtra

from . import structural
from .bodies import doubled
from .checks import refusal, wrong_with
from .crds import established, wrong_with_definition
from .http import Request
from .immutable import changed_wrongly
from .resources import DEFINITIONS, Resource
from .scale import SCALE
from .schemas import Schemas
from .shapes import Misfit, read_as
from .store import ApiError, Object
from .syntax import Cause, invalid


def named_alike(obj: Object, part: str, expected: str) -> None:
    """Refuse a body that is about another object than the path.

    Raises:
        ApiError: 400.
    """
    given = (obj.get("metadata") or {}).get(part) or expected
    if given == expected or (part == "namespace" and not expected):
        return  # of a kind without namespaces it is taken off
    if part == "name":
        text = f"the name of the object ({given}) does not match the name on the URL ({expected})"
        raise ApiError(400, "BadRequest", text)
    text = "the namespace of the provided object does not match the namespace sent on the request"
    raise ApiError(400, "BadRequest", text)


class Admission:
    """The checks that a body passes before it is stored.

    Args:
        schemas: Check bodies against the published schemas besides.
    """

    def __init__(self, schemas: Schemas | None) -> None:
        self._schemas = schemas
        self._strict = schemas

    def read(self, resource: Resource, obj: Object, sub: str = "", *, is_patch: bool = False) -> Object:
        """Return a body as the server reads it.

        Raises:
            ApiError: It cannot be read: 400, or 422 where a patch led to it.
        """
        about = SCALE if sub == "scale" else resource
        typed = {"kind": about.kind, "apiVersion": about.api_version, **obj}
        kind, version = typed["kind"] or about.kind, typed["apiVersion"] or about.api_version
        if (kind, version) != (about.kind, about.api_version):
            expected = f"{about.api_version}, Kind={about.kind}"
            text = f"{str(version)[:80]}, Kind={str(kind)[:80]} does not match the expected {expected}"
            raise ApiError(400, "BadRequest", f"the object provided is unrecognized: {text}")
        try:
            return read_as(about.kind, about.api_version, {**obj, "kind": kind, "apiVersion": version})
        except Misfit as error:
            if is_patch:
                wrong = invalid("patch", obj, str(error))
                details = {
                    "causes": [{"reason": wrong.reason, "message": wrong.message, "field": wrong.field}]
                }
                raise ApiError(422, "Invalid", f' "" is invalid: {wrong}', details=details) from error
            text = f'{about.kind} in version "{about.version}" cannot be handled as a {about.kind}: {error}'
            raise ApiError(400, "BadRequest", text) from error

    def admit(
        self, resource: Resource, old: Object | None, new: Object, is_strict: bool, request: Request
    ) -> Object:
        """Return what is stored of an object that could be read.

        Raises:
            ApiError: 400 for fields that a strict client must not send, 422 for what is invalid.
        """
        causes = wrong_with(resource, new)
        unknown: list[str] = []
        if resource.schema is not None:
            causes += structural.wrong(resource.schema, new)
            new, unknown = structural.filled(resource.schema, new)
        elif is_strict:
            unknown = self._fields().unknown(new)
        if is_strict:
            _refuse_unknown(unknown, request)
        if resource is DEFINITIONS:
            causes += wrong_with_definition(new)
        if old is not None:
            causes += _other_object(old, new) or changed_wrongly(resource, old, new)
        if causes:
            raise refusal(resource, new, causes)
        wrong = self._schemas.errors(new) if self._schemas is not None else None
        if wrong is not None:
            raise ApiError(422, "Invalid", f"{resource.kind} is invalid: {wrong}")
        return established(new) if resource is DEFINITIONS else new

    def _fields(self) -> Schemas:
        if self._strict is None:
            try:
                self._strict = Schemas()
            except MissingExtra as error:
                raise ApiError(500, "InternalError", f"fieldValidation=Strict: {error}") from error
        return self._strict


def _refuse_unknown(unknown: list[str], request: Request) -> None:
    wrong = [f'unknown field "{name}"' for name in unknown]
    wrong += [f'duplicate field "{name}"' for name in doubled(request.body)]
    if wrong:
        raise ApiError(400, "BadRequest", f"strict decoding error: {', '.join(wrong)}")


def _other_object(old: Object, new: Object) -> list[Cause]:
    given, held = (new.get("metadata") or {}).get("uid"), old["metadata"]["uid"]
    return [invalid("metadata.uid", given, "field is immutable")] if given and given != held else []
