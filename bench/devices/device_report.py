"""What a device says of its rows: `bench.json` and embeddings in a folder, checked and made into rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, TypeAdapter, ValidationError

from ...runtimes.core.config import Frozen
from ...runtimes.core.text import readable
from ...runtimes.embed.verify import TENSOR_TOLERANCE
from ...runtimes.predictor.registry import core_backends
from ..schema.group_result import GroupResult
from ..schema.rows import ROUNDING, SCHEMA, Row
from .device import DeviceLost

RESULT = "bench.json"
# What a device says of a row; times follow from the samples, recall from the embeddings.
TOLD = frozenset(
    [
        *("runtime", "name", "quantisation", "requested_precision", "requested_threads", "batch"),
        *("status", "reason", "warnings", "artifact", "version", "model_sha256", "detail"),
        *("precision", "precision_source", "threads", "cpus", "operators", "size_mb", "load_ms", "first_ms"),
        *("warmup_runs", "samples_ns", "round_medians_ns", "cores_used", "peak_rss_mb", "stages_ms"),
        *("golden_cosine_min", "golden_max_error", "batch_max_error", "repeat_max_error"),
    ]
)
LONGEST_NS = 1e18  # thirty years: of what int64 holds


class ShownTensor(Frozen):
    """That `row-N-tensor.npy` holds what row N made of a golden image, or of an image of the list, by its index."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    row: int
    golden: int | None = None
    image: int | None = None


class DeviceReport(Frozen):
    """`bench.json` of the stand-alone program, or of a page (`shown`). bad_images: index in the list, and why."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    program: str
    machine: dict[str, Any]
    pixel_error: float | None  # None: no row there could tell
    bad_images: tuple[tuple[int, str], ...]
    thermal_log: tuple[dict[str, Any], ...]
    rows: tuple[dict[str, Any], ...]
    shown: tuple[ShownTensor, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """What a report has to hold. prefix: of its runtimes' names, as the registry has them. images: that were embedded;
    inputs: how many other tensors; dim: of the embeddings; rows: how many; group: that they are of.
    """

    device: str
    emulated: bool
    prefix: str
    images: Sequence[Path]
    inputs: int
    dim: int
    rows: int
    group: int


def prefix_of(runtime: str, prefix: str) -> str:
    """What sets a device's runtime apart in the registry: nothing where Python has no package of it."""
    return "" if any(one.name == runtime for one in core_backends()) else prefix


def read_report(folder: Path, device: str) -> DeviceReport:
    """The device's result. DeviceLost when it is not what it should be."""
    path = folder / RESULT
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DeviceLost(f"{device}: {RESULT} cannot be read: {error}") from error
    schema = data.get("schema") if isinstance(data, dict) else None
    if schema != SCHEMA:
        raise DeviceLost(f"{device}: expected schema {SCHEMA} in {RESULT}, got {schema!r}: build the program again")
    try:
        return DeviceReport.model_validate(data)
    except ValidationError as error:
        raise DeviceLost(f"{device}: {RESULT}: {error.errors()[0]['msg']}") from error


def merge(report: DeviceReport, folder: Path, wanted: Wanted) -> GroupResult:
    """The rows with their embeddings, `row-N.npy` and `row-N-inputs.npy` in the folder. DeviceLost for rows that are
    none, or another number of them; arrays that cannot be used fail their row.
    """
    device, rows = wanted.device, []
    embeddings: dict[str, NDArray[np.float32]] = {}
    random: dict[str, NDArray[np.float32]] = {}
    for index, fields in enumerate(report.rows):
        row = told_row(fields, f"{device}: row {index} of {RESULT}")
        prefix = prefix_of(row.runtime, wanted.prefix)
        row.name = f"{prefix}{row.name} @ {device}"
        row.runtime, row.group = prefix + row.runtime, wanted.group
        row.device, row.emulated = device, wanted.emulated
        row.detail = {**row.detail, **report.machine, "thermal_log": list(report.thermal_log)}
        if row.measured:
            take(row, index, report, folder, wanted, embeddings, random)
        rows.append(row)
    if len(rows) != wanted.rows:
        raise DeviceLost(f"{device}: expected {wanted.rows} rows, got {len(rows)}")
    return GroupResult(rows, embeddings, random, [])


def told_row(fields: dict[str, Any], where: str) -> Row:
    """A row with what a device has to say of it, and nothing else. DeviceLost for figures that are none."""
    try:
        row = TypeAdapter(Row).validate_python({name: fields[name] for name in TOLD & fields.keys()})
    except ValidationError as error:
        raise DeviceLost(f"{where} is not valid: {error.errors()[0]['msg']}") from error
    for name, value in vars(row).items():
        least = -1.0 if "cosine" in name else 0.0
        if isinstance(value, int | float) and not least - ROUNDING <= value < float("inf"):
            raise DeviceLost(f"{where} is not valid: {name}: expected a figure, got {value}")
    times = np.array([*row.samples_ns, *row.round_medians_ns], dtype=np.float64)
    if not ((times > 0) & (times < LONGEST_NS)).all() or bool(row.samples_ns) != bool(row.round_medians_ns):
        raise DeviceLost(f"{where} is not valid: expected times of rounds, in nanoseconds")
    if row.samples_ns:
        row.set_samples(np.array(row.samples_ns, dtype=np.int64))
    row.reason = row.reason and readable(row.reason)
    row.version = row.version and readable(row.version, 100)
    row.warnings = [readable(warning) for warning in row.warnings[:100]]
    return row


def take(
    row: Row,
    index: int,
    report: DeviceReport,
    folder: Path,
    wanted: Wanted,
    embeddings: dict[str, NDArray[np.float32]],
    random: dict[str, NDArray[np.float32]],
) -> None:
    """A row's arrays, or the reason why they cannot be used."""
    try:
        if report.bad_images:
            number, reason = report.bad_images[0]
            raise DeviceLost(
                f"{len(report.bad_images)} images cannot be read there (it reads JPEG and PNG), the first:"
                f" {wanted.images[number] if 0 <= number < len(wanted.images) else number}: {reason}"
            )
        own = read_array(folder / f"row-{index}.npy", (len(wanted.images), wanted.dim))
        others = read_array(folder / f"row-{index}-inputs.npy", (wanted.inputs, wanted.dim))
    except DeviceLost as error:
        row.status, row.reason = "failed", str(error)
        return
    embeddings[row.name], random[row.name] = own, others
    if report.pixel_error is None:
        row.fail("failed", "nothing there could tell whether its preprocessing gives the golden tensors")
    elif not report.pixel_error <= TENSOR_TOLERANCE:
        row.fail("parity", pixels_differ(report.pixel_error))


def pixels_differ(error: float) -> str:
    """Of a device's tensors of the golden images, in words."""
    return f"preprocessing differs there from the golden tensors by {error:.1e}"


def read_array(path: Path, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Embeddings that a device wrote, or a tensor. DeviceLost unless they are finite float32 of this shape."""
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


def lost(name: str, emulated: bool, group: int, reason: str) -> GroupResult:
    """The one row of a device that failed as a whole."""
    row = Row(runtime="device", name=f"@ {name}", device=name, emulated=emulated, group=group)
    row.fail("failed", reason)
    return GroupResult([row], {}, {}, [])
