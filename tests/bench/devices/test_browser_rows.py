"""Rows of real browsers beside the host's, and what goes wrong in them."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import psutil
import pytest
from PIL import Image
from planted import onnx_parameters, seal_again

from edgerecall.bench.devices import browser
from edgerecall.bench.devices.browser_bench import BrowserBench
from edgerecall.bench.devices.page_server import PageJob
from edgerecall.bench.diagnose.posted import explain_posted
from edgerecall.bench.measure.image_set import ImageSet
from edgerecall.bench.measure.runner import random_inputs, run_bench
from edgerecall.bench.schema.options import BenchOptions
from edgerecall.bench.schema.rows import BenchResult
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.files import sha256

pytestmark = pytest.mark.device
Rows = Callable[..., BenchResult]


@pytest.fixture
def rows(web_archive: Path, data: Path) -> Rows:
    """The bench of a bundle here and in a browser."""

    def run(bundle: Path, device: str = "browser:chromium", limit: int = 36, **given: object) -> BenchResult:
        settings = {"runtimes": ("onnxruntime",), "samples": 20, "rounds": 4, "devices": (device,), **given}
        options = BenchOptions(device_programs=(str(web_archive),), **settings)  # type: ignore[arg-type]
        told = lambda what, share: None  # noqa: E731
        images = ImageSet.find(data).limited(limit)
        return run_bench(Bundle.open(bundle), images, options, "tests", told, explain=explain_posted)

    return run


def test_chromium_beside_the_host(rows: Rows, real_bundle: Path) -> None:
    """A trained bundle and labelled images; the page is isolated, so that it has threads and a fine clock."""
    result = rows(real_bundle, threads=(1, 2))
    here, _, one, two = result.rows
    assert [row.name for row in (one, two)] == [f"web-onnxruntime {n}t @ browser:chromium" for n in (1, 2)]
    for row in (one, two):
        assert (row.status, row.reason) == ("ok", None)
        assert row.delta_recall1 == 0.0 and row.recall1 == here.recall1
        assert row.cosine_min is not None and row.cosine_min >= 0.9999
        assert row.golden_max_error is not None and row.golden_max_error < 1e-4
        assert row.latency_p50_ms is not None and len(row.samples_ns) == 20
        assert row.threads == row.requested_threads
        assert row.detail["isolated"] is True and row.detail["clock_step_us"] < 50
        assert set(row.stages_ms) == {"decode", "preprocess", "inference", "normalise", "search"}
    assert result.exit_code == 0
    assert result.cross_recall is not None and len(result.cross_recall.names) == 2
    assert any("browser:chromium" in speed.slow + speed.fast for speed in result.speeds)


def test_on_the_gpu(rows: Rows, real_bundle: Path) -> None:
    """Where there is none Chromium computes its shaders on the processor: right, and slow."""
    options = {"runtimes": ("onnxruntime", "web-onnxruntime-webgpu"), "samples": 2, "rounds": 1, "limit": 18}
    here, wasm, gpu = rows(real_bundle, **options).rows
    assert (gpu.runtime, gpu.status, gpu.reason) == ("web-onnxruntime-webgpu", "ok", None)
    assert (wasm.detail["provider"], gpu.detail["provider"]) == ("wasm", "webgpu") and gpu.detail["adapter"]
    assert gpu.recall1 == here.recall1 and gpu.cosine_min is not None and gpu.cosine_min >= 0.9999
    assert gpu.golden_max_error != wasm.golden_max_error  # other kernels


def test_no_webgpu_is_a_row(rows: Rows, real_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never computed on the processor under the GPU's name."""
    plain = browser.command_line
    monkeypatch.setattr(browser, "command_line", lambda *given: plain(*given[:4], False))
    (_, wasm, gpu) = rows(real_bundle, runtimes=("onnxruntime", "web-onnxruntime-webgpu"), samples=2, rounds=1).rows
    assert wasm.status == "ok" and gpu.status == "failed"
    assert "this browser" in str(gpu.reason) and "WebGPU" in str(gpu.reason)


