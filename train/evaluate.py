"""Evaluation of a network on list files: embeddings, then recall@k, mAP, R-precision and mAP@R."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ..bench.retrieval.metrics import RetrievalScores, retrieval_scores
from ..bench.retrieval.rerank import reranked_scores
from ..runtimes.core.errors import ImageError, InputError
from ..runtimes.embed.batches import stream_tensors
from ..runtimes.embed.model import l2_normalize
from ..runtimes.preprocess.comparison import preprocess_difference
from ..runtimes.preprocess.image_list import ImageList, read_image_list
from ..runtimes.preprocess.ops import Preprocess
from ..runtimes.preprocess.transform_ops import parse_transform_ops
from .config.data import Dataset, EvalData
from .config.training import TrainConfig
from .data.layouts import by_camera
from .encoder import Encode, State, encoder

logger = logging.getLogger(__name__)
MARKET = "market1501/Market-1501-v15.09.15"  # where the reference expects it
OnImages = Callable[[int], None]
Binarize = Literal["round", "sign"] | None  # `Global.feature_binarize`


def exif_rule(dataset: Dataset) -> str:
    """OpenCV's reader applies the EXIF orientation, Pillow's does not; the reference uses both as they are."""
    return "apply" if dataset.backend == "cv2" else "ignore"


def dataset_preprocess(dataset: Dataset, where: str, shape: tuple[int, int, int]) -> Preprocess:
    """A data set's evaluation transforms; InputError unless they end at `shape`."""
    exif: Any = exif_rule(dataset)
    preprocess = parse_transform_ops(dataset.transform_ops, where, dataset.backend, exif)
    if preprocess.output_shape != shape:
        raise InputError(f"{where}: gives {preprocess.output_shape}, Global.image_shape says {tuple(shape)}")
    return preprocess


def eval_preprocess(config: TrainConfig) -> Preprocess:
    """The gallery's preprocessing, which is the one sealed into a bundle. InputError when the queries' differs."""
    pair, shape = config.DataLoader.Eval, config.Global.image_shape
    where = "DataLoader.Eval.{}.dataset.transform_ops"
    preprocess = dataset_preprocess(pair.Gallery.dataset, where.format("Gallery"), shape)
    if pair.Query is not None:
        queries = dataset_preprocess(pair.Query.dataset, where.format("Query"), shape)
        found = preprocess_difference(queries, preprocess)
        if found is not None or queries.decode != preprocess.decode:
            how = found or f"orientation {queries.decode.exif} against {preprocess.decode.exif}"
            raise InputError(f"{where.format('Query')}: expected the same preprocessing as the gallery's, got {how}")
    return preprocess


