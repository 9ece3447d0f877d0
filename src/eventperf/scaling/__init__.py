"""Scaling: read metrics, decide, scale workloads or worker pools, log and alert.

Policies and :class:`Behavior` are pure; :class:`AutoScaler` is the loop around them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .alerts import Alert, LogAlerts
from .backends.memory import CallableTarget, SimulatedTarget
from .backends.workers import CommandWorker, WorkerPoolTarget
from .backtest import BacktestReport, PodModel, Score, Trace, backtest
from .balancer import Balancer, EndpointStats
from .behavior import Behavior, RatePolicy, Rules
from .calendar import Calendar
from .decisions import Outcome, ShadowScore, why_not
from .errors import ScalingError, TargetConflict, TargetUnavailable
from .fleet import Fleet
from .latency import LatencyPolicy
from .leader import LeaderElector
from .log import DecisionLog
from .manager import AutoScaler, decide
from .model import (
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
from .policy import MaxOf, ThresholdPolicy
from .predictive import CalendarPolicy, PredictivePolicy
from .protocols import AlertSink, MetricSource, Policy, ReplicaTarget
from .sources import CallableMetrics, Metrics, ProcessMetrics, QueueMetrics
from .tracking import TargetTracking

if TYPE_CHECKING:
    from .alerts_webhook import SlackAlerts, WebhookAlerts
    from .backends.kubernetes import KubernetesMetrics, KubernetesTarget
    from .backends.kubernetes_lease import KubernetesLease
    from .backends.kubernetes_state import KubernetesState
    from .backends.prometheus import PrometheusMetrics
    from .backends.replicas import ReplicaRouter
    from .backends.replicas_async import AsyncReplicaRouter
    from .backends.sql import SqlDecisionLog

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
    "DecisionLog",
    "EndpointStats",
    "Fleet",
    "KubernetesLease",
    "KubernetesMetrics",
    "KubernetesState",
    "KubernetesTarget",
    "LatencyPolicy",
    "LeaderElector",
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

_LATE = {
    "AsyncReplicaRouter": "backends.replicas_async",
    "KubernetesLease": "backends.kubernetes_lease",
    "KubernetesMetrics": "backends.kubernetes",
    "KubernetesState": "backends.kubernetes_state",
    "KubernetesTarget": "backends.kubernetes",
    "PrometheusMetrics": "backends.prometheus",
    "ReplicaRouter": "backends.replicas",
    "SlackAlerts": "alerts_webhook",
    "SqlDecisionLog": "backends.sql",
    "WebhookAlerts": "alerts_webhook",
}


def __getattr__(name: str) -> Any:
    if name in _LATE:
        from importlib import import_module

        return getattr(import_module(f".{_LATE[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
