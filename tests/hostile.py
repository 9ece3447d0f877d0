"""Names and texts that somebody made to be taken for something else."""

from __future__ import annotations

from hypothesis import strategies as st

ATTACKS = (
    "\n", "\r\n", "\u2028", "\x85", "'", '"', "`", "]", "\\", "\\'", "\x00", "\x1b[2J\x1b]0;x\x07", "\u202e",
    "\u2066",
    "\x1e", "\x1f", "/*", "*/", "-- ", "#", ";", "$1", ":a", "%s", "%(a)s", "{{", "}}", "{0}",
    "{x!r}", "<script>",
    "&amp;", "]]>", "'''", '"""', "\nimport os\nos.abort()\n", "'); DROP TABLE t; --", "\ud800", "\xa0", "N'",
    "é", "e\u0301", "|", "*",
)  # fmt: skip
NAMES = st.lists(st.sampled_from(ATTACKS) | st.text(max_size=4), min_size=1, max_size=4).map("".join)
