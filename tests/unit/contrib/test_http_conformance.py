"""The table of :mod:`http_cases` through every adapter: what a shared HTTP cache must do, and may not do."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from http_cases import CASES
from http_origins import ADAPTERS, KEPT, MADE, NEED_A_LIFE, Case, Origin, Step, joined, line

NEEDS = {"flask": "flask", "django": "django", "django-async": "django"}


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@pytest.mark.parametrize("group", CASES)
@pytest.mark.parametrize("adapter", ADAPTERS)
def test_a_shared_cache_does_as_the_rfc_says(
    adapter: str, group: str, loop: asyncio.AbstractEventLoop
) -> None:
    if adapter in NEEDS:
        pytest.importorskip(NEEDS[adapter])
    wrong = {}
    for case in CASES[group]:
        if case.bare and adapter in NEED_A_LIFE:
            continue  # a view under a decorator says a life
        if found := problems(ADAPTERS[adapter](case, loop), case):
            wrong[str(case)] = found
    assert wrong == {}


def problems(origin: Origin, case: Case) -> list[str]:
    """Return what is not as the case says, up to the first step that is not."""
    numbers: dict[int, int] = {}  # of a step that had an answer made: which one that was
    for place, step in enumerate(case.steps):
        before = origin.asked
        status, headers, body = origin.ask(step)
        if step.outcome == MADE:
            numbers[place] = origin.asked
        of = place if step.outcome == MADE else max(numbers) if step.of is None else step.of
        told = case.steps[of].status if step.gets is None else step.gets
        has_body = step.method != "HEAD" and told not in (204, 304)
        seen = joined(headers)
        checks = {
            "the origin was asked": origin.asked - before == asked(step),
            "the status": status == told,
            "the body": body == (f"answer {numbers[of]}" if has_body else ""),
            "it says where it comes from": step.outcome == MADE or is_told(seen),
            "its headers": all(seen.get(n.lower()) == value for n, value in map(line, step.has)),
            "no other headers": not {name.lower() for name in step.lacks} & seen.keys(),
        }
        if not all(checks.values()):
            what = [name for name, is_right in checks.items() if not is_right]
            return [f"step {place}", *what, f"{status} {headers} {body!r}"]
    return []


def asked(step: Step) -> int:
    """Return how often a step asks the origin: also where a kept answer stands in for an error."""
    return int(step.outcome == MADE or step.status >= 500)


def is_told(seen: dict[str, str]) -> bool:
    return "age" in seen and seen["cache-status"].startswith("eventperf; ")


def test_each_case_has_a_name_of_its_own_and_says_something() -> None:
    cases = [case for group in CASES.values() for case in group]
    names = [str(case) for case in cases]
    assert sorted(set(names)) == sorted(names)
    assert all(len(case.steps) > 1 and {KEPT, MADE} >= {s.outcome for s in case.steps} for case in cases)
