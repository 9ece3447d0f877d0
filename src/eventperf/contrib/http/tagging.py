"""Tags of a view's answers: a list, or a function of the view's arguments that is looked at early."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from eventperf._core.errors import ConfigurationError

from .flow import texts

Tags = Sequence[str] | Callable[..., Sequence[str]]

_FUNCTION = "a function of the view's arguments that returns a list of texts"


def checked(tags: Any) -> Any:
    """Return tags as they were given.

    Raises:
        ConfigurationError: They are neither a list of texts nor a function.
    """
    if callable(tags):
        return tags
    if isinstance(tags, (str, bytes)) or not isinstance(tags, Iterable):
        raise ConfigurationError("tags", tags, "a list of texts, or a function")
    return texts("tags", tags)


def fits(tags: Any, view: Callable[..., Any], *, without: int = 0) -> None:
    """Look, where it can be seen, whether a function of tags takes what a view is called with.

    Args:
        without: How many arguments of the view it does not get (the request).

    Raises:
        ConfigurationError: It does not.
    """
    if not callable(tags):
        return
    try:
        given = list(inspect.signature(view, follow_wrapped=False).parameters.values())[without:]
        takes = inspect.signature(tags)
    except (TypeError, ValueError):
        return
    named = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    if any(one.kind not in named for one in given):
        return
    ways = [(0, given), (len(given), [])][: 1 + without]  # a URL of Django may give them by place
    for args, words in ways:
        try:
            takes.bind(*range(args), **{one.name: None for one in words})
        except TypeError:
            continue
        return
    allowed = f"a function that takes what the view takes ({', '.join(one.name for one in given)})"
    raise ConfigurationError("tags", f"{getattr(tags, '__qualname__', 'a function')}{takes}", allowed)


def found(tags: Any, args: tuple[Any, ...], given: dict[str, Any]) -> list[str]:
    """Return the tags of one call; one text is one tag.

    Raises:
        ConfigurationError: The function raised, or returned something else.
    """
    if not callable(tags):
        return list(tags)
    try:
        made = tags(*args, **given)
    except Exception as error:
        raise ConfigurationError("tags", f"{type(error).__name__}: {error}", _FUNCTION) from error
    if made is None:
        return []
    return texts("tags", [made] if isinstance(made, str) else made)
