"""The address of KubernetesLease up to 0.1: it lives in :mod:`eventperf.scaling.backends.kubernetes`."""

from eventperf.scaling.backends.kubernetes import KubernetesLease

__all__ = ["KubernetesLease"]
