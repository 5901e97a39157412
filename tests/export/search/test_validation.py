"""Recipes are chosen on images that are neither tested nor calibrated on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest

from edgerecall.export.quantize.calibration import Calibration
from edgerecall.export.search.validation import require_apart, validation_images
from edgerecall.runtimes.core.errors import InputError

pytestmark = pytest.mark.runtime


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """24 classes of three images, a folder each; the last twelve are the test's."""
    lines = []
    for number in range(24):
        for image in range(3):
            path = tmp_path / f"class{number}" / f"{image}.jpg"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(f"{number} {image}".encode())
            lines.append(f"{path.relative_to(tmp_path)} {number % 12}\n")
    (tmp_path / "val_list.txt").write_text("".join(lines[:36]))
    (tmp_path / "test_list.txt").write_text("".join(lines[36:]))
    return tmp_path


def refusal(folder: Path, listed: str | None = None) -> str:
    with pytest.raises(InputError) as caught:
        validation_images(folder, folder / listed if listed else None)
    return str(caught.value)


def test_its_own_list(folder: Path) -> None:
    found = validation_images(folder, None)  # the labels of both lists are 0 to 11, and yet of other classes
    assert len(found.paths) == 36 and found.labels is not None and len(np.unique(found.labels)) == 12


def test_never_the_tests(folder: Path) -> None:
    assert "never on a test's" in refusal(folder, "test_list.txt")
    lines = (folder / "val_list.txt").read_text().splitlines()
    tested = (folder / "test_list.txt").read_text().splitlines()
    (folder / "val_list.txt").write_text("\n".join([*lines, tested[0]]))
    assert "has images of" in refusal(folder)
    (folder / "class20" / "new.jpg").write_bytes(b"new")
    (folder / "val_list.txt").write_text("\n".join([*lines, "class20/new.jpg 20"]))
    assert "class20 has images of" in refusal(folder) and "not tested" in refusal(folder)


def test_what_it_takes(folder: Path, tmp_path: Path) -> None:
    assert "expected a folder" in refusal(folder / "nowhere")
    (folder / "val_list.txt").write_text("class0/0.jpg 0\nclass0/1.jpg 0\nclass1/0.jpg 1\n")
    assert "expected 4 or more classes of several images, got 2 of 3 images" in refusal(folder)
    (folder / "val_list.txt").unlink()
    assert "give --validate-list" in refusal(folder)


def test_not_what_ranges_are_measured_on(folder: Path) -> None:
    images = validation_images(folder, None)
    tensors = np.zeros((1, 3, 2, 2), np.float32)
    require_apart(images, Calibration(tensors, (hashlib.sha256(b"20 0").hexdigest(),)))
    with pytest.raises(InputError, match=r"class2/1\.jpg is one of the images that ranges are measured on"):
        require_apart(images, Calibration(tensors, (hashlib.sha256(b"2 1").hexdigest(),)))
