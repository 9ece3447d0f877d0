"""The address of KubernetesState up to 0.1: it lives in :mod:`eventperf.scaling.backends.kubernetes`."""

from eventperf.scaling.backends.kubernetes import KubernetesState

__all__ = ["KubernetesState"]
