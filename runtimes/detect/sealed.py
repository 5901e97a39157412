"""A detector as a bundle of its own: network, settings, and pictures with the boxes that must come out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from ..bundle.manifest import File, RelativePath, Sha256
from ..core.config import Frozen, explain
from ..core.errors import BundleError, InputError
from ..core.files import atomic_folder, sha256
from ..core.json_text import parse_json
from ..core.text import one_line
from ..predictor.registry import tool_versions
from ..preprocess.images import decode_rgb, read_bytes
from .boxes import Floats
from .detector import Detector
from .engines import model_files
from .settings import MOST_RESULTS, DetectorSettings

FILE = "detector.json"
MOST_BYTES = 1 << 24  # of detector.json
MOST_GOLDEN = 8
PIXELS, SCORES = 0.5, 1e-3  # by which a box's sides and scores may differ on another machine
Row = Annotated[tuple[float, ...], Field(min_length=6, max_length=6)]


class Golden(Frozen):
    """rows: class, score, xmin, ymin, xmax, ymax."""

    picture: RelativePath
    sha256: Sha256
    rows: Annotated[tuple[Row, ...], Field(max_length=MOST_RESULTS)]


class Manifest(Frozen):
    """`detector.json`. files: the network's, in `model_files`' order. tools: versions, by
    distribution."""

    format_version: Literal[1] = 1
    settings: DetectorSettings
    files: Annotated[tuple[File, ...], Field(min_length=1, max_length=2)]
    golden: Annotated[tuple[Golden, ...], Field(min_length=1, max_length=MOST_GOLDEN)]
    tools: dict[str, str]
    command: str


def seal(model: Path, settings: DetectorSettings, pictures: Sequence[Path], out: Path, command: str) -> int:
    """A network and its settings to a folder, with up to 8 pictures and what it finds in them; how many boxes that are.

    InputError for a network or pictures that cannot be used, and where it finds nothing in any of them.
    """
    files = model_files(model)
    detector = Detector(files, settings)
    with atomic_folder(out, FILE) as folder:
        golden = []
        (folder / "golden").mkdir()
        for number, path in enumerate(pictures[:MOST_GOLDEN]):
            rows = detector.rows(decode_rgb(read_bytes(path), settings.preprocess.decode.exif, str(path)))
            name = f"golden/{number}{path.suffix.lower()}"
            shutil.copyfile(path, folder / name)
            kept_rows = tuple(map(tuple, rows.tolist()))
            golden.append(Golden(picture=name, sha256=sha256(folder / name), rows=kept_rows))
        boxes = sum(len(one.rows) for one in golden)
        if not boxes:
            raise InputError(
                f"{model}: finds nothing in {len(golden)} pictures with a score of {settings.threshold:g}: give"
                " pictures of what it is for, or a lower threshold"
            )
        kept = []
        for role, path in zip(("model", "params"), files, strict=False):
            shutil.copyfile(path, folder / path.name)
            kept.append(File(role=role, path=path.name, bytes=path.stat().st_size, sha256=sha256(path)))
        manifest = Manifest(
            settings=settings, files=tuple(kept), golden=tuple(golden), tools=tool_versions(), command=command
        )
        (folder / FILE).write_text(json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
    return boxes


def read_manifest(folder: Path) -> Manifest:
    """BundleError for what is none."""
    try:
        with (folder / FILE).open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
        if len(data) > MOST_BYTES:
            raise BundleError(f"{folder / FILE}: more than {MOST_BYTES} bytes")
        return Manifest.model_validate(parse_json(data))
    except OSError as error:
        raise BundleError(f"{folder}: expected a sealed detector ({FILE}): {error.strerror}") from error
    except ValidationError as error:
        raise BundleError(explain(error, Manifest, str(folder / FILE))) from error
    except ValueError as error:
        raise BundleError(f"{folder / FILE}: not valid JSON: {one_line(error)}") from error


def open_sealed(folder: Path, threads: int = 1) -> Detector:
    """BundleError for a file that is not as it was sealed."""
    manifest = read_manifest(folder)
    for file in manifest.files:
        _check(folder / file.path, file.sha256)
    return Detector([folder / file.path for file in manifest.files], manifest.settings, threads)


def verify(folder: Path) -> list[tuple[str, str | None]]:
    """Each golden picture, and what is wrong with its boxes on this machine, or None. BundleError for changed files."""
    manifest = read_manifest(folder)
    detector = open_sealed(folder)
    found = []
    for golden in manifest.golden:
        path = folder / golden.picture
        _check(path, golden.sha256)
        rows = detector.rows(decode_rgb(read_bytes(path), manifest.settings.preprocess.decode.exif, str(path)))
        expected = np.asarray(golden.rows, np.float32).reshape(-1, 6)
        found.append((golden.picture, difference(rows, expected, manifest.settings.threshold)))
    return found


def difference(rows: Floats, expected: Floats, threshold: float) -> str | None:
    """Why boxes are not those expected, but for rounding: each has one of its class where it was, with its score. What
    is within rounding of the threshold may be there or not.
    """
    for one, other, told in ((expected, rows, "is not found"), (rows, expected, "was not there")):
        for row in one[one[:, 1] > threshold + SCORES]:
            near = (
                (other[:, 0] == row[0])
                & (np.abs(other[:, 1] - row[1]) <= SCORES)
                & (np.abs(other[:, 2:] - row[2:]) <= PIXELS).all(axis=1)
            )
            if not near.any():
                sides = ", ".join(f"{side:.1f}" for side in row[2:])
                return f"the box {sides} (class {int(row[0])}, score {row[1]:.3f}) {told}"
    return None


def _check(path: Path, digest: str) -> None:
    try:
        if sha256(path) == digest:
            return
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    raise BundleError(f"{path}: is not what was sealed: take the detector from its source again")
