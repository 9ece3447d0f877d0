"""Run the Python blocks of a Markdown page from top to bottom, as a reader would.

    python tests/pages.py docs/cache.md redis=redis://127.0.0.1:7001/0

Blocks of a page share one namespace. A block that starts with ``>>>`` is run as a doctest. HTML
comments, invisible to readers, steer it:

* ``<!-- needs: redis, postgres -->``: from here on the page's own URLs of these servers (also
  ``cluster`` and ``mariadb``), such as ``redis://localhost:6379/0``, mean the servers of the test run.
* ``<!-- output -->``: the next ``text`` block is what the Python block before it printed; ``...``
  stands for anything.
* ``<!-- skip: next, why -->``: the next Python block is not run.
"""

from __future__ import annotations

import contextlib
import doctest
import io
import re
import sys
import textwrap
import types
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

URLS = {
    "redis": r"redis://(?:localhost|127\.0\.0\.1)(?::\d+)?(?:/\d+)?",
    "cluster": r"redis\+cluster://[\w.,:-]+",
    "postgres": r"postgresql\+psycopg://[\w.:@-]+/\w+",
    "mariadb": r"mysql\+pymysql://[\w.:@-]+/\w+",
}
_TOKEN = re.compile(
    r"^[ ]*<!--\s*(?P<comment>needs:|output|skip:\s*next)(?P<rest>.*?)-->"
    r"|^(?P<indent>[ ]*)(?P<fence>`{3,})(?P<info>[^\n`]*)\n(?P<body>.*?)^[ ]*(?P=fence)[ ]*$",
    re.MULTILINE | re.DOTALL,
)
_LIKE = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE


class Step(NamedTuple):
    """One thing to do: ``kind`` is needs, output, skip, python or other."""

    kind: str
    text: str
    line: int


def steps(page: str) -> Iterator[Step]:
    """Yield the comments and fenced blocks of a page in order."""
    for found in _TOKEN.finditer(page):
        line = page.count("\n", 0, found.start()) + 1
        if comment := found["comment"]:
            yield Step(re.split(r"[:\s]", comment)[0], found["rest"].strip(" ,\n"), line)
        else:
            kind = "python" if _is_python(found["info"]) else "other"
            yield Step(kind, textwrap.dedent(found["body"]), line)


def _is_python(info: str) -> bool:
    return bool(re.fullmatch(r"(python|py|pycon|\{code-block\} *python)\b.*", info.strip()))


def needs(page: str) -> list[str]:
    """Return the servers that a page asks for."""
    return [name for step in steps(page) if step.kind == "needs" for name in re.findall(r"\w+", step.text)]


def run(path: Path, urls: dict[str, str]) -> int:
    """Run the page and return how many blocks ran; raise what a block raises."""
    module = types.ModuleType("page_" + re.sub(r"\W", "_", path.stem))
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    active: dict[str, str] = {}
    ran, before, printed = 0, "", ""
    for step in steps(path.read_text(encoding="utf-8")):
        if step.kind == "needs":
            active |= {name: urls[name] for name in re.findall(r"\w+", step.text)}
        elif step.kind == "python" and before != "skip":
            printed = _run_block(step, path, module, active)
            ran += 1
        elif step.kind == "other" and before == "output":
            _compare(step, path, printed)
        before = step.kind
    return ran


def _run_block(step: Step, path: Path, module: types.ModuleType, urls: dict[str, str]) -> str:
    source = step.text
    for name, url in urls.items():
        source = re.sub(URLS[name], lambda _, url=url: url, source)  # type: ignore[misc]
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        if source.lstrip().startswith(">>>"):
            test = doctest.DocTestParser().get_doctest(
                source, module.__dict__, path.name, str(path), step.line
            )
            test.globs = module.__dict__  # a doctest works on a copy; later blocks see its names
            results = doctest.DocTestRunner(optionflags=_LIKE).run(test, clear_globs=False)
            if results.failed:
                raise AssertionError(f"{path}:{step.line}: doctest failed\n{out.getvalue()}")
        else:
            # Leading newlines make the line numbers of a traceback those of the page.
            exec(compile("\n" * step.line + source, str(path), "exec"), module.__dict__)
    sys.stdout.write(out.getvalue())
    return out.getvalue()


def _compare(step: Step, path: Path, printed: str) -> None:
    if not doctest.OutputChecker().check_output(step.text, printed, _LIKE):
        raise AssertionError(f"{path}:{step.line}: the page says\n{step.text}\nbut it printed\n{printed}")


if __name__ == "__main__":
    run(Path(sys.argv[1]), dict(pair.split("=", 1) for pair in sys.argv[2:]))
