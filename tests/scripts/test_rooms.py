"""Folders stay small enough to be read at a glance."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

MOST = 15
SOURCE = {".cpp", ".h", ".j2", ".json", ".py"}
FOLDERS = (
    "bench",
    "benchmarks",
    "cli",
    "cpp",
    "cross",
    "export",
    "python",
    "runtimes",
    "scripts",
    "serve",
    "tests",
    "train",
)


def test_no_folder_of_source_is_crowded(root: Path) -> None:
    files = [path for folder in FOLDERS for path in (root / folder).rglob("*") if path.suffix in SOURCE]
    count = Counter(path.parent.relative_to(root) for path in files)
    assert len(files) > 500
    crowded = {
        str(folder): number for folder, number in count.items() if number > MOST and folder.parts[1:] != ("golden",)
    }
    assert not crowded, f"more than {MOST} files each: make rooms"
