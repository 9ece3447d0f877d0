"""``eventperf scale run``: the loop of a configuration file, until a signal ends it."""

from __future__ import annotations

import argparse
import logging
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext

from eventperf._core.errors import ConfigurationError
from eventperf._core.logs import logger
from eventperf.cli.ending import ending
from eventperf.cli.output import say, table
from eventperf.scaling import ScalingDecision
from eventperf.scaling.leader import LeaderChanged

from .config import Plan, build, read_file
from .listening import listening
from .reading import LIMIT_S, readings

_log = logger("eventperf.scaling.run")
_WIDTH = 100  # of a table, as logs and pull requests show it whole


def run_config(args: argparse.Namespace) -> int:
    """Run, check, or tick once, as the arguments say."""
    plan = build(read_file(args.config), dry_run=True if args.dry_run else None, state=args.state)
    try:
        if args.check:
            return _check(plan)
        if args.once:
            return _once(plan, as_json=args.json)
        with listening(plan, args.listen) if args.listen else nullcontext():
            return serve_plan(plan)
    finally:
        plan.close()


def _show(plan: Plan) -> None:
    rows = [
        (s.target.name, s.min_replicas, s.max_replicas, repr(s.policy), "yes" if s.dry_run else "no")
        for s in plan.scalers
    ]
    lease = plan.lease if plan.elector else "none"
    valid = "Valid" if not plan.unseen else "Readable, with faults"
    title = f"{valid}: {len(rows)} targets every {plan.interval_s:g} s; lease: {lease}"
    table(("target", "min", "max", "policy", "dry run"), rows, title=title, width=_WIDTH)


def _check(plan: Plan) -> int:
    """Say whether the file is valid and what each of its metrics says now; 1 when it can never work.

    A source that is away does not make a file wrong: ``eventperf doctor --scale-config`` ends with 1 then.
    """
    _show(plan)
    for text in plan.unseen:
        say(f"can never work: {text}", error=True)
    rows, silent, left = [], 0, 0
    for reading in readings(plan.scalers):
        state = reading.state
        said = reading.error if state is None else f"{state.replicas} replicas, {state.ready} ready"
        rows.append((reading.target, "replicas", said))
        silent += state is None
        left += not reading.is_read
        for metric, text, is_value in reading.metrics():
            rows.append((reading.target, metric, text if is_value else f"no value: {text}"))
            silent += not is_value
    table(("target", "read", "now"), rows, title="Read once, nothing changed", width=_WIDTH)
    if left:
        say(
            f"{left} of {len(plan.scalers)} targets were not read: the check ends after {LIMIT_S:g} s",
            error=True,
        )
    if silent:
        whose = "" if plan.unseen else "; the file itself is not at fault"
        say(f"{silent} of {len(rows)} could not be read now{whose}", error=True)
    return 1 if plan.unseen else 0


def _once(plan: Plan, *, as_json: bool) -> int:
    """One round without asking who leads, shown; it acts unless it is a dry run."""
    plan.fleet.leader = None
    for scaler in plan.scalers:
        if hasattr(scaler.target, "guard"):
            scaler.target.guard = None
    report = plan.fleet.tick()
    for decision in report.decisions:
        say(decision.to_json() if as_json else decision.explain())
    return 1 if report.errors or any(d.error for d in report.decisions) else 0


def serve_plan(plan: Plan) -> int:
    """Run the loop until a signal ends it."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    stop = threading.Event()
    if plan.stdout:
        mu = threading.Lock()
        for scaler in plan.scalers:
            scaler.hooks.subscribe(_printer(mu), ScalingDecision)
    for text in plan.unseen:
        _log.warning("can never work: %s", text)
    with ending(stop.set), _leading(plan, stop):
        how = "dry run: nothing is changed" if plan.dry_run else "live"
        _log.info("%d targets every %g s, %s", len(plan.scalers), plan.interval_s, how)
        plan.fleet.run(interval=plan.interval_s, stop=stop)
    plan.fleet.close()
    _log.info("stopped")
    return 0


def _printer(mu: threading.Lock) -> Callable[[ScalingDecision], None]:
    def show(decision: ScalingDecision) -> None:
        if decision.action != "none" or decision.error:
            with mu:
                sys.stdout.write(decision.to_json() + "\n")
                sys.stdout.flush()

    return show


@contextmanager
def _leading(plan: Plan, stop: threading.Event) -> Iterator[None]:
    """Take part in the election meanwhile.

    The election has a thread of its own, which hears of ``stop`` by itself: the Lease is released within a
    second also while a round waits for a slow server. From that moment on the round's writes are refused by
    the guard of its targets.
    """
    elector = plan.elector
    if elector is None:
        yield
        return
    elector.hooks.subscribe(lambda change: _changed(plan, change), LeaderChanged)
    _log.info("candidate %s for lease %s", elector.identity, plan.lease)
    thread = threading.Thread(target=elector.run, args=(stop,), name="eventperf-leader", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(10.0)


def _changed(plan: Plan, change: LeaderChanged) -> None:
    _log.info("leader: %s%s", change.leader or "nobody", " (this process)" if change.is_leader else "")
    if change.is_leader:
        plan.fleet.wake()  # the one before it may have been silent for a while


def check_choice(args: argparse.Namespace) -> None:
    """Refuse both or neither of an object and a file."""
    if bool(args.scaler) == bool(args.config):
        given = "both" if args.config else "neither"
        raise ConfigurationError("run", given, "MODULE:OBJECT or --config FILE")
    if args.scaler and (args.check or args.dry_run):
        raise ConfigurationError("run", "--check or --dry-run", "these only with --config")
