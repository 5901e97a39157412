"""Whether retrieval still works: one row's embeddings against the baseline's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...runtimes._native import Gallery
from ...runtimes.embed.verify import cosines
from ..retrieval.metrics import COLLAPSED, Embeddings, Labels, RetrievalScores, mean_cosine, retrieval_scores
from ..retrieval.significance import binomial_above
from ..schema.power import FEW_FLIPS, between_near_ties, expected_flips
from ..schema.rows import CrossRecall, Pair, Row
from ..schema.statistics import clustered_interval

LEVEL = 0.05  # of the test against chance
PAIRS_SHOWN = 6
MARGINS, MARGINS_AT_ONCE = 2000, 250  # queries whose margins are looked at, and in one piece


@dataclass(frozen=True)
class Embedded:
    """A row's embeddings of the image set, L2-normalised float32 `(n, D)`, and the images' labels, if any."""

    name: str
    embeddings: Embeddings
    labels: Labels | None
    found_in: dict[int, RetrievalScores] = field(default_factory=dict, repr=False, compare=False)  # see `across`

    @cached_property
    def scores(self) -> RetrievalScores | None:
        """recall@1, recall@5 and mAP, each image a query against the others; None without labels."""
        return None if self.labels is None else retrieval_scores(self.embeddings, self.labels, ks=(1, 5))

    @cached_property
    def nearest(self) -> NDArray[np.int64]:
        """Every image's nearest other image, `(n,)`; -1 when it is alone."""
        if self.scores is not None:
            return self.scores.nearest
        gallery = Gallery(self.embeddings.shape[1])
        gallery.add(self.embeddings)
        found, _ = gallery.search(self.embeddings, 2)
        own = found[:, 0] == np.arange(len(found))
        return np.asarray(np.where(own, found[:, 1], found[:, 0]))


def collapse_warning(embeddings: Embeddings) -> str | None:
    """One line when embeddings, L2-normalised `(n, D)`, all point the same way: rounding then decides neighbours."""
    spread = mean_cosine(embeddings)
    if spread <= COLLAPSED:
        return None
    return (
        f"the embeddings are nearly all the same (mean cosine {spread:.6f}): rounding decides which is nearest,"
        " and recall means nothing; is the network trained?"
    )


def chance(labels: Labels) -> float:
    """recall@1 where a query's first neighbour is any other image with equal odds: over the queries that have a
    relevant image, the mean share of relevant ones among the others.
    """
    _, place, sizes = np.unique(labels, return_inverse=True, return_counts=True)
    relevant = sizes[place] - 1
    return float(relevant[relevant > 0].mean() / (len(labels) - 1))


def can_tell(queries: int, by_chance: float) -> bool:
    """Whether recall@1 of 1 would be above chance by the binomial test: not with few queries or one large class."""
    return float(by_chance**queries) <= LEVEL


def chance_problem(scores: RetrievalScores, by_chance: float) -> str | None:
    """One line unless recall@1 is above chance by a binomial test at 5 %, or the images are too few to tell."""
    hits, count = int(scores.hits.sum()), len(scores.hits)
    if not can_tell(count, by_chance) or binomial_above(hits, count, by_chance) <= LEVEL:
        return None
    return (
        f"recall@1 of {hits / count:.4f} is not told apart from chance ({by_chance:.4f}) by {count} queries:"
        " is the network trained, and are the labels right?"
    )


def judge(row: Row, own: Embedded, baseline: Embedded) -> None:
    """Fills a row's parity columns from its embeddings and the baseline's, of the same images."""
    similarity = cosines(own.embeddings, baseline.embeddings)
    row.cosine_min, row.cosine_mean = float(similarity.min()), float(similarity.mean())
    row.cosine_p1 = float(np.percentile(similarity, 1))
    row.neighbour_flips = float((own.nearest != baseline.nearest).mean())
    row.meaningless = collapse_warning(own.embeddings) if len(own.embeddings) > 1 else None
    scores, base = own.scores, baseline.scores
    if scores is None or base is None:
        return
    row.recall1, row.recall5, row.mean_ap = scores.recall[1], scores.recall[5], scores.mean_ap
    assert own.labels is not None
    row.recall1_chance = chance(own.labels)
    row.meaningless = row.meaningless or chance_problem(scores, row.recall1_chance)
    if not can_tell(len(scores.hits), row.recall1_chance):
        row.warnings.append(
            f"{len(scores.hits)} queries whose class has {row.recall1_chance:.0%} of the images cannot tell recall"
            " from chance: take more images, of more classes"
        )
    counted = base.first_rank > 0
    classes = own.labels[counted]
    row.queries = len(classes)
    row.hits = "".join(map(str, scores.hits.astype(int)))
    row.average_precisions = scores.average_precision[counted].round(6).tolist()
    mixed = across(own, baseline, own.labels)
    row.mixed_recall1, row.mixed_map = mixed.recall[1], mixed.mean_ap
    differences = {
        "recall1": scores.hits.astype(np.float64) - base.hits,
        "mixed1": mixed.hits.astype(np.float64) - base.hits,
        "map": (scores.average_precision - base.average_precision)[counted],
        "mixed_map": (mixed.average_precision - base.average_precision)[counted],
    }
    flips = None
    for figure, difference in differences.items():
        change = clustered_interval(difference, classes)
        hits = differences["mixed1" if figure.startswith("mixed") else "recall1"]
        if np.count_nonzero(hits) <= FEW_FLIPS:
            flips = margin_flips(own, baseline, own.labels) if flips is None else flips
            change = between_near_ties(change, difference, hits, flips)
        row.set_change(figure, change)


