"""Exact retrieval metrics over embeddings, in the C++ core; a query never finds itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...runtimes import _native
from ...runtimes.core.cpus import usable_cpus
from ...runtimes.core.errors import InputError

Embeddings = NDArray[np.float32]
Labels = NDArray[np.int64]
COLLAPSED = 0.999  # mean cosine, above which rounding decides neighbours


@dataclass(frozen=True)
class RetrievalScores:
    """recall: k -> share of queries with a relevant image among the first k. mean_ap: mean average precision.

    r_precision, map_at_r: of Musgrave et al., "A Metric Learning Reality Check" (2020).
    queries: how many were counted; queries without any relevant gallery image are not.
    first_rank: int64 `(n,)`, of every query's first relevant image, from 1; 0 when it has none.
    nearest: int64 `(n,)`, every query's first neighbour; -1 when nothing was left to rank.
    average_precision: float64 `(n,)`, of every query; 0 when it has no relevant image.
    """

    recall: dict[int, float]
    mean_ap: float
    r_precision: float
    map_at_r: float
    queries: int
    first_rank: NDArray[np.int64]
    nearest: NDArray[np.int64]
    average_precision: NDArray[np.float64]

    @property
    def hits(self) -> NDArray[np.bool_]:
        """recall@1 of each counted query, bool `(queries,)`."""
        return np.asarray(self.first_rank[self.first_rank > 0] == 1)

    def line(self, epoch: int, ks: Sequence[int] | None = None) -> str:
        """The summary as the reference prints it. ks: of the recalls shown; all by default."""
        shown = self.recall if ks is None else sorted(set(ks))
        parts = [f"recall{k}: {self.recall[k]:.5f}" for k in shown]
        return f"[Eval][Epoch {epoch}][Avg]" + ", ".join([*parts, f"mAP: {self.mean_ap:.5f}"])

    @property
    def named(self) -> dict[str, float]:
        """Every metric by its name."""
        recalls = {f"recall{k}": value for k, value in self.recall.items()}
        return {**recalls, "mAP": self.mean_ap, "R-precision": self.r_precision, "mAP@R": self.map_at_r}


def retrieval_scores(
    queries: Embeddings,
    query_labels: Labels,
    gallery: Embeddings | None = None,
    gallery_labels: Labels | None = None,
    ks: Sequence[int] = (1, 5),
    query_cameras: Labels | None = None,
    gallery_cameras: Labels | None = None,
    threads: int | None = None,
    progress: Callable[[float], None] | None = None,
) -> RetrievalScores:
    """Ranks the gallery for every query by inner product, highest first; equal ones by gallery index.

    queries `(n, D)`, gallery `(m, D)`. Without a gallery the queries are their own, and each leaves itself out by
    index. With cameras, gallery images of the query's class and camera are left out too. Inner products are those of
    float64, so that the scores do not depend on the CPU or `threads` (default: every CPU this process may
    use). It is fast where rows are about equally long, as L2-normalised ones are. progress: called with the share done,
    0 to 1. Ctrl-C stops it.
    """
    ks = sorted(set(ks))
    found = _native.evaluate(
        _rows(queries),
        _integers(query_labels),
        None if query_cameras is None else _integers(query_cameras),
        None if gallery is None else _rows(gallery),
        None if gallery_labels is None else _integers(gallery_labels),
        None if gallery_cameras is None else _integers(gallery_cameras),
        ks,
        threads or len(usable_cpus()),
        progress,
    )
    if found["queries"] == 0:
        raise InputError("retrieval: no query has a relevant image: is there a class with two images or more?")
    return RetrievalScores(
        recall=dict(zip(ks, found["recall"], strict=True)),
        mean_ap=found["mean_ap"],
        r_precision=found["r_precision"],
        map_at_r=found["map_at_r"],
        queries=found["queries"],
        first_rank=found["first_rank"],
        nearest=found["nearest"],
        average_precision=found["average_precision"],
    )


def mean_cosine(embeddings: Embeddings) -> float:
    """Over all pairs of L2-normalised embeddings `(n, D)`, each with itself too."""
    centre = embeddings.astype(np.float64).mean(axis=0)
    return float(centre @ centre)


def excluded(
    query: int, query_label: int, query_camera: int | None, gallery_labels: Labels, cameras: Labels | None, itself: bool
) -> NDArray[np.bool_]:
    """What a query must not find, bool `(m,)`: its class by its own camera and, where `itself`, the image `query`."""
    out = np.zeros(len(gallery_labels), dtype=bool)
    if query_camera is not None and cameras is not None:
        out = (gallery_labels == query_label) & (cameras == query_camera)
    if itself:
        out[query] = True
    return out


def _rows(values: Embeddings) -> Embeddings:
    return np.ascontiguousarray(values, dtype=np.float32)


def _integers(values: Labels) -> Labels:
    given = np.asarray(values)
    if given.dtype.kind not in "iu":
        raise InputError(f"retrieval: expected labels and cameras as whole numbers, got {given.dtype}")
    return np.ascontiguousarray(given, dtype=np.int64)
