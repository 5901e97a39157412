"""From a published data set, or one folder for each class, to list files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from ...runtimes.core.errors import InputError
from ...runtimes.core.files import write_text
from .layouts import LAYOUTS, LIST, Image, Split, class_folders, natural

TRAINING = ("train", "val")  # lists whose classes are their own; the others are searched together, and count as one


@dataclass(frozen=True)
class ImageSet:
    """One converted list. warnings: what is odd about it, a line each."""

    name: str
    images: list[Image]
    warnings: list[str] = field(default_factory=list)

    @property
    def file(self) -> str:
        """The list file's name."""
        return f"{self.name}{LIST}"

    @property
    def classes(self) -> set[str]:
        """Its labels, as the data set has them."""
        return {image.label for image in self.images}

    def text(self, labels: dict[str, int]) -> str:
        """The list file: `path label [camera]`, labels counted from 0."""
        lines = []
        for image in self.images:
            camera = "" if image.camera is None else f" {image.camera}"
            lines.append(f"{image.path} {labels[image.label]}{camera}\n")
        return "".join(lines)


def convert(
    root: Path,
    layout: str | None,
    split: Split,
    lists: Path | None = None,
    check_files: bool = True,
    force: bool = False,
) -> list[ImageSet]:
    """Writes `NAME_list.txt` for each of a data set's lists into `lists`, by default its own folder.

    layout: of `LAYOUTS`; None for one folder for each class. split: how classes are divided where the data set does not
    divide them itself. Nothing is written unless all lists are sound. InputError, also where another list of that name
    is there, unless force.
    """
    found = class_folders(root) if layout is None else LAYOUTS[layout].read(root)
    official = {} if layout is None else LAYOUTS[layout].official
    counts = {name: told for name in found if (told := count_warning(name, found[name], official))}
    if "all" not in found and (split.train is not None or split.val):
        raise InputError(f"{root}: its classes are divided already: leave out the numbers of classes")
    if "all" in found:
        parts = split.divide(found.pop("all"))
        if told := counts.pop("all", None):
            counts["train"] = told
        if "catalogue" in found:
            tested = {image.label for image in parts["test"]}
            parts["catalogue"] = [image for image in found.pop("catalogue") if image.label in tested]
        found = parts
    sets = [ImageSet(name, images, [counts[name]] if name in counts else []) for name, images in found.items()]
    for one in sets:
        for image in one.images:
            if any(not character.isprintable() for character in image.path):
                raise InputError(f"{root}: expected names that a list file can hold, got {image.path[:80]!r}")
            if check_files and not (root / image.path).is_file():
                raise InputError(f"{one.name}: no such image: {root / image.path}; is the data set complete?")
        if one.name != "train" and (shared := one.classes & sets[0].classes):
            one.warnings.append(
                f"{one.name}: {len(shared)} classes are in the training list too, such as {min(shared, key=natural)}:"
                " recall on classes that training saw says little of others"
            )
        if len(one.classes) < 2:
            raise InputError(f"{one.name}: expected two classes or more, got {len(one.classes)}")
    searched = numbered([image for one in sets if one.name not in TRAINING for image in one.images])
    texts = {}
    for one in sets:
        path = (lists or root) / one.file
        texts[path] = one.text(numbered(one.images) if one.name in TRAINING else searched)
        if path.exists() and not force and path.read_bytes() != texts[path].encode():
            raise InputError(
                f"{path}: is there with another content: --force replaces it, --lists names another folder"
            )
    for path, text in texts.items():
        write_text(path, text)
    return sets


def numbered(images: list[Image]) -> dict[str, int]:
    """Their classes, counted from 0."""
    return {label: index for index, label in enumerate(sorted({image.label for image in images}, key=natural))}


def count_warning(name: str, images: list[Image], official: dict[str, tuple[int, int]]) -> str | None:
    """A line where a list is not as large as it was published."""
    got = (len(images), len({image.label for image in images}))
    if name not in official or got == official[name]:
        return None
    expected = official[name]
    return (
        f"{name}: expected {expected[0]} images of {expected[1]} classes as published, got {got[0]} of {got[1]}:"
        " is the data set complete?"
    )
