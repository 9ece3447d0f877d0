"""The console as a Flask blueprint."""

from __future__ import annotations

from typing import Any

from eventperf._core.extras import require
from eventperf.contrib.console.web import BODY_LIMIT, Answers, Request, too_large


def blueprint(console: Answers, name: str) -> Any:
    """Return a blueprint that answers everything below its prefix."""
    flask = require("flask", extra="flask", needed_by="Console.flask_blueprint")
    found = flask.Blueprint(name, __name__)

    def answer(rest: str = "") -> Any:
        request = flask.request
        if (request.content_length or 0) > BODY_LIMIT:
            response = too_large()
        else:
            base = request.script_root + request.path[: len(request.path) - len(rest)]
            response = console.respond(
                Request(
                    method=request.method,
                    path="/" + rest,
                    base=base.rstrip("/"),
                    query=request.args.to_dict(flat=False),
                    form=request.form.to_dict(flat=False),
                    headers={k.lower(): v for k, v in request.headers.items()},
                    is_secure=request.is_secure,
                    native=request._get_current_object(),
                )
            )
        return flask.Response(response.body, status=response.status, headers=list(response.headers))

    # Flask-WTF's protection would ask for its own token; the console checks origin and token itself.
    answer.csrf_exempt = True  # type: ignore[attr-defined]
    found.add_url_rule("/", "page", answer, methods=["GET", "POST"])
    found.add_url_rule("/<path:rest>", "page", answer, methods=["GET", "POST"])
    return found
