"""Data sets as they are published, or one folder per class, as lists of images."""

from __future__ import annotations

import csv
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...runtimes.core.errors import InputError
from ...runtimes.preprocess.images import find_images

PHOTOS, LIST = "*.jpg", "_list.txt"


@dataclass(frozen=True)
class Image:
    """path: relative to the data set's folder. label: of its class, by whatever names it there. camera: if told."""

    path: str
    label: str
    camera: int | None = None


@dataclass(frozen=True)
class Layout:
    """How a data set comes. marker: a file or folder that tells it. read: gives its own lists by name, `all` where its
    classes are not divided. official: images and classes of each list as published.
    """

    marker: str
    read: Callable[[Path], dict[str, list[Image]]]
    official: dict[str, tuple[int, int]]


@dataclass(frozen=True)
class Split:
    """How classes without a split of their own are divided: `train` of them (half by default) drawn by `seed` to train,
    the last `val` of those to validate instead, the rest to test.
    """

    train: int | None = None
    val: int = 0
    seed: int = 0

    def divide(self, images: list[Image]) -> dict[str, list[Image]]:
        """Lists `train`, `val` and `test` without a class in common. InputError where there are too few classes."""
        classes = sorted({image.label for image in images}, key=natural)
        count = len(classes) // 2 if self.train is None else self.train
        if count - self.val < 2 or len(classes) - count < 2:
            raise InputError(
                f"expected 2 or more classes to train and to test, got {len(classes)}, of which {count} are to train,"
                f" {self.val} of those to validate"
            )
        random.Random(self.seed).shuffle(classes)
        chosen = {"train": set(classes[: count - self.val]), "val": set(classes[count - self.val : count])}
        chosen["test"] = set(classes[count:])
        lists = {name: [image for image in images if image.label in wanted] for name, wanted in chosen.items()}
        return {name: found for name, found in lists.items() if found}


def is_number(text: str) -> bool:
    """Whether it is a whole number that a label can be."""
    return text.isascii() and text.isdigit() and len(text) <= 18


def natural(text: str) -> tuple[int, str]:
    """Numbers by size before anything else."""
    return (int(text), "") if is_number(text) else (10**18, text)


def inside(path: str, where: str) -> str:
    """The path; InputError unless it is relative and stays in its folder."""
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not path:
        raise InputError(f"{where}: expected a path inside the data set's folder, got '{path[:60]}'")
    return path


