"""What the room talks about: samples, observations, recommendations and decisions. Plain data, no I/O.

Longer than other files: a decision holds the others, and goes out as one record and comes back.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Final, TypeVar

from eventperf._core.errors import ConfigurationError
from eventperf._core.objects import read_json
from eventperf._core.texts import one_line

_T = TypeVar("_T")

METRICS = ("cpu", "memory", "rps", "backlog")
"""Names of metrics: ``cpu`` and ``memory`` as a share of what was requested (1.0 is all of it), ``rps`` in
requests per second over all replicas, ``backlog`` in jobs that could run now."""

REPLICAS_MAX: Final = 2**31 - 1
"""More replicas than any API takes."""

ABSURD = 1e12
"""A reading above this is a fault of whoever measures, and counts as missing."""


def real(value: object) -> float | None:
    """Return what is a number in Python (int, Decimal, Fraction, numpy's) as a float, else ``None``.

    >>> from decimal import Decimal
    >>> real(Decimal("300.5")), real(True), real("300")
    (300.5, None, None)
    """
    if type(value) is float:
        return value
    if isinstance(value, (bool, str, bytes)) or not hasattr(value, "__float__"):
        return None
    try:
        return float(value)
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def check_replicas(value: object, argument: str = "replicas") -> int:
    """Return ``value`` if it is a whole number from 0 to 2147483647, the most that Kubernetes takes."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= REPLICAS_MAX:
        raise ConfigurationError(argument, value, f"a whole number from 0 to {REPLICAS_MAX}")
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class PodSample:
    """One pod as a metric source sees it.

    Attributes:
        usage: In whole milli-units (millicores; bytes for memory), ``None`` when its metric is missing.
        request: What it asked for, same unit.
        ready: Whether its readiness counts: false while it starts or fails its probe.
        pending: Not started yet.
        deleting: On its way out, or failed: left out of everything.
    """

    usage: int | None
    request: int | None = None
    ready: bool = True
    pending: bool = False
    deleting: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One metric at one instant.

    Attributes:
        value: The figure over all replicas (mean ratio for cpu and memory, a total for the others), or
            ``None`` when there is none.
        age_s: Seconds since it was measured.
        pods: The single pods behind it, where the source knows them.
        error: Why there is no value, in words.
    """

    value: float | None = None
    age_s: float = 0.0
    pods: tuple[PodSample, ...] | None = None
    error: str | None = None

    def __post_init__(self) -> None:
        if self.value is not None and type(self.value) is not float:
            number = real(self.value)
            if number is None and self.error is None:
                object.__setattr__(self, "error", f"not a number: {type(self.value).__name__}")
            object.__setattr__(self, "value", number)

    def fault(self, max_age_s: float) -> str | None:
        """Return why this sample cannot be trusted, or ``None`` if it can.

        >>> Sample(value=float("nan")).fault(120), Sample(value=0.5, age_s=300).fault(120)
        ('not a number', 'stale: 300 s old, at most 120 s allowed')
        """
        if self.error is not None:
            return self.error
        if self.value is None:
            return "no value"
        if math.isnan(self.value) or math.isinf(self.value):
            return "not a number"
        if self.value < 0:
            return f"negative: {self.value:g}"
        if self.value > ABSURD:
            return f"not plausible: {self.value:g}"
        if not self.age_s <= max_age_s:
            return f"stale: {self.age_s:.0f} s old, at most {max_age_s:.0f} s allowed"
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class TargetState:
    """A target as it is now.

    Attributes:
        replicas: What was asked for (``spec.replicas``).
        ready: How many of them serve; ``starting``: how many have not got there yet.
        frozen: People asked that nothing is changed, up or down, until they take it back.
    """

    replicas: int
    ready: int
    starting: int = 0
    frozen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """A change of replicas that was carried out.

    Attributes:
        at_s: Monotonic seconds.
        delta: Replicas added (or, negative, taken away).
        cause: The metric that drove it, empty for limits and outside changes.
        level: That metric's value at the time.
    """

    at_s: float
    delta: int
    cause: str = ""
    level: float = 0.0


MOST_TEXT = 100
AHEAD_S, SAID_S = 180.0, 900.0
"""Replicas that a calendar asks for are started so long before, and kept so long where no end is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CalendarEvent:
    """Something dated that draws load.

    Attributes:
        at: When, in seconds on the scale of :attr:`Observation.time_s` (the epoch, in a running scaler).
        kind: Events of one kind draw load in the same way, for example ``"registration_open"``.
        expected: How many people it concerns, for example registered ones; ``None`` when that is not known.
        replicas: So many are ready from when it begins ``until`` it ends; nothing is learned from it.
        min_replicas: The same as a floor: what events of its kind bring is learned, and may be more.
        rps: Requests per second that it brings on top of the load, said outright instead of learned.
        until: When ``replicas`` and ``min_replicas`` end; a quarter of an hour after ``at`` if not given.
        known_at: From when the application knows of it; nothing reads it earlier.
        id: To tell it from others.
    """

    at: float
    kind: str
    expected: float | None = None
    known_at: float = -1e18
    id: str = ""
    replicas: int | None = None
    min_replicas: int | None = None
    rps: float | None = None
    until: float | None = None

    def __post_init__(self) -> None:
        for name in ("at", "known_at", "until", "expected", "rps"):
            given = getattr(self, name)
            if type(given) not in (int, float) and (number := real(given)) is not None:
                object.__setattr__(self, name, number)  # a Decimal, as SQL gives sums
        for name in ("at", "known_at", "until"):
            value = getattr(self, name)
            if name == "until" and value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise ConfigurationError(name, value, "seconds, a finite number")
        if not isinstance(self.kind, str) or not self.kind:
            raise ConfigurationError("kind", self.kind, "a word for events that draw load alike")
        for name in ("kind", "id"):  # both are part of every record
            text = getattr(self, name)
            if not isinstance(text, str) or len(text) > MOST_TEXT:
                raise ConfigurationError(name, str(text)[:40], f"a text of at most {MOST_TEXT} characters")
        persons = self.expected
        if persons is not None and (
            isinstance(persons, bool) or not isinstance(persons, (int, float)) or not 0 <= persons < math.inf
        ):
            raise ConfigurationError("expected", persons, "a number from 0, or None")
        for name in ("replicas", "min_replicas"):
            count = getattr(self, name)
            if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 0):
                raise ConfigurationError(name, count, "a whole number from 0, or None")
        rps = self.rps
        if rps is not None and (
            isinstance(rps, bool) or not isinstance(rps, (int, float)) or not 0 <= rps < math.inf
        ):
            raise ConfigurationError("rps", rps, "requests per second from 0, or None")
        if self.until is not None and self.until <= self.at:
            raise ConfigurationError("until", self.until, f"later than at, which is {self.at:g}")

    @property
    def ends(self) -> float:
        """Until when what was said outright holds."""
        return self.at + SAID_S if self.until is None else self.until

    def floor(self, time_s: float) -> int:
        """Return how many replicas this event was said to need at ``time_s``; they are started in time.

        >>> opening = CalendarEvent(at=36_000, kind="opening", min_replicas=40, until=37_800)
        >>> [opening.floor(t) for t in (35_000, 35_900, 37_000, 37_800)]
        [0, 40, 40, 0]
        """
        if not self.at - AHEAD_S <= time_s < self.ends:
            return 0
        return max(self.replicas or 0, self.min_replicas or 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far from its target a ratio may be without a change: HPA's 10 % in each direction."""

    up: float = 0.1
    down: float = 0.1

    def covers(self, ratio: float) -> bool:
        """Tell whether ``ratio`` is close enough to 1."""
        return 1.0 - self.down <= ratio <= 1.0 + self.up


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """Everything a policy may look at; a pure function of it decides.

    Attributes:
        at_s: Monotonic seconds of this tick; all other times are on the same scale.
        samples: Metrics by name; a metric that is configured but failed is present with its error.
        changes: Changes of the last hour, oldest first.
        recommendations: ``(at_s, replicas)`` of recent ticks before stabilisation, oldest first.
        baseline_rps: Usual requests per second of one replica at this hour; ``None`` until it is known.
        max_age_s: Samples older than this count as missing.
        memory: What the policy returned as ``memory`` last time: plain JSON, so that a learning policy is
            still a pure function and its records replay.
        time_s: Wall-clock seconds, for what recurs by the day and for dates; ``at_s`` when not given.
        calendar: Events near this time that are known by now.
        paused: Somebody set the target to 0 though its minimum is more: nothing is asked for until somebody
            scales it up again.
    """

    at_s: float
    state: TargetState
    min_replicas: int
    max_replicas: int
    samples: Mapping[str, Sample] = field(default_factory=dict)
    changes: tuple[Change, ...] = ()
    recommendations: tuple[tuple[float, int], ...] = ()
    tolerance: Tolerance = field(default_factory=Tolerance)
    baseline_rps: float | None = None
    max_age_s: float = 120.0
    memory: Mapping[str, Any] = field(default_factory=dict)
    time_s: float | None = None
    calendar: tuple[CalendarEvent, ...] = ()
    paused: bool = False

    def floor(self) -> tuple[int, str]:
        """Return how many replicas dated events were said to need now, and which event asks for most."""
        time_s = self.at_s if self.time_s is None else self.time_s
        most, name = 0, ""
        for event in self.calendar:
            if event.replicas or event.min_replicas:  # a few of many
                number = event.floor(time_s)
                if number > most:
                    most, name = number, event.id or event.kind
        return most, name

    def faults(self) -> dict[str, str]:
        """Return the metrics that cannot be trusted, with the reason."""
        found = {name: sample.fault(self.max_age_s) for name, sample in self.samples.items()}
        return {name: why for name, why in found.items() if why is not None}

    def value(self, name: str) -> float | None:
        """Return a metric that can be trusted, else ``None``."""
        sample = self.samples.get(name)
        return None if sample is None or sample.fault(self.max_age_s) is not None else sample.value

    def to_dict(self) -> dict[str, Any]:
        """Return plain data that :meth:`from_dict` reads back to an equal observation."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Observation:
        """Read :meth:`to_dict` back, also after a passage through JSON.

        Raises:
            ValueError, KeyError, TypeError, AttributeError, OverflowError: It is something else.
        """
        samples = {name: _sample(s) for name, s in data["samples"].items()}
        return _sound(
            cls(
                **{
                    **data,
                    "state": _sound(TargetState(**data["state"])),
                    "samples": samples,
                    "changes": tuple(_sound(Change(**c)) for c in data["changes"]),
                    "recommendations": tuple((float(t), int(n)) for t, n in data["recommendations"]),
                    "tolerance": _sound(Tolerance(**data["tolerance"])),
                    "calendar": tuple(_sound(CalendarEvent(**e)) for e in data.get("calendar", ())),
                }
            )
        )


def _sample(data: Mapping[str, Any]) -> Sample:
    pods = data["pods"]
    found = None if pods is None else tuple(_sound(PodSample(**p)) for p in pods)
    return _sound(Sample(**{**data, "pods": found}))


_IS: Final[Mapping[str, Callable[[Any], bool]]] = {
    "int": lambda value: type(value) is int and abs(value) < 2**63,
    "float": lambda value: type(value) in (int, float) and abs(value) < 2**63,  # NaN is none
    "str": lambda value: isinstance(value, str),
    "bool": lambda value: isinstance(value, bool),
    "Mapping[str, str]": lambda value: isinstance(value, Mapping),
    "Mapping[str, Any]": lambda value: isinstance(value, Mapping),
}


def _sound(made: _T) -> _T:
    """Return an object whose plain fields are what they are declared as: records can be written by others.

    Raises:
        ValueError: One is not.
    """
    for each in fields(made):  # type: ignore[arg-type]
        kind, _, none = str(each.type).partition(" | ")
        value = getattr(made, each.name)
        if kind in _IS and not _IS[kind](value) and not (none and value is None):
            raise ValueError(f"{each.name} is {value!r:.60}, no {kind}")
    return made


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What a policy wants, before limits.

    Attributes:
        replicas: Wanted; the present number when it wants no change.
        reason: Why, with figures, for people.
        metric: The metric that decided, empty when none did.
        blind: Metrics that could not be trusted, with reasons; while there are any, nothing goes down.
        warnings: What an operator should know, by a stable name.
        memory: Plain JSON that comes back in the next observation; never changed in place.
        paced: The policy bounds its own reversals; the *default* rules of a
            :class:`~eventperf.scaling.Behavior` then give way, rules that were set never do.
        forecast: Seconds ahead, and requests per second that replicas are made ready for; if it foresees.
    """

    replicas: int
    reason: str
    metric: str = ""
    blind: Mapping[str, str] = field(default_factory=dict)
    warnings: Mapping[str, str] = field(default_factory=dict)
    memory: Mapping[str, Any] = field(default_factory=dict)
    paced: bool = False
    forecast: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingDecision:
    """One tick, complete: what was seen, wanted, allowed and done.

    Attributes:
        at: Wall-clock seconds since the epoch, for people.
        before: Replicas asked for when the tick began; ``after``: what the tick asked for.
        wanted: What the policy wanted before limits.
        limits: Each limit that changed the number on its way from ``wanted`` to ``after``, in order, as
            ``(name, replicas after it)``.
        applied: Whether the target was changed; ``dry_run`` decisions never are.
        error: Why the target could not be read or changed.
        forecast: The policy's, see :attr:`Recommendation.forecast`.
    """

    at: float
    target: str
    before: int
    wanted: int
    after: int
    reason: str
    metric: str = ""
    limits: tuple[tuple[str, int], ...] = ()
    blind: Mapping[str, str] = field(default_factory=dict)
    warnings: Mapping[str, str] = field(default_factory=dict)
    memory: Mapping[str, Any] = field(default_factory=dict)
    observation: Observation | None = None
    dry_run: bool = False
    applied: bool = False
    error: str | None = None
    forecast: tuple[float, float] | None = None

    @property
    def action(self) -> str:
        """``"up"``, ``"down"`` or ``"none"``: what was decided, whether or not it was applied."""
        return "up" if self.after > self.before else "down" if self.after < self.before else "none"

    @property
    def binding(self) -> str | None:
        """The last limit that changed the number: without it another number had come out."""
        return self.limits[-1][0] if self.limits else None

    def explain(self) -> str:
        """Return why this number and not another, in a few lines."""
        lines = [f"{self.target}: {self.before} -> {self.after} replicas ({self.action}). {self.reason}"]
        number = self.wanted
        for name, after in self.limits:
            lines.append(f"  {name}: {number} -> {after}")
            number = after
        lines += [f"  blind on {name}: {why}; not scaling down" for name, why in self.blind.items()]
        lines += [f"  {text}" for text in self.warnings.values()]
        if self.error:
            lines.append(f"  not applied: {self.error}")
        elif self.dry_run and self.action != "none":
            lines.append("  dry run: not applied")
        return "\n".join(map(one_line, lines))

    def to_json(self) -> str:
        """Return one line of JSON; :meth:`from_json` reads it back."""
        data = asdict(self)
        if self.forecast is None:
            del data["forecast"]  # releases before it had a name for it read those without
        return json.dumps(data, separators=(",", ":"), sort_keys=True)

    @classmethod
    def from_json(cls, line: str) -> ScalingDecision:
        """Read a line of a decision log.

        Raises:
            ValueError: It is no decision of this version.
        """
        try:
            data = read_json(line)
            if data.get("forecast"):
                data["forecast"] = tuple(map(float, data["forecast"]))
            data["limits"] = tuple((name, n) for name, n in data["limits"])
            if data["observation"] is not None:
                data["observation"] = Observation.from_dict(data["observation"])
            return _sound(cls(**data))
        except (AttributeError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
            raise ValueError(f"no decision: {error}") from error

    def with_outcome(self, *, applied: bool, error: str | None = None) -> ScalingDecision:
        """Return this decision with what became of it."""
        return replace(self, applied=applied, error=error)


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """Something an operator should know.

    Attributes:
        kind: Stable name: ``blind``, ``pinned_at_max``, ``fought_over``, ``scale_failed``,
            ``target_unreadable``, ``memory_not_falling``.
        at: Wall-clock seconds since the epoch.
        recovered: Whether this is the notice that it is over.
    """

    kind: str
    target: str
    text: str
    at: float
    recovered: bool = False

    def __str__(self) -> str:
        state = "recovered" if self.recovered else "alert"
        return one_line(f"{self.target} {state}: {self.kind}: {self.text}")

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, as a webhook sends it."""
        return asdict(self)
