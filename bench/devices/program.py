"""The stand-alone program for a device, out of the archive that `edgerecall cross` made."""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...runtimes.core.errors import InputError
from ...runtimes.core.files import sha256, unpack_tar
from ...runtimes.core.targets import TARGETS, Target

PROGRAM = "edgerecall-device"
ARCHIVES = Path("dist")


@dataclass(frozen=True)
class DeviceProgram:
    """An archive and what it was built for, None for a target that is not ours (Android)."""

    archive: Path
    target: Target | None

    @property
    def mark(self) -> str:
        """Tells it from other builds."""
        return sha256(self.archive)[:16]

    def unpack(self, folder: Path) -> None:
        """Its files into a new folder. InputError when it is no such archive."""
        try:
            with tarfile.open(self.archive) as packed:
                unpack_tar(packed, folder.parent)
                (folder.parent / packed.getnames()[0].split("/")[0]).rename(folder)
        except (OSError, EOFError, zlib.error, tarfile.TarError, IndexError) as error:
            raise InputError(f"{self.archive}: expected an archive of 'edgerecall cross': {error}") from error
        if not (folder / PROGRAM).is_file():
            raise InputError(f"{self.archive}: expected an archive of 'edgerecall cross', found no {PROGRAM} in it")


def find_program(machine: str, android: bool, given: Sequence[Path]) -> DeviceProgram:
    """The archive for a machine: of those given, else of those in dist/. InputError with the command that makes one."""
    fitting = [t for t in TARGETS.values() if t.machine == machine and (t.static or not android)]
    wanted: dict[str, Target | None] = {f"{PROGRAM}-android-{machine}.tar.gz": None} if android else {}
    wanted |= {f"{PROGRAM}-{target.name}.tar.gz": target for target in fitting}
    for archive in [path for path in given if path.name in wanted] if given else [ARCHIVES / name for name in wanted]:
        if archive.is_file():
            return DeviceProgram(archive, wanted[archive.name])
    known = {f"{PROGRAM}-{name}.tar.gz" for name in TARGETS}
    if len(given) == 1 and given[0].name not in known:  # a user's own build
        return DeviceProgram(given[0], next(iter(fitting), None))
    remedy = f"run 'edgerecall cross {fitting[0].name}' here" if fitting else "see docs/arm.md"
    raise InputError(f"no {PROGRAM} for {machine}: {remedy}, or name its archive with --device-program")
