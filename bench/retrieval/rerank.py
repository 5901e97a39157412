"""Re-ranking by k-reciprocal neighbours (Zhong et al., arXiv 1701.08398), with the settings PaddleClas uses.

Distances between all images are squared L2, each image's divided by its largest. An image's k-reciprocal neighbours
are those among its k nearest that have it among theirs; the set is widened by those of its members that overlap it by
more than two thirds (the authors' code; the paper allows equality). Two images are then as near as their weighted sets
overlap (Jaccard), mixed with the distance itself.

Only the k nearest of every image and the sparse sets are held: memory grows with the images, not with their square.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtimes.core.errors import InputError, RuntimeUnavailable
from ...runtimes.core.versions import needs
from .metrics import Embeddings, Labels, RetrievalScores, excluded

K1, K2, SHARE = 20, 6, 0.3
BLOCK = 256
Floats = NDArray[np.float64]
Indices = NDArray[np.int64]


def reranked_scores(
    queries: Embeddings,
    query_labels: Labels,
    gallery: Embeddings | None = None,
    gallery_labels: Labels | None = None,
    ks: Sequence[int] = (1, 5),
    query_cameras: Labels | None = None,
    gallery_cameras: Labels | None = None,
    progress: Callable[[float], None] | None = None,
) -> RetrievalScores:
    """As `retrieval_scores`, on re-ranked distances. Rows must be L2-normalised; equal distances go by gallery index.

    InputError when there are too few images for the k nearest of one.
    """
    itself = gallery is None
    if gallery is None or gallery_labels is None:
        gallery, gallery_labels, gallery_cameras = queries, query_labels, query_cameras
    tally = _Tally(sorted(set(ks)))
    for first, rows in reranked_distances(queries, None if itself else gallery):
        for number, distances in enumerate(rows, start=first):
            wanted = gallery_labels == query_labels[number]
            camera = None if query_cameras is None else query_cameras[number]
            out = excluded(number, query_labels[number], camera, gallery_labels, gallery_cameras, itself)
            tally.add(np.where(out, np.inf, distances), wanted & ~out, len(gallery) - int(out.sum()))
        if progress is not None:
            progress((first + len(rows)) / len(queries))
    return tally.scores()


class _Tally:
    """Adds up the metrics of one query after another."""

    def __init__(self, ks: list[int]) -> None:
        self.ks = ks
        self.first_ranks: list[int] = []
        self.nearest: list[int] = []
        self.precisions: list[tuple[float, float, float]] = []  # average precision, R-precision, that average at R

    def add(self, distances: Floats, relevant: NDArray[np.bool_], ranked: int) -> None:
        """relevant: bool `(m,)`; ranked: how many are not left out."""
        order = np.argsort(distances, kind="stable")
        self.nearest.append(int(order[0]) if ranked else -1)
        ranks = np.flatnonzero(relevant[order]) + 1
        self.first_ranks.append(int(ranks[0]) if len(ranks) else 0)
        if not len(ranks):
            self.precisions.append((0.0, 0.0, 0.0))
            return
        precisions = np.arange(1, len(ranks) + 1) / ranks
        within = ranks <= len(ranks)
        self.precisions.append((precisions.mean(), within.mean(), np.where(within, precisions, 0.0).mean()))

    def scores(self) -> RetrievalScores:
        """The means. InputError when no query had a relevant image."""
        ranks = np.asarray(self.first_ranks, dtype=np.int64)
        counted = ranks[ranks > 0]
        count = len(counted)
        if not count:
            raise InputError("retrieval: no query has a relevant image: is there a class with two images or more?")
        precisions = np.asarray(self.precisions)
        mean_ap, r_precision, map_at_r = (float(value) for value in precisions.sum(axis=0) / count)
        return RetrievalScores(
            recall={k: float((counted <= k).mean()) for k in self.ks},
            mean_ap=mean_ap,
            r_precision=r_precision,
            map_at_r=map_at_r,
            queries=count,
            first_rank=ranks,
            nearest=np.asarray(self.nearest, dtype=np.int64),
            average_precision=np.ascontiguousarray(precisions[:, 0]),
        )


def reranked_distances(
    queries: Embeddings, gallery: Embeddings | None, k1: int = K1, k2: int = K2, share: float = SHARE
) -> Iterator[tuple[int, Floats]]:
    """Distances float64 of blocks of queries to the gallery (to themselves without one): (first query, `(b, m)`).

    share: of the distance itself; the rest is Jaccard's. float32 `(n, D)` and `(m, D)`, L2-normalised.
    """
    images: Floats = (queries if gallery is None else np.concatenate([queries, gallery])).astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(images).all(axis=1))
    if len(bad):
        raise InputError(f"re-ranking: embedding {bad[0]} is not finite")
    if len(images) <= k1:
        raise InputError(f"re-ranking looks at the {k1} nearest images of each: expected more than {k1} images")
    distinct = _Distinct(images)
    nearest, largest = _neighbours(images, distinct, k1 + 1)
    sets = _reciprocal_sets(nearest, k1)
    weights = _weights(images, largest, sets)
    scipy_sparse = _sparse()
    if k2 > 1:
        rows = np.repeat(np.arange(len(images)), k2)
        mean = scipy_sparse.csr_matrix((np.full(len(rows), 1 / k2), (rows, nearest[:, :k2].ravel())), weights.shape)
        weights = mean @ weights
    by_column = weights.tocsc()
    offset = 0 if gallery is None else len(queries)
    for first in range(0, len(queries), BLOCK):
        block = range(first, min(first + BLOCK, len(queries)))
        own = distinct.distances(images[block.start : block.stop]) / largest[block.start : block.stop, None]
        for row, query in enumerate(block):
            jaccard = 1.0 - _overlap(weights, by_column, query)
            own[row] = (1.0 - share) * jaccard + share * own[row]
        yield first, own[:, offset:]


def _distances(rows: Floats, images: Floats) -> Floats:
    """Squared L2 of unit vectors, never below 0."""
    result: Floats = np.maximum(2.0 - 2.0 * (rows @ images.T), 0.0)
    return result


class _Distinct:
    """Distances to images of which some are equal: theirs are equal to the bit, so that the index decides.

    A matrix product gives equal rows unequal sums where they lie in different tiles of it, as the CPU's kernel has it.
    """

    def __init__(self, images: Floats) -> None:
        self._images, self._place = np.unique(images, axis=0, return_inverse=True)
        self._all = images if len(self._images) == len(images) else None

    def distances(self, rows: Floats) -> Floats:
        """As `_distances` to all images, in their order."""
        if self._all is not None:
            return _distances(rows, self._all)
        return _distances(rows, self._images)[:, self._place.ravel()]


def _neighbours(images: Floats, distinct: _Distinct, count: int) -> tuple[Indices, Floats]:
    """The `count` nearest of each, itself first, equal ones by index; and the largest distance of each."""
    nearest = np.empty((len(images), count), dtype=np.int64)
    largest = np.empty(len(images))
    for first in range(0, len(images), BLOCK):
        distances = distinct.distances(images[first : first + BLOCK])
        largest[first : first + BLOCK] = distances.max(axis=1)
        distances[np.arange(len(distances)), np.arange(first, first + len(distances))] = -1.0
        limit = np.partition(distances, count - 1, axis=1)[:, count - 1]
        for row, values in enumerate(distances):
            near = np.flatnonzero(values <= limit[row])
            nearest[first + row] = near[np.argsort(values[near], kind="stable")][:count]
    return nearest, np.maximum(largest, np.finfo(np.float64).tiny)


def _mutual(nearest: Indices, k: int) -> list[set[int]]:
    """The k-reciprocal neighbours of each image, itself among them."""
    heads = nearest[:, : k + 1]
    sets = []
    for image, head in enumerate(heads):
        sets.append(set(head[(heads[head] == image).any(axis=1)].tolist()))
    return sets


def _reciprocal_sets(nearest: Indices, k1: int) -> list[Indices]:
    """The widened sets, ascending."""
    wide, narrow = _mutual(nearest, k1), _mutual(nearest, round(k1 / 2))
    result = []
    for members in wide:
        widened = set(members)
        for member in members:
            if len(members & narrow[member]) > 2 / 3 * len(narrow[member]):
                widened |= narrow[member]
        result.append(np.array(sorted(widened), dtype=np.int64))
    return result


def _weights(images: Floats, largest: Floats, sets: list[Indices]) -> Any:
    """Sparse `(n, n)`: exp(-distance) over each set, rows summing to 1."""
    starts = np.concatenate([[0], np.cumsum([len(members) for members in sets])])
    columns = np.concatenate(sets)
    values = np.empty(len(columns))
    for image, members in enumerate(sets):
        distances = _distances(images[image : image + 1], images[members])[0] / largest[image]
        near = np.exp(-distances)
        values[starts[image] : starts[image + 1]] = near / near.sum()
    return _sparse().csr_matrix((values, columns, starts), (len(images), len(images)))


def _overlap(weights: Any, by_column: Any, query: int) -> Floats:
    """Jaccard similarity of the query's weighted set with that of every image, `(n,)`."""
    shared = np.zeros(weights.shape[0])
    for at in range(weights.indptr[query], weights.indptr[query + 1]):
        column = weights.indices[at]
        begin, end = by_column.indptr[column], by_column.indptr[column + 1]
        rows = by_column.indices[begin:end]
        shared[rows] += np.minimum(weights.data[at], by_column.data[begin:end])
    return shared / (2.0 - shared)


def _sparse() -> Any:
    try:
        from scipy import sparse
    except ImportError as error:
        raise RuntimeUnavailable(f"re-ranking {needs('scipy')}") from error
    return sparse
