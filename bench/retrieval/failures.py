"""Where retrieval fails: per class, and query by query, with the images that came instead."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from ...runtimes.preprocess.image_list import ImageList
from .metrics import Embeddings, RetrievalScores, excluded

SHOWN = 5


@dataclass(frozen=True)
class ClassScore:
    """One class of the queries. name: its images' most common folder; queries: those that had a relevant image."""

    label: int
    name: str
    queries: int
    recall1: float
    worst_rank: int


@dataclass(frozen=True)
class Neighbour:
    """A gallery image. relevant: of the query's class."""

    index: int
    similarity: float
    relevant: bool


@dataclass(frozen=True)
class Failure:
    """A query whose nearest image is of another class. expected: the most similar relevant image, found at `rank`."""

    query: int
    rank: int
    nearest: tuple[Neighbour, ...]
    expected: Neighbour


def class_scores(images: ImageList, scores: RetrievalScores) -> list[ClassScore]:
    """Every class of the queries, the worst first."""
    result = []
    for label in np.unique(images.labels):
        members = np.flatnonzero(images.labels == label)
        ranks = scores.first_rank[members]
        ranks = ranks[ranks > 0]
        if len(ranks):
            folders = Counter(images.paths[index].rpartition("/")[0] for index in members)
            name = folders.most_common(1)[0][0]
            result.append(ClassScore(int(label), name, len(ranks), float((ranks == 1).mean()), int(ranks.max())))
    return sorted(result, key=lambda score: (score.recall1, -score.worst_rank, score.label))


def worst_queries(
    scores: RetrievalScores,
    queries: Embeddings,
    query_images: ImageList,
    gallery: Embeddings | None,
    gallery_images: ImageList,
    count: int,
) -> list[Failure]:
    """At most `count` queries that missed, the one with the deepest first relevant image first.

    gallery: None where the queries are their own.
    """
    order = np.argsort(-scores.first_rank, kind="stable")
    missed = [int(query) for query in order if scores.first_rank[query] > 1][:count]
    rows = queries if gallery is None else gallery
    found = []
    for query in missed:
        similarity = rows @ queries[query]
        relevant = gallery_images.labels == query_images.labels[query]
        camera = None if query_images.cameras is None else query_images.cameras[query]
        arguments = (query_images.labels[query], camera, gallery_images.labels, gallery_images.cameras)
        similarity[excluded(query, *arguments, gallery is None)] = -np.inf
        nearest = np.argsort(-similarity, kind="stable")[:SHOWN]
        expected = int(np.argmax(np.where(relevant, similarity, -np.inf)))
        shown = [Neighbour(int(i), float(similarity[i]), bool(relevant[i])) for i in (*nearest, expected)]
        found.append(Failure(query, int(scores.first_rank[query]), tuple(shown[:-1]), shown[-1]))
    return found
