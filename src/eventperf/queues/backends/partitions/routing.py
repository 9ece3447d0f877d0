"""Where a job lives: a pure function of its id. No I/O.

A job's *home* is a number below 2**18. The id of a job that must live beside others ends in a mark that
names it (``Xk3...~Qa_``); every other id has its own, by a checksum. A partition is the home modulo how many
there are, so ids stay what they are however many that is. What must live together has the same home:

=============================  ================================================================
jobs                           home
=============================  ================================================================
of one unique key              that of the key
of one fairness key            that of the key; without limits the wishes below come first
that wait for others           that of these others
of one chain or batch          that of its first job
with an id of the caller's     that of the id
=============================  ================================================================

Keys and ids with the same part in square brackets have the same home: ``[acme]report`` and ``[acme]-17``,
or ``[<id of another job>]later``.
"""

from __future__ import annotations

import re
from binascii import crc_hqx
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final
from zlib import crc32

from eventperf._core.errors import ConfigurationError
from eventperf.queues.job import NewJob

MAX_PARTITIONS: Final = 128
"""More would cost workers more to keep an eye on than they spread."""

_HOMES: Final = 1 << 18
_DIGITS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_VALUES: Final = {digit: value for value, digit in enumerate(_DIGITS)}
_MARK: Final = re.compile(r"~([A-Za-z0-9_-])([A-Za-z0-9_-])([A-Za-z0-9_-])$")
_TAG: Final = re.compile(r"\[([^\[\]]+)\]")
_SLOTS: Final = 16_384

_CURE: Final = (
    "things that live in one partition: give them the same part in square brackets, such as "
    "unique_key='[acme]report', id='[acme]-17', fairness_key='acme'"
)


def home(text: str) -> int:
    """Return the home of an id or a key: its mark, else that of its part in brackets, if it has one.

    >>> home("[acme]report") == home("acme") != home("report")
    True
    """
    mark = _MARK.search(text) if "~" in text else None
    if mark is not None:
        first, second, third = mark.groups()
        return _VALUES[first] << 12 | _VALUES[second] << 6 | _VALUES[third]
    tag = _TAG.search(text) if "[" in text else None
    return crc32(text.encode()) & (_HOMES - 1) if tag is None else home(tag[1])


def marked(job_id: str, at: int) -> str:
    """Return ``job_id`` with the mark of home ``at``.

    >>> home(marked("abc", 77)) == home(marked(marked("abc", 5), 77)) == 77
    True
    """
    return f"{_MARK.sub('', job_id)}~{_DIGITS[at >> 12]}{_DIGITS[at >> 6 & 63]}{_DIGITS[at & 63]}"


@dataclass(frozen=True, slots=True)
class Routing:
    """The partitions of a namespace.

    Attributes:
        limited: Whether there are limits, so that all jobs of a fairness key must be counted in one place.
    """

    namespace: str
    count: int
    limited: bool = False

    def of(self, job_id: str) -> int:
        """Return the partition of a job."""
        return home(job_id) % self.count

    def spaces(self) -> tuple[str, ...]:
        """Return the namespace of each partition."""
        return _spaces(self.namespace, self.count)

    def place(self, jobs: Sequence[NewJob], *, together: bool = False, beside: str | None = None) -> None:
        """Give jobs ids that say where they must live; one that fits stays as it is.

        Args:
            together: All of them in one place.
            beside: In that of this job.

        Raises:
            ConfigurationError: Two wishes that contradict each other; nothing is changed then.
        """
        bound = [] if beside is None else [home(beside)]
        if together and jobs:
            wishes = {at for new in jobs for at in self._wishes(new)}
            at = _one((*bound, *wishes), jobs) if bound or wishes else home(jobs[0].record.id)
            _settle(jobs, [at] * len(jobs))
        else:
            _settle(jobs, [self._home(new, bound) for new in jobs])

    def _home(self, new: NewJob, bound: Iterable[int]) -> int:
        wishes = {*bound, *self._wishes(new)}
        if wishes:
            return _one(wishes, [new])
        return home(new.record.key) if new.record.key and not new.named else home(new.record.id)

    def _wishes(self, new: NewJob) -> Iterable[int]:
        """Say where a job must live, for each reason it has."""
        record = new.record
        if new.named:
            yield home(record.id)
        if record.unique_key is not None:
            yield home(record.unique_key)
        if record.key and self.limited:
            yield home(record.key)
        if record.flow:
            yield from map(home, record.flow["after"])


def _one(wishes: Iterable[int], jobs: Sequence[NewJob]) -> int:
    found = set(wishes)
    if len(found) > 1:
        record = jobs[0].record
        given: dict[str, object] = {"unique_key": record.unique_key, "fairness_key": record.key or None}
        given |= {"id": record.id if jobs[0].named else None}
        given |= {"after": list(record.flow["after"])[:3] if record.flow else None}
        said = {name: value for name, value in given.items() if value is not None} or f"{len(jobs)} jobs"
        raise ConfigurationError("partitions", said, _CURE)
    return found.pop()


def _settle(jobs: Sequence[NewJob], homes: Sequence[int]) -> None:
    for new, at in zip(jobs, homes, strict=True):
        if home(new.record.id) != at:
            new.record.id = marked(new.record.id, at)


@lru_cache(maxsize=64)
def _spaces(namespace: str, count: int) -> tuple[str, ...]:
    """Return names whose hash slots lie in the middle of equal parts of all slots.

    Masters have ranges of slots, so the partitions of ``count`` are spread over them as evenly as can be.
    """
    width = _SLOTS / count
    found: list[str] = []
    for n in range(count):
        middle, suffix = (n + 0.5) * width, 0
        while abs(crc_hqx(f"eventperf:{namespace}|{n}.{suffix}".encode(), 0) % _SLOTS - middle) > width / 8:
            suffix += 1
        found.append(f"{namespace}|{n}.{suffix}")
    return tuple(found)
