"""A table of a configuration file: checked values, and errors that name the key."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from eventperf._core.durations import seconds
from eventperf._core.errors import ConfigurationError, EventPerfError

_MISSING: Any = object()
_NEAR = 0.75  # "namespace" is no slip of "name"


class Section:
    """One table of the file: hands out checked values, and names what nobody asked for."""

    def __init__(self, data: object, path: str) -> None:
        if not isinstance(data, Mapping):
            raise ConfigurationError(path, data, "a table")
        self._data, self._path = data, path
        self._asked: list[str] = []

    def at(self, key: str) -> str:
        """Return the full name of a key."""
        return f"{self._path}.{key}" if self._path else key

    def has(self, key: str) -> bool:
        return key in self._data

    def raw(self, key: str, default: Any = _MISSING) -> Any:
        self._asked.append(key)
        if key in self._data:
            return self._data[key]
        if default is _MISSING:
            for near in get_close_matches(key, [k for k in self._data if k not in self._asked], 1, _NEAR):
                raise ConfigurationError(self.at(near), "an unknown key", f"{key}, which is needed")
            raise ConfigurationError(self.at(key), "nothing", "a value: this key is needed")
        return default

    def text(self, key: str, default: Any = _MISSING, *, secret: bool = False) -> Any:
        value = self.raw(key, default)
        if value is default or (isinstance(value, str) and value):
            return value
        raise ConfigurationError(self.at(key), "***" if secret else value, "a text")

    def whole(self, key: str, default: Any = _MISSING) -> Any:
        value = self.raw(key, default)
        if value is default or (isinstance(value, int) and not isinstance(value, bool)):
            return value
        raise ConfigurationError(self.at(key), value, "a whole number")

    def flag(self, key: str, default: bool) -> bool:
        value = self.raw(key, default)
        if not isinstance(value, bool):
            raise ConfigurationError(self.at(key), value, "true or false")
        return value

    def duration(self, key: str, default: Any = _MISSING, *, zero: bool = False) -> Any:
        value = self.raw(key, default)
        return value if value is default else seconds(value, name=self.at(key), zero=zero)

    def section(self, key: str) -> Section:
        return Section(self.raw(key, {}), self.at(key))

    def sections(self, key: str) -> list[Section]:
        found = self.raw(key, [])
        if not isinstance(found, list):
            raise ConfigurationError(self.at(key), found, f"a list of tables: [[{self.at(key)}]]")
        return [Section(data, f"{self.at(key)}[{number}]") for number, data in enumerate(found)]

    def secret(self, key: str) -> str | None:
        """Read ``key``, or the file named by ``key_file``, or the variable named by ``key_env``."""
        given = [k for k in (key, f"{key}_file", f"{key}_env") if k in self._data]
        self._asked += [key, f"{key}_file", f"{key}_env"]
        if len(given) > 1:
            raise ConfigurationError(self.at(given[1]), f"both {' and '.join(given)}", "one of them")
        if not given:
            return None
        value = str(self.text(given[0], secret=given[0] == key))
        if given[0].endswith("_file"):
            try:
                return Path(value).read_text(encoding="utf-8").strip()
            except OSError as error:
                raise ConfigurationError(self.at(given[0]), value, f"a file to read ({error})") from None
        if given[0].endswith("_env"):
            if value not in os.environ:
                raise ConfigurationError(self.at(given[0]), value, "an environment variable that is set")
            return os.environ[value]
        return value

    def rest(self) -> dict[str, Any]:
        """Return the keys nobody has asked for yet, as asked for."""
        found = {k: v for k, v in self._data.items() if k not in self._asked}
        self._asked += found
        return found

    def only(self, *known: str) -> None:
        """Refuse other keys before any is read: a slip is named, not the key that it leaves missing."""
        for key in self._data:
            if key not in known:
                raise unknown_key(self.at(key), key, known)

    def end(self) -> None:
        """Refuse keys nobody has asked for."""
        self.only(*self._asked)


def unknown_key(path: str, key: object, known: Iterable[str]) -> ConfigurationError:
    """Return the error about a key nobody knows; the one that is probably meant comes first.

    >>> print(unknown_key("log.files", "files", ["stdout", "file"]))
    log.files: got 'an unknown key, is file meant?'; allowed: file, stdout
    """
    names = sorted(set(known))
    near = get_close_matches(str(key), names, 1, _NEAR)
    given = f"an unknown key, is {near[0]} meant?" if near else "an unknown key"
    return ConfigurationError(path, given, [*near, *(name for name in names if name not in near)])


@contextmanager
def named(path: str) -> Iterator[None]:
    """Let errors of a constructor name the key of the file instead of its argument."""
    try:
        yield
    except ConfigurationError as error:
        if error.argument.startswith(path):
            raise
        raise ConfigurationError(f"{path}.{error.argument}", error.given, error.allowed) from error
    except EventPerfError:
        raise
    except (TypeError, ValueError) as error:
        raise ConfigurationError(path, "values that do not fit", str(error)) from error
