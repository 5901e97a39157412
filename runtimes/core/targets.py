"""The machines that the stand-alone program is built for, and how its programs run here."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from .config import require_known
from .errors import InputError
from .files import user_cache


@dataclass(frozen=True)
class Target:
    """machine: as `uname -m` says. debian: Debian's name of the architecture, for its libraries.

    tools: programs that must be there, and the packages that bring them. qemu: the emulator that runs its programs,
    with arguments; empty: this machine. zig: built by zig for this triple, the image libraries from their sources.
    loads: whether it can open runtimes' libraries. platforms: of their wheels, newest first, per runtime.
    """

    name: str
    machine: str
    debian: str
    triplet: str
    tools: tuple[tuple[str, str], ...] = ()
    qemu: tuple[str, ...] = ()
    zig: str = ""
    loads: bool = True
    platforms: tuple[str, ...] = ()

    @property
    def sysroot(self) -> Path:
        """Where its libraries are kept on this machine."""
        return cache_dir() / f"sysroot-{self.debian}"

    @property
    def static(self) -> bool:
        """Whether its program needs no library at all."""
        return "musl" in self.zig

    @property
    def emulator(self) -> list[str]:
        """What goes before its programs to run them here; empty where this machine runs them itself.

        InputError without the emulator.
        """
        if not self.qemu:
            return []
        program = find_program(self.qemu[0])
        if program is None:
            raise InputError(f"needs {self.qemu[0]}: on Debian or Ubuntu 'apt-get install {QEMU}'")
        return [program, *self.qemu[1:], *(() if self.static else ("-L", str(self.sysroot)))]

    @property
    def glibc(self) -> tuple[int, int]:
        """The least that programs for it may ask of a system: zig's choice, else Debian 12's."""
        text = self.zig.partition("gnu.")[2] or "2.36"
        major, minor = text.split(".")
        return int(major), int(minor)


CORTEX_A72 = ("qemu-aarch64", "-cpu", "cortex-a72")  # the default CPU has SVE, with which OpenVINO is silently wrong
CORTEX_A15 = ("qemu-arm", "-cpu", "cortex-a15")
AARCH64 = ("manylinux_2_35_aarch64", "manylinux_2_31_aarch64", "manylinux_2_28_aarch64", "manylinux_2_27_aarch64")
X86_64 = ("manylinux_2_35_x86_64", "manylinux_2_31_x86_64", "manylinux_2_28_x86_64", "manylinux_2_27_x86_64")
QEMU = "qemu-user-static"
DPKG = ("dpkg-source", "dpkg-dev")  # unpacks the sources of the image libraries
TARGETS = {
    target.name: target
    for target in (
        Target("linux-x86_64", "x86_64", "amd64", "x86_64-linux-gnu", (("g++", "g++"),), platforms=X86_64),
        Target(
            "linux-aarch64",
            "aarch64",
            "arm64",
            "aarch64-linux-gnu",
            (("aarch64-linux-gnu-g++", "g++-aarch64-linux-gnu"), ("qemu-aarch64", QEMU)),
            CORTEX_A72,
            platforms=AARCH64,
        ),
        Target(
            "linux-armv7",
            "armv7l",
            "armhf",
            "arm-linux-gnueabihf",
            (("arm-linux-gnueabihf-g++", "g++-arm-linux-gnueabihf"), ("qemu-arm", QEMU)),
            CORTEX_A15,
        ),
        Target(
            "linux-aarch64-musl",
            "aarch64",
            "arm64",
            "aarch64-linux-musl",
            (("qemu-aarch64", QEMU), DPKG),
            CORTEX_A72,
            zig="aarch64-linux-musl",
            loads=False,
        ),
        Target(
            "linux-armv7-musl",
            "armv7l",
            "armhf",
            "arm-linux-musleabihf",
            (("qemu-arm", QEMU), DPKG),
            CORTEX_A15,
            zig="arm-linux-musleabihf",
            loads=False,
        ),
        Target(
            "linux-x86_64-glibc2.28",
            "x86_64",
            "amd64",
            "x86_64-linux-gnu",
            (DPKG, ("nasm", "nasm")),
            zig="x86_64-linux-gnu.2.28",
            platforms=X86_64,
        ),
        Target(
            "linux-aarch64-glibc2.28",
            "aarch64",
            "arm64",
            "aarch64-linux-gnu",
            (("qemu-aarch64", QEMU), DPKG),
            CORTEX_A72,
            zig="aarch64-linux-gnu.2.28",
            platforms=AARCH64,
        ),
    )
}

# Not a machine: what browsers run, built by emscripten and put together by npm's packages.
WEB = Target("web", "wasm32", "", "", (("em++", "emscripten"), ("node", "nodejs"), ("npm", "npm"), DPKG), loads=False)


def target_named(name: str) -> Target:
    """InputError for an unknown name."""
    require_known(name, TARGETS, "target")
    return TARGETS[name]


def cache_dir() -> Path:
    """Where sysroots, libraries and archives are kept from one build to the next."""
    return user_cache() / "cross"


def program_path() -> str:
    """PATH with this interpreter's own programs first: a virtual environment need not be active for its cmake."""
    return os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))


def find_program(name: str) -> str | None:
    """A program on PATH; an emulator also under its static build's name."""
    path = program_path()
    return shutil.which(name, path=path) or shutil.which(f"{name}-static", path=path)
