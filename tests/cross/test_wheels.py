"""Wheels as they leave the machine: in an environment that has nothing else, and under QEMU for 64-bit ARM."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from edgerecall.cross.apt import PrivateApt
from edgerecall.cross.commands import run_logged
from edgerecall.cross.interpreters import PACKAGES, RELEASES
from edgerecall.runtimes.core.targets import CORTEX_A72, find_program

pytestmark = [pytest.mark.device, pytest.mark.timeout(1800)]  # a wheel is ten minutes of building on a slow machine
MINE = f"{sys.version_info[0]}.{sys.version_info[1]}"
# What Debian's interpreter loads.
LIBRARIES = ("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libffi8", "libssl3", "libbz2-1.0", "liblzma5")
SAME_PIXELS = """
import sys
import numpy
from edgerecall import Bundle, Gallery
from edgerecall.runtimes.preprocess.pipeline import preprocess_file
bundle = Bundle.open(sys.argv[1])
images, tensors, _ = bundle.golden()
for image, tensor in zip(images, tensors):
    assert (preprocess_file(image, bundle.spec.preprocess) == tensor).all(), image
gallery = Gallery(8, "float32")
gallery.add(numpy.eye(8, dtype=numpy.float32))
assert gallery.search(numpy.eye(8, dtype=numpy.float32), 1, 1)[0][:, 0].tolist() == list(range(8))
import platform
print(platform.machine(), len(images), "images, bit for bit")
"""


@pytest.fixture(scope="session")
def wheel(root: Path) -> Callable[[str, str], Path]:
    """Builds one, as 'make wheel' does all; once."""

    @cache
    def build(machine: str, version: str) -> Path:
        command = [sys.executable, "scripts/make_wheels.py", "--machine", machine, "--python", version]
        result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
        tag = f"cp{version.replace('.', '')}"
        (found,) = (root / "dist").glob(f"edgerecall-*-{tag}-{tag}-manylinux_2_28_{machine}.whl")
        return found

    return build


def run(*command: object) -> str:
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd="/")
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


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


def test_on_arm(wheel: Callable[[str, str], Path], device_bundle: Path, tmp_path: Path) -> None:
    (version,) = RELEASES
    built = wheel("aarch64", version)
    apt = PrivateApt(tmp_path / "apt", "arm64", tmp_path / "logs", print, RELEASES[version])
    apt.update()
    root, site = tmp_path / "root", tmp_path / "site"
    apt.unpack([*(name.format(version) for name in PACKAGES), *LIBRARIES], root)
    places = [part for glibc in (28, 27, 17) for part in ("--platform", f"manylinux_2_{glibc}_aarch64")]
    places += ["--platform", "manylinux2014_aarch64", "--python-version", version, "--only-binary=:all:"]
    run(sys.executable, "-m", "pip", "install", "-q", "--target", site, *places, built)
    program = [find_program(CORTEX_A72[0]), *CORTEX_A72[1:], "-L", root, "-E", f"PYTHONPATH={site}"]
    text = run(*program, root / "usr" / "bin" / f"python{version}", "-s", "-c", SAME_PIXELS, device_bundle)
    assert text == "aarch64 4 images, bit for bit\n"


def test_programs_for_arm_load_under_kernels_with_large_pages(
    wheel: Callable[[str, str], Path], tmp_path: Path
) -> None:
    (version,) = RELEASES
    with zipfile.ZipFile(wheel("aarch64", version)) as archive:
        members = [name for name in archive.namelist() if name.endswith((".so", "bin/edgerecall-device"))]
        assert len(members) == 2
        for member in members:
            run_logged("readelf", ["readelf", "-lW", archive.extract(member, tmp_path)], tmp_path / "log")
            loads = [line.split() for line in (tmp_path / "log").read_text().splitlines() if " LOAD " in f" {line} "]
            assert loads and all(int(line[-1], 16) >= 0x10000 for line in loads)
