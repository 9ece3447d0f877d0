"""Sphinx configuration: `sphinx-build -W -n docs docs/_build/html` must be clean, offline."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent / "src"))

import eventperf

project = "eventperf"
author = "The eventperf developers"
project_copyright = "The eventperf developers, MIT licence"
version = release = eventperf.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
source_suffix = {".md": "markdown", ".rst": "restructuredtext"}
exclude_patterns = ["_build"]
nitpicky = True

myst_enable_extensions = ["colon_fence", "deflist", "fieldlist", "attrs_inline"]
myst_heading_anchors = 3
suppress_warnings: list[str] = []

autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
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

# Names that people write in docstrings and that no inventory here knows (the build is offline).
nitpick_ignore_regex = [
    (r"py:.*", r"(asyncio|collections|concurrent|contextlib|contextvars|dataclasses|datetime|decimal|enum)(\..*)?"),
    (r"py:.*", r"(functools|logging|pathlib|random|signal|sqlite3|ssl|threading|time|types|typing|uuid)(\..*)?"),
    (r"py:.*", r"(django|fastapi|flask|starlette|kubernetes|redis|arq|sqlalchemy|sqlglot|cachetools|msgspec)(\..*)?"),
    (r"py:.*", r"(dogpile|prometheus_client|opentelemetry|psycopg|pymysql|rich|pytest|hypothesis)(\..*)?"),
    (r"py:(class|exc|obj|data)", r"(bool|bytes|dict|float|frozenset|int|list|object|set|str|tuple|type|None)"),
    (r"py:(class|exc|obj)", r"[A-Z]\w*(Error|Exception|Interrupt)"),
]


def _plain_annotation(app: Any, env: Any, node: Any, content: Any) -> Any:
    """Leave a type in a signature as text where it has no page; references written by people must resolve."""
    from docutils import nodes
    from sphinx import addnodes

    parent = node.parent
    while parent is not None and not isinstance(parent, nodes.document):
        if isinstance(parent, (addnodes.desc_signature, nodes.field_name)):
            return content
        if isinstance(parent, nodes.field_body):  # "Attributes:" and "Raises:" of a Google docstring
            return content if node.get("reftype") in {"class", "exc"} and "py:class" in node.attributes else None
        parent = parent.parent
    return None


def _touch_lazy_names() -> None:
    for room in ("cache", "dbopt", "scaling", "queues", "testing"):
        module = importlib.import_module(f"eventperf.{room}")
        for name in getattr(module, "__all__", ()):
            getattr(module, name)


def setup(app: Any) -> dict[str, bool]:
    """Connect what is defined above."""
    _touch_lazy_names()
    app.connect("missing-reference", _plain_annotation)
    return {"parallel_read_safe": True}
