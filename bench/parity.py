"""Whether retrieval still works: one runtime's embeddings against the baseline's."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..runtimes.verify import cosines
from .retrieval import RetrievalScores
from .rows import Row


@dataclass(frozen=True)
class Gates:
    """What a row must hold: the lowest cosine, and how much recall@1 (a share, 0 to 1) may fall."""

    min_cosine: float = 0.999
    max_recall_drop: float = 0.002


COLLAPSED = 0.999


def collapse_warning(embeddings: NDArray[np.float32]) -> str | None:
    """One line when embeddings, L2-normalised `(n, D)`, all point the same way: rounding then decides neighbours."""
    centre = embeddings.astype(np.float64).mean(axis=0)
    spread = float(centre @ centre)  # the mean cosine over all pairs
    if spread <= COLLAPSED:
        return None
    return (
        f"the embeddings are nearly all the same (mean cosine {spread:.6f}): rounding decides which is nearest,"
        " and recall means nothing; is the network trained?"
    )


def judge(
    row: Row,
    embeddings: NDArray[np.float32],
    baseline: NDArray[np.float32],
    scores: RetrievalScores | None,
    baseline_scores: RetrievalScores | None,
    golden_cosine: float,
    gates: Gates,
) -> None:
    """Fills a row's parity columns and marks it when a gate is broken.

    embeddings, baseline: L2-normalised float32 `(n, D)` of the same images; scores: None without labels.
    """
    row.cosine_min = min(golden_cosine, float(cosines(embeddings, baseline).min()))
    if scores is not None and baseline_scores is not None:
        row.recall1 = scores.recall[1]
        row.mean_ap = scores.mean_ap
        row.delta_recall1 = scores.recall[1] - baseline_scores.recall[1]
        row.neighbour_flips = float((scores.nearest != baseline_scores.nearest).mean())
        if row.delta_recall1 < -gates.max_recall_drop:
            row.fail("parity", f"recall@1 fell by {-row.delta_recall1:.4f}, allowed {gates.max_recall_drop:g}")
    if not row.cosine_min >= gates.min_cosine:
        row.fail("parity", f"cosine fell to {row.cosine_min:.6f}, allowed {gates.min_cosine:g}")
