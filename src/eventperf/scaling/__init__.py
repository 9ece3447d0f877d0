"""Scaling: read metrics, decide, scale workloads or worker pools, log and alert.

Policies and :class:`Behavior` are pure; :class:`AutoScaler` is the loop around them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .access import HttpAccess
    from .alerts.episodes import LogAlerts
    from .alerts.webhook import SlackAlerts, WebhookAlerts
    from .backends.kubernetes import (
        ConfigMapState,
        KubernetesLease,
        KubernetesMetrics,
        KubernetesState,
        KubernetesTarget,
    )
    from .backends.memory import CallableTarget, SimulatedTarget
    from .backends.prometheus import PrometheusMetrics
    from .backends.redis_state import RedisState
    from .backends.workers import CommandWorker, WorkerPoolTarget
    from .behavior import Behavior, RatePolicy, Rules
    from .calendar import Calendar
    from .deciding import decide
    from .errors import ScalingError, TargetConflict, TargetUnavailable
    from .fleet import Fleet, FleetTick
    from .judging.backtest import BacktestReport, PodModel, Trace, backtest
    from .judging.score import Score
    from .judging.shadow import Outcome, ShadowScore
    from .judging.why import why_not
    from .leader import LeaderChanged, LeaderElector
    from .manager import AutoScaler
    from .model import (
        Alert,
        CalendarEvent,
        Change,
        Observation,
        PodSample,
        Recommendation,
        Sample,
        ScalingDecision,
        TargetState,
        Tolerance,
    )
    from .policies.calendar import CalendarPolicy
    from .policies.latency import LatencyPolicy
    from .policies.max_of import MaxOf
    from .policies.seasonal import PredictivePolicy
    from .policies.thresholds import ThresholdPolicy
    from .policies.tracking import TargetTracking
    from .protocols import AlertSink, MetricSource, Policy, ReplicaTarget, StateStore
    from .records.log import DecisionLog
    from .records.sql import SqlDecisionLog
    from .records.sql_state import SqlState
    from .records.state import FileState, LearnedState
    from .routing.balancer import Balancer, EndpointStats
    from .routing.router import ReplicaRouter
    from .routing.router_async import AsyncReplicaRouter
    from .sources import CallableMetrics, Metrics, ProcessMetrics, QueueMetrics

__all__ = [
    "Alert",
    "AlertSink",
    "AsyncReplicaRouter",
    "AutoScaler",
    "BacktestReport",
    "Balancer",
    "Behavior",
    "Calendar",
    "CalendarEvent",
    "CalendarPolicy",
    "CallableMetrics",
    "CallableTarget",
    "Change",
    "CommandWorker",
    "ConfigMapState",
    "DecisionLog",
    "EndpointStats",
    "FileState",
    "Fleet",
    "FleetTick",
    "HttpAccess",
    "KubernetesLease",
    "KubernetesMetrics",
    "KubernetesState",
    "KubernetesTarget",
    "LatencyPolicy",
    "LeaderChanged",
    "LeaderElector",
    "LearnedState",
    "LogAlerts",
    "MaxOf",
    "MetricSource",
    "Metrics",
    "Observation",
    "Outcome",
    "PodModel",
    "PodSample",
    "Policy",
    "PredictivePolicy",
    "ProcessMetrics",
    "PrometheusMetrics",
    "QueueMetrics",
    "RatePolicy",
    "Recommendation",
    "RedisState",
    "ReplicaRouter",
    "ReplicaTarget",
    "Rules",
    "Sample",
    "ScalingDecision",
    "ScalingError",
    "Score",
    "ShadowScore",
    "SimulatedTarget",
    "SlackAlerts",
    "SqlDecisionLog",
    "SqlState",
    "StateStore",
    "TargetConflict",
    "TargetState",
    "TargetTracking",
    "TargetUnavailable",
    "ThresholdPolicy",
    "Tolerance",
    "Trace",
    "WebhookAlerts",
    "WorkerPoolTarget",
    "backtest",
    "decide",
    "why_not",
]

_HOMES = {
    "access": ("HttpAccess",),
    "alerts.episodes": ("LogAlerts",),
    "alerts.webhook": (
        "SlackAlerts",
        "WebhookAlerts",
    ),
    "backends.kubernetes": (
        "ConfigMapState",
        "KubernetesLease",
        "KubernetesMetrics",
        "KubernetesState",
        "KubernetesTarget",
    ),
    "backends.memory": (
        "CallableTarget",
        "SimulatedTarget",
    ),
    "backends.prometheus": ("PrometheusMetrics",),
    "backends.redis_state": ("RedisState",),
    "backends.workers": (
        "CommandWorker",
        "WorkerPoolTarget",
    ),
    "behavior": (
        "Behavior",
        "RatePolicy",
        "Rules",
    ),
    "calendar": ("Calendar",),
    "errors": (
        "ScalingError",
        "TargetConflict",
        "TargetUnavailable",
    ),
    "fleet": ("Fleet", "FleetTick"),
    "judging.backtest": (
        "BacktestReport",
        "PodModel",
        "Trace",
        "backtest",
    ),
    "judging.score": ("Score",),
    "judging.shadow": (
        "Outcome",
        "ShadowScore",
    ),
    "judging.why": ("why_not",),
    "leader": ("LeaderChanged", "LeaderElector"),
    "deciding": ("decide",),
    "manager": ("AutoScaler",),
    "model": (
        "Alert",
        "CalendarEvent",
        "Change",
        "Observation",
        "PodSample",
        "Recommendation",
        "Sample",
        "ScalingDecision",
        "TargetState",
        "Tolerance",
    ),
    "policies.calendar": ("CalendarPolicy",),
    "policies.latency": ("LatencyPolicy",),
    "policies.max_of": ("MaxOf",),
    "policies.seasonal": ("PredictivePolicy",),
    "policies.thresholds": ("ThresholdPolicy",),
    "policies.tracking": ("TargetTracking",),
    "protocols": (
        "AlertSink",
        "MetricSource",
        "Policy",
        "ReplicaTarget",
        "StateStore",
    ),
    "records.log": ("DecisionLog",),
    "records.sql": ("SqlDecisionLog",),
    "records.sql_state": ("SqlState",),
    "records.state": ("FileState", "LearnedState"),
    "routing.balancer": (
        "Balancer",
        "EndpointStats",
    ),
    "routing.router": ("ReplicaRouter",),
    "routing.router_async": ("AsyncReplicaRouter",),
    "sources": (
        "CallableMetrics",
        "Metrics",
        "ProcessMetrics",
        "QueueMetrics",
    ),
}
"""Where each name lives. The door is lazy: who only catches an error pays for nothing else."""


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            from importlib import import_module

            return getattr(import_module(f".{module}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
