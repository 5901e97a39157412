"""A private root with a target's libraries: what the program links, and what emulated programs load."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..runtimes.core.files import atomic_folder
from ..runtimes.core.targets import Target, cache_dir
from .apt import PrivateApt, own_architecture, own_sources

STAMP = "edgerecall-sysroot"
JPEG = ("libjpeg62-turbo-dev", "libjpeg-turbo8-dev")  # on Debian, on Ubuntu
LINKED = ("libpng-dev", "zlib1g-dev", "libhwy-dev", "nlohmann-json3-dev", "doctest-dev")
OPENMP = "libgomp1"  # PaddlePaddle takes it from the system; it comes with GCC
# What the tests and the runtimes' libraries load under QEMU. The cross-compiler's own C library does not do: with it,
# starting a thread never ends under QEMU 7.2.
LOADED = ("libc6", "libgcc-s1", "libstdc++6", "libgomp1")
# ONNX Runtime reads it at start; under QEMU it would see this machine's and crash.
CPUINFO = """processor\t: 0
BogoMIPS\t: 108.00
Features\t: fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: 0xd08
CPU revision\t: 3
"""


def make_sysroot(target: Target, logs: Path, say: Callable[[str], object]) -> Path:
    """The target's root, made once and kept."""
    mark = hashlib.sha256(repr((target, JPEG + LINKED + LOADED, CPUINFO, own_sources())).encode()).hexdigest()
    with private_root(target.sysroot, mark, target.debian, logs, say) as made:
        if made is not None:
            apt, folder = made
            apt.unpack(apt.with_libraries([apt.known(*JPEG), *LINKED, *LOADED]), folder)
            (folder / "proc").mkdir()
            (folder / "proc" / "cpuinfo").write_text(CPUINFO)
    return target.sysroot


def make_host_root(python: str, logs: Path, say: Callable[[str], object]) -> Path:
    """The core's libraries for this very machine, where they are not installed: made once and kept, without root.

    python: `python3.13`, to have its headers too, or empty.
    """
    headers = [f"lib{python}-dev"] if python else []
    mark = hashlib.sha256(repr((JPEG, LINKED, OPENMP, headers, own_sources())).encode()).hexdigest()
    architecture = own_architecture()
    root = cache_dir() / "-".join(["host", architecture, *filter(None, [python])])
    with private_root(root, mark, architecture, logs, say) as made:
        if made is not None:
            apt, folder = made
            apt.unpack([*apt.with_libraries([apt.known(*JPEG), *LINKED]), OPENMP, *headers], folder)
    return root


@contextmanager
def private_root(
    root: Path, mark: str, architecture: str, logs: Path, say: Callable[[str], object], release: str = ""
) -> Iterator[tuple[PrivateApt, Path] | None]:
    """A private apt, its lists read, and a new folder that becomes `root`; None where that was made from just this."""
    stamp = root / STAMP
    if stamp.is_file() and stamp.read_text() == mark:
        yield None
        return
    with atomic_folder(root, STAMP) as folder, tempfile.TemporaryDirectory(prefix="edgerecall-apt-") as state:
        apt = PrivateApt(Path(state), architecture, logs, say, release)
        apt.update()
        yield apt, folder
        (folder / STAMP).write_text(mark)
