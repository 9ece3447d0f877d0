"""The root of every error this library raises, and those that all rooms share."""

from __future__ import annotations

from collections.abc import Iterable


class EventPerfError(Exception):
    """Root of all errors of eventperf; catch it to catch them all."""


class ConfigurationError(EventPerfError, ValueError):
    """An argument, option or URL that cannot work, found before anything was done.

    The text names the argument, what was given and what is allowed.

    Attributes:
        argument: Name of the argument or option.
        given: The value that was refused (never a secret).
        allowed: What would have been accepted, in words.

    >>> raise ConfigurationError("ttl", -1, "a positive duration such as 30 or '5m'")
    Traceback (most recent call last):
    ...
    eventperf._core.errors.ConfigurationError: ttl: got -1; allowed: a positive duration such as 30 or '5m'
    """

    def __init__(self, argument: str, given: object, allowed: str | Iterable[object]) -> None:
        self.argument = argument
        self.given = given
        self.allowed: str = allowed if isinstance(allowed, str) else ", ".join(str(a) for a in allowed)
        super().__init__(f"{argument}: got {_shown(given)}; allowed: {self.allowed}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self)._rebuild, (self.args, self.__dict__.copy())

    @classmethod
    def _rebuild(cls, args: tuple[object, ...], facts: dict[str, object]) -> ConfigurationError:
        error = cls.__new__(cls)
        error.args = args
        error.__dict__.update(facts)
        return error


def _shown(given: object) -> str:
    """Return ``given`` as an error's text may hold it: whatever its ``repr`` does, and however long it is."""
    try:
        text = repr(given)
    except Exception as error:
        return f"<{type(given).__name__} without a repr: {type(error).__name__}>"
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}... ({len(text):,} characters)"


_MOST_SHOWN = 1_000


class UnknownScheme(ConfigurationError):
    """A URL whose scheme no backend of that room answers to."""


class MissingExtra(EventPerfError, ImportError):
    """An optional dependency that is not installed; the text is the cure.

    Attributes:
        needed_by: The feature that asked for it.
        package: The module that could not be imported.
        extra: The extra of eventperf that brings it.
    """

    def __init__(self, needed_by: str, package: str, extra: str) -> None:
        self.needed_by = needed_by
        self.package = package
        self.extra = extra
        super().__init__(f'{needed_by} needs {package}. Install it with: pip install "eventperf[{extra}]"')

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.needed_by, self.package, self.extra)


class BackendUnavailable(EventPerfError):
    """A server that should answer does not; rooms derive their own leaf from this one."""


class StoreUnavailable(BackendUnavailable):
    """The store behind a cache or a queue does not answer; both rooms raise their own kind of it."""
