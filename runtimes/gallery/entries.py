"""Which images a gallery is to hold: a folder's, or those of a list, with text labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from ..core.errors import InputError
from ..core.files import read_text
from ..core.json_text import parse_json
from ..preprocess.images import find_images
from .new_rows import as_json


@dataclass(frozen=True)
class Entry:
    """An image to be added. id: its path, relative to the images' folder. label: of its product, say. metadata: what
    JSON holds; None where nothing is said of it.
    """

    path: Path
    id: str
    label: str | None
    metadata: dict[str, Any] | None = None


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

    Without a delimiter lines are split at tabs where there are any, as galleries of PP-ShiTu are, and else as the lists
    for training are: at the last space, or before a camera's number where every line has one. A label is the text that
    stands there. InputError for a line of one column, or an image that is listed twice.
    """
    text = read_text(file, f"list {file}", "utf-8-sig")
    lines = {number: line.strip() for number, line in enumerate(text.split("\n"), 1) if line.strip()}
    if not lines:
        raise InputError(f"list {file}: expected 'path label' lines, found none")
    if delimiter is None and any("\t" in line for line in lines.values()):
        delimiter = "\t"
    columns = 2 if delimiter is None and _have_cameras(list(lines.values()), root) else 1
    found = []
    for number, line in lines.items():
        parts = line.rsplit(None, columns) if delimiter is None else line.split(delimiter)
        if len(parts) < 2 or not parts[0].strip() or not parts[1].strip():
            raise InputError(f"{file}:{number}: expected a path and a label, got {line!r:.80}")
        name = PurePosixPath(parts[0].strip()).as_posix()
        found.append(Entry(root / name, name, parts[1].strip()))
    (name, count), *_ = Counter(entry.id for entry in found).most_common(1)
    if count > 1:
        raise InputError(f"list {file}: {name!r:.200} is listed {count} times: an id stands for one row")
    return found


def with_metadata(entries: Sequence[Entry], file: Path) -> list[Entry]:
    """These images, each with the metadata that a file has of it: `{"id": ID, "metadata": {...}}` a line, as
    `gallery list` tells them; lines of other images are passed over. InputError for other lines, an image of two lines,
    metadata that no gallery holds, and a file that has none of these images. null is none: {}.
    """
    wanted = {entry.id for entry in entries}
    told: dict[str, dict[str, Any]] = {}
    for number, line in enumerate(read_text(file, f"metadata {file}", "utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = parse_json(line.encode("utf-8"))
            name, metadata = row["id"], row["metadata"]
            if not isinstance(name, str) or not isinstance(metadata, (dict, type(None))):
                raise ValueError("the id is a text, metadata an object or null")
            name, metadata = name if name in wanted else PurePosixPath(name).as_posix(), metadata or {}
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f'metadata {file}:{number}: expected {{"id": "...", "metadata": {{...}}}}, got {line!r:.80} ({error})'
            ) from error
        if name not in wanted:
            continue
        if name in told:
            raise InputError(f"metadata {file}:{number}: {name!r:.200} has had a line before")
        try:
            as_json(metadata)
        except InputError as error:
            raise InputError(f"metadata {file}:{number}: {error}") from error
        told[name] = metadata
    if wanted and not told:
        raise InputError(f"metadata {file}: has none of the {len(wanted)} images, such as {min(wanted)!r:.200}")
    return [replace(entry, metadata=told.get(entry.id)) for entry in entries]


def _have_cameras(lines: list[str], root: Path) -> bool:
    """Whether each line ends with two whole numbers, and the first one's path is what stands before both."""
    parts = [line.rsplit(None, 2) for line in lines]
    if not all(len(one) == 3 and one[1].isdigit() and one[2].isdigit() for one in parts):
        return False
    return (root / parts[0][0]).is_file() or not (root / lines[0].rsplit(None, 1)[0]).is_file()
