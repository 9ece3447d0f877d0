"""For tests of hosts and of third-party backends: a fake clock, and one conformance suite per protocol."""

from .clock import FakeClock

__all__ = ["FakeClock"]
