"""Licences of the code that is linked into the program, packed beside it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from ..runtimes.core.errors import InputError
from ..runtimes.core.targets import Target, cache_dir
from .packages import zig_folder
from .sysroot import JPEG

PACKAGES = ("libpng-dev", "zlib1g-dev", "libhwy-dev", "nlohmann-json3-dev")
SOURCES = ("libjpeg-turbo", "libpng1.6", "zlib", "highway", "nlohmann-json3")
ZIG = {"zig": "LICENSE", "libcxx": "lib/libcxx/LICENSE.TXT", "libcxxabi": "lib/libcxxabi/LICENSE.TXT"}
MUSL = {"musl": "lib/libc/musl/COPYRIGHT", "libunwind": "lib/libunwind/LICENSE.TXT"}


def copy_licences(target: Target, ncnn: Path | None, into: Path, say: Callable[[str], None]) -> None:
    """A text per library into a new folder. ncnn: its installation, when it is linked."""
    if target.zig:
        origin = cache_dir() / f"core-{target.name}"
        texts = {name: origin / "licences" / f"{name}.txt" for name in SOURCES}
        texts |= {name: zig_folder() / path for name, path in {**ZIG, **(MUSL if target.static else {})}.items()}
    else:
        origin = target.sysroot
        documents = (target.sysroot if target.qemu else Path("/")) / "usr" / "share" / "doc"
        jpeg = next((name for name in JPEG if (documents / name / "copyright").is_file()), JPEG[0])
        texts = {package: documents / package / "copyright" for package in (jpeg, *PACKAGES)}
    if ncnn is not None:
        texts["ncnn"] = ncnn / "LICENSE.txt"
    into.mkdir()
    for name, text in texts.items():
        if not text.is_file():
            if target.qemu:
                raise InputError(f"{text}: expected the licence of {name}: remove {origin} to have it made again")
            say(f"warning: no licence of {name} in {text}: add it before you pass the archive on")
            continue
        shutil.copyfile(text, into / f"{name}.txt")
