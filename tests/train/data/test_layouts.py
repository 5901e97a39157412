"""Published layouts and folders of classes as lists; what training shares with the test is told."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.preprocess.image_list import read_image_list
from edgerecall.train.data.convert import ImageSet, convert
from edgerecall.train.data.layouts import LAYOUTS, Split, find_layout
from edgerecall.train.data.leakage import leak_warnings

Run = Callable[..., subprocess.CompletedProcess[str]]


def picture(path: Path, seed: int, quality: int = 92) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (7, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((64, 64), Image.Resampling.BICUBIC).save(path, quality=quality)


def make_grocery(root: Path) -> None:
    rows = []
    for label in range(6):
        for shot in range(3):
            picture(root / f"train/Fruit/c{label}/c{label}_{shot}.jpg", 10 * label + shot)
            rows.append(f"train/Fruit/c{label}/c{label}_{shot}.jpg, {label}, 0\n")
        picture(root / f"iconic/c{label}.jpg", 100 + label)
    (root / "train.txt").write_text("".join(rows[:9]))
    (root / "val.txt").write_text("".join(rows[9:12]))
    (root / "test.txt").write_text("".join(rows[12:]))
    head = "Class Name (str),Class ID (int),Coarse Class Name (str),Coarse Class ID (int),Iconic Image Path (str)\n"
    (root / "classes.csv").write_text(head + "".join(f"c{n},{n},f,0,/iconic/c{n}.jpg\n" for n in range(6)))


def make_birds(root: Path) -> None:
    (root / "images.txt").write_text("".join(f"{n} {n:03d}.b/{n}.jpg\n" for n in (1, 2, 3, 4)))
    (root / "image_class_labels.txt").write_text("1 1\n2 100\n3 101\n4 200\n")
    for n in (1, 2, 3, 4):
        picture(root / f"images/{n:03d}.b/{n}.jpg", n)


def make_cars(root: Path) -> None:
    from scipy.io import savemat

    table = np.array(
        [(f"car_ims/{n}.jpg", label) for n, label in enumerate((1, 98, 99, 196))],
        dtype=[("relative_im_path", "O"), ("class", "O")],
    )
    savemat(root / "cars_annos.mat", {"annotations": table})
    for n in range(4):
        picture(root / f"car_ims/{n}.jpg", n)


def make_shop(root: Path) -> None:
    (root / "Eval").mkdir()
    entries = [("a", 1, "train"), ("b", 2, "train"), ("c", 3, "query"), ("d", 4, "query"), ("e", 3, "gallery")]
    entries.append(("f", 4, "gallery"))
    lines = [f"img/{name}.jpg id_{item:08d} {status}\n" for name, item, status in entries]
    (root / "Eval" / "list_eval_partition.txt").write_text(
        f"{len(lines)}\nimage_name item_id evaluation_status\n{''.join(lines)}"
    )
    for n, (name, _, _) in enumerate(entries):
        picture(root / f"img/{name}.jpg", n)


def make_market(root: Path) -> None:
    names = {
        "bounding_box_train": ("0002_c1s1_1_01.jpg", "0007_c2s1_1_01.jpg"),
        "query": ("0010_c3s1_1_01.jpg", "0011_c1s1_1_01.jpg"),
        "bounding_box_test": ("-1_c1s1_1_00.jpg", "0000_c2s1_1_01.jpg", "0010_c4s1_1_01.jpg", "0011_c6s2_1_01.jpg"),
    }
    for n, (folder, files) in enumerate(names.items()):
        for m, name in enumerate(files):
            picture(root / folder / name, 10 * n + m)


MAKERS = {"grocery": make_grocery, "cub": make_birds, "cars": make_cars, "inshop": make_shop, "market1501": make_market}


def as_lists(root: Path, sets: list[ImageSet]) -> dict[str, list[tuple[str, int]]]:
    found = {}
    for one in sets:
        images = read_image_list(root / f"{one.name}_list.txt", root)
        found[one.name] = list(zip(images.paths, images.labels.tolist(), strict=True))
    return found


@pytest.mark.parametrize("name", MAKERS)
def test_every_layout_is_known_and_read(tmp_path: Path, name: str) -> None:
    MAKERS[name](tmp_path)
    assert find_layout(tmp_path) == name
    sets = convert(tmp_path, name, Split(train=3, seed=1) if name == "grocery" else Split())
    lists = as_lists(tmp_path, sets)
    labels = {key: {label for _, label in value} for key, value in lists.items()}
    assert labels["train"] == set(range(len(labels["train"])))
    if name in ("cub", "cars"):
        assert len(lists["train"]) == len(lists["test"]) == 2 and labels["test"] == {0, 1}
    if name == "inshop":
        assert [path for path, _ in lists["gallery"]] == ["img/e.jpg", "img/f.jpg"]
        assert labels["query"] == labels["gallery"] == {0, 1}
    if name == "market1501":
        gallery = read_image_list(tmp_path / "gallery_list.txt", tmp_path)
        assert gallery.paths[0].endswith("0000_c2s1_1_01.jpg") and len(gallery) == 3  # of nobody: left out
        assert gallery.cameras is not None and gallery.cameras.tolist() == [2, 4, 6]
        assert labels["query"] < labels["gallery"]
    if name in LAYOUTS and name != "market1501":
        assert any("as published" in warning for one in sets for warning in one.warnings)


def test_classes_are_drawn_by_the_seed(tmp_path: Path) -> None:
    make_grocery(tmp_path)
    sets = {one.name: one for one in convert(tmp_path, "grocery", Split(train=4, val=2, seed=5))}
    classes = {name: one.classes for name, one in sets.items()}
    assert [len(classes[name]) for name in ("train", "val", "test", "catalogue")] == [2, 2, 2, 2]
    assert not classes["train"] & classes["val"] and not (classes["train"] | classes["val"]) & classes["test"]
    assert classes["catalogue"] == classes["test"]
    lists = as_lists(tmp_path, list(sets.values()))
    by_class = {path.split("/")[1].removesuffix(".jpg"): label for path, label in lists["catalogue"]}
    assert all(by_class[path.split("/")[2]] == label for path, label in lists["test"])
    again = {one.name: one.classes for one in convert(tmp_path, "grocery", Split(train=4, val=2, seed=5))}
    other = {one.name: one.classes for one in convert(tmp_path, "grocery", Split(train=4, val=2, seed=6), force=True)}
    assert again == classes != other
    with pytest.raises(InputError, match="expected 2 or more classes to train and to test, got 6, of which 5"):
        convert(tmp_path, "grocery", Split(train=5))


def test_a_folder_for_each_class(edgerecall: Run, tmp_path: Path) -> None:
    for label in ("apple", "pear tree", "plum", "fig"):
        for shot in range(3):
            picture(tmp_path / "data" / label / "deep" / f"{shot}.jpg", hash_of(label) + shot)
    (tmp_path / "data" / ".cache").mkdir()
    result = edgerecall("data", "folder", tmp_path / "data", "--lists", tmp_path / "lists")
    assert result.returncode == 0, result.stderr
    assert "6 images, 2 classes" in result.stdout and not list((tmp_path / "data").glob("*.txt"))
    assert (
        sum(len(read_image_list(tmp_path / f"lists/{n}_list.txt", tmp_path / "data")) for n in ("train", "test")) == 12
    )
    (tmp_path / "data" / "empty").mkdir()
    result = edgerecall("data", "folder", tmp_path / "data")
    assert result.returncode == 2 and "empty: expected images of the class, found none" in result.stderr
    result = edgerecall("data", "convert", tmp_path / "data")
    assert result.returncode == 2 and "edgerecall data folder" in result.stderr and result.stderr.count("\n") == 1


def hash_of(text: str) -> int:
    return sum(map(ord, text))


def test_leaks_are_told_with_an_example(tmp_path: Path) -> None:
    for label in range(4):
        for shot in range(3):
            picture(tmp_path / f"c{label}" / f"{shot}.jpg", 10 * label + shot)
    sets = convert(tmp_path, None, Split(seed=2))
    assert leak_warnings(tmp_path, sets, lambda count: None) == []
    train, test = sets
    source = tmp_path / train.images[0].path
    (tmp_path / test.images[0].path).write_bytes(source.read_bytes())
    Image.open(tmp_path / train.images[1].path).resize((48, 48)).save(tmp_path / test.images[1].path, quality=60)
    (tmp_path / test.images[2].path).write_bytes(b"no image")
    seen: list[int] = []
    warnings = leak_warnings(tmp_path, sets, seen.append)
    assert len(warnings) == 2 and sum(seen) == 12
    assert f"1 of 6 images are the same file as one of the training list, such as {test.images[0].path}" in warnings[0]
    assert f"nearly the same picture as one of the training list, such as {test.images[1].path}" in warnings[1]


@pytest.mark.parametrize(
    ("name", "file", "text", "message"),
    [
        ("grocery", "classes.csv", "Class ID (int),Iconic Image Path (str)\n1\n", "expected a class and its picture"),
        ("cub", "image_class_labels.txt", "1 \u00b2\n", "expected an image of images.txt"),
        ("grocery", "train.txt", "a.jpg\n", "train.txt:1: expected 3 columns"),
        ("grocery", "train.txt", "../a.jpg, 1, 1\n", "train.txt:1: expected a path inside"),
        ("grocery", "classes.csv", "other\n1\n", "table of classes"),
        ("cub", "image_class_labels.txt", "9 1\n", "expected an image of images.txt"),
        ("inshop", "Eval/list_eval_partition.txt", "1\nx\nimg/a.jpg id_1 nothing\n", "got 'nothing'"),
        ("cars", "cars_annos.mat", "no table", "expected the data set's table"),
        ("cub", "images.txt", "1 000.b/none.jpg\n", "expected an image of images.txt|no such image"),
    ],
)
def test_layouts_that_are_not_what_their_name_says(
    tmp_path: Path, name: str, file: str, text: str, message: str
) -> None:
    MAKERS[name](tmp_path)
    (tmp_path / file).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        convert(tmp_path, name, Split())
    assert "\n" not in str(caught.value) and not list(tmp_path.glob("*_list.txt"))


def test_names_that_a_list_cannot_hold(tmp_path: Path) -> None:
    for label in range(4):
        picture(tmp_path / f"c{label}" / "a.jpg", label)
    picture(tmp_path / "c0" / "b\nc.jpg", 9)
    with pytest.raises(InputError, match="names that a list file can hold"):
        convert(tmp_path, None, Split())
    assert not list(tmp_path.glob("*_list.txt"))


def test_plain_pictures_are_alike_all_of_them_and_no_leak(tmp_path: Path) -> None:
    for label, colour in enumerate(("white", "darkgreen", "black", "blue")):
        (tmp_path / f"c{label}").mkdir()
        Image.new("RGB", (64, 64), colour).save(tmp_path / f"c{label}" / "a.png")
    assert leak_warnings(tmp_path, convert(tmp_path, None, Split()), lambda count: None) == []


def test_lists_that_are_there(edgerecall: Run, tmp_path: Path) -> None:
    """In the folder itself they are no class; others of that name are not replaced without a word."""
    for label in range(4):
        picture(tmp_path / f"c{label}" / "a.jpg", label)
    for _ in range(2):
        assert len(convert(tmp_path, None, Split(), tmp_path / "lists")) == 2
    own = tmp_path / "lists" / "train_list.txt"
    own.write_text("mine 0\n")
    result = edgerecall("data", "folder", tmp_path, "--lists", own.parent)
    assert result.returncode == 2 and "train_list.txt: is there with another content" in result.stderr
    assert own.read_text() == "mine 0\n"
    assert edgerecall("data", "folder", tmp_path, "--lists", own.parent, "--force").returncode == 0
    assert own.read_text() != "mine 0\n"


def test_numbers_of_classes_are_for_data_sets_without_a_split(tmp_path: Path) -> None:
    make_birds(tmp_path)
    with pytest.raises(InputError, match="divided already"):
        convert(tmp_path, "cub", Split(train=2))


def test_without_the_library_of_hashes_nothing_is_written(edgerecall: Run, tmp_path: Path) -> None:
    for label in range(4):
        picture(tmp_path / "data" / f"c{label}" / "a.jpg", label)
    (tmp_path / "block").mkdir()
    (tmp_path / "block" / "imagehash.py").write_text("raise ImportError\n")
    hidden = {"PYTHONPATH": str(tmp_path / "block")}
    result = edgerecall("data", "folder", tmp_path / "data", env=hidden)
    assert result.returncode == 2 and "--no-leak-check" in result.stderr
    assert not list((tmp_path / "data").glob("*.txt"))
    assert edgerecall("data", "folder", tmp_path / "data", "--no-leak-check", env=hidden).returncode == 0
