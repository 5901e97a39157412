"""Another machine, emulated here: right in its embeddings, meaningless in its speed."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from ...runtimes.core.errors import InputError
from ...runtimes.core.targets import TARGETS
from .device import Device


class QemuDevice(Device):
    """`qemu:aarch64` or `qemu:armv7l`. Its folder is one of this machine's."""

    emulated = True

    def __init__(self, name: str) -> None:
        wanted = name.partition(":")[2]
        machines = {target.machine for target in TARGETS.values() if target.qemu}
        if wanted not in machines:
            raise InputError(f"--device {name}: expected qemu: and one of {', '.join(sorted(machines))}")
        self._machine = wanted
        self._folder = tempfile.TemporaryDirectory(prefix="edgerecall-qemu-")
        super().__init__(name, self._folder.name)

    @property
    def machine(self) -> str:
        return self._machine

    @property
    def runner(self) -> list[str]:
        assert self.target is not None
        return self.target.emulator

    def command(self, script: str) -> list[str]:
        return ["sh", "-c", script]

    def push(self, folder: Path) -> None:
        shutil.copytree(folder, self.root, dirs_exist_ok=True)

    def pull(self, name: str, folder: Path) -> None:
        shutil.copytree(Path(self.root) / name, folder)
