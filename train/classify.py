"""Evaluation as a classifier: how often the class head's highest logits hold the right class."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray

from ..runtimes.core.errors import InputError
from ..runtimes.preprocess.image_list import ImageList
from .config.training import TrainConfig
from .encoder import State, encoder
from .evaluate import OnImages, eval_preprocess, raw_embeddings, read_list, relabels
from .heads import build_head

LOGITS = 1 << 24  # held at a time


@dataclass(frozen=True)
class ClassScores:
    """top: k -> share of images whose class is among the k highest logits. images: how many could be read."""

    top: dict[int, float]
    images: int

    @property
    def named(self) -> dict[str, float]:
        """Every metric by its name."""
        return {f"top{k}": value for k, value in self.top.items()}

    def line(self, epoch: int, ks: Sequence[int] | None = None) -> str:
        """The summary as the reference prints it."""
        return f"[Eval][Epoch {epoch}][Avg]" + ", ".join(f"{name}: {value:.5f}" for name, value in self.named.items())


def class_list(config: TrainConfig) -> ImageList:
    """The evaluation's images, labelled as training counts. InputError where the head has no place for a label."""
    images, trained = read_list(config.DataLoader.Eval.Gallery.dataset), config.DataLoader.Train.dataset
    head = config.Arch.Head
    assert head is not None
    if relabels(trained):
        known = np.unique(read_list(trained).labels)
        if missing := sorted({*images.labels.tolist()} - {*known.tolist()}):
            raise InputError(
                f"DataLoader.Eval.dataset: label {missing[0]} is not in the training list: evaluate a classifier on the"
                " classes it was trained on, or set Global.eval_mode: retrieval"
            )
        return replace(images, labels=np.searchsorted(known, images.labels).astype(np.int64))
    if images.labels.min() < 0 or images.labels.max() >= head.class_num:
        raise InputError(
            f"DataLoader.Eval.dataset: the class head tells labels 0 to {head.class_num - 1}, the list has"
            f" {images.labels.min()} to {images.labels.max()}: evaluate a classifier on the classes it was trained on,"
            " or set Global.eval_mode: retrieval"
        )
    return images


def classify(config: TrainConfig, state: State, head_state: State, progress: OnImages | None = None) -> ClassScores:
    """Top-k accuracy by network and head with these states; heads with a margin leave it out."""
    images, gallery = class_list(config), config.DataLoader.Eval.Gallery
    with encoder(config, state) as network:
        embeddings, kept = raw_embeddings(network, images, eval_preprocess(config), gallery, progress)
    assert config.Arch.Head is not None  # checked with the config
    head = build_head(config.Arch.Head)
    head.set_state_dict(head_state)
    head.eval()
    ranks = class_ranks(head, embeddings, images.labels[kept], config.Arch.Head.class_num)
    return ClassScores({k: float(np.mean(ranks < k)) for k in config.Metric.top_classes}, len(kept))


def class_ranks(
    head: Any, embeddings: NDArray[np.float32], labels: NDArray[np.int64], classes: int
) -> NDArray[np.int64]:
    """How many of the classes have a higher logit than the right one, int64 `(n,)`; of equal ones half count, rounded
    up. InputError where a logit is no number.
    """
    found, rows = [], max(LOGITS // classes, 1)
    with paddle.no_grad():
        for start in range(0, len(labels), rows):
            own = labels[start : start + rows]
            logits = head(paddle.to_tensor(embeddings[start : start + rows]), paddle.to_tensor(own)).numpy()
            if not np.isfinite(logits).all():
                raise InputError("evaluation: the class head gives NaN or infinity: lower the learning rate")
            right = logits[np.arange(len(own)), own][:, None]
            ties = (logits == right).sum(axis=1) - 1
            found.append((logits > right).sum(axis=1) + (ties + 1) // 2)
    return np.concatenate(found).astype(np.int64)
