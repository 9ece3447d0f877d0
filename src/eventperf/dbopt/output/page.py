"""Advice as one HTML page that needs nothing from outside."""

from __future__ import annotations

from eventperf._core.durations import show
from eventperf._pages.html import Html, listed, markup, page, table, tag
from eventperf._pages.svg import bars
from eventperf.dbopt.findings import Findings, IndexAdvice, PartitionAdvice, RewriteAdvice, Served
from eventperf.dbopt.statements.lex import without_values

from .labels import label
from .report import measured, named, size, whose_cost


def advice_page(advice: Findings) -> str:
    """Return the page."""
    return page("Database advice", tag("h1", "Database advice"), *advice_parts(advice))


def advice_parts(advice: Findings) -> list[Html]:
    """Return what stands on the page, for a frame of another's."""
    early = "" if advice.is_complete else "; ended early"
    what = (
        f"{advice.statements} statements, {advice.since}; {advice.level}, judged by {advice.proof}; "
        f"{advice.explains} plans in {show(advice.seconds)}{early}."
    )
    return [
        tag("p", what, class_="muted"),
        *([tag("p", advice.trial, class_="muted")] if advice.trial else ()),
        *_indexes(advice),
        *_tables(advice),
        *(_more(d.name, f"could go ({d.kind}): {d.evidence}", d.sql) for d in advice.drops),
        *(_rewrite(r, advice.dialect) for r in advice.rewrites),
        *(_partition(p) for p in advice.partitions),
        *_unserved(advice),
        *([tag("h2", "Notes"), listed(advice.warnings)] if advice.warnings else ()),
    ]


def _indexes(advice: Findings) -> list[Html]:
    if not advice.indexes:
        return [tag("p", "No index is worth adding.")]
    served = {s.fingerprint: s for i in advice.indexes for s in i.serves}
    costly = sorted(served.values(), key=lambda s: -s.share)[:20]
    saved = f"{100 * advice.gain:.0f} % of the workload's {whose_cost(advice)}"
    return [
        tag("h2", f"{len(advice.indexes)} indexes save {saved}"),
        bars(
            [(i.spec.label(), [100 * i.gain]) for i in advice.indexes],
            title="gain per index",
            show=lambda v: f"{v:.1f} %",
        ),
        tag("h3", "Bytes"),
        bars([(i.spec.label(), [i.size_bytes]) for i in advice.indexes], title="bytes", show=size),
        tag("h3", "Planner cost of the queries"),
        bars(
            [(label(s.statement, 70), [s.cost_before, s.cost_after]) for s in costly],
            ("before", "after"),
            title="planner cost",
            log=True,
        ),
        *(_index(index) for index in advice.indexes),
    ]


def _tables(advice: Findings) -> list[Html]:
    """Return how large the tables are that the advice is about."""
    about = {i.spec.table for i in advice.indexes} | {d.table for d in advice.drops}
    about |= {p.table for p in advice.partitions}
    known = [(name, *advice.tables[name]) for name in sorted(about) if name in advice.tables]
    if not known:
        return []
    rows = [
        [name, f"{rows:,}", size(held), ", ".join(i.name for i in advice.indexes if i.spec.table == name)]
        for name, rows, held in sorted(known, key=lambda k: -k[2])
    ]
    return [tag("h2", "Tables"), table(("table", "rows", "size", "new indexes"), rows)]


def _index(index: IndexAdvice) -> Html:
    lost = f"writers lose {100 * index.write_cost:.2f} %"
    facts = f"About {size(index.size_bytes)}; {lost}; {index.level}, judged by {index.proof}."
    rejected = listed(f"{other}: {why}" for other, why in index.rejected)
    return markup(
        tag("h2", index.spec.label()),
        tag("p", index.reason, " ", tag("span", facts, class_="muted")),
        tag("pre", f"{index.sql};"),
        *(_served(served) for served in index.serves),
        tag("details", tag("summary", "Not chosen instead"), rejected) if index.rejected else Html(),
    )


def _served(served: Served) -> Html:
    facts = f"{served.calls} calls, planner cost {served.cost_before:.0f} to {served.cost_after:.0f}"
    if (took := measured(served)) is not None:
        facts += f"; {took}"
    plans = [[tag("pre", served.plan_before), tag("pre", served.plan_after)]]
    return tag(
        "details",
        tag("summary", label(served.statement, 200), " ", tag("span", facts, class_="muted")),
        tag("pre", served.statement),
        tag("p", ", ".join(served.callers), class_="muted"),
        table(("before", "after"), plans),
    )


def _rewrite(rewrite: RewriteAdvice, dialect: str) -> Html:
    mark = "safe" if rewrite.is_safe else "to be checked"
    costs = ""
    if rewrite.cost_before is not None and rewrite.cost_after is not None:
        costs = f" Planner cost {rewrite.cost_before:,.0f} to {rewrite.cost_after:,.0f}."
    places = f" Sent from {', '.join(rewrite.callers)}." if rewrite.callers else ""
    code = rewrite.before + (f"\n-> {without_values(rewrite.after, dialect)}" if rewrite.after else "")
    heading = f"Rewrite: {rewrite.rule} ({mark})"
    return _more(heading, f"{rewrite.advice}. {rewrite.verdict}.{costs}{places}", code)


def _partition(part: PartitionAdvice) -> Html:
    lines = [part.reason]
    lines += [f"{name} would read {100 * share:.0f} %" for name, share in part.prunes]
    lines += [f"{name} would look into every partition" for name in part.reads_all]
    lines += [f"breaks: {b}" for b in part.breaks]
    return _more(f"Partition {part.table} by {part.column}", "; ".join(lines), ";\n".join(part.ddl))


def _unserved(advice: Findings) -> list[Html]:
    if not advice.unserved:
        return []
    rows = [markup(tag("code", named(advice, n)), " ", why) for n, why in advice.unserved.items()]
    return [tag("h2", "Queries without a new index"), listed(rows)]


def _more(heading: str, text: str, code: str) -> Html:
    return markup(tag("h2", heading), tag("p", text), tag("pre", code))
