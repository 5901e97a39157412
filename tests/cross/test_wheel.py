"""The wheel for this machine, in an environment that has nothing else."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from wheels import SAME_PIXELS, run

pytestmark = [pytest.mark.device, pytest.mark.timeout(1800)]  # a wheel is ten minutes of building on a slow machine
MINE = f"{sys.version_info[0]}.{sys.version_info[1]}"


def test_on_this_machine(wheel: Callable[[str, str], Path], device_bundle: Path, tmp_path: Path) -> None:
    """The base install, then a runtime; the program, the configs and the core's source are inside."""
    built = wheel("x86_64", MINE)
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
        assert not [name for name in names if name.startswith("tests/")]
        for part in (
            "configs/demo.yaml",
            "cross/source/cpp/src/bundle/bundle.cpp",
            "licences/zlib.txt",
            "bin/edgerecall-device",
            "bench/report/bench.html.j2",
            "runtimes/core/contract.json",
            "cross/source/runtimes/core/contract.json",
            "cross/source/runtimes/bundle/bundle.schema.json",
        ):
            assert f"edgerecall/{part}" in names
    run(sys.executable, "-m", "venv", tmp_path / "venv")
    python = tmp_path / "venv" / "bin" / "python"
    run(python, "-m", "pip", "install", "-q", built)
    assert "bit for bit" in run(python, "-c", SAME_PIXELS, device_bundle)
    run(python, "-m", "pip", "install", "-q", f"{built}[onnx,bench]")
    edgerecall = python.with_name("edgerecall")
    run(edgerecall, "verify", device_bundle, "--runtime", "onnxruntime,cpp-onnxruntime")
    page = ("--html", tmp_path / "report.html")
    run(edgerecall, "bench", device_bundle, "--images", device_bundle / "golden", "--runtime", "onnxruntime", *page)
    settings = (f"rec_inference_model_dir={device_bundle}", f"infer_imgs={device_bundle}/golden", "runtime=onnxruntime")
    options = [part for setting in settings for part in ("-o", f"Global.{setting}")]
    assert run(edgerecall, "predict", "-c", "inference_rec.yaml", *options).count(":\t[") == 4
    assert "onnxruntime" in run(
        python.with_name("edgerecall-device"), "verify", device_bundle, "--runtime", "onnxruntime"
    )
