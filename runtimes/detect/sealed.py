"""A detector as a bundle of its own: network, settings, and pictures with the boxes that must come out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import Field, ValidationError

from ..bundle.manifest import File, RelativePath, Sha256
from ..core.config import Frozen, explain
from ..core.errors import BundleError, ImageError, InputError
from ..core.files import atomic_folder, sha256
from ..core.json_text import parse_json
from ..core.text import one_line
from ..predictor.registry import tool_versions
from ..preprocess.images import SUFFIXES
from .boxes import Floats
from .detector import Detector
from .engines import network_files
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
    """`detector.json`. files: the network's, in `network_files`' order. tools: versions, by
    distribution."""

    format_version: Literal[1] = 1
    settings: DetectorSettings
    files: Annotated[tuple[File, ...], Field(min_length=1, max_length=2)]
    golden: Annotated[tuple[Golden, ...], Field(min_length=1, max_length=MOST_GOLDEN)]
    tools: dict[str, str]
    command: str


def seal(
    model: Path,
    settings: DetectorSettings,
    pictures: Sequence[Path],
    out: Path,
    command: str,
    on_bad: Callable[[Path, ImageError], object],
) -> tuple[int, int]:
    """A network and its settings to a folder, with up to 8 pictures and what it finds in them; how many pictures and
    boxes these are. on_bad: is given pictures that cannot be read, which are left out.

    InputError for a network or pictures that cannot be used, and where it finds nothing in any of them.
    """
    files = network_files(model)
    with atomic_folder(out, FILE) as folder:
        kept = []
        for role, path in zip(("model", "params"), files, strict=False):
            copied = folder / f"network{path.suffix}"
            shutil.copyfile(path, copied)
            kept.append(File(role=role, path=copied.name, bytes=copied.stat().st_size, sha256=sha256(copied)))
        try:
            detector = Detector([folder / one.path for one in kept], settings)
        except InputError as error:
            why = str(error).replace(f"{folder}/", "")
            raise InputError(f"{model}: cannot be opened from its own file alone: {why}") from error
        golden = list[Golden]()
        (folder / "golden").mkdir()
        for path in pictures:
            if len(golden) == MOST_GOLDEN:
                break
            try:
                rows = detector.rows(detector.read(path))
            except ImageError as error:
                on_bad(path, error)
                continue
            suffix = path.suffix.lower() if path.suffix.lower() in SUFFIXES else ""
            name = f"golden/{len(golden)}{suffix}"
            shutil.copyfile(path, folder / name)
            kept_rows = tuple(map(tuple, rows.tolist()))
            golden.append(Golden(picture=name, sha256=sha256(folder / name), rows=kept_rows))
        if not golden:
            raise InputError(f"none of the {len(pictures)} pictures could be read")
        boxes = sum(len(one.rows) for one in golden)
        if not boxes:
            raise InputError(
                f"{model}: finds nothing in {len(golden)} pictures with a score of {settings.threshold:g}: give"
                " pictures of what it is for, or a lower threshold"
            )
        manifest = Manifest(
            settings=settings, files=tuple(kept), golden=tuple(golden), tools=tool_versions(), command=command
        )
        (folder / FILE).write_text(json.dumps(manifest.model_dump(mode="json"), indent=1) + "\n", encoding="utf-8")
    return len(golden), boxes


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
    return _opened(folder, read_manifest(folder), threads)


def _opened(folder: Path, manifest: Manifest, threads: int = 1) -> Detector:
    for file in manifest.files:
        _check(folder / file.path, file.sha256)
    return Detector([folder / file.path for file in manifest.files], manifest.settings, threads)


def verify(folder: Path) -> list[tuple[str, str | None]]:
    """Each golden picture, and what is wrong with its boxes on this machine, or None. BundleError for changed files."""
    manifest = read_manifest(folder)
    detector = _opened(folder, manifest)
    found = []
    for golden in manifest.golden:
        path = folder / golden.picture
        _check(path, golden.sha256)
        rows = detector.rows(detector.read(path))
        expected = np.asarray(golden.rows, np.float32).reshape(-1, 6)
        found.append((golden.picture, difference(rows, expected, manifest.settings)))
    return found


def difference(rows: Floats, expected: Floats, settings: DetectorSettings) -> str | None:
    """Why boxes are not those expected, but for rounding: to each belongs one of its class where it was, with its
    score. What is within rounding of the threshold, or of the last place of `max_results`, may be there or not.
    """
    least = settings.threshold
    for one in (rows, expected):
        if len(one) == settings.max_results:
            least = max(least, float(one[-1, 1]))
    left = np.ones(len(rows), np.bool_)
    for row in expected:
        same = left & (rows[:, 0] == row[0]) & (np.abs(rows[:, 1] - row[1]) <= SCORES)
        same &= (np.abs(rows[:, 2:] - row[2:]) <= PIXELS).all(axis=1)
        if same.any():
            left[int(same.argmax())] = False
        elif row[1] > least + SCORES:
            return f"{_told(row)} is not found"
    more = rows[left & (rows[:, 1] > least + SCORES)]
    return f"{_told(more[0])} was not there" if len(more) else None


def _told(row: Floats) -> str:
    sides = ", ".join(f"{side:.1f}" for side in row[2:])
    return f"the box {sides} (class {int(row[0])}, score {row[1]:.3f})"


def _check(path: Path, digest: str) -> None:
    try:
        if sha256(path) == digest:
            return
    except OSError as error:
        raise BundleError(f"{path}: cannot be read: {error.strerror}") from error
    raise BundleError(f"{path}: is not what was sealed: take the detector from its source again")
