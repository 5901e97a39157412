"""The wheel for 64-bit ARM, under QEMU. In a file of its own: two wheels are built at once."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from wheels import SAME_PIXELS, run

from edgerecall.cross.apt import PrivateApt
from edgerecall.cross.commands import run_logged
from edgerecall.cross.interpreters import PACKAGES, RELEASES
from edgerecall.runtimes.core.targets import CORTEX_A72, find_program

pytestmark = [pytest.mark.device, pytest.mark.timeout(1800)]
# What Debian's interpreter loads.
LIBRARIES = ("libc6", "libgcc-s1", "libstdc++6", "zlib1g", "libexpat1", "libffi8", "libssl3", "libbz2-1.0", "liblzma5")


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
