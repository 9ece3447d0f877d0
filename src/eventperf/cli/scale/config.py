"""The configuration of ``eventperf scale run --config``: read, checked, and built into objects.

Nothing here does I/O beyond reading the file and the secrets it points to; what is wrong is named by its key.
"""

from __future__ import annotations

import importlib
import inspect
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eventperf._core.errors import ConfigurationError
from eventperf.scaling import (
    AlertSink,
    AutoScaler,
    Behavior,
    Calendar,
    DecisionLog,
    Fleet,
    HttpAccess,
    LeaderElector,
    LearnedState,
    LogAlerts,
    MaxOf,
    Metrics,
    Policy,
    RatePolicy,
    Rules,
    ScalingDecision,
    SlackAlerts,
    SqlDecisionLog,
    Tolerance,
    WebhookAlerts,
)

from .checks import filled, unseen
from .objects import load_object
from .section import Section, named, unknown_key
from .state import open_state

_POLICIES = {
    "target-tracking": "TargetTracking",
    "thresholds": "ThresholdPolicy",
    "latency": "LatencyPolicy",
    "predictive": "PredictivePolicy",
    "calendar": "CalendarPolicy",
}
_METRICS = ("cpu", "memory", "rps", "backlog")
_TABLES = ("scaler", "kubernetes", "log", "alerts", "calendar", "defaults", "targets", "leader")
_TARGET = (
    "name", "namespace", "events", "metrics", "policy", "behavior", "min_replicas", "max_replicas", "dry_run",
    "max_age",
)  # fmt: skip


@dataclass(slots=True)
class Plan:
    """Everything a run needs, built and not yet started."""

    fleet: Fleet[ScalingDecision]
    interval_s: float
    elector: LeaderElector | None
    lease: str
    dry_run: bool
    stdout: bool
    learned: LearnedState | None = None
    closing: list[Callable[[], object]] = field(default_factory=list)
    unseen: list[str] = field(default_factory=list)
    """What policies need and can never see, in words."""

    @property
    def scalers(self) -> tuple[AutoScaler, ...]:
        return tuple(s for s in self.fleet.scalers if isinstance(s, AutoScaler))

    def close(self) -> None:
        """Close what was opened, the newest first."""
        for close in reversed(self.closing):
            close()
        self.closing.clear()


