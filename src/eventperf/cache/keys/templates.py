"""Templates of keys and tags."""

from __future__ import annotations

import re
import string
from typing import Any, Final

from eventperf._core.errors import ConfigurationError

from .arguments import Unstable, field_text

_SEPARATES: Final = re.compile(r"[^0-9A-Fu%~']")


class Template:
    """A key or tag such as ``"event:{event_id}"``, taken apart once.

    Fields are parameter names; ``{user.id}`` and ``{row[0]}`` reach inside; ``{{`` is a brace.

    Args:
        text: The template.
        argument: What it is called in errors.
        strict: No two different calls share a text (keys); see :func:`~.arguments.field_text`.

    >>> Template("{day}-{n}", strict=True).render({"day": "a-b", "n": 7})
    'a%2Db-7'
    """

    def __init__(self, text: str, *, argument: str = "key", strict: bool = False) -> None:
        self.text = text
        self.fields: list[str] = []
        self._parts: list[tuple[str, str | None]] = []
        self._strict = strict
        if not isinstance(text, str):
            raise ConfigurationError(argument, text, "a text such as 'event:{event_id}'")
        try:
            for literal, field, spec, conversion in string.Formatter().parse(text):
                if spec or conversion:
                    raise ConfigurationError(argument, text, "plain fields, like {event_id}")
                self._parts.append((literal, field))
                if field is not None:
                    self.fields.append(re.split(r"[.\[]", field, maxsplit=1)[0])
        except ValueError as error:
            if isinstance(error, ConfigurationError):
                raise
            raise ConfigurationError(argument, text, "text with {parameter} fields") from error
        self._between = self._separators(argument) if strict else ""
        self._formatter = string.Formatter()

    def _separators(self, argument: str) -> str:
        """Return the characters that end a field where another one follows: no value may hold them."""
        out = ""
        for (_, before), (literal, field) in zip(self._parts, self._parts[1:], strict=False):
            if before is None or field is None:
                continue
            if not _SEPARATES.match(literal):
                allowed = f"fields with a separator between them, such as {{{before}}}:{{{field}}}"
                raise ConfigurationError(argument, self.text, allowed)
            out += literal[0]
        return "".join(dict.fromkeys(out))

    @property
    def reaches(self) -> list[str]:
        """What the text is made of: parameters, or what lies inside them."""
        return [field for _, field in self._parts if field is not None]

    def check(self, names: set[str], *, argument: str, where: str) -> None:
        """Refuse fields that are none of the function's parameters."""
        for field in self.fields:
            if field not in names:
                allowed = f"fields out of the parameters of {where}: {', '.join(sorted(names)) or 'none'}"
                raise ConfigurationError(argument, self.text, allowed)

    def render(self, bound: dict[str, Any]) -> str:
        """Return the text for ``bound`` arguments."""
        out = []
        for literal, field in self._parts:
            out.append(literal)
            if field is not None:
                value, _ = self._formatter.get_field(field, (), bound)
                try:
                    text = field_text(value, strict=self._strict)
                except Unstable as error:
                    raise Unstable(str(error), field) from None
                except RecursionError:
                    raise Unstable(f"{type(value).__name__} that contains itself", field) from None
                for char in self._between:
                    text = text.replace(char, f"%{ord(char):02X}")
                out.append(text)
        return "".join(out)
