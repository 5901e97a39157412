"""Rows measured on another machine: push what changed, run the stand-alone program there, pull, check, merge."""

from __future__ import annotations

import contextlib
import json
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.core.config import Frozen
from ...runtimes.embed.verify import TENSOR_TOLERANCE
from ...runtimes.predictor.backend import CPP
from ...runtimes.predictor.registry import backend, core_backends
from ..schema.group_result import GroupResult
from ..schema.options import BenchOptions, OnProgress
from ..schema.rows import SCHEMA, Row
from .device import QUICK_S, Device, DeviceLost, quoted
from .program import PROGRAM, DeviceProgram, find_program
from .upload import UploadSet

RESULT = "bench.json"


class DeviceReport(Frozen):
    """`bench.json` of the stand-alone program. bad_images: index in the list, and why."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    program: str
    machine: dict[str, Any]
    pixel_error: float
    bad_images: tuple[tuple[int, str], ...]
    thermal_log: tuple[dict[str, Any], ...]
    rows: tuple[dict[str, Any], ...]


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
            name = f"@ {self.device.name}"
            lost = Row(runtime="device", name=name, device=self.device.name, emulated=self.device.emulated)
            lost.group = self.group
            lost.fail("failed", str(error))
            return GroupResult([lost], {}, {}, [])

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
            return self._merge(read_report(output, device), output, models, images)

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

    def _merge(
        self, report: DeviceReport, folder: Path, models: Sequence[tuple[str, str]], images: Sequence[Path]
    ) -> GroupResult:
        device, rows = self.device, []
        embeddings: dict[str, NDArray[np.float32]] = {}
        random: dict[str, NDArray[np.float32]] = {}
        for index, fields in enumerate(report.rows):
            try:
                row = TypeAdapter(Row).validate_python(fields)
            except ValidationError as error:
                told = error.errors()[0]["msg"]
                raise DeviceLost(f"{device.name}: row {index} of {RESULT} is not valid: {told}") from error
            row.name = f"{CPP}{row.name} @ {device.name}"
            row.runtime, row.group = CPP + row.runtime, self.group
            row.device, row.emulated = device.name, device.emulated
            row.detail = {**row.detail, **report.machine, "thermal_log": list(report.thermal_log)}
            if row.measured:
                self._take(row, index, report, folder, images, embeddings, random)
            rows.append(row)
        expected = len(models) * len(self.options.threads) * len(self.options.precision) * len(self.options.batch)
        if len(rows) != expected:
            raise DeviceLost(f"{device.name}: expected {expected} rows, got {len(rows)}")
        return GroupResult(rows, embeddings, random, [])

    def _take(
        self,
        row: Row,
        index: int,
        report: DeviceReport,
        folder: Path,
        images: Sequence[Path],
        embeddings: dict[str, NDArray[np.float32]],
        random: dict[str, NDArray[np.float32]],
    ) -> None:
        """A row's arrays, or the reason why they cannot be used."""
        try:
            if report.bad_images:
                number, reason = report.bad_images[0]
                raise DeviceLost(
                    f"{len(report.bad_images)} images cannot be read there (it reads JPEG and PNG), the first:"
                    f" {images[number] if 0 <= number < len(images) else number}: {reason}"
                )
            dim = self.bundle.spec.embedding_dim
            own = read_embeddings(folder / f"row-{index}.npy", (len(images), dim))
            others = read_embeddings(folder / f"row-{index}-inputs.npy", (len(self.random), dim))
        except DeviceLost as error:
            row.status, row.reason = "failed", str(error)
            return
        embeddings[row.name], random[row.name] = own, others
        if report.pixel_error > TENSOR_TOLERANCE:
            row.fail("parity", f"preprocessing differs there from the golden tensors by {report.pixel_error:.1e}")


def read_report(folder: Path, device: Device) -> DeviceReport:
    """The program's result. DeviceLost when it is not what it should be."""
    path = folder / RESULT
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DeviceLost(f"{device.name}: {RESULT} cannot be read: {error}") from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise DeviceLost(
            f"{device.name}: expected schema {SCHEMA} in {RESULT}, got {schema!r}: build the program again"
        )
    try:
        return DeviceReport.model_validate(data)
    except ValidationError as error:
        raise DeviceLost(f"{device.name}: {RESULT}: {error.errors()[0]['msg']}") from error


def read_embeddings(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Embeddings that a device wrote. DeviceLost unless they are finite float32 of this shape."""
    try:
        with path.open("rb") as stream:
            array = np.lib.format.read_array(stream, allow_pickle=False)
    except (OSError, ValueError, EOFError, MemoryError) as error:
        raise DeviceLost(f"its embeddings cannot be read: {error}") from error
    if array.shape != shape or array.dtype != np.float32:
        raise DeviceLost(f"expected embeddings float32 {shape}, got {array.dtype} {array.shape}")
    if not np.isfinite(array).all():
        raise DeviceLost("its embeddings hold NaN or infinity")
    return np.asarray(array)
