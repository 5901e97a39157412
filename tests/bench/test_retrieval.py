"""Retrieval metrics against the definitions, written out one query at a time."""

from __future__ import annotations

import numpy as np
import pytest

from edgerecall.bench import retrieval
from edgerecall.bench.retrieval import retrieval_scores
from edgerecall.runtimes.errors import InputError


def literal(q, ql, g, gl, own, qc=None, gc=None):  # type: ignore[no-untyped-def]
    """recall@1, recall@5 and mAP by sorting every query's gallery in plain Python."""
    first, five, aps = [], [], []
    for i in range(len(q)):
        candidates = []
        for j in range(len(g)):
            if own and i == j:
                continue
            if qc is not None and ql[i] == gl[j] and qc[i] == gc[j]:
                continue
            candidates.append((-float(np.dot(q[i], g[j])), j))
        hits = [gl[j] == ql[i] for _, j in sorted(candidates)]
        if not any(hits):
            continue
        first.append(hits[0])
        five.append(any(hits[:5]))
        precisions = [sum(hits[: k + 1]) / (k + 1) for k in range(len(hits)) if hits[k]]
        aps.append(sum(precisions) / len(precisions))
    return np.mean(first), np.mean(five), np.mean(aps)


def unit(count: int, seed: int) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((count, 8)).astype(np.float32)
    x[count // 2] = x[0]  # a tie
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("cells", [1, 5000, 1 << 23])
def test_queries_as_their_own_gallery(cells: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrieval, "BLOCK_CELLS", cells)  # one row at a time, some rows, all rows
    x, labels = unit(300, 0), np.random.default_rng(1).integers(0, 20, 300)
    labels[-1] = 1000  # a class with a single member is not counted
    scores = retrieval_scores(x, labels)
    expected = literal(x, labels, x, labels, own=True)
    assert (scores.recall[1], scores.recall[5], scores.mean_ap) == pytest.approx(expected, abs=1e-9)
    assert scores.queries == 299


def test_separate_gallery_and_cameras() -> None:
    rng = np.random.default_rng(2)
    q, g = unit(60, 3), unit(80, 4)
    ql, gl, qc, gc = (rng.integers(0, 5, n) for n in (60, 80, 60, 80))
    plain = retrieval_scores(q, ql, g, gl)
    assert (plain.recall[1], plain.recall[5], plain.mean_ap) == pytest.approx(literal(q, ql, g, gl, False), abs=1e-9)
    scores = retrieval_scores(q, ql, g, gl, query_cameras=qc, gallery_cameras=gc)
    expected = literal(q, ql, g, gl, False, qc, gc)
    assert (scores.recall[1], scores.recall[5], scores.mean_ap) == pytest.approx(expected, abs=1e-9)


def test_a_self_match_would_be_perfect_and_is_not_counted() -> None:
    x = unit(40, 5)
    labels = np.arange(40) // 2
    assert retrieval_scores(x, labels).recall[1] < 0.5
    assert retrieval_scores(x, labels, x, labels).recall[1] > 0.9


def test_summary_reads_as_the_references() -> None:
    x = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
    line = retrieval_scores(x, np.array([0, 0, 1, 1])).line(0)
    assert line == "[Eval][Epoch 0][Avg]recall1: 1.00000, recall5: 1.00000, mAP: 1.00000"


def test_single_image_classes_only() -> None:
    with pytest.raises(InputError, match="no query has a relevant image"):
        retrieval_scores(unit(3, 6), np.arange(3))
