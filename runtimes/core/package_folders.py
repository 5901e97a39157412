"""Where installed packages lie, for what is inside them besides Python."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def package_library(package: str, folder: str, stem: str) -> str | None:
    """The path of the shared library in a package's folder whose name begins so; None when it is not installed."""
    found = (path for place in package_folders(package) for path in sorted((place / folder).glob(f"{stem}*")))
    return next(map(str, found), None)


def package_folders(name: str) -> list[Path]:
    """A package's folders, without importing it; none when it is not installed."""
    spec = importlib.util.find_spec(name)
    return [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
