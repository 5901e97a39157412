"""The generator and the converter."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.preprocess.image_list import read_image_list
from edgerecall.train.data.convert import ImageSet, convert
from edgerecall.train.data.layouts import Split
from edgerecall.train.data.synth import SynthOptions, synthesise


def test_layout_and_disjoint_classes(data: Path) -> None:
    train = read_image_list(data / "train_list.txt", data)
    test = read_image_list(data / "test_list.txt", data)
    assert (len(train), len(test)) == (72, 36)
    assert not set(train.labels) & set(test.labels)
    assert all(path.split("/")[0].endswith("_final") and path.endswith(".JPG") for path in train.paths)


def test_same_seed_same_bytes(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        synthesise(tmp_path / name, SynthOptions(2, 2, 2, 48, seed), "tests", lambda count: None)
    one, two, other = (sorted((tmp_path / n).rglob("*.JPG")) for n in "abc")
    assert [p.read_bytes() for p in one] == [p.read_bytes() for p in two]
    assert [p.read_bytes() for p in one] != [p.read_bytes() for p in other]


def test_existing_folder_is_kept(data: Path) -> None:
    with pytest.raises(InputError, match="exists already"):
        synthesise(data, SynthOptions(2, 2, 2), "tests", lambda count: None)


def release(root: Path, train: str, test: str) -> None:
    (root / "mug_final").mkdir()
    for name in "abcd":
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(root / "mug_final" / f"{name}.JPG")
    header = "image_id class_id super_class_id path\n"
    (root / "Ebay_train.txt").write_text(header + train)
    (root / "Ebay_test.txt").write_text(header + test)


def sop(root: Path) -> list[ImageSet]:
    return convert(root, "sop", Split())


def test_convert_the_official_release(tmp_path: Path) -> None:
    release(
        tmp_path, "1 7 1 mug_final/a.JPG\r\n2 9 1 mug_final/b.JPG\n", "3 11 1 mug_final/c.JPG\n4 12 1 mug_final/d.JPG\n"
    )
    train, test = sop(tmp_path)
    assert (tmp_path / "train_list.txt").read_text() == "mug_final/a.JPG 0\nmug_final/b.JPG 1\n"
    assert (tmp_path / "test_list.txt").read_text() == "mug_final/c.JPG 0\nmug_final/d.JPG 1\n"
    assert len(train.warnings) == len(test.warnings) == 1
    assert "59551 images of 11318 classes" in train.warnings[0]


def test_convert_paths_with_spaces_and_shared_classes(tmp_path: Path) -> None:
    (tmp_path / "mug_final").mkdir()
    (tmp_path / "mug_final" / "my mug.JPG").touch()
    (tmp_path / "mug_final" / "b.JPG").touch()
    header = "image_id class_id super_class_id path\n"
    (tmp_path / "Ebay_train.txt").write_text(f"{header}1 7 1 mug_final/my mug.JPG \n2 9 1 mug_final/b.JPG\n")
    (tmp_path / "Ebay_test.txt").write_text(f"{header}3 9 1 mug_final/b.JPG\n4 10 1 mug_final/b.JPG\n")
    train, test = sop(tmp_path)
    assert (tmp_path / "train_list.txt").read_text() == "mug_final/my mug.JPG 0\nmug_final/b.JPG 1\n"
    assert len(train.warnings) == 1
    assert "1 classes are in the training list too, such as 9" in test.warnings[1]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("1 x 1 mug_final/a.JPG\n", "Ebay_train.txt:2: expected 'image_id"),
        ("1 2 1 mug_final/none.JPG\n", "no such image"),
        ("1 2\n", "Ebay_train.txt:2"),
        (
            "1 2 1 /etc/hostname\n",
            "Ebay_train.txt:2: expected a path inside the data set's folder, got '/etc/hostname'",
        ),
        ("1 2 1 ../a.JPG\n", "expected a path inside"),
    ],
)
def test_convert_refuses(tmp_path: Path, line: str, message: str) -> None:
    release(tmp_path, line, "3 11 1 mug_final/c.JPG\n")
    with pytest.raises(InputError, match=message):
        sop(tmp_path)
    assert not (tmp_path / "test_list.txt").exists() and not (tmp_path / "train_list.txt").exists()
