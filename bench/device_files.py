"""What a device needs, and what of it is there already."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..runtimes.bundle import MANIFEST, Bundle
from .device import QUICK_S, Device, quoted
from .device_program import PROGRAM, DeviceProgram


class Staged:
    """What a device needs, under names that change with the content: what is there already is not pushed again."""

    def __init__(
        self,
        scratch: Path,
        bundle: Bundle,
        program: DeviceProgram,
        images: Sequence[Path],
        random: NDArray[np.float32],
        machine: str,
    ) -> None:
        self.folder = scratch / "staged"
        self.folder.mkdir()
        self.files: dict[str, Path] = {}
        self.program_name = f"program-{program.mark}"
        self._unpacked = scratch / "program"
        program.unpack(self._unpacked)
        self._add_folder(self.program_name, self._unpacked)
        self.artifacts = [a for a in bundle.manifest.artifacts if {machine, "any"} & set(a.targets)]
        self.bundle_name = f"bundle-{digest((bundle.root / MANIFEST).read_bytes())}"
        kept = [MANIFEST, *(file.path for file in bundle.manifest.golden)]
        kept += [file.path for artifact in self.artifacts for file in artifact.files]
        for path in kept:
            self.files[f"{self.bundle_name}/{path}"] = bundle.root / path
        listed = []
        for image in images:
            listed.append(f"images/{digest(image.read_bytes())}{image.suffix.lower()}")
            self.files[listed[-1]] = image
        self.listed = listed
        self.inputs = scratch / "inputs.npy"
        np.save(self.inputs, random)
        self.inputs_name = f"inputs-{digest(self.inputs.read_bytes())}.npy"
        self.files[self.inputs_name] = self.inputs
        self.list_name = ""

    def _add_folder(self, name: str, folder: Path) -> None:
        for path in folder.rglob("*"):
            if path.is_file():
                self.files[f"{name}/{path.relative_to(folder).as_posix()}"] = path

    def push(self, device: Device) -> None:
        """Copies what is missing there, or of another size, in one go."""
        text = "".join(f"{device.root}/{name}\n" for name in self.listed).encode()
        self.list_name = f"list-{digest(text)}.txt"
        listing = self.folder.parent / "list.txt"
        listing.write_bytes(text)
        self.files[self.list_name] = listing
        there = sizes(device)
        changed = [name for name, path in self.files.items() if there.get(name) != path.stat().st_size]
        for name in changed:
            target = self.folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(OSError):
                os.link(self.files[name].resolve(), target)
                continue
            shutil.copyfile(self.files[name], target)
        if changed:
            device.push(self.folder)
        device.shell(f"chmod 755 {quoted(f'{device.root}/{self.program_name}/{PROGRAM}')}", QUICK_S)

    def program(self, device: Device, *arguments: str) -> str:
        """The script that runs the program there."""
        return quoted(*device.runner, f"{device.root}/{self.program_name}/{PROGRAM}", *arguments)


def digest(data: bytes) -> str:
    """A name for content."""
    return hashlib.sha256(data).hexdigest()[:20]


def sizes(device: Device) -> dict[str, int]:
    """The files under a device's folder with their sizes; the folder is made where it is not there."""
    root = quoted(device.root)
    text = device.shell(f"mkdir -p {root} && cd {root} && find . -type f -exec wc -c {{}} +", QUICK_S)
    found = {}
    for line in text.splitlines():
        size, _, name = line.strip().partition(" ")
        if size.isdigit() and name.startswith("./"):
            found[name[2:]] = int(size)
    return found
