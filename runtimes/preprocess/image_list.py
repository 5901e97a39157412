"""List files of the SOP layout: one `path label [camera]` a line, paths relative to an image root."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InputError
from ..core.files import read_text


@dataclass(frozen=True)
class ImageList:
    """Images in list order. labels, cameras: int64 `(n,)`; cameras is None where the list has no third column."""

    root: Path
    paths: tuple[str, ...]
    labels: NDArray[np.int64]
    cameras: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.paths)

    def file(self, index: int) -> Path:
        """Where the image lies."""
        return self.root / self.paths[index]

    def subset(self, indices: NDArray[np.int64]) -> ImageList:
        """These images only."""
        return ImageList(
            root=self.root,
            paths=tuple(self.paths[index] for index in indices),
            labels=self.labels[indices],
            cameras=None if self.cameras is None else self.cameras[indices],
        )


def read_image_list(list_file: Path, root: Path, check_files: bool = True) -> ImageList:
    """Reads and checks a list. Windows line ends and blank lines are fine; paths may hold spaces.

    Raises InputError with file and line for a label that is no number, a missing file, or mixed columns.
    """
    text = read_text(list_file, f"list {list_file}", "utf-8-sig")
    paths, labels, cameras = [], [], []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        path, label, camera = _split(line, f"{list_file}:{number}", root)
        if check_files and not (root / path).is_file():
            raise InputError(f"{list_file}:{number}: no such image: {root / path}")
        paths.append(path)
        labels.append(label)
        cameras.append(camera)
    if not paths:
        raise InputError(f"list {list_file}: expected 'path label' lines, found none")
    with_camera = sum(camera is not None for camera in cameras)
    if with_camera not in (0, len(cameras)):
        raise InputError(f"list {list_file}: {with_camera} of {len(cameras)} lines have a camera: all or none must")
    return ImageList(
        root=root,
        paths=tuple(paths),
        labels=np.asarray(labels, dtype=np.int64),
        cameras=np.asarray(cameras, dtype=np.int64) if with_camera else None,
    )


def _split(line: str, where: str, root: Path) -> tuple[str, int, int | None]:
    parts = line.split()
    if len(parts) < 2:
        raise InputError(f"{where}: expected 'path label [camera]', got '{line.strip()[:80]}'")
    # A path may hold spaces: take trailing numbers off the right, preferring the shorter tail when it names a file.
    if len(parts) >= 3 and _is_number(parts[-2]) and _is_number(parts[-1]):
        two_columns = line.strip().rsplit(None, 1)
        if len(parts) == 3 or not (root / two_columns[0]).is_file():
            path, label, camera = line.strip().rsplit(None, 2)
            return path, int(label), int(camera)
    path, label = line.strip().rsplit(None, 1)
    if not _is_number(label):
        raise InputError(f"{where}: expected a whole number as label, got '{label[:40]}'")
    return path, int(label), None


def _is_number(text: str) -> bool:
    return text.isascii() and text.removeprefix("-").isdigit() and len(text) <= 18  # fits int64
