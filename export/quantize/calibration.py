"""The images that ranges are measured on, through the bundle's own preprocessing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.core.errors import ImageError, InputError
from ...runtimes.core.files import sha256
from ...runtimes.preprocess.image_list import read_image_list
from ...runtimes.preprocess.images import find_images, read_bytes
from ...runtimes.preprocess.pipeline import preprocess_bytes

FEWEST = 32  # images; below, single ones decide the ranges
TRAIN_LIST = "train_list.txt"
EVALUATED = ("test_list.txt", "query_list.txt", "gallery_list.txt", "val_list.txt", "catalogue_list.txt")
ALIKE = 0.01  # of the mean spread of pixels inside an image: less than that between images is one picture


@dataclass(frozen=True)
class Calibration:
    """tensors: float32 `(n, 3, H, W)`, as the network sees them; hashes: SHA-256 of each image's bytes, in order."""

    tensors: NDArray[np.float32]
    hashes: tuple[str, ...]


@dataclass(frozen=True)
class CalibrationFiles:
    """The images to calibrate on, and those that they must not be: of lists for evaluation."""

    chosen: list[Path]
    evaluated: set[Path]


def calibration_files(folder: Path, listed: Path | None) -> CalibrationFiles:
    """folder: its `train_list.txt` says which images, else all in it but those of its lists for evaluation. listed:
    another list, its paths relative to the folder. InputError where that is a list for evaluation itself.
    """
    if not folder.is_dir():
        raise InputError(f"--calibrate {folder}: expected a folder of images")
    if listed is not None and listed.name in EVALUATED:
        raise InputError(f"--list {listed}: a list for evaluation: calibrate on training images alone")
    chosen = listed or (folder / TRAIN_LIST if (folder / TRAIN_LIST).is_file() else None)
    evaluated: set[Path] = set()
    for place in {folder, chosen.parent if chosen else folder}:
        for name in EVALUATED:
            if (place / name).is_file():
                others = read_image_list(place / name, folder, check_files=False)
                evaluated |= {others.file(index).resolve() for index in range(len(others))}
    if chosen is None:
        return CalibrationFiles([path for path in find_images(folder) if path.resolve() not in evaluated], evaluated)
    images = read_image_list(chosen, folder)
    return CalibrationFiles([images.file(index) for index in range(len(images))], evaluated)


def read_calibration(
    bundle: Bundle, files: CalibrationFiles, count: int, on_bad: Callable[[ImageError], None]
) -> Calibration:
    """`count` of the files, evenly spread over them, preprocessed as the bundle says.

    A bad image is reported and another stands in. InputError where an image is one of the evaluation's or the bundle's
    golden ones, by path or by its bytes, where fewer than `FEWEST` are left, or where they are all alike.
    """
    golden = {file.sha256 for file in bundle.manifest.golden}
    kept, hashes = np.empty((count, *bundle.spec.input_shape), np.float32), dict[str, None]()
    sizes: dict[int, set[str]] = {}
    for path in spread(files.chosen, count):
        if len(hashes) == count:
            break
        if path.resolve() in files.evaluated:
            raise refused(path, "in a list for evaluation")
        try:
            data = read_bytes(path)
            tensor = preprocess_bytes(data, bundle.spec.preprocess, str(path))
        except ImageError as error:
            on_bad(error)
            continue
        digest = hashlib.sha256(data).hexdigest()
        if digest in golden:
            raise refused(path, "one of the bundle's golden images")
        if digest not in hashes:
            kept[len(hashes)] = tensor
            hashes[digest] = None
            sizes.setdefault(len(data), set()).add(digest)
    for path in sorted(files.evaluated):  # hashed only where the size is that of one of these
        if path.is_file() and path.stat().st_size in sizes and sha256(path) in sizes[path.stat().st_size]:
            raise refused(path, "among the images and in a list for evaluation")
    if len(hashes) < FEWEST:
        raise InputError(f"calibration: expected {FEWEST} or more different images that can be read, got {len(hashes)}")
    tensors = kept[: len(hashes)]
    middle = tensors[:, :, ::4, ::4]
    inside, between = float(middle.std(axis=(2, 3)).mean()), float(middle.std(axis=0).mean())
    if inside < ALIKE * between or between < ALIKE * inside:
        raise InputError(
            "calibration: the images are all alike, or of one colour each: the ranges would be theirs alone"
        )
    return Calibration(tensors, tuple(hashes))


def spread(files: Sequence[Path], count: int) -> Iterator[Path]:
    """`count` of them at even distances, then the others."""
    step = max(len(files) / count, 1.0)
    first = dict.fromkeys(int(place * step) for place in range(min(count, len(files))))
    for index in (*first, *(index for index in range(len(files)) if index not in first)):
        yield files[index]


def refused(path: Path, why: str) -> InputError:
    """What is said of an image that must not be calibrated on."""
    return InputError(f"calibration: {path} is {why}: calibrate on training images alone")
