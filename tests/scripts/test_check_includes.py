"""The check of the core's includes fails where it must."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("name", "line", "said"),
    [
        (
            "src/base/meter.h",
            '#include "image/codecs.h"',
            "(base) includes src/image/codecs.h (image)",
        ),
        (
            "src/search/hit.h",
            '#include "edgerecall/bundle.h"',
            "(search) includes include/edgerecall/bundle.h",
        ),
        ("src/base/half.h", '#include "base/half-inl.h"', "half-inl.h -> src/base/half.h -> src/base/half-inl.h"),
        ("tools/session.cpp", '#include "bench/row_worker.h"', "tools/session.cpp includes tools/bench/row_worker.h"),
        ("src/base/held.h", '#include "session.h"', "which is no part of the core"),
        ("include/edgerecall/new.h", "", "name its room in PUBLIC"),
        ("src/new/file.h", "", "name its room in ROOMS"),
    ],
)
def test_a_wrong_include_is_told(root: Path, tmp_path: Path, name: str, line: str, said: str) -> None:
    shutil.copytree(root / "cpp", tmp_path / "cpp")
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(root / "scripts" / "check_includes.py", tmp_path / "scripts")
    command = [sys.executable, str(script)]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    path = tmp_path / "cpp" / name
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text() if path.exists() else "") + f"\n{line}\n")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1 and said in result.stderr, result.stderr
