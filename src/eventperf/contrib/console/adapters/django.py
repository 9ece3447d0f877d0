"""The console as Django URL patterns."""

from __future__ import annotations

from typing import Any

from eventperf._core.extras import require
from eventperf._core.texts import whole
from eventperf.contrib.console.web import BODY_LIMIT, Answers, Request, too_large


def urls(console: Answers) -> list[Any]:
    """Return patterns that answer everything below the prefix they are included at."""
    require("django", extra="django", needed_by="Console.django_urls")
    from django.http import HttpResponse
    from django.urls import re_path

    def answer(request: Any, rest: str) -> Any:
        length = whole(request.META.get("CONTENT_LENGTH") or "0")
        if length is None or length > BODY_LIMIT:
            response = too_large()
        else:
            response = console.respond(
                Request(
                    method=request.method,
                    path="/" + rest,
                    base=request.path[: len(request.path) - len(rest)].rstrip("/"),
                    query={k: v for k, v in request.GET.lists() if v},
                    form={k: v for k, v in request.POST.lists() if v},
                    headers={k.lower(): v for k, v in request.headers.items()},
                    is_secure=request.is_secure(),
                    native=request,
                )
            )
        sent = HttpResponse(response.body, status=response.status)
        for name, value in response.headers:
            sent.headers[name] = value
        return sent

    # The console checks origin and token itself, the same way in every host.
    answer.csrf_exempt = True  # type: ignore[attr-defined]

    return [re_path(r"^(?P<rest>.*)$", answer, name="eventperf-console")]