def read_file(path: str) -> Mapping[str, Any]:
    """Read a TOML file, or a JSON file of the same shape.

    Raises:
        ConfigurationError: It cannot be read, or is neither.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError("--config", path, f"a file to read ({error})") from None
    load = json.loads if path.endswith(".json") else _toml()
    try:
        data = load(text)
    except ValueError as error:
        raise ConfigurationError("--config", path, f"a TOML file ({error})") from None
    if not isinstance(data, dict):
        raise ConfigurationError("--config", path, "a table at the top")
    return data


def _toml() -> Callable[[str], Any]:
    for name in ("tomllib", "tomli"):  # the standard library has it from Python 3.11 on
        try:
            return importlib.import_module(name).loads  # type: ignore[no-any-return]
        except ModuleNotFoundError:
            continue
    raise ConfigurationError(
        "--config", "TOML on Python 3.10", 'tomli ("pip install tomli"), or the same file as .json'
    )


def build(data: Mapping[str, Any], *, dry_run: bool | None = None, state: str | None = None) -> Plan:
    """Check ``data`` and build the fleet it describes; nothing is opened.

    Args:
        dry_run: Overrules the file, as ``state`` does.

    Raises:
        ConfigurationError: The first thing that is wrong, by its key.
    """
    return _Builder(Section(data, ""), dry_run, state).build()


class _Builder:
    def __init__(self, top: Section, dry_run: bool | None, state: str | None) -> None:
        from eventperf.scaling import KubernetesState
        from eventperf.scaling.backends.kubernetes.api import KubernetesApi

        self.closing: list[Callable[[], object]] = []
        self.unseen: list[str] = []
        self.top = top
        top.only(*_TABLES)
        own = top.section("scaler")
        self.interval_s: float = own.duration("interval", 15.0)
        self.namespace: str | None = own.text("namespace", None)
        wish = own.flag("dry_run", False)
        self.dry_run = wish if dry_run is None else dry_run
        self.workers: int = own.whole("workers", 4)
        kept = state or own.text("state", None)
        own.end()
        cluster = top.section("kubernetes")
        with named("kubernetes"):
            self.api = KubernetesApi(
                kubeconfig=cluster.text("kubeconfig", None), context=cluster.text("context", None),
                timeout=cluster.duration("timeout", 5.0),
                connect_timeout=cluster.duration("connect_timeout", 2.0), pool_size=max(8, self.workers + 2),
            )  # fmt: skip
            self.state = KubernetesState(
                self.api,
                cluster_wide=cluster.flag("cluster_wide", False),
                metrics_age_s=cluster.duration("metrics_age", 10.0),
            )
        cluster.end()
        self.closing += [self.api.close, self.state.close]
        self.learned: LearnedState | None = None
        if kept is not None:
            argument = "--state" if state else "scaler.state"
            self.learned = open_state(kept, argument=argument, api=self.api, namespace=self.namespace)
            self.closing.append(self.learned.close)

    def build(self) -> Plan:
        top = self.top
        log, stdout = self._log(top.section("log"))
        alerts = [self._alert(s) for s in top.sections("alerts")]
        self.calendar = self._calendar(top.section("calendar"))
        defaults = top.section("defaults")
        defaults.only(*_TARGET)
        shared = defaults.rest()
        scalers = [self._scaler(section, shared, log, alerts) for section in top.sections("targets")]
        if not scalers:
            raise ConfigurationError("targets", "none", "one or more tables [[targets]]")
        names = [s.target.name for s in scalers]
        for number, name in enumerate(names):
            if name in names[:number]:
                raise ConfigurationError(f"targets[{number}].name", name, "each target only once")
        elector, lease = self._leader(top.section("leader"))
        top.end()
        with named("scaler"):
            fleet = Fleet(scalers, leader=elector, workers=self.workers)
        if self.learned is not None and elector is not None:
            self.learned.guard = lambda: elector.is_leader or not elector.leader
        return Plan(
            fleet, self.interval_s, elector, lease, self.dry_run, stdout, self.learned, self.closing,
            self.unseen,
        )  # fmt: skip

    # -- parts ---------------------------------------------------------------------------------------

    def _log(self, section: Section) -> tuple[DecisionLog, bool]:
        file, database = section.text("file", None), section.secret("database")
        steady, stdout = section.flag("steady", False), section.flag("stdout", True)
        if file and database:
            raise ConfigurationError(section.at("file"), "a file and a database", "one of them")
        with named("log"):
            log = SqlDecisionLog(database, steady=steady) if database else DecisionLog(file, steady=steady)
        section.end()
        self.closing.append(log.close)
        return log, stdout

    def _alert(self, section: Section) -> AlertSink:
        kind = section.text("type")
        sink: AlertSink
        if kind == "log":
            sink = LogAlerts(section.text("logger", "eventperf.scaling.alerts"))
        elif kind in ("webhook", "slack"):
            sink = self._webhook(section, kind)
        elif kind == "callable":
            name = section.text("function")
            sink = load_object(name, section.at("function"), call=False)
            if not callable(sink):
                raise ConfigurationError(section.at("function"), name, "a function that takes an Alert")
        else:
            raise ConfigurationError(section.at("type"), kind, ("webhook", "slack", "log", "callable"))
        section.end()
        return sink

    def _webhook(self, section: Section, kind: str) -> WebhookAlerts:
        url = section.secret("url")
        if url is None:
            raise ConfigurationError(section.at("url"), "nothing", "url, url_file or url_env")
        bearer = section.secret("bearer")
        make = SlackAlerts if kind == "slack" else WebhookAlerts
        with named(section.at("")[:-1]):
            sink = make(
                url, headers={"Authorization": f"Bearer {bearer}"} if bearer else None,
                timeout=section.duration("timeout", 5.0), every=section.duration("every", 2.0),
                quiet=section.duration("quiet", 300.0, zero=True),
            )  # fmt: skip
        self.closing.append(sink.close)
        return sink

    def _calendar(self, section: Section) -> Calendar | None:
        file, function = section.text("file", None), section.text("function", None)
        refresh_s = section.duration("refresh", 60.0)
        section.end()
        if file and function:
            raise ConfigurationError(section.at("file"), "a file and a function", "one of them")
        if file:
            try:
                return Calendar.from_file(file, refresh_s=refresh_s)
            except ConfigurationError as error:
                raise ConfigurationError(section.at("file"), file, f"a calendar to read ({error})") from None
        if function:
            source = load_object(function, section.at("function"), call=False)
            if not callable(source):
                raise ConfigurationError(
                    section.at("function"), function, "a function that returns CalendarEvents"
                )
            return Calendar(source, refresh_s=refresh_s)
        return None

    def _leader(self, section: Section) -> tuple[LeaderElector | None, str]:
        from eventperf.scaling import KubernetesLease

        enabled = section.flag("enabled", True)
        name = section.text("name", "eventperf-scaler")
        namespace = section.text("namespace", self.namespace)
        with named("leader"):
            store = KubernetesLease(name, namespace=namespace, api=self.api)
            elector = LeaderElector(
                store, identity=section.text("identity", None), lease=section.duration("lease", 15.0),
                renew_deadline=section.duration("renew_deadline", None),
                renew_every=section.duration("renew_every", None), retry=section.duration("retry", 1.0),
            )  # fmt: skip
        section.end()
        return (elector if enabled else None), name

    # -- targets -------------------------------------------------------------------------------------

    def _scaler(
        self, section: Section, shared: Mapping[str, Any], log: DecisionLog, alerts: list[AlertSink]
    ) -> AutoScaler:
        from eventperf.scaling import KubernetesTarget

        path = section.at("")[:-1]
        section.only(*_TARGET)
        section = Section({**shared, **section.rest()}, path)
        name = section.text("name")
        with named(path):
            target = KubernetesTarget(
                name, namespace=section.text("namespace", self.namespace), state=self.state,
                events=section.flag("events", True),
            )  # fmt: skip
        metrics = self._metrics(section.section("metrics"), target)
        policy = self._policy(section.raw("policy", "latency"), section.at("policy"))
        self.unseen += unseen(policy, metrics.names, path, has_calendar=self.calendar is not None)
        behavior = _behavior(section.section("behavior"))
        with named(path):
            scaler = AutoScaler(
                target, metrics, policy, min_replicas=section.whole("min_replicas", 1),
                max_replicas=section.whole("max_replicas"), behavior=behavior, alerts=alerts, log=log,
                dry_run=self.dry_run or section.flag("dry_run", False),
                max_age=section.duration("max_age", 120.0), calendar=self.calendar, state=self.learned,
            )  # fmt: skip
        section.end()
        return scaler

    def _metrics(self, section: Section, target: Any) -> Metrics:
        from eventperf.scaling import KubernetesMetrics

        pods: Any = None
        sources: dict[str, Any] = {}
        for name in _METRICS:
            given = section.raw(name, None)
            if given is None:
                continue
            if given == "kubernetes":
                if name not in ("cpu", "memory"):
                    raise ConfigurationError(
                        section.at(name), given, "a table with prometheus, or module:function"
                    )
                pods = pods or KubernetesMetrics(target)
                sources[name] = pods
            elif isinstance(given, dict) and "container" in given:
                part = Section(given, section.at(name))
                with named(part.at("")[:-1]):
                    sources[name] = KubernetesMetrics(
                        target, resources=[name], container=part.text("container")
                    )
                part.end()
            elif isinstance(given, str):
                sources[name] = load_object(given, section.at(name), call=False)
            else:
                sources[name] = self._prometheus(Section(given, section.at(name)), name, target)
        section.end()
        if not sources:
            allowed = (
                'one or more, such as cpu = "kubernetes", rps = { prometheus = "http://...", query = "..." }'
            )
            raise ConfigurationError(section.at("")[:-1], "no metric", allowed)
        return Metrics(**sources)

    def _prometheus(self, section: Section, metric: str, target: Any) -> Any:
        from eventperf.scaling import PrometheusMetrics

        query = str(section.text("query"))
        query = filled(
            query, section.at("query"), namespace=target.object.namespace, name=target.object.reference.name
        )
        org = section.text("org", None)
        with named(section.at("")[:-1]):
            source = PrometheusMetrics(
                section.text("prometheus"), query, name=metric,
                headers={"X-Scope-OrgID": org} if org else {}, access=_access(section),
                timeout=section.duration("timeout", 3.0), max_age=section.duration("max_age", 60.0),
            )  # fmt: skip
        section.end()
        self.closing.append(source.close)
        return source

    def _policy(self, given: object, path: str) -> Policy:
        if isinstance(given, str) and ":" in given:
            policy: Policy = load_object(given, path)
            return policy
        section = Section({"type": given} if isinstance(given, str) else given, path)
        kind = section.text("type")
        if kind == "max-of":
            parts = section.raw("policies")
            section.end()
            if not isinstance(parts, list):
                raise ConfigurationError(section.at("policies"), parts, "a list of policies")
            with named(path):
                return MaxOf(*(self._policy(p, f"{path}.policies[{n}]") for n, p in enumerate(parts)))
        made = _known_policies().get(kind)
        if made is None:
            known = (*_known_policies(), "max-of", "module:object")
            raise ConfigurationError(section.at("type"), kind, known)
        options = section.rest()
        allowed = sorted(set(inspect.signature(made).parameters))
        for key in options:
            if key not in allowed:
                raise unknown_key(f"{path}.{key}", key, allowed)
        with named(path):
            policy = made(**options)
            return policy


def _access(section: Section) -> HttpAccess | None:
    """Read the keys that let one in; files stay files, so that what is rotated counts."""
    options: dict[str, Any] = {
        name: section.text(name, None) for name in ("ca_file", "cert_file", "key_file")
    }
    for name in ("bearer", "username", "password"):
        if section.has(f"{name}_file") and not (section.has(name) or section.has(f"{name}_env")):
            options[f"{name}_file"] = section.text(f"{name}_file")
        else:
            options[name] = section.secret(name)
    if not any(options.values()):
        return None
    access = HttpAccess(**options)
    access.headers(), access.context()  # what cannot be read now is said now
    return access


def _known_policies() -> dict[str, Any]:
    from eventperf import scaling

    found = {name: getattr(scaling, made, None) for name, made in _POLICIES.items()}
    return {name: made for name, made in found.items() if made is not None}


def _behavior(section: Section) -> Behavior:
    path = section.at("")[:-1]
    options: dict[str, Any] = {}
    tolerance = section.raw("tolerance", None)
    if isinstance(tolerance, (int, float)) and not isinstance(tolerance, bool):
        options["tolerance"] = Tolerance(up=float(tolerance), down=float(tolerance))
    elif tolerance is not None:
        part = Section(tolerance, section.at("tolerance"))
        up, down = part.raw("up", 0.1), part.raw("down", 0.1)
        part.end()
        options["tolerance"] = Tolerance(up=up, down=down)
    for direction in ("up", "down"):
        if section.has(direction):
            options[direction] = _rules(section.section(direction))
    section.raw("up", None), section.raw("down", None)
    section.end()
    with named(path):
        return Behavior(**options)


def _rules(section: Section) -> Rules:
    path = section.at("")[:-1]
    policies = []
    for part in section.sections("policies"):
        part.only("type", "value", "period")
        with named(part.at("")[:-1]):
            policies.append(
                RatePolicy(
                    type=part.text("type"), value=part.whole("value"), period=part.duration("period", 15.0)
                )
            )
        part.end()
    with named(path):
        rules = Rules(
            window=section.duration("window", 0.0, zero=True), policies=tuple(policies),
            select=section.text("select", "max"), cooldown=section.duration("cooldown", 0.0, zero=True),
        )  # fmt: skip
    section.end()
    return rules
