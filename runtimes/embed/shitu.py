"""PP-ShiTu's two scripts over a gallery on disk: build it from a list, and say what is in a picture."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ..bundle.bundle import Bundle
from ..bundle.manifest import MANIFEST
from ..core.errors import ImageError, InputError
from ..core.files import read_text, sha256
from ..core.json_text import parse_json
from ..detect.boxes import suppressed
from ..detect.detector import Box, Detector, open_model
from ..detect.sealed import FILE as SEALED
from ..detect.sealed import open_sealed
from ..detect.settings import parse_detector
from ..gallery.disk_gallery import DiskGallery
from ..gallery.entries import entries_of_list
from ..gallery.identity import ModelIdentity, identity_of
from ..gallery.manifest import FILE
from ..preprocess.images import Pixels, decode_rgb, read_bytes
from .batches import BadImage
from .gallery_build import embed_into
from .model import Embedding, EmbeddingModel
from .predict_config import open_rec_model
from .shitu_config import ShituConfig

FindBoxes = Callable[[Path, Pixels, str], Sequence[Box]]  # in a picture: path, pixels, and how EXIF was taken for them


class SignModel:
    """An embedding model whose embeddings are compared by their signs: each number becomes 1 or -1."""

    def __init__(self, model: EmbeddingModel, method: str) -> None:
        self.model, self.spec = model, model.spec
        self._least = 0.5 if method == "round" else np.nextafter(np.float32(0), np.float32(1))

    def stream(self, paths: Sequence[Path], on_bad: BadImage | None = None) -> Iterator[tuple[list[Path], Embedding]]:
        """As the model's."""
        return ((good, self._signs(rows)) for good, rows in self.model.stream(paths, on_bad))

    def embed_bytes(self, images: Sequence[Any]) -> Embedding:
        """As the model's."""
        return self._signs(self.model.embed_bytes(images))

    def _signs(self, rows: Embedding) -> Embedding:
        return np.where(rows >= self._least, np.float32(1), np.float32(-1))


@contextmanager
def opened(config: ShituConfig, images: int = 1) -> Iterator[EmbeddingModel | SignModel]:
    """The config's model. InputError unless its embeddings have `embedding_size` numbers."""
    with open_rec_model(config, images) as model:
        if model.spec.embedding_dim != config.IndexProcess.embedding_size:
            raise InputError(
                f"IndexProcess.embedding_size: the model gives {model.spec.embedding_dim} numbers, got"
                f" {config.IndexProcess.embedding_size}"
            )
        post = config.RecPostProcess
        yield model if post is None else SignModel(model, post.Binarize.method)


def model_identity(config: ShituConfig, model: EmbeddingModel | SignModel) -> ModelIdentity:
    """Of the config's model: a bundle's, or a plain Paddle model, which is told by its files' hashes."""
    folder, post = config.Global.rec_inference_model_dir, config.RecPostProcess
    signs = None if post is None else f"signs by {post.Binarize.method}"
    if (folder / MANIFEST).is_file():
        return identity_of(Bundle.open(folder)).model_copy(update={"signs": signs})
    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".pdmodel", ".pdiparams"))
    return ModelIdentity(spec=model.spec, source=tuple(map(sha256, files)), signs=signs)


def build(
    config: ShituConfig, command: str, on_bad: BadImage | None, advance: Callable[[int], object]
) -> tuple[int, int]:
    """What `index_operation` says with the images of `data_file`; how many it was done with, and rows there now.

    new: in place of what a gallery that is there holds, once all is embedded. append: images that are there are
    embedded anew, and keep their metadata.
    """
    index = config.IndexProcess
    config = config.model_copy(update={"Global": config.Global.model_copy(update={"batch_size": index.batch_size})})
    entries = entries_of_list(index.data_file, index.image_root, index.delimiter)
    if index.index_operation == "remove":
        with DiskGallery(index.index_dir, writable=True) as gallery:
            return gallery.remove([entry.id for entry in entries]), len(gallery)
    if index.index_operation == "append":
        with DiskGallery(index.index_dir, writable=True) as gallery, opened(config, len(entries)) as model:
            gallery.require_model(model_identity(config, model))
            return embed_into(gallery, model, entries, on_bad, True, advance), len(gallery)
    with ExitStack() as stack:
        there = (index.index_dir / FILE).is_file()
        # The gallery that is there stays as it is, and nobody writes to it, until the new one is whole.
        place = stack.enter_context(DiskGallery(index.index_dir, writable=True)) if there else None
        model = stack.enter_context(opened(config, len(entries)))
        folder = index.index_dir
        if place is not None:
            folder = Path(
                stack.enter_context(TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.resolve().parent))
            )
        identity = model_identity(config, model)
        gallery = stack.enter_context(
            DiskGallery.create(folder, index.embedding_size, index.storage, identity, command)
        )
        try:
            added = embed_into(gallery, model, entries, on_bad, False, advance)
            if not added:
                raise InputError(f"none of the {len(entries)} images could be read")
        except BaseException:
            if place is None:
                shutil.rmtree(folder, ignore_errors=True)
            raise
        if place is not None:
            place.take_over(gallery)
        return added, len(gallery if place is None else place)


