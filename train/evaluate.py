"""Evaluation of a network on list files: embeddings, then recall@k and mAP."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray

from ..bench.retrieval import RetrievalScores, retrieval_scores
from ..runtimes.errors import ImageError, InputError
from ..runtimes.image_list import ImageList, read_image_list
from ..runtimes.model import l2_normalize, stream_tensors
from ..runtimes.spec import Preprocess
from ..runtimes.transform_ops import parse_transform_ops
from .config import Dataset, EvalData, TrainConfig

logger = logging.getLogger(__name__)
Progress = Callable[[int], None]


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
    if pair.Query is not None and dataset_preprocess(pair.Query.dataset, where.format("Query"), shape) != preprocess:
        raise InputError(f"{where.format('Query')}: expected the same preprocessing as the gallery's")
    return preprocess


def encode(
    network: Any, images: ImageList, preprocess: Preprocess, data: EvalData, progress: Progress | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """L2-normalised embeddings float32 `(n, D)` and the list indices int64 `(n,)` they are of.

    A bad image is reported and left out.
    """
    files = [images.file(index) for index in range(len(images))]
    parts: list[NDArray[np.float32]] = []
    indices: list[int] = []

    def report(path: Path, error: ImageError) -> None:
        logger.warning("bad image, left out: %s", error)

    was_training = network.training
    network.eval()
    threads = max(data.loader.num_workers, 1)
    with paddle.no_grad():
        for kept, tensors in stream_tensors(files, preprocess, data.sampler.batch_size, threads, report):
            parts.append(l2_normalize(network(paddle.to_tensor(tensors)).astype("float32").numpy()))
            indices.extend(kept)
            if progress is not None:
                progress(len(kept))
    if was_training:
        network.train()
    if not parts:
        raise InputError("evaluation: no image of the list could be read")
    return np.concatenate(parts), np.asarray(indices, dtype=np.int64)


def read_list(dataset: Dataset) -> ImageList:
    """The data set's list file."""
    return read_image_list(dataset.cls_label_path, dataset.image_root)


def evaluate(network: Any, config: TrainConfig, progress: Progress | None = None) -> RetrievalScores:
    """recall@k and mAP of the config's evaluation set; self left out by sample, cameras obeyed when listed."""
    pair = config.DataLoader.Eval
    preprocess = eval_preprocess(config)
    gallery = read_list(pair.Gallery.dataset)
    embeddings, kept = encode(network, gallery, preprocess, pair.Gallery, progress)
    labels, ks = gallery.labels[kept], config.Metric.topk
    cameras = gallery.cameras[kept] if gallery.cameras is not None else None
    query_set = pair.Query.dataset if pair.Query else pair.Gallery.dataset
    same = (query_set.cls_label_path, query_set.image_root) == (
        pair.Gallery.dataset.cls_label_path,
        pair.Gallery.dataset.image_root,
    )
    if same:
        return retrieval_scores(embeddings, labels, ks=ks, query_cameras=cameras)
    assert pair.Query is not None
    queries = read_list(query_set)
    query_embeddings, query_kept = encode(network, queries, preprocess, pair.Query, progress)
    return retrieval_scores(
        query_embeddings,
        queries.labels[query_kept],
        embeddings,
        labels,
        ks,
        queries.cameras[query_kept] if queries.cameras is not None else None,
        cameras,
    )
