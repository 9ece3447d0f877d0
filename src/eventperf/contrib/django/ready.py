"""A view for readiness checks."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.http import HttpRequest, JsonResponse

if TYPE_CHECKING:
    from eventperf.cache import CacheManager

__all__ = ["ready_view"]


def ready_view(cache: CacheManager) -> Callable[[HttpRequest], Any]:
    """Return a view that answers 200 once every data set of ``cache`` is warm, and 503 before.

    ``path("ready", ready_view(cache))``; the body names the data sets.
    """

    def ready(request: HttpRequest) -> Any:
        del request
        state = cache.readiness()
        return JsonResponse(state, status=200 if state["ready"] else 503)

    return ready
