"""Exact retrieval metrics over embeddings, the query itself left out by index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..runtimes.errors import InputError

Embeddings = NDArray[np.float32]
Labels = NDArray[np.int64]
BLOCK_CELLS = 1 << 23  # similarities held at once; the largest temporary has 8 bytes for each


@dataclass(frozen=True)
class RetrievalScores:
    """recall: k -> share of queries with a relevant image among the first k. mean_ap: mean average precision.

    queries: how many were counted; queries without any relevant gallery image are not.
    hits: bool `(queries,)`, recall@1 of each counted query. nearest: int64 `(n,)`, every query's first neighbour.
    """

    recall: dict[int, float]
    mean_ap: float
    queries: int
    hits: NDArray[np.bool_]
    nearest: NDArray[np.int64]

    def line(self, epoch: int) -> str:
        """The summary as the reference prints it."""
        parts = [f"recall{k}: {value:.5f}" for k, value in self.recall.items()]
        return f"[Eval][Epoch {epoch}][Avg]" + ", ".join([*parts, f"mAP: {self.mean_ap:.5f}"])


def retrieval_scores(
    queries: Embeddings,
    query_labels: Labels,
    gallery: Embeddings | None = None,
    gallery_labels: Labels | None = None,
    ks: Sequence[int] = (1, 5),
    query_cameras: Labels | None = None,
    gallery_cameras: Labels | None = None,
) -> RetrievalScores:
    """Ranks the gallery for every query by inner product, float32, highest first; ties by gallery index.

    queries `(n, D)`, gallery `(m, D)`, both L2-normalised. Without a gallery the queries are their own, and each
    leaves itself out by index. With cameras, gallery images of the query's class and camera are left out too.
    mAP follows the usual definition: precision at each relevant rank, averaged over the relevant images.
    """
    own = gallery is None
    if gallery is None or gallery_labels is None:
        gallery, gallery_labels, gallery_cameras = queries, query_labels, query_cameras
    if len(queries) != len(query_labels) or len(gallery) != len(gallery_labels):
        raise InputError("retrieval: expected one label per embedding")
    ks = sorted(set(ks))
    found = dict.fromkeys(ks, 0)
    precisions: list[float] = []
    hits: list[NDArray[np.bool_]] = []
    nearest = np.empty(len(queries), dtype=np.int64)
    block = max(BLOCK_CELLS // len(gallery), 1)
    for start in range(0, len(queries), block):
        rows = np.arange(start, min(start + block, len(queries)))
        similarity = queries[rows] @ gallery.T
        if own:
            similarity[np.arange(len(rows)), rows] = -np.inf
        relevant = query_labels[rows, None] == gallery_labels[None, :]
        if query_cameras is not None and gallery_cameras is not None:
            same_camera = relevant & (query_cameras[rows, None] == gallery_cameras[None, :])
            similarity[same_camera] = -np.inf
        relevant &= similarity > -np.inf
        order = np.argsort(-similarity, axis=1, kind="stable")
        nearest[rows] = order[:, 0]
        ranked = np.take_along_axis(relevant, order, axis=1)
        counted = ranked.any(axis=1)
        ranked = ranked[counted]
        hits.append(ranked[:, 0])
        for k in ks:
            found[k] += int(ranked[:, :k].any(axis=1).sum())
        cumulative = np.cumsum(ranked, axis=1)
        precision = cumulative / np.arange(1, ranked.shape[1] + 1)
        precisions.extend((precision * ranked).sum(axis=1) / cumulative[:, -1])
    count = len(precisions)
    if count == 0:
        raise InputError("retrieval: no query has a relevant image: every class of the list has a single image")
    return RetrievalScores(
        recall={k: found[k] / count for k in ks},
        mean_ap=float(np.mean(precisions)),
        queries=count,
        hits=np.concatenate(hits),
        nearest=nearest,
    )
