"""What names, labels and values must look like, in the words of Kubernetes' own validation. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

_LABEL: Final = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = rf"{_LABEL}(\.{_LABEL})*"
_DNS_1035: Final = "[a-z]([-a-z0-9]*[a-z0-9])?"
_PART: Final = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]"
_VALUE: Final = f"({_PART})?"
_CONFIG_KEY: Final = "[-._a-zA-Z0-9]+"
_ANNOTATION_BYTES: Final = 1 << 18
_ENDS: Final = " start and end with an alphanumeric character "


class Cause(NamedTuple):
    """One thing that is wrong: where, which kind of wrong, and how a person is told."""

    field: str
    reason: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"

    @property
    def row(self) -> dict[str, str]:
        """The cause as a Status lists it."""
        return {"reason": self.reason, "message": self.message, "field": self.field}


def invalid(field: str, value: Any, why: str) -> Cause:
    """Return that a value is not one of those the field may have."""
    return Cause(field, "FieldValueInvalid", f"Invalid value: {_shown(value)}: {why}")


def required(field: str, why: str = "") -> Cause:
    """Return that a field must be there."""
    return Cause(field, "FieldValueRequired", "Required value" + (f": {why}" if why else ""))


def forbidden(field: str, why: str) -> Cause:
    """Return that a field must not be there, or not change."""
    return Cause(field, "FieldValueForbidden", f"Forbidden: {why}")


def duplicate(field: str, value: Any) -> Cause:
    """Return that a value stands twice where it may stand once."""
    return Cause(field, "FieldValueDuplicate", f"Duplicate value: {_shown(value)}")


def unsupported(field: str, value: Any, known: tuple[str, ...]) -> Cause:
    """Return that a value is none of those there are."""
    listed = ", ".join(f'"{k}"' for k in known)
    text = f"Unsupported value: {_shown(value)}: supported values: {listed}"
    return Cause(field, "FieldValueNotSupported", text)


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return '"' + value[:200].encode("unicode_escape").decode().replace('"', '\\"') + '"'
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, dict):
        return "{" + ",".join(f"{_shown(k)}:{_shown(v)}" for k, v in list(value.items())[:20]) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_shown(v) for v in value[:20]) + "]"
    return "null" if value is None else str(value)[:200]


def dns_label(field: str, value: str) -> Iterator[Cause]:
    """Find what keeps ``value`` from being an RFC 1123 label.

    >>> [str(cause)[:66] for cause in dns_label("metadata.name", "Bad")]
    ['metadata.name: Invalid value: "Bad": a lowercase RFC 1123 label mu']
    """
    text = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must"
    yield from _written(field, value, 63, _LABEL, text + _ENDS, "my-name")


def subdomain(field: str, value: str) -> Iterator[Cause]:
    """Find what keeps ``value`` from being an RFC 1123 subdomain."""
    text = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.',"
    yield from _written(field, value, 253, _SUBDOMAIN, f"{text} and must{_ENDS}", "example.com")


def dns_1035(field: str, value: str) -> Iterator[Cause]:
    """Find what keeps ``value`` from being an RFC 1035 label, as a Service's name is one."""
    text = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an"
    text += " alphabetic character, and end with an alphanumeric character "
    yield from _written(field, value, 63, _DNS_1035, text, "my-name")


def path_part(field: str, value: str) -> Iterator[Cause]:
    """Find what keeps ``value`` from being a step of a path, as names of RBAC kinds are."""
    if value in (".", ".."):
        yield invalid(field, value, f"may not be '{value}'")
    for sign in "/%":
        if sign in value:
            yield invalid(field, value, f"may not contain '{sign}'")


def qualified(field: str, value: str) -> Iterator[Cause]:
    """Find what keeps ``value`` from being the key of a label or annotation."""
    prefix, slash, name = value.rpartition("/")
    if slash:
        if not prefix:
            yield invalid(field, value, "prefix part must be non-empty")
        elif "/" in prefix:
            yield invalid(field, value, "a qualified name must consist of a name and an optional prefix")
        elif not re.fullmatch(_SUBDOMAIN, prefix):
            yield invalid(field, value, "prefix part must be a lowercase RFC 1123 subdomain")
    if not name:
        yield invalid(field, value, "name part must be non-empty")
    elif len(name) > 63:
        yield invalid(field, value, "name part must be no more than 63 characters")
    elif not re.fullmatch(_PART, name):
        text = "name part must consist of alphanumeric characters, '-', '_' or '.', and must"
        yield invalid(field, value, f"{text}{_ENDS}{_example(_PART, 'MyName')}")


def label_value(field: str, value: str) -> Iterator[Cause]:
    """Find what keeps ``value`` from being a label's."""
    text = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.',"
    yield from _written(field, value, 63, _VALUE, f"{text} and must{_ENDS}", "MyValue")


def labels(field: str, found: dict[str, str]) -> Iterator[Cause]:
    """Find what is wrong with a map of labels."""
    for key, value in found.items():
        yield from qualified(field, key)
        yield from label_value(field, value)


def notes(field: str, found: dict[str, str]) -> Iterator[Cause]:
    """Find what is wrong with a map of annotations; values may be anything, up to 256 KiB in all."""
    for key in found:
        yield from qualified(field, key.lower())
    if sum(len(k) + len(v.encode("utf-8", "replace")) for k, v in found.items()) > _ANNOTATION_BYTES:
        yield Cause(field, "FieldValueTooLong", f"Too long: may not be more than {_ANNOTATION_BYTES} bytes")


def config_keys(field: str, found: dict[str, str]) -> Iterator[Cause]:
    """Find what is wrong with the keys of a ConfigMap or Secret."""
    for key in found:
        at = f"{field}[{key}]"
        if len(key) > 253:
            yield invalid(at, key, "must be no more than 253 characters")
        if not re.fullmatch(_CONFIG_KEY, key):
            text = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'"
            yield invalid(at, key, f"{text} {_example(_CONFIG_KEY, 'key.name')}")
        elif key in (".", "..") or key.startswith(".."):
            yield invalid(at, key, "must not be '.', or start with '..'")


def _written(field: str, value: str, most: int, pattern: str, why: str, example: str) -> Iterator[Cause]:
    """Find what keeps ``value`` from being at most ``most`` characters of ``pattern``."""
    if len(value) > most:
        yield invalid(field, value, f"must be no more than {most} characters")
    if not re.fullmatch(pattern, value):
        yield invalid(field, value, why + _example(pattern, example))


def _example(pattern: str, example: str) -> str:
    return f"(e.g. '{example}', regex used for validation is '{pattern}')"