def rows(path: Path, columns: int, skip: int = 0) -> Iterator[tuple[str, list[str]]]:
    """A text file's lines in `columns` columns, the last taking what is left, with the place of each. InputError."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected the data set's list: {getattr(error, 'strerror', error)}") from error
    for number, line in enumerate(lines[skip:], start=skip + 1):
        parts = line.strip().split(None, columns - 1)
        if parts and len(parts) != columns:
            raise InputError(f"{path}:{number}: expected {columns} columns, got '{line[:60]}'")
        if parts:
            yield f"{path}:{number}", parts


SOP_HEADER = "image_id class_id super_class_id path"


def stanford_products(root: Path) -> dict[str, list[Image]]:
    """Stanford Online Products (Song et al., arXiv 1511.06452)."""
    lists = {}
    for name in ("train", "test"):
        source = root / f"Ebay_{name}.txt"
        found = []
        for where, parts in rows(source, 4):
            if where.endswith(":1"):
                if parts != SOP_HEADER.split():
                    raise InputError(f"{where}: expected '{SOP_HEADER}', got '{' '.join(parts)[:60]}'")
                continue
            if not is_number(parts[1]):
                raise InputError(f"{where}: expected '{SOP_HEADER}', got '{' '.join(parts)[:60]}'")
            found.append(Image(inside(parts[3], where), parts[1]))
        if not found:
            raise InputError(f"{source}: expected images, got none")
        lists[name] = found
    return lists


def grocery(root: Path) -> dict[str, list[Image]]:
    """Grocery Store (Klasson et al., WACV 2019): its photographs, whose own lists share their classes, and the
    catalogue's pictures.
    """
    photos: list[Image] = []
    for name in ("train", "val", "test"):
        source = root / f"{name}.txt"
        for where, parts in rows(source, 3):
            path, label = parts[0].rstrip(","), parts[1].rstrip(",")
            if not is_number(label):
                raise InputError(f"{where}: expected 'path, fine, coarse', got '{' '.join(parts)[:60]}'")
            photos.append(Image(inside(path, where), label))
    catalogue = []
    try:
        with (root / "classes.csv").open(encoding="utf-8-sig", newline="") as stream:
            for row in csv.DictReader(stream):
                path, label = row["Iconic Image Path (str)"], row["Class ID (int)"]
                if path is None or not is_number(label or ""):
                    raise InputError(
                        f"{root / 'classes.csv'}: expected a class and its picture, got {list(row.values())}"
                    )
                catalogue.append(Image(inside(path.lstrip("/"), "classes.csv"), label))
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise InputError(f"{root / 'classes.csv'}: expected the data set's table of classes: {error}") from error
    return {"all": photos, "catalogue": catalogue}


def birds(root: Path) -> dict[str, list[Image]]:
    """CUB-200-2011: the first hundred classes to train, the others to test."""
    paths = {parts[0]: inside(parts[1], where) for where, parts in rows(root / "images.txt", 2)}
    lists: dict[str, list[Image]] = {"train": [], "test": []}
    for where, (number, label) in rows(root / "image_class_labels.txt", 2):
        if number not in paths or not is_number(label):
            raise InputError(f"{where}: expected an image of images.txt and a class, got '{number} {label}'")
        lists["train" if int(label) <= 100 else "test"].append(Image(f"images/{paths[number]}", label))
    return lists


def cars(root: Path) -> dict[str, list[Image]]:
    """Cars196: the first 98 classes to train, the others to test."""
    try:
        from scipy.io import loadmat
    except ImportError as error:
        raise InputError("Cars196's table is a MATLAB file: pip install scipy") from error
    source = root / "cars_annos.mat"
    if not source.is_file():
        raise InputError(f"{source}: No such file: expected the data set's table")
    try:
        table = loadmat(source, squeeze_me=True)["annotations"]
        found = [(str(row["relative_im_path"]), int(row["class"])) for row in table]
    except Exception as error:  # scipy raises what its readers come across
        raise InputError(f"{source}: expected the data set's table: {error}") from error
    lists: dict[str, list[Image]] = {"train": [], "test": []}
    for path, label in found:
        lists["train" if label <= 98 else "test"].append(Image(inside(path, str(source)), str(label)))
    return lists


def in_shop(root: Path) -> dict[str, list[Image]]:
    """DeepFashion In-Shop Clothes Retrieval (Liu et al., CVPR 2016): training, query and gallery."""
    places = [root / "Eval" / "list_eval_partition.txt", root / "list_eval_partition.txt"]
    source = next((place for place in places if place.is_file()), places[0])
    lists: dict[str, list[Image]] = {"train": [], "query": [], "gallery": []}
    for where, (path, item, status) in rows(source, 3, skip=2):
        if status not in lists:
            raise InputError(f"{where}: expected train, query or gallery, got '{status[:40]}'")
        lists[status].append(Image(inside(path, where), item))
    return lists


CAMERA = re.compile(r"^(-?\d+)_c(\d+)")


def by_camera(folders: dict[str, str]) -> Callable[[Path], dict[str, list[Image]]]:
    """Market-1501, VeRi-776 and others whose file names begin with identity and camera. Images of nobody (-1) are left
    out, as their evaluation does.
    """

    def read(root: Path) -> dict[str, list[Image]]:
        lists: dict[str, list[Image]] = {}
        for name, folder in folders.items():
            found = []
            for path in sorted((root / folder).glob(PHOTOS)):
                match = CAMERA.match(path.name)
                if match is None:
                    raise InputError(f"{path}: expected a name such as 0002_c1s1_000451_03.jpg")
                if match[1] != "-1":
                    found.append(Image(f"{folder}/{path.name}", match[1], int(match[2])))
            if not found:
                raise InputError(f"{root / folder}: expected images, found none")
            lists[name] = found
        return lists

    return read


def class_folders(root: Path) -> dict[str, list[Image]]:
    """One folder for each class, images at any depth in it. InputError for a class without any."""
    if not root.is_dir():
        raise InputError(f"{root}: expected a folder with one folder for each class")
    found = []
    for folder in sorted(path for path in root.iterdir() if path.is_dir() and not path.name.startswith(".")):
        if (inner := list(folder.iterdir())) and all(path.name.endswith(LIST) for path in inner):
            continue  # a folder of lists
        try:
            images = find_images(folder)
        except InputError as error:
            raise InputError(f"{folder}: expected images of the class, found none: remove the folder") from error
        found += [Image(path.relative_to(root).as_posix(), folder.name) for path in images]
    if not found:
        raise InputError(f"{root}: expected one folder for each class, found none")
    return {"all": found}


MARKET = {"train": "bounding_box_train", "query": "query", "gallery": "bounding_box_test"}
VERI = {"train": "image_train", "query": "image_query", "gallery": "image_test"}
LAYOUTS = {
    "sop": Layout(
        "Ebay_train.txt",
        stanford_products,
        {"train": (59_551, 11_318), "test": (60_502, 11_316)},
    ),
    "grocery": Layout("classes.csv", grocery, {"all": (5_421, 81), "catalogue": (81, 81)}),
    "cub": Layout("image_class_labels.txt", birds, {"train": (5_864, 100), "test": (5_924, 100)}),
    "cars": Layout("cars_annos.mat", cars, {"train": (8_054, 98), "test": (8_131, 98)}),
    "inshop": Layout(
        "Eval/list_eval_partition.txt",
        in_shop,
        {"train": (25_882, 3_997), "query": (14_218, 3_985), "gallery": (12_612, 3_985)},
    ),
    "market1501": Layout("bounding_box_train", by_camera(MARKET), {"train": (12_936, 751)}),
    "veri": Layout("image_train", by_camera(VERI), {"train": (37_746, 576)}),
}


def find_layout(root: Path) -> str:
    """Which of them a folder is. InputError where it is none."""
    for name, layout in LAYOUTS.items():
        if (root / layout.marker).exists():
            return name
    known = ", ".join(f"{name} ({layout.marker})" for name, layout in LAYOUTS.items())
    raise InputError(f"{root}: expected one of {known}; one folder for each class: 'edgerecall data folder'")
