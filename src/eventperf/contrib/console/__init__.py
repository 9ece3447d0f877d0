"""One page that shows what the library does, mounted in Django, Flask, FastAPI or any ASGI or WSGI host."""

from .app import Console, ConsoleAction
from .guard import read_only, staff_only

__all__ = ["Console", "ConsoleAction", "read_only", "staff_only"]
