"""The address of KubernetesApi up to 0.1: it lives in :mod:`eventperf.scaling.backends.kubernetes`."""

from eventperf.scaling.backends.kubernetes import KubernetesApi

__all__ = ["KubernetesApi"]