def margin_flips(own: Embedded, baseline: Embedded, labels: Labels) -> float:
    """What `expected_flips` says of at most MARGINS queries, drawn alike in every run; infinite where none has both
    a relevant image and another.
    """
    if own.embeddings is baseline.embeddings:
        return 0.0
    drawn = np.random.default_rng(0).permutation(len(labels))[:MARGINS]
    before, after = (margins(one.embeddings, labels, drawn) for one in (baseline, own))
    told = np.isfinite(before)
    return expected_flips(before[told], (after - before)[told]) if told.any() else float("inf")


def margins(embeddings: Embeddings, labels: Labels, queries: NDArray[np.int64]) -> NDArray[np.float64]:
    """Each query's similarity to its best relevant image less that to its best other one, `(q,)`, itself left out;
    infinite where there is none of either.
    """
    found = np.full(len(queries), np.inf)
    for start in range(0, len(queries), MARGINS_AT_ONCE):
        block = queries[start : start + MARGINS_AT_ONCE]
        similarity = embeddings[block] @ embeddings.T
        similarity[np.arange(len(block)), block] = -np.inf
        relevant = labels[block][:, None] == labels[None]
        best = np.where(relevant, similarity, -np.inf).max(axis=1)
        other = np.where(relevant, -np.inf, similarity).max(axis=1)
        told = np.isfinite(best) & np.isfinite(other)
        found[start : start + len(block)][told] = best[told].astype(np.float64) - other[told]
    return found


def across(queries: Embedded, gallery: Embedded, labels: Labels) -> RetrievalScores:
    """Queries of one row in the gallery of another, of the same images; an image never finds itself. Ranked once."""
    if queries is gallery and queries.scores is not None:
        return queries.scores
    key = id(gallery.embeddings)
    if key not in queries.found_in:
        itself = np.arange(len(labels), dtype=np.int64)
        queries.found_in[key] = some_across(queries.embeddings, itself, gallery.embeddings, labels)
    return queries.found_in[key]


def some_across(queries: Embeddings, images: NDArray[np.int64], gallery: Embeddings, labels: Labels) -> RetrievalScores:
    """`across` of some of the images, `(q,)`, whose queries are `(q, D)`; gallery and labels are of all."""
    # A camera of its own for each image keeps a query from the same image embedded by the other row.
    itself = np.arange(len(labels), dtype=np.int64)
    return retrieval_scores(
        queries, labels[images], gallery, labels, ks=(1,), query_cameras=images, gallery_cameras=itself
    )


def cross_recall(sets: Sequence[Embedded]) -> CrossRecall | None:
    """recall@1 of every pair of rows, an image never finding itself; None without labels or with one row only."""
    if len(sets) < 2:
        return None
    table = []
    for query_set in sets:
        labels = query_set.labels
        if labels is None:
            return None
        table.append([across(query_set, gallery_set, labels).recall[1] for gallery_set in sets])
    return CrossRecall([one.name for one in sets], table)


def worst_pairs(own: Embedded, baseline: Embedded, paths: Sequence[Path]) -> list[Pair]:
    """The images that a row embeds least like the baseline, those whose nearest neighbour changed first."""
    similarity = cosines(own.embeddings, baseline.embeddings)
    changed = own.nearest != baseline.nearest
    worst = np.lexsort((similarity, ~changed))[:PAIRS_SHOWN]
    return [
        Pair(
            row=own.name,
            cosine=float(similarity[image]),
            image=str(paths[image]),
            baseline_neighbour=str(paths[baseline.nearest[image]]),
            row_neighbour=str(paths[own.nearest[image]]),
        )
        for image in worst
        if baseline.nearest[image] >= 0 and own.nearest[image] >= 0
    ]
