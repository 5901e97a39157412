"""Lays the package out as one tree of links under build/flat, for tools that do not read setup.py's package_dir."""

from __future__ import annotations

import ast
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FLAT = ROOT / "build" / "flat"


def package_dir() -> dict[str, str]:
    """The PACKAGE_DIR literal of setup.py, the only place where the layout is written down."""
    for node in ast.parse((ROOT / "setup.py").read_text()).body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "PACKAGE_DIR":
            value: dict[str, str] = ast.literal_eval(node.value)
            return value
    raise SystemExit("setup.py: no PACKAGE_DIR")


def main() -> None:
    """Rebuilds the tree."""
    shutil.rmtree(FLAT, ignore_errors=True)
    for package, folder in package_dir().items():
        target = FLAT.joinpath(*package.split("."))
        for source in sorted((ROOT / folder).rglob("*")):
            if source.suffix in (".py", ".pyi", ".typed", ".json", ".j2"):
                link = target / source.relative_to(ROOT / folder)
                link.parent.mkdir(parents=True, exist_ok=True)
                link.symlink_to(source)


if __name__ == "__main__":
    main()
