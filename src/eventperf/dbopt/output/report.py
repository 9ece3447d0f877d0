"""Advice and reports for people: terminal text, and one self-contained HTML page."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence

from eventperf._core.durations import show
from eventperf.dbopt.findings import Findings, IndexAdvice, PartitionAdvice, RewriteAdvice, Served


def size(value: float) -> str:
    """Return bytes for people.

    >>> size(2_500_000)
    '2.5 MB'
    """
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} GB"


def table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return columns aligned with blanks."""
    widths = [max(len(str(r[i])) for r in [headings, *rows]) for i in range(len(headings))]
    lines = [
        "  ".join(str(c).ljust(w) for c, w in zip(r, widths, strict=True)).rstrip() for r in [headings, *rows]
    ]
    return "\n".join([lines[0], "  ".join("-" * w for w in widths), *lines[1:]])


def text_table(advice: Findings) -> str:
    """Return advice as text."""
    out = [
        f"{advice.statements} statements, {advice.since}; judged by {advice.proof} "
        f"({advice.explains} plans in {show(advice.seconds)})"
        f"{'' if advice.is_complete else '; stopped early'}"
    ]
    if advice.indexes:
        out.append(
            f"\nIndexes: {len(advice.indexes)}, saving {100 * advice.gain:.0f} % of the workload's time"
        )
        rows = [
            [
                str(n),
                i.spec.label(),
                f"{100 * i.gain:.1f} %",
                size(i.size_bytes),
                f"{100 * i.write_cost:.2f} %",
                str(len(i.serves)),
            ]
            for n, i in enumerate(advice.indexes, 1)
        ]
        out.append(table(["#", "index", "gain", "size", "writes", "queries"], rows))
        for number, index in enumerate(advice.indexes, 1):
            out += ["", *_explain(number, index)]
    else:
        out.append("\nNo index is worth adding.")
    for drop in advice.drops:
        out.append(f"\nCould be dropped ({drop.kind}): {drop.name} on {drop.table}: {drop.evidence}")
    for rewrite in advice.rewrites:
        mark = "safe" if rewrite.is_safe else "check"
        out.append(f"\nRewrite ({mark}, {rewrite.rule}): {rewrite.advice}\n  {rewrite.before}")
        if rewrite.after:
            out.append(f"  -> {rewrite.after}")
        out.append(f"  {rewrite.verdict}")
    for part in advice.partitions:
        out.append(f"\nPartition {part.table} by {part.column}: {part.reason}")
    if advice.unserved:
        out.append("\nQueries without a new index:")
        out += [f"  {_named(advice, name)}: {reason}" for name, reason in advice.unserved.items()]
    out += [f"\nWarning: {w}" for w in advice.warnings]
    return "\n".join(out)


def _named(advice: Findings, fingerprint: str) -> str:
    """Return a query's name with its text, where the workload is at hand."""
    if advice.workload is None or fingerprint not in advice.workload:
        return fingerprint
    return f"{fingerprint} {advice.workload[fingerprint].fingerprint.text[:90]}"


def _explain(number: int, index: IndexAdvice) -> list[str]:
    lines = [f"{number}. {index.sql}", f"   {index.reason}"]
    for served in index.serves[:3]:
        lines.append(f"   serves {served.fingerprint} ({served.calls} calls): {served.statement[:110]}")
        lines.append(f"     before: {' / '.join(s.strip() for s in served.plan_before.splitlines())[:150]}")
        lines.append(f"     after:  {' / '.join(s.strip() for s in served.plan_after.splitlines())[:150]}")
    lines += [f"   not chosen: {other}: {why}" for other, why in index.rejected[:3]]
    return lines


