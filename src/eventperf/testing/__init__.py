"""For tests of hosts and of third-party backends: a fake clock, one conformance suite per protocol, soaks."""

from .bounded import assert_bounded, containers
from .clock import FakeClock

__all__ = ["FakeClock", "assert_bounded", "containers"]
