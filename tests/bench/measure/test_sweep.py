"""An interrupted sweep goes on where it stopped, and only where it is the same sweep."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgerecall.bench.measure import runner
from edgerecall.bench.measure.image_set import ImageSet
from edgerecall.bench.measure.resume_store import ResumeStore
from edgerecall.bench.measure.runner import run_bench
from edgerecall.bench.schema.options import BenchOptions
from edgerecall.bench.schema.rows import BenchResult
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError

Make = Callable[..., Bundle]
REQUEST = {"what": "the same"}


def sweep(bundle: Bundle, data: Path, state: ResumeStore, **options: Any) -> BenchResult:
    settings = {"runtimes": ("fake",), "threads": (1, 2), "samples": 4, "rounds": 2, "together": 1, **options}
    return run_bench(
        bundle, ImageSet.find(data), BenchOptions(**settings), "tests", lambda what, share: None, state=state
    )


def test_groups_done_are_not_measured_again(
    fake_bundle: Make, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle, file = fake_bundle(), tmp_path / "result.json"
    honest = runner.Run._group

    def interrupted(run: runner.Run, index: int) -> Any:
        if index == 1:
            raise KeyboardInterrupt
        return honest(run, index)

    monkeypatch.setattr(runner.Run, "_group", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sweep(bundle, data, ResumeStore(file, REQUEST, False))
    folder = tmp_path / "result.json.partial"
    first = json.loads((folder / "group-0.json").read_text())["rows"][0]
    measured = []

    def counted(run: runner.Run, index: int) -> Any:
        measured.append(index)
        return honest(run, index)

    monkeypatch.setattr(runner.Run, "_group", counted)
    state = ResumeStore(file, REQUEST, True)
    result = sweep(bundle, data, state)
    assert measured == [1]
    assert result.rows[0].samples_ns == first["samples_ns"]
    assert [row.status for row in result.rows] == ["ok", "ok"] and result.rows[1].cosine_min == pytest.approx(1.0)
    assert result.rows[0].recall1 == result.rows[1].recall1 is not None
    state.remove()
    assert not folder.exists()


def test_another_request_is_not_continued(fake_bundle: Make, data: Path, tmp_path: Path) -> None:
    file = tmp_path / "result.json"
    sweep(fake_bundle(), data, ResumeStore(file, REQUEST, False))
    with pytest.raises(InputError, match="an interrupted run with other options"):
        ResumeStore(file, {"what": "another"}, True)
    begun = ResumeStore(file, {"what": "another"}, False)
    assert begun.load("group-0") is None
    whole = sweep(fake_bundle("b"), data, begun)
    assert begun.load("group-0") is not None and whole.exit_code == 0
    good = (begun.folder / "group-0.json").read_text()
    for text in ("{}", "[]", "", '{"rows": []}'):
        (begun.folder / "group-0.json").write_text(text)
        with pytest.raises(InputError, match="damaged"):
            begun.load("group-0")
    (begun.folder / "group-0.json").write_text(good)
    arrays = (begun.folder / "group-0.npz").read_bytes()
    for content in (arrays[: len(arrays) // 2], b"", b"no archive"):
        (begun.folder / "group-0.npz").write_bytes(content)
        with pytest.raises(InputError, match="damaged"):
            begun.load("group-0")


def test_resume_by_the_command_line(
    fake_bundle: Make, data: Path, tmp_path: Path, edgerecall: Callable[..., Any], one_line: Callable[..., None]
) -> None:
    bundle, file = fake_bundle(sleep_ms=5), tmp_path / "r.json"
    options = ["--runtime", "fake", "--threads", "1-2", "--together", "1", "--samples", "100", "--json", str(file)]
    command = [sys.executable, "-m", "edgerecall", "bench", str(bundle.root), "--images", str(data), *options]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    mark = tmp_path / "r.json.partial" / "group-0.json"
    for _ in range(400):
        if mark.is_file():
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert "interrupted" in process.communicate(timeout=30)[1] and process.returncode == 130
    assert not file.exists() and mark.is_file()
    one_line(edgerecall(*command[3:], "--resume", "--batch", "2"), 2, "other options", "--resume")
    before = json.loads(mark.read_text())["rows"][0]["samples_ns"]
    result = edgerecall(*command[3:], "--resume")
    assert result.returncode == 0, result.stderr
    rows = json.loads(file.read_text())["rows"]
    assert rows[0]["samples_ns"] == before and len(rows) == 2
    assert not mark.parent.exists()
    nowhere = edgerecall("bench", bundle.root, "--images", data, "--resume")
    assert nowhere.returncode == 2 and "--resume needs the --json FILE" in nowhere.stderr
