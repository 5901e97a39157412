"""Rows measured on another machine: push what changed, run the stand-alone program there, pull, check, merge."""

from __future__ import annotations

import contextlib
import json
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.predictor.backend import CPP
from ...runtimes.predictor.registry import backend, core_backends
from ..schema.group_result import GroupResult
from ..schema.options import BenchOptions, OnProgress
from .device import QUICK_S, Device, DeviceLost, quoted
from .device_report import RESULT, Wanted, lost, merge, read_report
from .program import PROGRAM, DeviceProgram, find_program
from .upload import UploadSet


@dataclass
class DeviceBench:
    """A bundle's rows on a device. random: inputs beside the images, float32 `(n, 3, H, W)`.

    programs: archives of `edgerecall cross` to choose from.
    """

    device: Device
    bundle: Bundle
    options: BenchOptions
    random: NDArray[np.float32]
    programs: Sequence[Path] = ()
    group: int = 0

    @property
    def name(self) -> str:
        """Of the device."""
        return self.device.name

    def prepare(self) -> None:
        """Reaches the device and hashes what it gets, when nothing is measured yet. InputError when there is no program
        for it, BundleError for a changed file.
        """
        with contextlib.suppress(DeviceLost):  # told in its row
            machine, program = self._find_program()
            own = [one for one in self.bundle.manifest.artifacts if one.runs_on(machine)]
            self.bundle.check(file for artifact in own for file in artifact.files)
            with tempfile.TemporaryDirectory(prefix="edgerecall-device-") as scratch:
                program.unpack(Path(scratch) / "program")

    def _find_program(self) -> tuple[str, DeviceProgram]:
        machine = self.device.machine
        program = find_program(machine, self.device.name.startswith("adb"), self.programs)
        self.device.target = program.target
        return machine, program

    def measure(self, images: Sequence[Path], digests: Sequence[str], progress: OnProgress) -> GroupResult:
        """Its rows on the images. A device that fails as a whole is one row with its reason.

        digests: the SHA-256 of each image, hexadecimal.
        """
        try:
            return self._measure(images, digests, progress)
        except DeviceLost as error:
            return lost(self.device.name, self.device.emulated, self.group, str(error))

    def _measure(self, images: Sequence[Path], digests: Sequence[str], progress: OnProgress) -> GroupResult:
        device = self.device
        progress(f"reaching {device.name}", 0.0)
        machine, program = self._find_program()
        with tempfile.TemporaryDirectory(prefix="edgerecall-device-") as scratch:
            staged = UploadSet(device, Path(scratch), self.bundle, program, images, digests, self.random, machine)
            progress(f"copying to {device.name}", 0.1)
            staged.push()
            progress(f"running on {device.name}", 0.3)
            models = self._models(staged)
            output, run = Path(scratch) / "pulled", f"run-{secrets.token_hex(8)}"  # no other bench's
            try:
                self._run(staged, models, run, len(images))
                device.pull(run, output)
            finally:
                with contextlib.suppress(DeviceLost):
                    device.shell(f"rm -rf {quoted(f'{device.root}/{run}')}", QUICK_S)
            options, dim = self.options, self.bundle.spec.embedding_dim
            rows = len(models) * len(options.threads) * len(options.precision) * len(options.batch)
            kind = (device.name, device.emulated, CPP)
            return merge(
                read_report(output, device.name),
                output,
                Wanted(*kind, images, len(self.random), dim, rows, self.group),
            )

    def _models(self, staged: UploadSet) -> list[tuple[str, str]]:
        """The rows' runtimes and quantisations: of the program's runtimes those requested that have an artifact."""
        text = self.device.shell(staged.program("info"), QUICK_S)
        try:
            built = list(json.loads(text)["runtimes"])
        except (ValueError, KeyError, TypeError) as error:
            raise DeviceLost(f"{self.device.name}: {PROGRAM} info gave something else than JSON") from error
        have = {artifact.runtime for artifact in staged.artifacts}
        found = [name for name in built if name in have]
        requested = {one.artifacts for one in map(backend, self.options.runtimes) if "cpu" in one.devices}
        chosen = [name for name in found if name in requested]
        if not chosen:
            raise DeviceLost(
                f"{self.device.name}: its program has {', '.join(built) or 'no runtime'}, the bundle's artifacts for it"
                f" {', '.join(sorted(have)) or 'none'}, and {', '.join(sorted(requested))} was asked for"
            )
        of = {name: [one.quantisation for one in staged.artifacts if one.runtime == name] for name in chosen}
        wanted = self.options.quantisation
        return [(name, one) for name in chosen for one in wanted or tuple(dict.fromkeys(of[name]))]

    def _run(self, staged: UploadSet, models: Sequence[tuple[str, str]], run: str, images: int) -> None:
        options = self.options
        known = {precision for one in core_backends() for precision in one.executions}
        precisions = [precision for precision in options.precision if precision in known]
        if not precisions:
            raise DeviceLost(f"{self.device.name}: its program does not run {', '.join(options.precision)}")
        rows = len(models) * len(options.threads) * len(precisions) * len(options.batch)
        root = self.device.root
        arguments = ["--out", f"{root}/{run}", "--list", f"{root}/{staged.list_name}", "--until-eof"]
        arguments += ["--inputs", f"{root}/{staged.inputs_name}", "--cpus", options.device_cpus]
        for name, values in (
            ("runtime", list(dict.fromkeys(runtime for runtime, _ in models))),
            ("quantisation", options.quantisation or ("all",)),
            ("threads", options.threads),
            ("precision", precisions),
            ("batch", options.batch),
            ("samples", [options.samples]),
            ("rounds", [options.rounds]),
            ("seconds", [options.seconds]),
            ("timeout-s", [options.timeout_s]),
        ):
            arguments += [f"--{name}", ",".join(map(str, values))]
        if not options.pin:
            arguments.append("--no-pin")
        steps = 8 + options.rounds + images // 8
        script = staged.program("bench", f"{root}/{staged.bundle_name}", *arguments)
        result = quoted(f"{root}/{run}/{RESULT}")
        # 1: rows that do not hold, which say so themselves, if it came so far.
        told = f"{script}; code=$?; [ $code -le 1 ] && [ -f {result} ] && exit 0; exit $((code > 0 ? code : 1))"
        self.device.shell(told, rows * steps * options.timeout_s)