def read_boxes(file: Path) -> dict[str, list[Box]]:
    """Boxes by image, of a file with a JSON object a line: `{"image": PATH, "boxes": [[xmin, ymin, xmax, ymax], ...]}`
    in pixels. InputError for anything else.
    """
    found: dict[str, list[Box]] = {}
    for number, line in enumerate(read_text(file, str(file)).splitlines(), 1):
        if not line.strip():
            continue
        try:
            told = parse_json(line.encode())
            boxes = [tuple(int(side) for side in box) for box in told["boxes"]]
            if any(len(box) != 4 or box[0] >= box[2] or box[1] >= box[3] for box in boxes):
                raise ValueError("a box is [xmin, ymin, xmax, ymax]")
            found.setdefault(str(told["image"]), []).extend(boxes)  # type: ignore[arg-type]
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise InputError(f"{file}:{number}: expected an image and its boxes as JSON: {error}") from error
    return found


def answer(
    config: ShituConfig, gallery: DiskGallery, model: EmbeddingModel | SignModel, image: Path, find: FindBoxes
) -> list[dict[str, Any]]:
    """What the picture shows: for the boxes, and the whole of it, the label of the nearest row where it is near enough
    (`rec_docs`), and how near it is (`rec_scores`: inner product, of a binary gallery the cosine of the
    signs, or Hamming distance); best first, and of boxes that
    overlap by more than `rec_nms_thresold` the best one alone. ImageError.
    """
    index = config.IndexProcess
    exif = model.spec.preprocess.decode.exif
    pixels = decode_rgb(read_bytes(image), exif, str(image))
    height, width = pixels.shape[:2]
    everything = [*(clipped(box, width, height) for box in find(image, pixels, exif)), (0, 0, width, height)]
    kept = [box for box in everything if box[0] < box[2] and box[1] < box[3]]
    crops = [np.ascontiguousarray(pixels[ymin:ymax, xmin:xmax]) for xmin, ymin, xmax, ymax in kept]
    found = gallery.search(model.embed_bytes(crops), index.return_k)
    answers, order = [], []
    for box, matches in zip(kept, found, strict=True):
        if not matches:
            continue
        score = matches[0].similarity
        near = score >= index.score_thres
        if index.hamming_radius is not None and index.dist_type == "hamming":
            length = 1 if gallery.manifest.storage == "binary" else index.embedding_size
            score = float(round((1 - score / length) * index.embedding_size / 2))
            near = score <= index.hamming_radius
        if near:
            answers.append({"bbox": list(box), "rec_docs": matches[0].label, "rec_scores": score})
            order.append(-score if index.dist_type == "hamming" else score)
    chosen = suppressed(np.asarray([one["bbox"] for one in answers]), np.asarray(order), config.Global.rec_nms_thresold)
    return [answers[at] for at in chosen]


def clipped(box: Box, width: int, height: int) -> Box:
    """A box inside the image."""
    return max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height)


def boxes_told(boxes: Mapping[str, list[Box]], paths: Sequence[Path]) -> FindBoxes:
    """Boxes by path as given, or by a name that one path alone has. InputError for boxes of an image that is none of
    these.
    """
    names = Counter(path.name for path in paths)
    known = {str(path) for path in paths} | {name for name, count in names.items() if count == 1}
    if unknown := sorted(set(boxes) - known):
        raise InputError(f"boxes: {unknown[0]!r:.200} is none of the images, or several: name it as the images are")
    return lambda path, pixels, exif: boxes.get(str(path), boxes.get(path.name, []))


def opened_detector(config: ShituConfig, name: str) -> Detector | None:
    """That of the config called `name`: a sealed one, with its own settings, or a network by those of the config. None
    without one, and where there is nothing at its place.
    """
    place, threads = config.Global.det_inference_model_dir, config.Global.cpu_num_threads
    if place is None or not place.exists():
        return None
    if (place / SEALED).is_file():
        return open_sealed(place, threads)
    return open_model(place, parse_detector(config.model_dump(), name).settings, threads)


def boxes_of(detector: Detector) -> FindBoxes:
    """What it finds. ImageError for a picture that it sees in another orientation."""

    def find(path: Path, pixels: Pixels, exif: str) -> list[Box]:
        if exif != detector.exif and not np.array_equal(detector.read(path), pixels):
            raise ImageError(
                f"{path}: has an orientation (EXIF) that the detector applies and the embedding's preprocessing does"
                " not: turn the picture, or export the bundle with DecodeImage's 'exif: apply'"
            )
        return [found.box for found in detector.detect(pixels)]

    return find


def no_boxes(path: Path, pixels: Pixels, exif: str) -> Sequence[Box]:
    """The whole picture is all there is."""
    return ()


def answers(
    config: ShituConfig, paths: Sequence[Path], find: FindBoxes, on_bad: BadImage | None
) -> Iterator[tuple[Path, list[dict[str, Any]]]]:
    """`answer` for each image that can be read."""
    with DiskGallery(config.IndexProcess.index_dir) as gallery, opened(config, len(paths)) as model:
        gallery.require_model(model_identity(config, model))
        for path in paths:
            try:
                yield path, answer(config, gallery, model, path, find)
            except ImageError as error:
                if on_bad is None:
                    raise
                on_bad(path, error)
