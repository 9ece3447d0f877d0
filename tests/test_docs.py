"""Every Python block of the pages, every example and every docstring example runs."""

from __future__ import annotations

import ast
import doctest
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pages

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted(p for p in (ROOT / "docs").rglob("*.md") if "_build" not in p.parts)]
EXAMPLES = sorted((ROOT / "examples").rglob("*.py"))
MODULES = sorted(p for p in (ROOT / "src").rglob("*.py") if ">>> " in p.read_text("utf-8"))
SERVERS = {
    "redis": "redis_url",
    "cluster": "redis_cluster_url",
    "postgres": "postgres_url",
    "mariadb": "mariadb_url",
}


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def run_script(folder: Path, *command: object, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        cwd=folder,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("page", PAGES, ids=relative)
def test_page_runs(page, request, tmp_path):
    urls = {name: request.getfixturevalue(SERVERS[name]) for name in pages.needs(page.read_text("utf-8"))}
    run_script(tmp_path, pages.__file__, page, *(f"{name}={url}" for name, url in urls.items()))


def test_the_page_about_testing_shows_every_suite():
    """Each with a row and with its fixtures; the page about backends says how to use it."""
    suites = {
        f"{module}.{name}"
        for path in (ROOT / "src/eventperf/testing").rglob("*.py")
        if (
            module := ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
        )
        for name in re.findall(r"^class ([A-Z]\w*Suite)\b", path.read_text("utf-8"), re.MULTILINE)
    }
    reference, how_to = (
        (ROOT / f"docs/{p}.md").read_text("utf-8") for p in ("reference/testing", "how-to/backends")
    )
    assert len(suites) >= 9
    assert {s for s in suites if f"| `{s}` |" not in reference} == set()
    assert {s for s in suites if f".. autoclass:: {s}\n" not in reference} == set()
    assert {s for s in suites if s.rpartition(".")[2] not in how_to} == set()


def named_places(page: str) -> Iterator[tuple[str, Path | None, str]]:
    """Yield what a page names as a place in the code, where it is, and which name is said to be there.

    A path begins in the repository, in ``src/eventperf``, or in the folder named just before it in the line.
    """
    for row in (ROOT / page).read_text("utf-8").splitlines():
        folders, file = [ROOT / "src/eventperf", ROOT], None
        for text, called in re.findall(r"`([\w./*]+)`|`([\w.]+)`", row):
            text = text or called
            if not row.startswith("|") and "/" not in text.rstrip("/"):
                continue  # a kind of file, in a sentence
            if "/" in text or text.endswith((".py", ".lua", ".toml")):
                file = next((base / text for base in folders if (base / text).exists()), None)
                yield text, file, ""
                if file is not None:
                    folders = [file if file.is_dir() else file.parent, *folders]
            elif file is not None and file.suffix == ".py" and f"`: `{text}`" in row:
                yield text, file, text


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/explanation/architecture.md"])
def test_places_that_the_map_of_the_house_names_are_there(page: str) -> None:
    places = list(named_places(page))
    assert len(places) >= 10
    assert [text for text, file, _ in places if file is None] == []
    missing = [
        f"{name} in {relative(file)}"
        for _, file, name in places
        if file is not None
        and name
        and not re.search(rf"^(async )?(def|class) {name}\b", file.read_text(), re.M)
    ]
    assert missing == []


@pytest.mark.parametrize("example", EXAMPLES, ids=relative)
def test_example_runs(example, request, tmp_path):
    """An example says what it needs (``# needs: redis``) and finds it in ``REDIS_URL``."""
    found = re.search(r"^# needs:(.*)$", example.read_text("utf-8"), re.MULTILINE)
    names = re.findall(r"\w+", found[1]) if found else []
    env = {f"{name.upper()}_URL": request.getfixturevalue(SERVERS[name]) for name in names}
    run_script(tmp_path, example, env=env)


@pytest.mark.parametrize("path", MODULES, ids=relative)
def test_docstring_examples_run(path, monkeypatch, tmp_path):
    name = ".".join(path.relative_to(ROOT / "src").with_suffix("").parts).removesuffix(".__init__")
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        if (error.name or "eventperf").startswith("eventperf"):
            raise
        pytest.skip(f"needs {error.name}")
    monkeypatch.chdir(tmp_path)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    report: list[str] = []
    for line, text in docstrings(path):
        test = doctest.DocTestParser().get_doctest(text, {**vars(module)}, name, str(path), line)
        runner.run(test, out=report.append)
    assert not report, "".join(report)


def docstrings(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and text of each docstring with examples (doctest's finder trips over lazy objects)."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            text = ast.get_docstring(node)
            if text and ">>> " in text:
                yield node.body[0].lineno - 1, text


STORY = """
<!-- needs: redis -->
```python
from dataclasses import dataclass

@dataclass
class Point:
    x: int

URL = "redis://localhost:6379/0"
print("twice", [Point(2)] * 2)
```

<!-- output -->
```text
twice [Point(x=2), ...]
```

1. In a list:

   ```python
   >>> Point(3).x, URL
   (3, 'redis://elsewhere:1/0')
   ```

<!-- skip: next, it would end the world -->
```python
raise SystemExit
```
"""


@pytest.fixture
def story(tmp_path):
    path = tmp_path / "story.md"
    path.write_text(STORY)
    return path


def test_pages_run_as_a_reader_would(story):
    assert pages.needs(STORY) == ["redis"]
    assert pages.run(story, {"redis": "redis://elsewhere:1/0"}) == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [("twice [Point", "thrice [Point"), ("(3, 'redis", "(4, 'redis"), ("x: int", "x: nowhere(")],
    ids=["output", "doctest", "syntax"],
)
def test_pages_that_lie_fail(story, old, new):
    story.write_text(STORY.replace(old, new))
    with pytest.raises((AssertionError, SyntaxError)):
        pages.run(story, {"redis": "redis://elsewhere:1/0"})
