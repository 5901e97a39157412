"""From the official Stanford Online Products release to list files (Song et al., arXiv 1511.06452)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from ...runtimes.core.errors import InputError
from ...runtimes.core.files import write_text

HEADER = "image_id class_id super_class_id path"
OFFICIAL = {"train": (59_551, 11_318), "test": (60_502, 11_316)}  # images, classes


@dataclass(frozen=True)
class Split:
    """One converted list."""

    name: str
    images: int
    classes: int
    shared: tuple[int, ...] = ()  # class ids of the release that the list before has too

    def warnings(self) -> list[str]:
        """A line where the counts are not the published ones, and one where training saw what is tested."""
        images, classes = OFFICIAL[self.name]
        found = []
        if (self.images, self.classes) != (images, classes):
            found.append(
                f"{self.name}: expected {images} images of {classes} classes as published,"
                f" got {self.images} of {self.classes}: is the release complete?"
            )
        if self.shared:
            found.append(
                f"{self.name}: {len(self.shared)} classes are in the training list too, such as {self.shared[0]}:"
                " recall on classes that training saw says little of others"
            )
        return found


def _rows(source: Path) -> list[tuple[str, int]]:
    try:
        lines = source.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{source}: expected the release's list: {getattr(error, 'strerror', error)}") from error
    if not lines or lines[0].split() != HEADER.split():
        raise InputError(f"{source}:1: expected '{HEADER}', got '{lines[0][:60] if lines else ''}'")
    rows = []
    for number, line in enumerate(lines[1:], start=2):
        parts = line.strip().split(None, 3)  # a path may hold spaces
        if not parts:
            continue
        if len(parts) != 4 or not parts[1].isdigit():
            raise InputError(f"{source}:{number}: expected '{HEADER}', got '{line[:60]}'")
        path = PurePosixPath(parts[3])
        if path.is_absolute() or ".." in path.parts:
            raise InputError(f"{source}:{number}: expected a path inside the release's folder, got '{parts[3][:60]}'")
        rows.append((parts[3], int(parts[1])))
    return rows


def convert(root: Path, check_files: bool = True) -> list[Split]:
    """Writes `train_list.txt` and `test_list.txt` into the release's folder. Labels count from 0 in each list."""
    splits: list[Split] = []
    texts: dict[str, str] = {}
    before: set[int] = set()
    for name in OFFICIAL:
        source = root / f"Ebay_{name}.txt"
        rows = _rows(source)
        for path, _ in rows if check_files else []:
            if not (root / path).is_file():
                raise InputError(f"{source}: no such image: {root / path}; is the release complete?")
        classes = {label for _, label in rows}
        relabel = {label: index for index, label in enumerate(sorted(classes))}
        texts[name] = "".join(f"{path} {relabel[label]}\n" for path, label in rows)
        splits.append(Split(name, len(rows), len(relabel), tuple(sorted(classes & before))))
        before = classes
    for name, text in texts.items():
        write_text(root / f"{name}_list.txt", text)
    return splits
