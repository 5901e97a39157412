"""Which images a gallery is to hold: a folder's, or those of a list, with text labels."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ..core.errors import InputError
from ..preprocess.image_list import read_image_list
from ..preprocess.images import find_images


@dataclass(frozen=True)
class Entry:
    """An image to be added. id: its path, relative to the images' folder. label: of its product, say."""

    path: Path
    id: str
    label: str | None


def entries_of_folder(folder: Path, labels_by_folder: bool) -> list[Entry]:
    """All images below a folder. labels_by_folder: each is labelled with the name of the folder that it lies in."""
    found = []
    for path in find_images(folder):
        inside = path.relative_to(folder) if path != folder else Path(path.name)
        label = inside.parent.name if labels_by_folder and inside.parent.name else None
        found.append(Entry(path, inside.as_posix(), label))
    return found


def entries_of_list(file: Path, root: Path, delimiter: str | None = None) -> list[Entry]:
    """The images of a list, `path<delimiter>label` a line; more columns behind the label are passed over.

    Without a delimiter lines are split at tabs where the first has one, as galleries of PP-ShiTu are, and else as the
    lists for training are: at the last space. InputError for a line of one column, or an image that is listed twice.
    """
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not a UTF-8 text file"
        raise InputError(f"list {file}: {reason}") from error
    lines = [(number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip()]
    if not lines:
        raise InputError(f"list {file}: expected 'path label' lines, found none")
    if delimiter is None and "\t" not in lines[0][1]:
        try:
            listed = read_image_list(file, root, check_files=False)
            found = [
                Entry(root / name, name, str(label)) for name, label in zip(listed.paths, listed.labels, strict=True)
            ]
        except InputError:  # labels are texts
            found = [_entry(root, line.strip().rsplit(None, 1), f"{file}:{number}") for number, line in lines]
    else:
        cut = "\t" if delimiter is None else delimiter
        found = [_entry(root, line.strip().split(cut), f"{file}:{number}") for number, line in lines]
    (name, count), *_ = Counter(entry.id for entry in found).most_common(1)
    if count > 1:
        raise InputError(f"list {file}: {name!r:.200} is listed {count} times: an id stands for one row")
    return found


def _entry(root: Path, columns: list[str], where: str) -> Entry:
    if len(columns) < 2 or not columns[0].strip() or not columns[1].strip():
        raise InputError(f"{where}: expected a path and a label, got {columns[0]!r:.80}")
    return Entry(root / columns[0].strip(), columns[0].strip(), columns[1].strip())
