"""The edges of the room: what is scaled, what is measured, what decides, who is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from .model import Alert, Observation, Recommendation, Sample, TargetState


class ReplicaTarget(Protocol):
    """Something with a number of replicas.

    ``name`` is shown to people. Calls come from one thread at a time and must end by themselves (time-outs
    belong to the target).
    """

    @property
    def name(self) -> str:
        """How people know it, for example ``deployment/web``."""
        ...

    def read(self) -> TargetState:
        """Return the state now, never one remembered from an own write.

        Raises:
            ScalingError: It could not be read.
        """
        ...

    def scale(self, replicas: int, /, *, reason: str = "") -> None:
        """Ask for ``replicas``, a whole number from 0; asking again for the same number changes nothing.

        Raises:
            TargetConflict: Somebody else changed it since the last :meth:`read`; nothing was written.
            ScalingError: It could not be changed, or it is not known whether it was.
        """
        ...


class MetricSource(Protocol):
    """Something that measures."""

    def read(self) -> Mapping[str, Sample]:
        """Return samples by metric name; what is missing is a :class:`Sample` with ``error``.

        What it raises counts as an error of each metric it was asked for; it never ends the loop.
        """
        ...


class Policy(Protocol):
    """A pure decision: equal observations give equal recommendations, without clock, randomness or I/O."""

    def decide(self, observation: Observation, /) -> Recommendation:
        """Return what this policy wants now."""
        ...


class AlertSink(Protocol):
    """Someone to tell; what it raises is logged and dropped."""

    def __call__(self, alert: Alert, /) -> object:
        """Take one alert or recovery notice."""
        ...


class HasBacklog(Protocol):
    """The shape of a queue as this room sees it: :meth:`backlog` returns an object with ``depth``."""

    def backlog(self) -> object:
        """Return the present backlog."""
        ...


class StateStore(Protocol):
    """A few kilobytes by name that outlive the process: what a :class:`LearnedState` is kept in.

    Calls come from several threads. A :meth:`save` replaces what was there under its name as a whole, and
    leaves other names alone.
    """

    def load(self, name: str, /) -> bytes | None:
        """Return what was saved last under ``name``, or ``None``.

        Raises:
            BackendUnavailable: No answer.
        """
        ...

    def save(self, name: str, data: bytes, /) -> None:
        """Keep ``data`` under ``name``.

        Raises:
            BackendUnavailable: No answer; it may have been kept.
        """
        ...

    def close(self) -> None:
        """Let go of connections that were opened for this."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """What the store holds.

    Attributes:
        holder: Identity of the leader; empty when it was released.
        duration_s: How long followers wait after the last change they saw.
        transitions: How often leadership moved.
        version: The store's version of this record; empty for one that is not stored yet.
    """

    holder: str
    duration_s: float
    transitions: int = 0
    version: str = ""


class LeaseConflict(Exception):
    """Another candidate wrote first."""


class LeaseStore(Protocol):
    """One record with compare-and-set; among concurrent writers of one version exactly one wins."""

    def read(self) -> Lease | None:
        """Return the record, or None when there is none.

        Raises:
            BackendUnavailable: No answer.
        """
        ...

    def write(self, lease: Lease, /) -> Lease:
        """Store ``lease`` if the record still has ``lease.version`` (empty: does not exist).

        Raises:
            LeaseConflict: Somebody else wrote first.
            BackendUnavailable: No answer; the write may have happened.
        """
        ...
