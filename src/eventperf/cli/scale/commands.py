"""``eventperf scale``: backtest, run, explain."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from eventperf._core.errors import ConfigurationError
from eventperf._core.files import write
from eventperf.cli.ending import ending
from eventperf.cli.output import Progress, emit_json, say, table

from .objects import load_object

if TYPE_CHECKING:
    from eventperf.scaling import Calendar, Policy, ScalingDecision

POLICIES = ("latency", "predictive", "calendar", "hpa-cpu", "hpa-rps", "thresholds")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the commands of this room."""
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    _look(commands)
    _scale(commands)


def _look(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    backtest = commands.add_parser("backtest", help="judge a policy on a recorded load")
    backtest.add_argument("trace", help="CSV file, its last column requests per second")
    backtest.add_argument("--policy", default="latency", help=f"{', '.join(POLICIES)} or module:object")
    backtest.add_argument("--step", default="60s", help="time between two figures (default 60s)")
    backtest.add_argument("--pod-rps", type=float, default=40.0, help="what one replica can carry")
    backtest.add_argument("--min", type=int, default=1)
    backtest.add_argument("--max", type=int, default=1000)
    backtest.add_argument("--interval", default="60s", help="time between two decisions (default 60s)")
    backtest.add_argument("--lag", type=float, default=30.0, help="age of the metrics, seconds (default 30)")
    backtest.add_argument("--calendar", metavar="FILE", help="TOML, JSON or .ics: dated events")
    backtest.add_argument("--plot", metavar="FILE", help="write the curves as SVG")
    backtest.add_argument("--html", metavar="FILE", help="write a page with scores, curves and violations")
    backtest.add_argument("--json", action="store_true")

    carry = commands.add_parser("import", help="an HPA or ScaledObject as a file for `scale run --config`")
    carry.add_argument("manifest", metavar="FILE", help="YAML or JSON, one or several objects")

    explain = commands.add_parser("explain", help="why the decisions in a log came out as they did")
    explain.add_argument("log", help="a file of DecisionLog(path), or the URL of SqlDecisionLog's database")
    explain.add_argument("--target", help="only decisions on this target")
    explain.add_argument("--why-not", type=int, metavar="N", help="why the last one did not come out at N")
    explain.add_argument("--last", type=int, default=10, help="how many (default 10)")
    explain.add_argument("--json", action="store_true")


def _scale(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    run = commands.add_parser("run", help="scale until interrupted, as a file or your program says")
    run.add_argument(
        "scaler", nargs="?", metavar="MODULE:OBJECT", help="an AutoScaler, or a function that returns one"
    )
    run.add_argument("--config", metavar="FILE", help="targets on Kubernetes, from a TOML file")
    run.add_argument(
        "--check", action="store_true", help="say whether the file is valid and what its metrics say now"
    )
    run.add_argument("--dry-run", action="store_true", help="decide and log, change nothing")
    run.add_argument("--interval", default="15s", help="of MODULE:OBJECT (default 15s); a file has its own")
    run.add_argument("--once", action="store_true", help="one tick, printed")
    run.add_argument("--json", action="store_true")

    run.add_argument("--listen", metavar="HOST:PORT", help="with --config: /healthz /readyz /metrics")
    run.add_argument("--state", metavar="WHERE", help="keeps what is learned: configmap:NAME, redis://...")

    serve = commands.add_parser("serve", help="offer the recommendation to KEDA, an HPA or Prometheus")
    serve.add_argument("--config", metavar="FILE", required=True, help="as for `run`; nothing is changed")
    serve.add_argument("--listen", default="127.0.0.1:8080", metavar="HOST:PORT", help="default %(default)s")
    serve.add_argument("--grpc", metavar="HOST:PORT", help="KEDA's external scaler (extra: keda)")
    serve.add_argument("--state", metavar="WHERE", help="as for `run`")

    for name, text in (("freeze", "change nothing on a workload"), ("unfreeze", "take that back")):
        freeze = commands.add_parser(name, help=f"{text}, whoever of this package scales it")
        freeze.add_argument("targets", nargs="*", metavar="TARGET", help="for example deployment/web")
        freeze.add_argument("--config", metavar="FILE", help="its targets, all of them if none is named")
        freeze.add_argument("--namespace", "-n", help="of the targets, without --config")
        freeze.add_argument("--kubeconfig", metavar="FILE", help="as kubectl finds it by default")
        freeze.add_argument("--context", help="of that kubeconfig")
        freeze.add_argument("--state", metavar="WHERE", help="of other targets: what their scalers share")
        freeze.add_argument("--json", action="store_true")


def run(args: argparse.Namespace) -> int:
    """Do what was asked."""
    if args.action == "serve":
        from .serve import serve

        return serve(args)
    if args.action in ("freeze", "unfreeze"):
        from .freezing import freeze

        return freeze(args, on=args.action == "freeze")
    return int(
        {"backtest": _backtest, "run": _run, "explain": _explain, "import": _import}[args.action](args)
    )


def _policy(name: str, pod_rps: float) -> Policy:
    from eventperf.scaling import (
        CalendarPolicy,
        LatencyPolicy,
        PredictivePolicy,
        TargetTracking,
        ThresholdPolicy,
    )

    sized = {"latency": LatencyPolicy, "predictive": PredictivePolicy, "calendar": CalendarPolicy}
    if name in sized:
        return sized[name]()
    if name == "hpa-cpu":
        return TargetTracking(cpu=0.7)
    if name == "hpa-rps":
        return TargetTracking(rps=0.7 * pod_rps)
    if name == "thresholds":
        return ThresholdPolicy()
    if ":" not in name:
        raise ConfigurationError("--policy", name, (*POLICIES, "module:object"))
    policy: Policy = load_object(name, "--policy")
    return policy


def _backtest(args: argparse.Namespace) -> int:
    from eventperf.scaling import PodModel, Trace, backtest

    trace, pod = Trace.from_csv(args.trace, step=args.step), PodModel(rps=args.pod_rps, lag=args.lag)
    report = backtest(
        _policy(args.policy, pod.rps), trace, pod=pod, min_replicas=args.min, max_replicas=args.max,
        interval=args.interval, calendar=_calendar(args.calendar), progress=_progress(args),
    )  # fmt: skip
    for option, name, text in (("--plot", args.plot, report.plot), ("--html", args.html, report.to_html)):
        if name:
            try:
                write(name, text())
            except OSError as error:
                raise ConfigurationError(option, name, f"a file that can be written ({error})") from error
    if args.json:
        emit_json(report.to_dict())
        return 0
    rows = [
        (
            args.policy if s.name == "policy" else s.name,
            f"{100 * s.violations:.3f}",
            f"{s.replica_minutes:.0f}",
            f"{s.cost:.2f}",
            s.actions,
            s.flaps,
        )
        for s in report.scores
    ]
    columns = ("policy", "late %", "replica-minutes", "x oracle", "actions", "flaps")
    table(columns, rows, title=f"Simulated: {len(trace.rates)} steps of {args.step}")
    return 0


def _calendar(name: str | None) -> Calendar | None:
    """Read a file of events; plain numbers are seconds from the begin of the trace."""
    from eventperf.scaling import Calendar

    return None if name is None else Calendar.from_file(name)


def _progress(args: argparse.Namespace) -> Callable[[str, float], object]:
    """Say on standard error, once a second, which policy is simulated and how far it is."""
    progress, said = Progress(quiet=args.json), time.monotonic()

    def show(name: str, share: float) -> None:
        nonlocal said
        if time.monotonic() - said >= 1.0:
            said = time.monotonic()
            progress.say(f"{args.policy if name == 'policy' else name}: {share:.0%}")

    return show


def _run(args: argparse.Namespace) -> int:
    from .run import check_choice, run_config

    check_choice(args)
    if args.config:
        return run_config(args)
    scaler = load_object(args.scaler, "scaler")
    if not callable(getattr(scaler, "tick", None)):
        raise ConfigurationError("scaler", args.scaler, "an AutoScaler, or a function that returns one")
    if args.state:
        from .state import open_state

        scaler.state = open_state(args.state, argument="--state")
    try:
        if not args.once:
            stop = threading.Event()
            with ending(stop.set):
                scaler.run(args.interval, stop=stop)
            return 0
        decision = scaler.tick()
        say(decision.to_json() if args.json else decision.explain())
        return 1 if decision.error else 0
    finally:
        if args.state:
            scaler.state.close()


def _import(args: argparse.Namespace) -> int:
    from .importing import carried_over

    text, remarks = carried_over(args.manifest)
    say(text)
    for remark in remarks:
        say(f"differs: {remark}", error=True)
    return 0


def _explain(args: argparse.Namespace) -> int:
    from eventperf.scaling import why_not

    if args.last < 1:
        raise ConfigurationError("--last", args.last, "a whole number from 1")
    decisions = _read_decisions(args.log, args.target, args.last)
    if args.why_not is not None:
        if not decisions:
            raise ConfigurationError("log", args.log, "a log with a decision to explain")
        say(why_not(decisions[-1], args.why_not))
        return 0
    for decision in decisions:
        say(decision.to_json() if args.json else decision.explain())
    return 0


def _read_decisions(log: str, target: str | None, last: int) -> Sequence[ScalingDecision]:
    from eventperf.scaling import DecisionLog

    if "://" in log:
        from eventperf.scaling import SqlDecisionLog

        with SqlDecisionLog(log) as table:
            return table.find(target=target, limit=last)
    try:
        found = [d for d in DecisionLog.read(log) if target is None or d.target == target]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigurationError("log", log, f"a file of DecisionLog ({error})") from error
    return found[-last:]