def test_firefox_too(rows: Rows, real_bundle: Path) -> None:
    result = rows(real_bundle, "browser:firefox")
    here, there = result.rows
    assert (there.status, there.reason) == ("ok", None)
    assert "Firefox" in there.detail["browser"]
    assert there.recall1 == here.recall1


def test_one_weight_is_caught_on_the_device(rows: Rows, real_bundle: Path, tmp_path: Path) -> None:
    """Sealed as if it had been exported so."""
    shutil.copytree(real_bundle, tmp_path / "changed")
    path = tmp_path / "changed" / Bundle.open(real_bundle).artifact("onnxruntime").files[0].path
    model = onnx.load(path)
    weight = max(onnx_parameters(model), key=lambda one: one.values.size)
    values = weight.values.copy()
    values.flat[0] += 10 * np.abs(values).max()
    weight.put(values)
    onnx.save(model, path)
    seal_again(tmp_path / "changed")
    there = rows(tmp_path / "changed").rows[1]
    assert there.status == "parity"
    found = re.fullmatch(
        r"embeddings differ from the reference: max error \S+, allowed \S+; onnxruntime here gives the same, from the"
        r" same onnx: graph differs \(confirmed: '(\S+)' .*",
        str(there.reason),
    )
    assert found is not None, there.reason
    assert found[1] == weight.operator and f"{values.flat[0]:.6g}, in paddle" in str(there.reason)


