"""One look for every page: readable on paper, on a telephone, in light and dark."""

from __future__ import annotations

from typing import Final

# Chosen to stay apart for eyes that confuse red and green, in the order they are given out.
LIGHT: Final = ("#c2410c", "#2563eb", "#7c3aed", "#059669", "#be185d", "#64748b")
DARK: Final = ("#fb923c", "#60a5fa", "#a78bfa", "#34d399", "#f472b6", "#94a3b8")


def palette(colours: tuple[str, ...]) -> str:
    """Return the rules that colour series: ``s0`` lines, ``b0`` bars, ``a0`` areas."""
    return "".join(
        f".s{n}{{stroke:{c};fill:none;stroke-width:1.8}}.b{n}{{fill:{c};background:{c}}}"
        f".a{n}{{fill:{c};opacity:.25}}"
        for n, c in enumerate(colours)
    )


PLOTS: Final = (
    ":root{--ink:#17202c;--soft:#5b6878;--line:#dde3ea;--paper:#fff;--raised:#f4f6f9}"
    "svg{width:100%;height:auto}svg text{font:12px system-ui,sans-serif;fill:var(--soft)}"
    f".grid{{stroke:var(--line)}}.mark{{stroke:var(--soft);stroke-dasharray:4 3}}{palette(LIGHT)}"
    "@media(prefers-color-scheme:dark){"
    ":root{--ink:#e3e9f0;--soft:#94a3b5;--line:#2a3441;--paper:#11161d;--raised:#1c232d}"
    f"{palette(DARK)}}}"
)
STYLE: Final = PLOTS + (
    "body{font:15px/1.55 system-ui,sans-serif;max-width:66rem;margin:2.5rem auto;padding:0 1.2rem;"
    "color:var(--ink);background:var(--paper)}"
    "h1{font-size:1.7rem;margin:0}h2{font-size:1.15rem;margin:2.4rem 0 .5rem}"
    "table{border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums;font-size:14px}"
    "th,td{text-align:left;padding:.4rem .6rem;border-bottom:1px solid var(--line);vertical-align:top}"
    "th{color:var(--soft);font-weight:600}.n{text-align:right}"
    "pre{background:var(--raised);padding:.7rem;overflow:auto;border-radius:6px;margin:.4rem 0}"
    "details{margin:.4rem 0}.muted{color:var(--soft)}"
    ".good{color:#059669}.bad{color:#dc2626}"
)
