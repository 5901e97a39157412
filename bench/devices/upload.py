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

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.bundle.manifest import MANIFEST
from ...runtimes.bundle.upgrade import present_files
from .device import QUICK_S, Device, quoted
from .program import PROGRAM, DeviceProgram

DIGITS = 20


class UploadSet:
    """What a device needs, under names that change with the content: what is there already is not pushed again."""

    def __init__(
        self,
        device: Device,
        scratch: Path,
        bundle: Bundle,
        program: DeviceProgram,
        images: Sequence[Path],
        digests: Sequence[str],
        random: NDArray[np.float32],
        machine: str,
    ) -> None:
        self.device, self.folder = device, scratch / "staged"
        self.folder.mkdir()
        self.files: dict[str, Path] = {}
        self.program_name = f"program-{program.mark}"
        unpacked = scratch / "program"
        program.unpack(unpacked)
        for file in unpacked.rglob("*"):
            if file.is_file():
                self.files[f"{self.program_name}/{file.relative_to(unpacked).as_posix()}"] = file
        self.artifacts = [a for a in bundle.manifest.artifacts if a.runs_on(machine)]
        bundle.check([*(file for artifact in self.artifacts for file in artifact.files), *bundle.manifest.golden])
        sealed = present_files(bundle, self.artifacts, scratch)
        self.bundle_name = f"bundle-{digest(sealed[MANIFEST].read_bytes())}"
        self.files |= {f"{self.bundle_name}/{name}": path for name, path in sealed.items()}
        listed = []
        for image, content in zip(images, digests, strict=True):
            listed.append(f"images/{content[:DIGITS]}{image.suffix.lower()}")
            self.files[listed[-1]] = image
        listing = scratch / "list.txt"
        listing.write_text("".join(f"{device.root}/{name}\n" for name in listed), encoding="utf-8")
        self.list_name = f"list-{digest(listing.read_bytes())}.txt"
        self.files[self.list_name] = listing
        inputs = scratch / "inputs.npy"
        np.save(inputs, random)
        self.inputs_name = f"inputs-{digest(inputs.read_bytes())}.npy"
        self.files[self.inputs_name] = inputs

    def push(self) -> None:
        """Copies what is missing there, or of another size, in one go."""
        device = self.device
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

    def program(self, *arguments: str) -> str:
        """The script that runs the program there."""
        return quoted(*self.device.runner, f"{self.device.root}/{self.program_name}/{PROGRAM}", *arguments)


def digest(data: bytes) -> str:
    """The first digits of the SHA-256, hexadecimal: a name that changes with the content."""
    return hashlib.sha256(data).hexdigest()[:DIGITS]


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
