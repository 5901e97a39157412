"""HTML pages from templates that lie beside the modules that fill them."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def render(module_file: str, template: str, **values: Any) -> str:
    """The page. module_file: `__file__` of the module beside whose file the template lies. Needs Jinja."""
    from jinja2 import Environment

    text = Path(module_file).with_name(template).read_text(encoding="utf-8")
    return Environment(autoescape=True, trim_blocks=True).from_string(text).render(**values)
