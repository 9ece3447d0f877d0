"""Background jobs: at-least-once, by priority, over memory, Redis or SQL.

>>> from eventperf.queues import QueueManager
>>> [q.name for q in QueueManager("memory://").status()]
['critical', 'high', 'normal', 'low']
"""

from .attempts import Attempt
from .errors import (
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobNotWaiting,
    JobTimeout,
    LeaseLost,
    NonRetryable,
    OutboxMissing,
    PayloadError,
    PayloadTooLarge,
    QueueError,
    ResultTimeout,
    Retry,
    SchemaMissing,
    StoreUnavailable,
    UnknownQueue,
    Unsupported,
)
from .events import JobEvent
from .handle import Job
from .job import Backlog, JobInfo, JobPage, JobState, QueueStatus, WorkerInfo
from .limits import Limit
from .manager import QueueManager
from .minutes import Histogram, Interval, Metrics
from .options import (
    DEFAULT_PRIORITY,
    DEFAULT_QUEUES,
    JOB_TYPES,
    PRIORITY_BY_TYPE,
    EnqueueOptions,
    Exponential,
    QueueConfig,
    RetryRule,
)
from .producing.spec import JobSpec
from .working.context import JobContext

__all__ = [
    "DEFAULT_PRIORITY",
    "DEFAULT_QUEUES",
    "JOB_TYPES",
    "PRIORITY_BY_TYPE",
    "Attempt",
    "Backlog",
    "EnqueueOptions",
    "Exponential",
    "Histogram",
    "Interval",
    "Job",
    "JobCancelled",
    "JobContext",
    "JobEvent",
    "JobFailed",
    "JobInfo",
    "JobNotFound",
    "JobNotWaiting",
    "JobPage",
    "JobSpec",
    "JobState",
    "JobTimeout",
    "LeaseLost",
    "Limit",
    "Metrics",
    "NonRetryable",
    "OutboxMissing",
    "PayloadError",
    "PayloadTooLarge",
    "QueueConfig",
    "QueueError",
    "QueueManager",
    "QueueStatus",
    "ResultTimeout",
    "Retry",
    "RetryRule",
    "SchemaMissing",
    "StoreUnavailable",
    "UnknownQueue",
    "Unsupported",
    "WorkerInfo",
]
