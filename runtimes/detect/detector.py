"""A picture's boxes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import numpy as np

from ..core.errors import InputError
from ..preprocess.images import Pixels, decode_rgb, read_bytes
from ..preprocess.pipeline import preprocess_pixels
from .boxes import Floats, decoded
from .engines import network_files, open_engine
from .settings import DetectorSettings

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Detection:
    """box: xmin, ymin, xmax, ymax in whole pixels of the picture, the last ones not in it."""

    box: Box
    score: float
    label: str


class Detector:
    """A detection network with its settings. Thread-safe: one picture at a time.

    files: see `network_files`. InputError for a network whose inputs are not a picture and, where it takes them, its
    `im_shape` and `scale_factor`.
    """

    def __init__(self, files: list[Path], settings: DetectorSettings, threads: int = 1) -> None:
        self.settings = settings
        self._engine, self._lock = open_engine(files, threads), Lock()
        others = {"im_shape", "scale_factor"}
        pictures = [name for name in self._engine.names if name not in others]
        if len(pictures) != 1:
            names = ", ".join(self._engine.names)
            raise InputError(
                f"{files[0]}: expected one picture, and im_shape and scale_factor or not, as inputs: {names}"
            )
        self._picture = pictures[0]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input."""
        return self.settings.preprocess.output_shape[1:]

    @property
    def exif(self) -> str:
        """Whether it sees pictures with their orientation ("apply") or without."""
        return self.settings.preprocess.decode.exif

    def read(self, path: Path) -> Pixels:
        """A picture as it sees it. ImageError."""
        return decode_rgb(read_bytes(path), self.exif, str(path))

    def rows(self, pixels: Pixels) -> Floats:
        """Boxes of RGB uint8 `(height, width, 3)` as rows float32 `(n, 6)`: class, score, xmin, ymin, xmax, ymax; best
        first, at most `max_results`. RuntimeFailed; ImageError for a picture that cannot be resized.
        """
        picture = pixels.shape[0], pixels.shape[1]
        tensor = np.empty((1, *self.settings.preprocess.output_shape), np.float32)
        preprocess_pixels(pixels, self.settings.preprocess, tensor[0])
        shape = np.asarray([self.size], np.float32)
        factor = np.asarray(shape / np.asarray([picture], np.float32), np.float32)
        inputs: dict[str, Floats] = {self._picture: tensor, "im_shape": shape, "scale_factor": factor}
        with self._lock:
            outputs = self._engine.run(inputs)
        told = "scale_factor" in self._engine.names
        found = decoded(outputs, self.size, picture, self.settings.threshold, self.settings.overlap, told)
        return found[: self.settings.max_results]

    def detect(self, pixels: Pixels) -> list[Detection]:
        """The same in words, but for boxes that have no whole pixel."""
        found = [self._told(row) for row in self.rows(pixels)]
        return [one for one in found if one.box[0] < one.box[2] and one.box[1] < one.box[3]]

    def _told(self, row: Floats) -> Detection:
        kind, labels = int(row[0]), self.settings.labels
        label = labels[kind] if 0 <= kind < len(labels) else f"class {kind}"
        xmin, ymin, xmax, ymax = (int(side) for side in row[2:])
        return Detection((xmin, ymin, xmax, ymax), float(row[1]), label)


def open_model(model: Path, settings: DetectorSettings, threads: int = 1) -> Detector:
    """A network that is not sealed."""
    return Detector(network_files(model), settings, threads)
