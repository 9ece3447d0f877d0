"""What a failure says, in text that any store takes."""

from __future__ import annotations

LIMIT = 2000


def safe(text: str) -> str:
    """Return ``text`` without what some store refuses: halves of characters and NUL.

    >>> safe("caf\\udce9\\x00")
    'caf\\\\udce9\\\\x00'
    """
    return text.encode("utf-8", "backslashreplace").decode().replace("\x00", "\\x00")[:LIMIT]


def error_text(error: BaseException) -> str:
    """Return an error's type and text, whatever its ``__str__`` does.

    >>> error_text(KeyError("a"))
    "KeyError: 'a'"
    """
    try:
        said = str(error)
    except BaseException as trouble:  # user code: anything may come out of it
        said = f"(its text cannot be had: {type(trouble).__name__})"
    return safe(f"{type(error).__name__}: {said}")
