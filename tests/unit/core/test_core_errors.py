from __future__ import annotations

import copy
import inspect
import pickle

import pytest

from eventperf import errors
from eventperf._core.extras import require
from eventperf.errors import ConfigurationError, EventPerfError, MissingExtra, UnknownScheme

SAMPLES = [
    ConfigurationError("ttl", -1, "a positive duration"),
    UnknownScheme("url", "ftp://", ["redis://", "memory://"]),
    MissingExtra("RedisStore", "redis", "cache"),
]


@pytest.mark.parametrize("error", SAMPLES, ids=lambda e: type(e).__name__)
@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_errors_cross_process_borders_whole(error, copied):
    twin = copied(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert twin.__dict__ == error.__dict__


def test_errors_are_also_what_plain_python_would_raise():
    assert isinstance(SAMPLES[0], ValueError)
    assert isinstance(SAMPLES[2], ImportError)
    assert all(isinstance(error, EventPerfError) for error in SAMPLES)


def test_every_room_hangs_its_errors_under_the_root():
    for room in ("cache", "dbopt", "scaling", "queues"):
        module = __import__(f"eventperf.{room}.errors", fromlist=["*"])
        for name in module.__all__:
            found = getattr(module, name)
            assert hasattr(errors, name)
            if inspect.isclass(found) and issubclass(found, BaseException) and not issubclass(found, Warning):
                assert issubclass(found, EventPerfError), f"{room}: {name}"


def test_unknown_error_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="NoSuchError"):
        errors.NoSuchError  # noqa: B018


def test_missing_extra_is_one_sentence_with_the_cure():
    with pytest.raises(MissingExtra) as caught:
        require("no_such_driver_here.asyncio", extra="cache", needed_by="RedisStore")
    assert str(caught.value) == (
        'RedisStore needs no_such_driver_here. Install it with: pip install "eventperf[cache]"'
    )
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_an_installed_driver_that_breaks_keeps_its_own_error(tmp_path, monkeypatch):
    (tmp_path / "broken_driver_here.py").write_text("import its_own_missing_dependency\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="its_own_missing_dependency") as caught:
        require("broken_driver_here", extra="cache", needed_by="RedisStore")
    assert not isinstance(caught.value, MissingExtra)
