"""What surrounds a load in the background: nothing of the request that caused it.

Context variables carry sessions, connections, application and request contexts. A load that goes on after its
caller, or beside it, starts without any of them; a Flask application gets a context of its own, and database
connections of Django that belong to the thread are looked after as at the beginning and end of a request.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import Context
from typing import Any


def apart(run: Callable[[], object]) -> Callable[[], object]:
    """Return ``run`` so that it sees nothing of its caller; call this in the caller."""
    app = _flask_app()

    def inside() -> None:
        with ExitStack() as stack:
            if app is not None:
                stack.enter_context(app.app_context())
            if "django.db" in sys.modules:
                stack.enter_context(_django_connections())
            run()

    return lambda: Context().run(inside)


def _flask_app() -> Any:
    """Return the Flask application whose context is active here, or ``None``."""
    flask = sys.modules.get("flask")
    if flask is None or not getattr(flask, "has_app_context", bool)():
        return None
    return flask.current_app._get_current_object()


@contextmanager
def _django_connections() -> Iterator[None]:
    from django.conf import settings
    from django.db import close_old_connections

    if not settings.configured:  # somebody imported Django, nobody uses its databases
        yield
        return
    close_old_connections()
    try:
        yield
    finally:
        close_old_connections()
