"""CMake's options that choose a target's compiler and libraries; what they name is made here, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..runtimes.core.targets import Target, cache_dir
from .libraries import build_core_libraries
from .packages import zig_folder
from .sysroot import make_sysroot


def toolchain(target: Target, source: Path, logs: Path, say: Callable[[str], None]) -> list[str]:
    """None for this machine's own compiler. source: the checkout, or what a wheel has of it."""
    if not target.qemu and not target.zig:
        return []
    say("libraries of the target")
    folder = source / "cmake" / "toolchains"
    if not target.zig:
        root = make_sysroot(target, logs, say)
        return [f"-DCMAKE_TOOLCHAIN_FILE={folder / f'{target.name}.cmake'}", f"-DEDGERECALL_SYSROOT={root}"]
    options = [*zig_options(target.zig, folder), f"-DEDGERECALL_QEMU={';'.join(target.emulator)}"]
    libraries = build_core_libraries(target, options, cache_dir(), logs, say)
    loads = f"-DEDGERECALL_LOADED_RUNTIMES={'ON' if target.loads else 'OFF'}"
    return [*options, f"-DCMAKE_FIND_ROOT_PATH={libraries}", loads]


def zig_options(triple: str, folder: Path) -> list[str]:
    """The compiler alone. folder: of the toolchain files."""
    return [
        f"-DCMAKE_TOOLCHAIN_FILE={folder / 'zig.cmake'}",
        f"-DEDGERECALL_ZIG={zig_folder() / 'zig'}",
        f"-DEDGERECALL_ZIG_TARGET={triple}",
    ]
