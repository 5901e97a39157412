"""Rows measured on another machine: push what changed, run the stand-alone program there, pull, check, merge."""

from __future__ import annotations

import contextlib
import json
import secrets
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from ..runtimes.bundle import Bundle
from ..runtimes.predictor import NATIVE, artifact_runtime
from ..runtimes.spec import Frozen
from ..runtimes.verify import TENSOR_TOLERANCE
from .device import QUICK_S, Device, DeviceLost, quoted
from .device_files import Staged
from .device_program import PROGRAM, DeviceProgram, find_program
from .options import BenchOptions
from .rows import SCHEMA, Row
from .sweep_state import Measured

Progress = Callable[[str, float], None]
RESULT = "bench.json"


class DeviceReport(Frozen):
    """`bench.json` of the stand-alone program. bad_images: index in the list, and why."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    program: str
    machine: dict[str, Any]
    pixel_error: float
    bad_images: tuple[tuple[int, str], ...]
    weather: tuple[dict[str, Any], ...]
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
        """Reaches the device, when nothing is measured yet. InputError when there is no program for it."""
        with contextlib.suppress(DeviceLost):  # told in its row
            _, program = self._find_program()
            with tempfile.TemporaryDirectory(prefix="edgerecall-device-") as scratch:
                program.unpack(Path(scratch) / "program")

    def _find_program(self) -> tuple[str, DeviceProgram]:
        machine = self.device.machine
        program = find_program(machine, self.device.name.startswith("adb"), self.programs)
        self.device.target = program.target
        return machine, program

    def measure(self, images: Sequence[Path], progress: Progress) -> Measured:
        """Its rows on the images. A device that fails as a whole is one row with its reason."""
        try:
            return self._measure(images, progress)
        except DeviceLost as error:
            name = f"@ {self.device.name}"
            lost = Row(runtime="device", name=name, device=self.device.name, emulated=self.device.emulated)
            lost.group = self.group
            lost.fail("failed", str(error))
            return Measured([lost], {}, {}, [])

    def _measure(self, images: Sequence[Path], progress: Progress) -> Measured:
        device = self.device
        progress(f"reaching {device.name}", 0.0)
        machine, program = self._find_program()
        with tempfile.TemporaryDirectory(prefix="edgerecall-device-") as scratch:
            staged = Staged(device, Path(scratch), self.bundle, program, images, self.random, machine)
            progress(f"copying to {device.name}", 0.1)
            staged.push()
            progress(f"running on {device.name}", 0.3)
            runtimes = self._runtimes(staged)
            output, run = Path(scratch) / "pulled", f"run-{secrets.token_hex(8)}"  # no other bench's
            try:
                self._run(staged, runtimes, run, len(images))
                device.pull(run, output)
            finally:
                with contextlib.suppress(DeviceLost):
                    device.shell(f"rm -rf {quoted(f'{device.root}/{run}')}", QUICK_S)
            return self._merge(read_report(output, device), output, runtimes, images)

    def _runtimes(self, staged: Staged) -> list[str]:
        """Those of the program that the bundle has an artifact for and that were asked for."""
        text = self.device.shell(staged.program("info"), QUICK_S)
        try:
            built = list(json.loads(text)["runtimes"])
        except (ValueError, KeyError, TypeError) as error:
            raise DeviceLost(f"{self.device.name}: {PROGRAM} info gave something else than JSON") from error
        have = {artifact.runtime for artifact in staged.artifacts}
        found = [name for name in built if name in have]
        asked = {artifact_runtime(name) for name in self.options.runtimes}
        if self.options.every:
            asked |= set(found)
        chosen = [name for name in found if name in asked]
        if not chosen:
            raise DeviceLost(
                f"{self.device.name}: its program has {', '.join(built) or 'no runtime'}, the bundle's artifacts for it"
                f" {', '.join(sorted(have)) or 'none'}, and {', '.join(sorted(asked))} was asked for"
            )
        return chosen

    def _run(self, staged: Staged, runtimes: Sequence[str], run: str, images: int) -> None:
        options = self.options
        rows = len(runtimes) * len(options.threads) * len(options.precision) * len(options.batch)
        root = self.device.root
        arguments = ["--out", f"{root}/{run}", "--list", f"{root}/{staged.list_name}", "--until-eof"]
        arguments += ["--inputs", f"{root}/{staged.inputs_name}", "--cpus", options.device_cpus]
        for name, values in (
            ("runtime", runtimes),
            ("threads", options.threads),
            ("precision", options.precision),
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

    def _merge(self, report: DeviceReport, folder: Path, runtimes: Sequence[str], images: Sequence[Path]) -> Measured:
        device, rows = self.device, []
        embeddings: dict[str, NDArray[np.float32]] = {}
        random: dict[str, NDArray[np.float32]] = {}
        for index, fields in enumerate(report.rows):
            try:
                row = TypeAdapter(Row).validate_python(fields)
            except ValidationError as error:
                told = error.errors()[0]["msg"]
                raise DeviceLost(f"{device.name}: row {index} of {RESULT} is none: {told}") from error
            row.name = f"{NATIVE}{row.name} @ {device.name}"
            row.runtime, row.group = NATIVE + row.runtime, self.group
            row.device, row.emulated = device.name, device.emulated
            row.detail = {**row.detail, **report.machine, "weather": list(report.weather)}
            if row.measured:
                self._take(row, index, report, folder, images, embeddings, random)
            rows.append(row)
        expected = len(runtimes) * len(self.options.threads) * len(self.options.precision) * len(self.options.batch)
        if len(rows) != expected:
            raise DeviceLost(f"{device.name}: expected {expected} rows, got {len(rows)}")
        return Measured(rows, embeddings, random, [])

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
            own = read_array(folder / f"row-{index}.npy", (len(images), dim))
            others = read_array(folder / f"row-{index}-inputs.npy", (len(self.random), dim))
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


def read_array(path: Path, shape: tuple[int, int]) -> NDArray[np.float32]:
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
