"""What an import costs and brings, looked at in fresh interpreters."""

from __future__ import annotations

import subprocess
import sys

import pytest

import eventperf
import public_names

ROOMS = ("cache", "dbopt", "scaling", "queues")
DRIVERS = {
    "cache": {"redis", "cachetools", "msgspec", "hiredis"},
    "dbopt": {"sqlalchemy", "sqlglot", "psycopg", "pymysql"},
    "scaling": {"kubernetes"},
    "queues": {"redis", "msgspec", "arq", "hiredis"},
}
EVERY_DRIVER = set().union(
    *DRIVERS.values(), {"rich", "django", "flask", "fastapi", "starlette", "pytest", "hypothesis"}
)


def brought_by(code: str) -> set[str]:
    """Return the modules that ``code`` adds to those of a bare interpreter."""
    script = f"import sys; before = set(sys.modules)\n{code}\nprint(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_the_door_is_light():
    modules = brought_by("import eventperf")
    assert len(modules) <= 10, modules
    assert "asyncio" not in modules
    assert not modules & EVERY_DRIVER


def test_asking_for_the_version_or_the_names_loads_nothing_more():
    assert brought_by("import eventperf; eventperf.__version__, dir(eventperf)") == brought_by(
        "import eventperf"
    )


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_brings_neither_drivers_nor_other_rooms(room):
    modules = brought_by(f"import eventperf.{room}")
    assert not modules & EVERY_DRIVER
    others = {
        name for name in modules if name.startswith("eventperf.") and name.split(".")[1] in {*ROOMS} - {room}
    }
    assert not others


@pytest.mark.parametrize("name", [n for n in eventperf.__all__ if n != "__version__"])
def test_every_name_of_the_door_opens(name):
    assert getattr(eventperf, name).__module__.startswith("eventperf.")
    assert name in dir(eventperf)


@pytest.mark.parametrize("room", [*ROOMS, "errors", "testing", "contrib"])
def test_rooms_are_reached_as_attributes(room):
    assert brought_by(f"import eventperf; eventperf.{room}") >= {f"eventperf.{room}"}


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'CacheManger'"):
        eventperf.CacheManger  # noqa: B018


# -- the names that others rely on -------------------------------------------------------------------


def test_public_names_stay():
    """The list is ``tests/public_names.txt``; a name goes after a minor release that warned."""
    gone, new = public_names.changes()
    assert not gone, (
        f"public names are gone: {', '.join(gone)}. Users rely on them: deprecate first, a name works for "
        "one more minor release and warns (CONTRIBUTING.md, Removing a name); then it leaves the list."
    )
    assert not new, (
        f"new public names are not on the list: {', '.join(new)}. `python tests/public_names.py` adds them, "
        "if they are meant to be public; others begin with an underscore or stay out of __all__."
    )


@pytest.mark.parametrize("path", public_names.written_paths())
def test_every_path_that_docs_examples_and_metadata_name_is_there(path):
    try:
        public_names.find(path)
    except ImportError as error:
        if (error.name or "eventperf").startswith("eventperf"):
            raise
        pytest.skip(f"needs {error.name}")