def test_what_is_served_must_be_what_was_sealed(
    real_bundle: Path, web_archive: Path, data: Path, tmp_path: Path
) -> None:
    """A file that changes after the host has looked at it."""
    bundle = tmp_path / "bundle"
    shutil.copytree(real_bundle, bundle)
    opened = Bundle.open(bundle)
    options = BenchOptions(runtimes=("onnxruntime",), samples=2, rounds=1)
    bench = BrowserBench("browser:chromium", opened, options, random_inputs(opened), [web_archive])
    bench.prepare()
    (model,) = [file for one in opened.manifest.artifacts if one.runtime == "onnxruntime" for file in one.files]
    content = bytearray((bundle / model.path).read_bytes())
    content[len(content) // 2] ^= 1
    (bundle / model.path).write_bytes(content)
    (row,) = bench.measure(*images(data, 4), lambda what, share: None).rows
    assert row.status == "failed"
    assert f"{model.path}: not the file that was sealed" in str(row.reason)


def images(data: Path, count: int) -> tuple[list[Path], list[str]]:
    """With their hashes."""
    paths = ImageSet.find(data).paths[:count]
    return list(paths), [sha256(path) for path in paths]


def test_other_images_than_the_hosts(real_bundle: Path, web_archive: Path, data: Path, tmp_path: Path) -> None:
    """Encoded again, they look the same; the page knows them by their hash."""
    paths, digests = images(data, 4)
    Image.open(paths[2]).save(tmp_path / "again.jpg", quality=75)
    opened = Bundle.open(real_bundle)
    options = BenchOptions(runtimes=("onnxruntime",), samples=2, rounds=1)
    bench = BrowserBench("browser:chromium", opened, options, random_inputs(opened), [web_archive])
    group = bench.measure([*paths[:2], tmp_path / "again.jpg", paths[3]], digests, lambda what, share: None)
    (row,) = group.rows
    assert row.status == "failed"
    assert "1 images cannot be read there" in str(row.reason) and "not the bytes that the host has" in str(row.reason)
    evidence = replace(group.evidence[row.name], image=paths[2])  # which the host has under this name
    cause = explain_posted(opened, evidence)
    assert cause is not None and "encoded again as JPEG of quality 75" in cause, cause


def test_the_browsers_own_pixels_are_no_models(rows: Rows, real_bundle: Path) -> None:
    """What pages do without a core: told by its cosine, and never shipped."""
    sound, canvas = rows(real_bundle, runtimes=("onnxruntime", "web-onnxruntime-canvas")).rows[1:]
    assert (sound.runtime, sound.status) == ("web-onnxruntime", "ok")
    assert (canvas.runtime, canvas.status) == ("web-onnxruntime-canvas", "parity")
    assert canvas.cosine_min is not None and canvas.cosine_min < 0.999
    assert canvas.golden_max_error is not None and canvas.golden_max_error < 1e-4  # the model itself is sound
    (cause,) = [one for one in canvas.warnings if one.startswith("input tensor differs")]
    assert "nearest: backend pil against cv2" in cause and "graph" not in cause, cause
    assert not any("differs" in one for one in sound.warnings)


def test_a_resize_that_is_not_the_cores(
    rows: Rows, real_bundle: Path, web_archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages whose row in the core's name resizes by canvas: caught on the device, and named by what it handed in."""
    plans = BrowserBench._job

    def by_canvas(*given: Any) -> PageJob:
        work = plans(*given)
        for plan in work.job["rows"]:
            plan["pixels"] = "canvas"
        return work

    monkeypatch.setattr(BrowserBench, "_job", by_canvas)
    there = rows(real_bundle).rows[1]
    assert there.status == "parity"
    found = re.match(
        r"preprocessing differs there from the golden tensors by (\S+); input tensor differs", there.reason or ""
    )
    assert found is not None and float(found[1]) > 0.1, there.reason
    assert "nearest: backend pil against cv2" in str(there.reason) and "graph" not in str(there.reason)


def processes(profile: str) -> list[int]:
    """Of the browser with a profile; its own first, whose parent is none of them: numbers begin again at some time."""
    found = subprocess.run(["pgrep", "-f", profile], capture_output=True, text=True, check=False).stdout
    parents: dict[int, int] = {}
    for pid in map(int, found.split()):
        with contextlib.suppress(psutil.NoSuchProcess):
            parents[pid] = psutil.Process(pid).ppid()
    return sorted(parents, key=lambda pid: parents[pid] in parents)


@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGKILL, "the browser ended: "), (signal.SIGSTOP, "the page has said nothing for 8 s")],
)
def test_a_browser_that_dies_or_sleeps(
    real_bundle: Path, web_archive: Path, data: Path, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    profiles: list[str] = []
    line = browser.command_line

    def noted(kind: str, program: str, profile: Path, url: str, gpu: bool = False) -> list[str]:
        profiles.append(str(profile))
        return line(kind, program, profile, url, gpu)

    monkeypatch.setattr(browser, "command_line", noted)
    opened = Bundle.open(real_bundle)
    options = BenchOptions(runtimes=("onnxruntime",), samples=100_000, rounds=10, seconds=40.0)
    bench = BrowserBench("browser:chromium", opened, options, random_inputs(opened), [web_archive], silent_s=8.0)
    rounds = threading.Event()

    def progress(what: str, share: float) -> None:
        if "round" in what and not rounds.is_set():
            rounds.set()
            first, *others = processes(profiles[0])
            for pid in [first, *(others if number == signal.SIGSTOP else ())]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    begin = time.monotonic()
    (row,) = bench.measure(*images(data, 8), progress).rows
    assert rounds.is_set()
    assert row.status == "failed"
    assert reason in str(row.reason)
    assert time.monotonic() - begin < 60
    assert processes(profiles[0]) == []


def test_the_command(
    edgerecall: Callable[..., subprocess.CompletedProcess[str]],
    real_bundle: Path,
    data: Path,
    web_archive: Path,
    tmp_path: Path,
) -> None:
    """From the terminal to the report."""
    result = edgerecall(
        "bench", real_bundle, "--images", data, "--runtime", "onnxruntime", "--device", "browser:chromium",
        "--device-program", web_archive, "--samples", 8, "--rounds", 2, "--markdown", "report.md", cwd=tmp_path,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "web-onnxruntime @ browser:chromium" in (tmp_path / "report.md").read_text()
