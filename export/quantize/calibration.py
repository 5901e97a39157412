"""The images that ranges are measured on, through the bundle's own preprocessing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtimes.bundle.bundle import Bundle
from ...runtimes.core.errors import ImageError, InputError
from ...runtimes.core.image_list import read_image_list
from ...runtimes.preprocess.images import find_images, read_bytes
from ...runtimes.preprocess.pipeline import preprocess_bytes

FEWEST = 32  # images; below that single ones decide the ranges
TRAIN_LIST, EVALUATED = "train_list.txt", ("test_list.txt", "query_list.txt", "gallery_list.txt", "val_list.txt")
ALIKE = 0.01  # of the mean spread of pixels inside an image: less than that between images is one picture


@dataclass(frozen=True)
class Calibration:
    """tensors: float32 `(n, 3, H, W)`, as the network sees them; hashes: SHA-256 of each image's bytes, in order."""

    tensors: NDArray[np.float32]
    hashes: tuple[str, ...]


def calibration_files(folder: Path, listed: Path | None) -> tuple[list[Path], set[Path]]:
    """The images to calibrate on, and those that they must not be.

    folder: its `train_list.txt` says which, else all images in it are taken. listed: another list, its paths relative
    to the folder. Lists for evaluation beside either list are what calibration keeps off.
    """
    if not folder.is_dir():
        raise InputError(f"--calibrate {folder}: expected a folder of images")
    chosen = listed or (folder / TRAIN_LIST if (folder / TRAIN_LIST).is_file() else None)
    if chosen is None:
        return find_images(folder), set()
    images = read_image_list(chosen, folder)
    evaluated: set[Path] = set()
    for name in EVALUATED:
        beside = chosen.with_name(name)
        if beside.is_file() and beside != chosen:
            others = read_image_list(beside, folder)
            evaluated |= {others.file(index) for index in range(len(others))}
    return [images.file(index) for index in range(len(images))], evaluated


def read_calibration(
    bundle: Bundle, files: Sequence[Path], evaluated: set[Path], count: int, on_bad: Callable[[ImageError], None]
) -> Calibration:
    """`count` of the files, evenly spread over them, preprocessed as the bundle says.

    A bad image is reported and another stands in. InputError where an image is one of the evaluation's or the bundle's
    golden ones, by path or by its bytes, where fewer than `FEWEST` are left, or where they are all alike.
    """
    if both := sorted(evaluated & set(files)):
        raise InputError(f"calibration: {both[0]} is in a list for evaluation: calibrate on training images alone")
    golden = {file.sha256 for file in bundle.manifest.golden if file.path in bundle.manifest.golden_images}
    step = max(len(files) / count, 1.0) if count else 1.0
    spread = [int(place * step) for place in range(min(count, len(files)))]
    order = [*spread, *sorted(set(range(len(files))) - set(spread))]
    tensors: list[NDArray[np.float32]] = []
    hashes: dict[str, None] = {}
    for index in order:
        if len(tensors) == count:
            break
        try:
            data = read_bytes(files[index])
            tensor = preprocess_bytes(data, bundle.spec.preprocess, str(files[index]))
        except ImageError as error:
            on_bad(error)
            continue
        digest = hashlib.sha256(data).hexdigest()
        if digest in golden:
            raise InputError(
                f"calibration: {files[index]} is one of the bundle's golden images, on which the result is checked:"
                " leave it out"
            )
        if digest not in hashes:
            hashes[digest] = None
            tensors.append(tensor)
    if len(tensors) < FEWEST:
        raise InputError(
            f"calibration: expected {FEWEST} different images or more that can be read, got {len(tensors)}"
        )
    stacked = np.stack(tensors)
    inside, between = float(stacked.std(axis=(1, 2, 3)).mean()), float(stacked.std(axis=0).mean())
    if inside == 0 or between < ALIKE * inside:
        raise InputError(
            "calibration: the images are all alike, or of one colour each: the ranges would be theirs alone"
        )
    return Calibration(stacked, tuple(hashes))
