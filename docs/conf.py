"""Sphinx configuration: `sphinx-build -W -n docs docs/_build/html` must be clean, offline."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

from sphinx import addnodes

import eventperf

project = "eventperf"
author = "The eventperf developers"
project_copyright = "The eventperf developers, MIT licence"
version = release = eventperf.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "rooms"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist", "attrs_inline"]
myst_heading_anchors = 3
suppress_warnings: list[str] = []

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_inherit_docstrings = False
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True}
autoclass_content = "both"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "eventperf"
html_static_path: list[str] = []
html_theme_options = {
    "sidebar_hide_name": False,
    "light_css_variables": {"color-brand-primary": "#0b6e4f", "color-brand-content": "#0b6e4f"},
    "dark_css_variables": {"color-brand-primary": "#5fd3a6", "color-brand-content": "#5fd3a6"},
}

# Third parties: no inventory here knows them (the build is offline), and not all are installed for it.
_OTHERS = (
    "arq cachetools django dogpile fastapi flask hypothesis kubernetes msgspec opentelemetry "
    "prometheus_client psycopg pydantic pymysql pytest redis rich sqlalchemy sqlglot starlette"
)
nitpick_ignore_regex = [(r"py:.*", rf"({'|'.join(_OTHERS.split())})(\..*)?")]


def _name_without_page(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Leave a Python name as text where it exists but has no page; a name that does not exist is an error.

    Types in signatures are taken on trust: the type checkers look after them.
    """
    if node.get("refdomain") != "py":
        return None
    parent = node.parent
    while parent is not None:
        if isinstance(parent, addnodes.desc_signature):
            return content
        parent = parent.parent
    return content if _exists(node["reftarget"], node.get("py:module"), node.get("py:class")) else None


def _exists(target: str, module: str | None, cls: str | None) -> bool:
    scopes = [s for s in (f"{module}.{cls}" if module and cls else None, module, "builtins", None) if s]
    if any(_found(f"{scope}.{target}") for scope in scopes) or _found(target):
        return True
    # Docstrings name their neighbours, while autodoc shows them under the room's public module.
    room = ".".join((module or "eventperf").split(".")[:2])
    homes = [name for name in list(sys.modules) if name.startswith(room)]
    return any(_found(f"{home}.{target}") for home in homes)


def _found(path: str) -> bool:
    parts = path.split(".")
    for cut in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:cut]))
        except (ImportError, ValueError):
            continue
        for part in parts[cut:]:
            if hasattr(found, part):
                found = getattr(found, part)
            else:
                return part in getattr(found, "__annotations__", {})
        return True
    return False


def _touch_lazy_names() -> None:
    for room in ("cache", "dbopt", "scaling", "queues", "testing"):
        module = importlib.import_module(f"eventperf.{room}")
        for name in getattr(module, "__all__", ()):
            getattr(module, name)


def _attributes_are_sentences() -> None:
    # Napoleon reads "text: more" on the first line of an attribute as its type; ours are sentences.
    from sphinx.ext.napoleon.docstring import GoogleDocstring

    def consume(self: GoogleDocstring) -> tuple[str, list[str]]:
        return "", self._dedent(self._consume_to_end())

    GoogleDocstring._consume_inline_attribute = consume  # type: ignore[method-assign]


def setup(app: Any) -> dict[str, bool]:
    """Connect what is defined above."""
    _touch_lazy_names()
    _attributes_are_sentences()
    app.connect("missing-reference", _name_without_page)
    return {"parallel_read_safe": True}
