"""What the Kubernetes API refuses or fails to do, one class per reaction a caller would have."""

from __future__ import annotations

from eventperf.scaling.errors import ScalingError, TargetConflict, TargetUnavailable


class KubernetesApiError(ScalingError):
    """A request that was refused.

    Attributes:
        method: HTTP method; path: request path.
        status: HTTP status; 0 when there was no answer.
        retry_after_s: What the server asked to wait, or None.
    """

    def __init__(
        self, method: str, path: str, text: str, *, status: int = 0, retry_after_s: float | None = None
    ) -> None:
        code = f"{status}: " if status else ""
        super().__init__(f"{method} {path}: {code}{text}")
        self.method: str = method
        self.path: str = path
        self.text: str = text
        self.status: int = status
        self.retry_after_s: float | None = retry_after_s

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.method, self.path, self.text, self.status, self.retry_after_s)


def _rebuild(
    kind: type[KubernetesApiError],
    method: str,
    path: str,
    text: str,
    status: int,
    retry_after_s: float | None,
) -> KubernetesApiError:
    return kind(method, path, text, status=status, retry_after_s=retry_after_s)


class KubernetesUnavailable(KubernetesApiError, TargetUnavailable):
    """No answer, a broken answer, or a server error; a write may have taken effect."""


class KubernetesDisconnected(KubernetesUnavailable):
    """The connection broke: often one that the server had closed while it was idle."""


class KubernetesThrottled(KubernetesUnavailable):
    """The server asks to come back after ``retry_after_s``; nothing was done."""


class KubernetesForbidden(KubernetesApiError):
    """Not signed in, or the role does not allow it."""


class KubernetesNotFound(KubernetesApiError):
    """No such object, or no such kind."""


class KubernetesConflict(KubernetesApiError, TargetConflict):
    """The object has changed since it was read."""


class KubernetesGone(KubernetesApiError):
    """History this far back is no longer there: list again."""


class KubernetesInvalid(KubernetesApiError):
    """The server understood the request and refuses its content."""
