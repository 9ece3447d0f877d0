"""The conformance suite of :class:`~eventperf.queues.protocols.JobStore`.

A backend proves itself in a few lines::

    class TestMyStore(JobStoreSuite):
        @pytest.fixture
        def make(self, my_url):
            def build(**options):
                return QueueManager(my_url, **options)
            return build

Times are real here: leases are short, and upper bounds are those the guarantees name.
"""

from __future__ import annotations

from .attempts import AttemptTests, MetricTests
from .control import ControlTests
from .driven import DrivenTests
from .endings import EndingTests
from .family import DeleteTests, KinTests
from .flows import FlowTests
from .life import LifeTests
from .limits import LimitTests
from .odds import AheadTests, HangingTests, SayingTests
from .schedules import ReleaseTests, ScheduleTests
from .search import SearchTests
from .store import CoreTests
from .tools import LEASE_S, Make, Station, StoreTests, balanced, until
from .update import OutcomeTests, UpdateTests
from .workers import WorkerTests

__all__ = ["LEASE_S", "HostedSuite", "JobStoreSuite", "Make", "Station", "StoreTests", "balanced", "until"]


class HostedSuite(
    DrivenTests,
    WorkerTests,
    LifeTests,
    ReleaseTests,
    AttemptTests,
    SearchTests,
    UpdateTests,
    MetricTests,
    OutcomeTests,
    KinTests,
    DeleteTests,
):
    """What a backend must do whose jobs another system's workers run (no capability ``"claims"``)."""


class JobStoreSuite(
    HostedSuite,
    CoreTests,
    ControlTests,
    EndingTests,
    AheadTests,
    HangingTests,
    SayingTests,
    LimitTests,
    FlowTests,
    ScheduleTests,
):
    """What every backend must do. Subclasses give the fixture ``make``.

    Where a backend does not declare a capability, the tests of it check that asking for it is refused.
    """
