"""The images that recipes are scored on: labelled, and neither tested nor calibrated on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...bench.measure.image_set import ImageSet
from ...runtimes.core.errors import InputError
from ...runtimes.preprocess.image_list import read_image_list
from ..quantize.calibration import Calibration

VAL_LIST = "val_list.txt"
TESTED = ("test_list.txt", "query_list.txt", "gallery_list.txt", "catalogue_list.txt")
FEWEST_CLASSES = 4
MANY_CLASSES = 10  # each with a folder of its own, which is then no chance


def validation_images(folder: Path, listed: Path | None) -> ImageSet:
    """The folder's `val_list.txt`, or `listed`, with paths relative to the folder.

    InputError without labels of several classes, where it is a test's list, or where a test list beside it, or in the
    folder, has one of its images, or images from a folder of one of its classes: lists number their classes anew.
    """
    if not folder.is_dir():
        raise InputError(f"--validate {folder}: expected a folder of images")
    chosen = listed or folder / VAL_LIST
    if chosen.name in TESTED:
        raise InputError(f"{chosen}: recipes are chosen on validation images, never on a test's: give another list")
    if not chosen.is_file():
        raise InputError(f"--validate {folder}: no {VAL_LIST} in it: give --validate-list")
    images = ImageSet.find(folder, chosen)
    assert images.labels is not None
    classes = np.unique(images.labels)
    if len(classes) < FEWEST_CLASSES or len(classes) == len(images.labels):
        raise InputError(
            f"{chosen}: expected {FEWEST_CLASSES} or more classes of several images, got {len(classes)} of"
            f" {len(images.labels)} images"
        )
    own = {path.resolve() for path in images.paths}
    for place in {folder, chosen.parent}:
        for name in TESTED:
            if not (place / name).is_file():
                continue
            tested = read_image_list(place / name, folder, check_files=False)
            if any(tested.file(index).resolve() in own for index in range(len(tested))):
                raise InputError(f"{chosen}: has images of {place / name}: choose on others than are tested")
            files = [tested.file(index) for index in range(len(tested))]
            if shared := class_folders(images.paths, images.labels) & class_folders(files, tested.labels):
                raise InputError(
                    f"{chosen}: {min(shared)} has images of {place / name} too: choose on classes that are not tested"
                )
    return images


def class_folders(paths: Sequence[Path], labels: NDArray[np.int64]) -> set[Path]:
    """The folders of the images where there is one for each of many classes; none in any other layout."""
    found: dict[Path, set[int]] = {}
    for path, label in zip(paths, labels.tolist(), strict=True):
        found.setdefault(path.parent, set()).add(label)
    a_class_each = all(len(own) == 1 for own in found.values()) and len(found) == len(np.unique(labels))
    return set(found) if a_class_each and len(found) >= MANY_CLASSES else set()


def require_apart(images: ImageSet, calibration: Calibration) -> None:
    """InputError where an image to be scored on is one of the calibration's."""
    known = {bytes.fromhex(digest) for digest in calibration.hashes}
    for path, digest in zip(images.paths, images.digests, strict=True):
        if digest in known:
            raise InputError(f"validation: {path} is one of the images that ranges are measured on: take others")