def raw_embeddings(
    network: Encode, images: ImageList, preprocess: Preprocess, data: EvalData, progress: OnImages | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Embeddings as the network gives them, float32 `(n, D)`, and the list indices int64 `(n,)` they are of.

    A bad image is reported and left out.
    """
    files = [images.file(index) for index in range(len(images))]
    parts: list[NDArray[np.float32]] = []
    indices: list[int] = []

    def report(path: Path, error: ImageError) -> None:
        logger.warning("bad image, left out: %s", error)

    threads = max(data.loader.num_workers, 1)
    for kept, tensors in stream_tensors(files, preprocess, data.sampler.batch_size, threads, report):
        parts.append(np.array(network(tensors), np.float32))
        indices.extend(kept)
        if progress is not None:
            progress(len(kept))
    if not parts:
        raise InputError("evaluation: no image of the list could be read")
    return np.concatenate(parts), np.asarray(indices, dtype=np.int64)


def encode(
    network: Encode,
    images: ImageList,
    preprocess: Preprocess,
    data: EvalData,
    progress: OnImages | None = None,
    binarize: Binarize = None,
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """`raw_embeddings`, made binary where that is asked, L2-normalised."""
    embeddings, indices = raw_embeddings(network, images, preprocess, data, progress)
    return l2_normalize(binary(embeddings, binarize)), indices


def binary(embeddings: NDArray[np.float32], how: Binarize) -> NDArray[np.float32]:
    """-1 or 1 for each number, float32 `(n, D)`, whose inner products order as Hamming distances do: by its sign, or by
    the nearer of 0 and 1. None: as they are.
    """
    if how is None:
        return embeddings
    return np.where(embeddings > (0.5 if how == "round" else 0.0), 1, -1).astype(np.float32)


def relabels(dataset: Dataset) -> bool:
    """Whether its labels are counted anew from 0 for training."""
    if dataset.name == "Market1501":
        return "train" in str(dataset.cls_label_path)  # as the reference does
    return dataset.relabel


def read_list(dataset: Dataset, training: bool = False) -> ImageList:
    """The data set's images. training: labels are counted anew from 0 where the data set says so."""
    if dataset.name == "Market1501":
        images = read_market(dataset.image_root, str(dataset.cls_label_path))
    else:
        images = read_image_list(dataset.cls_label_path, dataset.image_root)
    if not (training and relabels(dataset)):
        return images
    return replace(images, labels=np.unique(images.labels, return_inverse=True)[1].astype(np.int64))


def read_market(root: Path, folder: str) -> ImageList:
    """A folder of Market-1501 below `root`, where the reference expects it or right there. Cameras count from 0."""
    places = (root / MARKET / folder, root / folder)
    home = next((place for place in places if place.is_dir()), None)
    if home is None:
        raise InputError(f"Market1501: expected the folder {places[0]} or {places[1]}")
    (images,) = by_camera({"all": home.name})(home.parent).values()
    return ImageList(
        home.parent,
        tuple(image.path for image in images),
        np.array([int(image.label) for image in images], dtype=np.int64),
        np.array([(image.camera or 1) - 1 for image in images], dtype=np.int64),
    )


@dataclass(frozen=True)
class Encoded:
    """Images of a list that could be read, with their embeddings, float32 `(n, D)`, L2-normalised."""

    images: ImageList
    embeddings: NDArray[np.float32]

    @staticmethod
    def of(
        network: Encode, data: EvalData, preprocess: Preprocess, progress: OnImages | None, binarize: Binarize
    ) -> Encoded:
        """Reads, encodes and leaves bad images out."""
        images = read_list(data.dataset)
        embeddings, kept = encode(network, images, preprocess, data, progress, binarize)
        return Encoded(images.subset(kept), embeddings)


def encode_sets(config: TrainConfig, state: State, progress: OnImages | None = None) -> tuple[Encoded, Encoded | None]:
    """Gallery and queries by the network with this state; no queries where they are the gallery itself."""
    pair = config.DataLoader.Eval
    preprocess, binarize = eval_preprocess(config), config.Global.feature_binarize
    with encoder(config, state) as network:
        gallery = Encoded.of(network, pair.Gallery, preprocess, progress, binarize)
        if pair.Query is None or same_images(pair.Query.dataset, pair.Gallery.dataset):
            return gallery, None
        return gallery, Encoded.of(network, pair.Query, preprocess, progress, binarize)


def same_images(first: Dataset, second: Dataset) -> bool:
    """Whether two data sets are one list of one folder."""
    return (first.cls_label_path, first.image_root) == (second.cls_label_path, second.image_root)


def arguments_of(gallery: Encoded, queries: Encoded | None) -> dict[str, Any]:
    """For `retrieval_scores`: without queries the gallery is its own, and each image leaves itself out."""
    rows = queries or gallery
    arguments: dict[str, Any] = {
        "queries": rows.embeddings,
        "query_labels": rows.images.labels,
        "query_cameras": rows.images.cameras,
    }
    if queries is not None:
        arguments |= {
            "gallery": gallery.embeddings,
            "gallery_labels": gallery.images.labels,
            "gallery_cameras": gallery.images.cameras,
        }
    return arguments


def score(
    config: TrainConfig, gallery: Encoded, queries: Encoded | None, progress: OnImages | None = None
) -> RetrievalScores:
    """recall@k and the rest; self left out by sample, cameras obeyed when listed, re-ranked when asked.

    k: the config's, and 10. progress: called now and then, with 0 images.
    """
    measure = reranked_scores if config.Global.re_ranking else retrieval_scores
    tell = None if progress is None else lambda share: progress(0)
    return measure(**arguments_of(gallery, queries), ks=(*config.Metric.topk, 10), progress=tell)


def evaluate(config: TrainConfig, state: State, progress: OnImages | None = None) -> RetrievalScores:
    """The scores of the config's evaluation set by the network with this state."""
    return score(config, *encode_sets(config, state, progress), progress)
