"""Libraries in packages that ask for an executable stack, which glibc refuses from 2.41 on (Debian 13): MNN's wheels.

Nothing in them runs on the stack: the request comes from an assembler file without a note. Distributions clear it too.
"""

from __future__ import annotations

import os
import struct
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from ..runtimes.core.errors import InputError
from ..runtimes.core.files import atomic_file

REFUSED_FROM = (2, 41)
GNU_STACK, EXECUTABLE = 0x6474E551, 1
PROGRAM_HEADER = struct.Struct("<II")  # type and flags, in ELF of 64 bits


def stack_flags(binary: bytes | bytearray) -> tuple[int, int] | None:
    """Where the flags of a 64-bit library's stack are written, and what they are; None where nothing is said of it."""
    if binary[:6] != b"\x7fELF\x02\x01":
        return None
    try:
        start, size, count = (*struct.unpack_from("<Q", binary, 32), *struct.unpack_from("<HH", binary, 54))
        for at in range(start, start + size * count, size or 1):
            kind, flags = PROGRAM_HEADER.unpack_from(binary, at)
            if kind == GNU_STACK:
                return at + 4, flags
    except struct.error:  # they do not lie at its beginning, or it is cut off
        pass
    return None


def libraries_with(distribution: str) -> list[Path]:
    """Libraries of an installed distribution that ask for it."""
    try:
        found = [Path(str(file.locate())) for file in files(distribution) or () if ".so" in file.suffixes]
    except PackageNotFoundError as error:
        raise InputError(f"{distribution} is not installed here") from error
    return [path for path in found if asks(path)]


def asks(library: Path) -> bool:
    """Whether a library asks for an executable stack."""
    with library.open("rb") as stream:
        said = stack_flags(stream.read(1 << 16))
    return said is not None and bool(said[1] & EXECUTABLE)


def clear(library: Path) -> None:
    """Has a library ask for it no longer."""
    binary = bytearray(library.read_bytes())
    said = stack_flags(binary)
    if said is not None:
        struct.pack_into("<I", binary, said[0], said[1] & ~EXECUTABLE)
        with atomic_file(library) as temporary:
            temporary.write_bytes(binary)


def is_refused() -> bool:
    """Whether this system's C library loads no such library into a running program."""
    try:
        name, _, number = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except ValueError:  # another C library
        return False
    return name == "glibc" and tuple(map(int, number.split(".")[:2])) >= REFUSED_FROM
