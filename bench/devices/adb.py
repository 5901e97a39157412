"""An Android device, by the system's own adb."""

from __future__ import annotations

import os
from pathlib import Path

from ...runtimes.core.errors import InputError
from .device import QUICK_S, Device

FOLDER = "/data/local/tmp/edgerecall"  # where programs may be run without root


class AdbDevice(Device):
    """`adb`, or `adb:SERIAL` where several are attached."""

    def __init__(self, name: str) -> None:
        serial = name.partition(":")[2]
        if name != "adb" and (not serial or serial.startswith("-")):
            raise InputError(f"--device {name}: expected adb, or adb: and a serial number as 'adb devices' lists it")
        self._adb = [os.environ.get("EDGERECALL_ADB", "adb"), *(["-s", serial] if serial else [])]
        super().__init__(name, FOLDER)

    def command(self, script: str) -> list[str]:
        return [*self._adb, "shell", script]

    def push(self, folder: Path) -> None:
        self.shell(f"mkdir -p {self.root}", QUICK_S)
        for path in sorted(folder.iterdir()):
            self.transfer(*self._adb, "push", str(path), f"{self.root}/")

    def pull(self, name: str, folder: Path) -> None:
        self.transfer(*self._adb, "pull", f"{self.root}/{name}", str(folder))
