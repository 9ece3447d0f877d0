"""The demo's tables for the terminal."""

from __future__ import annotations

from eventperf.cli.output import table

from .load import percentile
from .stages import Outcome


def ms(seconds: float) -> str:
    """Return milliseconds for people."""
    value = seconds * 1000
    return f"{value:,.0f} ms" if value >= 100 else f"{value:.3g} ms"


def show(outcome: Outcome) -> None:
    """Print everything that was measured."""
    stage_table(outcome)
    index_table(outcome)
    queue_table(outcome)
    chaos_log(outcome)
    day_table(outcome)
    verdict(outcome)


def stage_rows(outcome: Outcome) -> list[list[str]]:
    """One row per stage; also used by the report."""
    rows = []
    for stage in outcome.rows:
        run, check = stage.open_loop, stage.verdict
        hit = "" if stage.hit_ratio is None else f"{stage.hit_ratio:.0%}"
        sustained = f"{stage.sustained_rps:,.0f}" if stage.sustained_rps else ""
        rows.append(
            [stage.name, sustained, ms(run.latency(0.5)), ms(run.latency(0.99)),
             ms(run.latency(0.999)), f"{stage.queries_per_request:.2f}", hit, f"{len(run.errors)}",
             f"{check.stale} / {check.lost} / {check.double}"]
        )  # fmt: skip
    return rows


STAGE_COLUMNS = (
    "stage", "sustained req/s", "p50", "p99", "p99.9", "queries/req", "hit ratio", "failed",
    "stale / lost / double",
)  # fmt: skip


def stage_table(outcome: Outcome) -> None:
    """Print before and after."""
    title = f"{outcome.engine}: latency at {outcome.rate:.0f} arrivals/s, the same in every stage"
    table(STAGE_COLUMNS, stage_rows(outcome), title=title)
    first, last = outcome.stages[0], outcome.stages[-1]
    times = last.sustained_rps / max(first.sustained_rps, 1e-9)
    tail = first.open_loop.latency(0.99) / max(last.open_loop.latency(0.99), 1e-9)
    print(f"Sustained: {times:.1f} times the plain site. p99 at equal arrivals: {tail:.1f} times shorter.\n")


def index_rows(outcome: Outcome) -> list[list[str]]:
    """One row per index that was tried; also used by the report."""
    applied = outcome.applied
    rows: list[list[str]] = []
    if applied is None:
        return rows
    for kind in ("created", "reverted", "failed", "skipped"):
        for one in getattr(applied, kind):
            faster = "" if one.speedup is None else f"{one.speedup:.1f} x"
            size = outcome.gains.get(one.name, ("", 0))[1]
            rows.append([kind, one.index, faster, f"{size / 1e6:.1f} MB", one.reason])
    return rows


INDEX_COLUMNS = ("", "index", "faster", "estimated size", "measured")


def index_table(outcome: Outcome) -> None:
    """Print what became of each index, and the pages' query times."""
    table(INDEX_COLUMNS, index_rows(outcome), title="Indexes, each measured on the recorded parameters")
    rows = [
        [page, f"{before:.2f} ms", f"{after:.2f} ms", f"{before / max(after, 1e-9):.1f} x"]
        for page, (before, after) in outcome.endpoints.items()
    ]
    table(["page (queries alone, no cache)", "before", "after", "faster"], rows)


def queue_rows(outcome: Outcome) -> list[list[str]]:
    """Waits of jobs by queue; also used by the report."""
    rows = []
    for queue, waits in sorted(outcome.stages[-1].waits.items()):
        rows.append(
            [queue, f"{len(waits)}", *(ms(percentile(waits, p)) for p in (0.5, 0.99)), ms(max(waits))]
        )
    return rows


QUEUE_COLUMNS = ("queue", "jobs", "wait p50", "wait p99", "longest")


def queue_table(outcome: Outcome) -> None:
    """Print how long side work waited."""
    table(QUEUE_COLUMNS, queue_rows(outcome), title="Side work, off the visitor's path")


def chaos_lines(outcome: Outcome) -> list[str]:
    """Return what was broken and what became of it; also used by the report."""
    chaos = outcome.chaos
    if chaos is None:
        return []
    waits = sorted(wait for queue in chaos.waits.values() for wait in queue)
    return [
        *(f"{at:.1f} s: {what}." for at, what in chaos.log),
        f"{chaos.verdict.jobs:,} jobs, written in the visitors' own transactions: {chaos.verdict.lost} lost, "
        f"{chaos.verdict.again} done again because their worker was killed; "
        f"longest wait {ms(max(waits, default=0.0))}.",
    ]


def chaos_log(outcome: Outcome) -> None:
    """Print what was broken on purpose."""
    if lines := chaos_lines(outcome):
        print("Chaos, with a Redis of the demo's own:", *lines, sep="\n  ", end="\n\n")


def day_table(outcome: Outcome) -> None:
    """Print what the scaler did on the simulated day."""
    day = outcome.day
    if day is None:
        return
    print(
        f"Autoscaler, a SIMULATED event day ({day.capacity_rps:,.0f} req/s per replica as measured above): "
        f"{len(day.decisions)} steps, {day.mean_replicas:.1f} replicas on average, "
        f"{day.short_minutes:.0f} minutes short of capacity; "
        f"the same mean standing still: {day.static_minutes:.0f} minutes."
    )
    for decision in day.decisions[:3]:
        print(f"  {decision.explain()}")
    print()


def verdict(outcome: Outcome) -> None:
    """Print what the independent check says."""
    verdicts = [stage.verdict for stage in outcome.rows]
    reads, jobs, stale = (sum(getattr(v, n) for v in verdicts) for n in ("checked", "jobs", "stale"))
    lost, double = (sum(getattr(v, n) for v in verdicts) for n in ("lost", "double"))
    counts = f"{reads:,} reads, {stale} stale; {jobs:,} jobs, {lost} lost, {double} finished twice"
    print(f"Independent check: {counts}.")
    for stage in outcome.rows:
        for example in [
            *stage.examples,
            *sorted({e for e in stage.open_loop.errors if not e.startswith("given up")})[:3],
        ]:
            print(f"  {stage.name}: {example}")
    print(f"Mail is simulated (15 ms a message); everything else ran here, in {outcome.took_s:.0f} s.")
