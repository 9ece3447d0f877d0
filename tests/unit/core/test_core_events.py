from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

import pytest

from eventperf._core.events import Hooks


@dataclass(frozen=True)
class Hit:
    key: str


@dataclass(frozen=True)
class Miss:
    key: str


def test_listeners_hear_their_types_in_order_of_subscription():
    hooks, heard = Hooks(), []
    hooks.subscribe(lambda e: heard.append(("all", e)))
    hooks.subscribe(lambda e: heard.append(("hits", e)), Hit)
    hooks.subscribe(lambda e: heard.append(("both", e)), Hit, Miss)
    hooks.emit(Hit("a"))
    hooks.emit(Miss("b"))
    assert [who for who, _ in heard] == ["all", "hits", "both", "all", "both"]


def test_active_follows_subscriptions():
    hooks = Hooks()
    assert not hooks.active
    stop_first, stop_second = hooks.subscribe(print), hooks.subscribe(print)
    assert hooks.active
    stop_first()
    stop_first()
    assert hooks.active
    stop_second()
    assert not hooks.active


def test_same_function_twice_is_two_subscriptions():
    hooks, heard = Hooks(), []
    stop = hooks.subscribe(heard.append)
    hooks.subscribe(heard.append)
    stop()
    hooks.emit("once")
    assert heard == ["once"]


def test_a_failing_hook_is_logged_and_stops_nobody(caplog):
    hooks, heard = Hooks(), []

    def broken(event: object) -> None:
        raise RuntimeError("broken hook")

    hooks.subscribe(broken)
    hooks.subscribe(heard.append)
    with caplog.at_level(logging.ERROR, logger="eventperf.events"):
        hooks.emit(Hit("a"))
    assert heard == [Hit("a")]
    assert "broken" in caplog.text
    assert "Hit" in caplog.text


@pytest.mark.parametrize("kind", [SystemExit, GeneratorExit, asyncio.CancelledError])
def test_a_hook_does_not_end_its_host(kind):
    hooks, heard = Hooks(), []

    def ends(event: object) -> None:
        raise kind

    hooks.subscribe(ends)
    hooks.subscribe(heard.append)
    hooks.emit("x")
    assert heard == ["x"]


def test_interrupts_are_not_swallowed():
    hooks = Hooks()

    def interrupt(event: object) -> None:
        raise KeyboardInterrupt

    hooks.subscribe(interrupt)
    with pytest.raises(KeyboardInterrupt):
        hooks.emit("x")


def test_a_hook_may_unsubscribe_itself_while_called():
    hooks, heard = Hooks(), []

    def once(event: object) -> None:
        heard.append(event)
        stop()

    stop = hooks.subscribe(once)
    hooks.subscribe(heard.append)
    hooks.emit(1)
    hooks.emit(2)
    assert heard == [1, 1, 2]
