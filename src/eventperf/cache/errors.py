"""Errors of the cache room."""

from __future__ import annotations

from eventperf._core import errors
from eventperf._core.errors import EventPerfError

__all__ = [
    "CacheError",
    "CounterOverflow",
    "JournalMissing",
    "LoadTimeout",
    "LockTimeout",
    "NotCacheable",
    "SerializationError",
    "StoreUnavailable",
    "UnstableKey",
    "ValueMutated",
    "ValueTooLarge",
]


class CacheError(EventPerfError):
    """Root of the errors of :mod:`eventperf.cache`."""


class StoreUnavailable(CacheError, errors.StoreUnavailable):
    """The second tier did not answer, and nothing else could.

    Attributes:
        url: The server, without its password.
        reason: What the driver said.
        silent: No answer at all, as opposed to an answer that refuses.
        permanent: Refused, and it will be each time: a right that the user lacks, an unknown command.
    """

    def __init__(self, url: str, reason: str, silent: bool = False, permanent: bool = False) -> None:
        self.url = url
        self.reason = reason
        self.silent = silent
        self.permanent = permanent
        cure = "check that the server is up and reachable"
        if permanent:
            cure = "give the user the right to this command, or do without what needs it"
        super().__init__(f"{url} is not available ({reason}); {cure}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.url, self.reason, self.silent, self.permanent)


class LoadTimeout(CacheError, TimeoutError):
    """A loader took longer than its ``hard_timeout`` and there was no stale value to serve.

    Attributes:
        key: The key that was being loaded.
        after_s: How long the caller waited, in seconds.
    """

    def __init__(self, key: str, after_s: float) -> None:
        self.key = key
        self.after_s = after_s
        super().__init__(f"loading {key!r} took longer than {after_s:g} s; it goes on in the background")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.key, self.after_s)


class LockTimeout(CacheError, TimeoutError):
    """Somebody else held a lock for as long as its caller would wait.

    Attributes:
        name: The lock.
        after_s: How long the caller waited, in seconds.
    """

    def __init__(self, name: str, after_s: float) -> None:
        self.name = name
        self.after_s = after_s
        super().__init__(f"lock {name!r} was not free within {after_s:g} s; wait= says for how long to wait")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.name, self.after_s)


class NotCacheable(CacheError, TypeError):
    """A result that belongs to one caller: a generator, an open file or stream, a session.

    Attributes:
        type_name: What it is.
        key: Where it was to be kept; the function, when that makes nothing else.
        why: Why it cannot be shared, and what to return in its place.
    """

    def __init__(self, type_name: str, key: str, why: str) -> None:
        self.type_name = type_name
        self.key = key
        self.why = why
        super().__init__(f"cannot cache a {type_name} under {key!r}: {why}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.type_name, self.key, self.why)


class SerializationError(CacheError, TypeError):
    """A value that the serializer cannot keep without losing its type.

    Attributes:
        key: Where it was to be stored; empty when unknown.
        type_name: The type that has no encoding.
    """

    def __init__(self, type_name: str, key: str = "") -> None:
        self.type_name = type_name
        self.key = key
        at = f" under {key!r}" if key else ""
        super().__init__(
            f"cannot store a {type_name}{at}: return plain data, a dataclass or a known type, "
            "or choose serializer=PickleSerializer(secret=...)"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.type_name, self.key)


class ValueTooLarge(SerializationError):
    """A value with more bytes, or more objects, than the second tier is to take.

    Attributes:
        size: Its bytes before compression.
        limit: ``CacheOptions.max_value_bytes``.
        objects: How many objects may be in so many bytes, where there are more; else ``None``.
    """

    def __init__(self, type_name: str, size: int, limit: int, objects: int | None = None) -> None:
        super().__init__(type_name)
        self.size: int = size
        self.limit: int = limit
        self.objects: int | None = objects
        cure = "cache parts of it, or raise CacheOptions(max_value_bytes=...) in all processes that read it"
        over = f"is over the limit of {limit} (max_value_bytes)"
        if objects is not None:
            over = f"holds more than the {objects:,} objects that max_value_bytes={limit} allows"
        Exception.__init__(self, f"a {type_name} of {size} bytes {over}: {cure}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.type_name, self.size, self.limit, self.objects)


class CounterOverflow(CacheError, OverflowError):
    """An addition that would leave the whole numbers of 64 bits; the counter stays as it was.

    Attributes:
        name: The counter.
        amount: What was to be added.
    """

    def __init__(self, name: str, amount: int) -> None:
        self.name = name
        self.amount = amount
        super().__init__(
            f"counter {name!r} cannot add {amount}: it holds whole numbers from -2**63 to 2**63 - 1; "
            "count in larger units, or begin anew under another name"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.name, self.amount)


class UnstableKey(CacheError, TypeError):
    """An argument that has no encoding that is the same in every process.

    Attributes:
        function: The cached function.
        argument: The parameter's name.
    """

    def __init__(self, function: str, argument: str, type_name: str, cure: str = "key=") -> None:
        self.function = function
        self.argument = argument
        self.type_name = type_name
        self.cure = cure
        super().__init__(
            f"{function}: argument {argument!r} is a {type_name}, which has no stable text to make a cache "
            f"key of; name the parts that matter with {cure}"
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.function, self.argument, self.type_name, self.cure)


class ValueMutated(CacheError, RuntimeError):
    """Somebody changed an object that process memory holds (seen with ``isolate="check"``).

    Attributes:
        key: The key of the object.
        taken_at: Where it was taken from the cache before, ``file:line``, the last ones.
        noticed_at: Where the change was noticed.
    """

    def __init__(self, key: str, taken_at: tuple[str, ...], noticed_at: str) -> None:
        self.key = key
        self.taken_at = taken_at
        self.noticed_at = noticed_at
        super().__init__(
            f"the cached value of {key!r} was changed; it had been taken at {', '.join(taken_at)} "
            f'(noticed at {noticed_at}); change a copy, or choose isolate="copy"'
        )

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.key, self.taken_at, self.noticed_at)


class JournalMissing(CacheError):
    """The database has no change journal, or its reader may not see it.

    Attributes:
        url: The database, without its password.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        super().__init__(f"{url} has no change journal: make it with eventperf cache journal URL --apply")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.url,)
