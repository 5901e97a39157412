"""`--sequential`: a row that surely fails a gate is not embedded to the end.

A row that holds needs every image, because its gallery is made of the queries. One that fails can be known early: its
classes are embedded in random order, their queries search the baseline's whole gallery, and a few times on the way
they are judged as all of them would be, by an interval so wide (`INTERIM`) that looking several times hardly adds to
the 2.5 % of rows at the limit that fail by chance at the end: the rule of Haybittle and Peto (Pocock, "Group Sequential
Methods in the Design and Analysis of Clinical Trials", 1977).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ...runtimes.embed.verify import cosines
from ..retrieval.metrics import Embeddings
from ..schema.gates import Gates
from ..schema.statistics import clustered_interval
from .parity import Embedded, some_across

INTERIM = 0.997  # confidence of the intervals before the last, three standard errors of a normal distribution
LOOKS = (1 / 8, 1 / 4, 1 / 2)  # shares of the images after which is looked


class EarlyStop:
    """Which images a row embeds in which order, and when it may stop.

    order: int64 `(n,)`, image indices, classes in random order. looks: after how many of them is looked.
    """

    def __init__(self, baseline: Embedded, gates: Gates, seed: int = 0) -> None:
        assert baseline.labels is not None and baseline.scores is not None
        self.baseline, self.gates, self.first_rank = baseline, gates, baseline.scores.first_rank
        labels = self.labels = baseline.labels
        _, place = np.unique(labels, return_inverse=True)
        drawn = np.random.default_rng(seed).permutation(int(place.max()) + 1)
        self.order: NDArray[np.int64] = np.argsort(drawn[place], kind="stable")
        ends = np.append(np.flatnonzero(np.diff(labels[self.order])) + 1, len(labels))
        wanted = [next(int(end) for end in ends if end >= share * len(labels)) for share in LOOKS]
        self.looks = sorted({look for look in wanted if look < len(labels)})

    def problem(self, embeddings: Embeddings, lowered: bool = False) -> str | None:
        """Why a row fails by its embeddings of the first images of `order`, L2-normalised `(k, D)`; None while it may
        hold. lowered: as `Row.lowered` says.
        """
        images = self.order[: len(embeddings)]
        done = f"by {len(images):,} of {len(self.order):,} images, where it was stopped"
        lowest = float(cosines(embeddings, self.baseline.embeddings[images]).min())
        limit = self.gates.cosine_limit(lowered)
        if not lowest >= limit:  # more images can only lower it
            return f"cosine fell to {lowest:.6f}, allowed {limit:g}, {done}"
        allowed = self.gates.max_recall_drop
        if allowed == 0:  # judged by these images alone, that is by all of them
            return None
        before = self.first_rank[images]
        counted = before > 0
        if not counted.any():
            return None
        ranks = some_across(embeddings, images, self.baseline.embeddings, self.labels).first_rank
        differences = (ranks == 1).astype(np.float64) - (before == 1)
        change = clustered_interval(differences[counted], self.labels[images][counted], confidence=INTERIM)
        if change.low is None or change.high is None or change.high >= -allowed:
            return None
        return (
            f"recall@1 in the baseline's gallery fell by {-change.value:.4f} ({change.low:+.4f} to {change.high:+.4f}"
            f" at {INTERIM:.1%}), allowed {allowed:g}, {done}"
        )
