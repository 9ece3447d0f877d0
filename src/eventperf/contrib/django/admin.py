"""The queues in Django's admin site: counts, dead jobs, and what an operator does about them."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpResponseRedirect
from django.template.response import TemplateResponse
from django.utils.http import urlencode

from eventperf._core.errors import EventPerfError
from eventperf._core.texts import whole
from eventperf.contrib._jobs import load

from .models import Queue

if TYPE_CHECKING:  # Django ships no types
    from eventperf.queues import JobInfo, QueueManager

    class ModelAdmin:
        admin_site: Any
        model: Any
        has_change_permission: Callable[[Any], bool]
        has_view_or_change_permission: Callable[[Any], bool]

else:
    ModelAdmin = admin.ModelAdmin

_PAGE = 50


def manager() -> QueueManager:
    """Return the manager that ``EVENTPERF_QUEUES`` names.

    Raises:
        ConfigurationError: It names none.
    """
    found: QueueManager = load(getattr(settings, "EVENTPERF_QUEUES", None) or "", argument="EVENTPERF_QUEUES")
    return found


@admin.register(Queue)
class QueueAdmin(ModelAdmin):
    """One page: the status of every queue, and the dead jobs of the one that was chosen."""

    def has_add_permission(self, request: Any) -> bool:
        """Queues come from the program, not from people."""
        return False

    def has_delete_permission(self, request: Any, obj: Any = None) -> bool:
        """Queues come from the program, not from people."""
        return False

    def changelist_view(self, request: Any, extra_context: dict[str, Any] | None = None) -> Any:
        """Show the page, or carry out one action and show it again."""
        if not self.has_view_or_change_permission(request):
            raise PermissionDenied
        if request.method == "POST":
            return self._act(request)
        chosen, page = request.GET.get("queue", ""), _number(request.GET.get("page", "0"))
        context: dict[str, Any] = {
            **self.admin_site.each_context(request), "title": "Queues", "opts": self.model._meta,
            "may_change": self.has_change_permission(request), "chosen": chosen, "page": page,
            "next_page": page + 1, "previous_page": page - 1,
        }  # fmt: skip
        try:
            context |= _seen(manager(), chosen, page)
        except EventPerfError as error:
            context["trouble"] = str(error)
        return TemplateResponse(request, "admin/eventperf/queues.html", {**context, **(extra_context or {})})

    def _act(self, request: Any) -> Any:
        if not self.has_change_permission(request):
            raise PermissionDenied
        queue, action = request.POST.get("queue", ""), request.POST.get("action", "")
        ids = request.POST.getlist("job")
        try:
            done = _actions(manager(), queue, ids).get(action)
            if done is None:
                messages.error(request, f"action: got {action!r}, which is not one of this page")
            else:
                messages.success(request, done())
        except EventPerfError as error:
            messages.error(request, str(error))
        return HttpResponseRedirect(f"{request.path}?{urlencode({'queue': queue} if queue else {})}")


def _actions(queues: QueueManager, queue: str, ids: list[str]) -> dict[str, Callable[[], str]]:
    """Return what can be done to ``queue``, by the name of its button; each says what it did."""

    def switch(act: Callable[[str], None], what: str) -> str:
        act(queue)
        return f"Queue {queue} {what}"

    return {
        "pause": lambda: switch(queues.pause, "is paused; running jobs go on"),
        "resume": lambda: switch(queues.resume, "runs again"),
        "replay": lambda: f"{queues.replay(queue, ids)} of {len(ids)} chosen jobs run again",
        "replay all": lambda: f"{queues.replay(queue)} dead jobs of {queue} run again",
        "forget all": lambda: f"{queues.purge(queue, 'failed')} dead jobs of {queue} are forgotten",
    }


def _seen(queues: QueueManager, chosen: str, page: int) -> dict[str, Any]:
    has = queues.backend.capabilities
    found: dict[str, Any] = {
        "store": queues.backend.name, "rows": queues.status(), "can_pause": "pause" in has,
        "has_dead": "dead_letter" in has, "jobs": [], "has_more": False,
    }  # fmt: skip
    if chosen and found["has_dead"]:
        jobs = queues.dead(chosen, offset=page * _PAGE, limit=_PAGE + 1)
        found["jobs"], found["has_more"] = [_line(job) for job in jobs[:_PAGE]], len(jobs) > _PAGE
    return found


def _line(job: JobInfo) -> dict[str, Any]:
    ended = (
        "" if job.finished_at is None else time.strftime("%Y-%m-%d %H:%M:%SZ", time.gmtime(job.finished_at))
    )
    return {"id": job.id, "type": job.type, "attempt": job.attempt, "error": job.error or "", "ended": ended}


def _number(text: str) -> int:
    return whole(text) or 0