_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:70rem;padding:0 1rem;color:#1c2430;
background:#fff}
h1{font-size:1.5rem}h2{font-size:1.15rem;margin-top:2rem}table{border-collapse:collapse;width:100%}
td,th{padding:.35rem .6rem;border-bottom:1px solid #dde3ea;text-align:left;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums}pre{background:#f4f6f9;padding:.7rem;overflow:auto;
border-radius:6px;margin:.4rem 0}
.muted{color:#5d6b7c}svg text{font:12px system-ui,sans-serif;fill:#1c2430}details{margin:.4rem 0}
@media(prefers-color-scheme:dark){body{background:#12161c;color:#dfe6ee}pre{background:#1c232d}
td,th{border-color:#2b3542}svg text{fill:#dfe6ee}}
"""


def html_page(advice: Findings) -> str:
    """Return one page without outside resources."""
    e = html.escape
    body = [
        "<h1>Database advice</h1>",
        f"<p class=muted>{advice.statements} statements, {e(advice.since)}; judged by {e(advice.proof)}; "
        f"{advice.explains} plans in {e(show(advice.seconds))}"
        f"{'' if advice.is_complete else '; ended early'}.</p>",
    ]
    if advice.indexes:
        body.append(
            f"<h2>{len(advice.indexes)} indexes save {100 * advice.gain:.0f} % of the workload's time</h2>"
        )
        gains = [(i.spec.label(), 100 * i.gain) for i in advice.indexes]
        body.append(bars(gains, lambda v: f"{v:.1f} %", "gain per index"))
        body.append("<h3>Bytes</h3>")
        body.append(bars([(i.spec.label(), float(i.size_bytes)) for i in advice.indexes], size, "bytes"))
        served = {s.fingerprint: s for i in advice.indexes for s in i.serves}
        costly = sorted(served.values(), key=lambda s: -s.share)[:20]
        body.append("<h3>Planner cost of the queries, before and after (logarithmic)</h3>")
        body.append(pairs([(s.statement, s.cost_before, s.cost_after) for s in costly], "planner cost"))
        for index in advice.indexes:
            body += _index_html(index)
    else:
        body.append("<p>No index is worth adding.</p>")
    body += [_more(d.name, f"could go ({d.kind}): {d.evidence}", d.sql) for d in advice.drops]
    body += [_rewrite_html(r) for r in advice.rewrites]
    body += [_partition_html(p) for p in advice.partitions]
    if advice.unserved:
        every = advice.unserved.items()
        rows = "".join(f"<li><code>{e(_named(advice, n))}</code> {e(why)}" for n, why in every)
        body.append(f"<h2>Queries without a new index</h2><ul>{rows}</ul>")
    if advice.warnings:
        body.append("<h2>Notes</h2><ul>" + "".join(f"<li>{e(n)}" for n in advice.warnings) + "</ul>")
    return page("Database advice", "".join(body))


def _index_html(index: IndexAdvice) -> list[str]:
    e = html.escape
    out = [
        f"<h2>{e(index.spec.label())}</h2><p>{e(index.reason)} <span class=muted>About "
        f"{e(size(index.size_bytes))}; writers lose {100 * index.write_cost:.2f} %; "
        f"judged by {e(index.proof)}.</span></p><pre>{e(index.sql)};</pre>"
    ]
    out += [_served(served) for served in index.serves]
    if index.rejected:
        rows = "".join(f"<li>{e(other)}: {e(why)}" for other, why in index.rejected)
        out.append(f"<details><summary>Not chosen instead</summary><ul>{rows}</ul></details>")
    return out


def _rewrite_html(rewrite: RewriteAdvice) -> str:
    mark = "safe" if rewrite.is_safe else "to be checked"
    costs = ""
    if rewrite.cost_before is not None and rewrite.cost_after is not None:
        costs = f" Planner cost {rewrite.cost_before:,.0f} to {rewrite.cost_after:,.0f}."
    places = f" Sent from {', '.join(rewrite.callers)}." if rewrite.callers else ""
    code = rewrite.before + (f"\n-> {rewrite.after}" if rewrite.after else "")
    heading = f"Rewrite: {rewrite.rule} ({mark})"
    return _more(heading, f"{rewrite.advice}. {rewrite.verdict}.{costs}{places}", code)


def _partition_html(part: PartitionAdvice) -> str:
    lines = [part.reason]
    lines += [f"{name} would read {100 * share:.0f} %" for name, share in part.prunes]
    lines += [f"{name} would look into every partition" for name in part.reads_all]
    lines += [f"breaks: {b}" for b in part.breaks]
    return _more(f"Partition {part.table} by {part.column}", "; ".join(lines), ";\n".join(part.ddl))


def _more(heading: str, text: str, code: str) -> str:
    return f"<h2>{html.escape(heading)}</h2><p>{html.escape(text)}</p><pre>{html.escape(code)}</pre>"


def _served(served: Served) -> str:
    e = html.escape
    return (
        f"<details><summary>{e(served.statement[:160])} <span class=muted>{served.calls} calls, "
        f"planner cost {served.cost_before:.0f} to {served.cost_after:.0f}</span></summary>"
        f"<p class=muted>{e(', '.join(served.callers))}</p><table><tr><th>before<th>after<tr>"
        f"<td><pre>{e(served.plan_before)}</pre><td><pre>{e(served.plan_after)}</pre></table></details>"
    )


def bars(items: Sequence[tuple[str, float]], show: Callable[[float], str], title: str) -> str:
    """Return a bar chart as SVG."""
    top = max((v for _, v in items), default=0.0) or 1.0
    rows = []
    for n, (label, value) in enumerate(items):
        y = n * 26
        width = max(2.0, 330 * value / top)
        rows.append(
            f'<text x="0" y="{y + 16}">{html.escape(label[:60])}</text>'
            f'<rect x="430" y="{y + 4}" width="{width:.0f}" height="16" rx="3" fill="#2f7dd1"/>'
            f'<text x="{436 + width:.0f}" y="{y + 16}">{html.escape(show(value))}</text>'
        )
    height = len(items) * 26 + 4
    frame = f'<svg viewBox="0 0 880 {height}" width="100%" role="img" aria-label="{html.escape(title)}">'
    return f"{frame}{''.join(rows)}</svg>"


def pairs(items: Sequence[tuple[str, float, float]], title: str) -> str:
    """Return two bars per line, before and after, on a logarithmic scale."""
    values = [v for _, before, after in items for v in (before, after) if v > 0]
    low = math.log10(min(values, default=1.0)) - 0.3
    span = (math.log10(max(values, default=10.0)) - low) or 1.0
    rows = []
    for n, (label, before, after) in enumerate(items):
        y = n * 34
        rows.append(f'<text x="0" y="{y + 20}">{html.escape(label[:60])}</text>')
        for value, top, color in ((before, y + 4, "#c9572c"), (after, y + 17, "#2f7dd1")):
            width = max(2.0, 330 * (math.log10(max(value, 10**low)) - low) / span)
            rows.append(
                f'<rect x="430" y="{top}" width="{width:.0f}" height="11" rx="2" fill="{color}"/>'
                f'<text x="{436 + width:.0f}" y="{top + 10}">{value:,.3g}</text>'
            )
    height = len(items) * 34 + 4
    frame = f'<svg viewBox="0 0 880 {height}" width="100%" role="img" aria-label="{html.escape(title)}">'
    return f"{frame}{''.join(rows)}</svg>"


def page(title: str, body: str) -> str:
    """Return one page without outside resources."""
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{html.escape(title)}</title>'
    return f"{head}<style>{_STYLE}</style>{body}</html>\n"
