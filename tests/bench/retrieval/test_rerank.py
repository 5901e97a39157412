"""Re-ranking against the algorithm written out over dense matrices, and metrics against plain retrieval."""

from __future__ import annotations

import numpy as np
import pytest

from edgerecall.bench.retrieval.metrics import retrieval_scores
from edgerecall.bench.retrieval.rerank import K1, K2, SHARE, reranked_distances, reranked_scores
from edgerecall.runtimes.core.errors import InputError

pytestmark = pytest.mark.cpu_sensitive


def clusters(count: int, classes: int, noise: float, seed: int = 0, dim: int = 16):  # type: ignore[no-untyped-def]
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    rows = rng.standard_normal((classes, dim))[labels] + noise * rng.standard_normal((count, dim))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32), labels


def literal(images: np.ndarray, queries: int, k1: int, k2: int, share: float) -> np.ndarray:
    """Every step of the paper over all images, one at a time, in dense float64."""
    x = images.astype(np.float64)
    n = len(x)
    distance = np.array([[max(0.0, 2 - 2 * float(a @ b)) for b in x] for a in x])
    distance = distance / distance.max(axis=1, keepdims=True)
    rank = [sorted(range(n), key=lambda j, i=i: (-1.0 if j == i else distance[i, j], j)) for i in range(n)]  # type: ignore[misc]

    def reciprocal(i: int, k: int) -> list[int]:
        return [j for j in rank[i][: k + 1] if i in rank[j][: k + 1]]

    vectors = np.zeros((n, n))
    for i in range(n):
        base = reciprocal(i, k1)
        members = list(base)
        for j in base:
            other = reciprocal(j, round(k1 / 2))
            if len([m for m in other if m in base]) > 2 / 3 * len(other):
                members += [m for m in other if m not in members]
        total = sum(np.exp(-distance[i, j]) for j in members)
        for j in members:
            vectors[i, j] = np.exp(-distance[i, j]) / total
    expanded = np.array([np.mean([vectors[j] for j in rank[i][:k2]], axis=0) for i in range(n)])
    result = np.zeros((queries, n))
    for i in range(queries):
        for j in range(n):
            jaccard = 1 - np.minimum(expanded[i], expanded[j]).sum() / np.maximum(expanded[i], expanded[j]).sum()
            result[i, j] = (1 - share) * jaccard + share * distance[i, j]
    return result


def ours(queries: np.ndarray, gallery: np.ndarray | None) -> np.ndarray:
    return np.concatenate([rows for _, rows in reranked_distances(queries, gallery)])


def test_equals_the_literal_algorithm_on_300_samples() -> None:
    rows, _ = clusters(300, 40, 0.6)
    np.testing.assert_allclose(ours(rows, None), literal(rows, 300, K1, K2, SHARE), atol=1e-6)


def test_equals_it_with_queries_of_their_own_and_duplicates() -> None:
    rows, _ = clusters(90, 12, 0.5, seed=1)
    rows[40] = rows[3]
    expected = literal(rows, 30, K1, K2, SHARE)[:, 30:]
    np.testing.assert_allclose(ours(rows[:30], rows[30:]), expected, atol=1e-6)


def test_equal_images_go_by_their_index() -> None:
    """BLAS adds the products of equal rows in another order where they lie in another tile, and gives unequal sums."""
    rows, _ = clusters(300, 40, 0.6, seed=3)
    rows = rows[np.random.default_rng(0).integers(0, 60, 300)]  # five of each, all over the list
    np.testing.assert_allclose(ours(rows, None), literal(rows, 300, K1, K2, SHARE), atol=1e-6)


def test_improves_map_on_noisy_clusters() -> None:
    rows, labels = clusters(400, 20, 1.1)
    plain, better = retrieval_scores(rows, labels), reranked_scores(rows, labels)
    assert better.mean_ap > plain.mean_ap + 0.02
    assert better.queries == plain.queries == 400


def test_metrics_are_those_of_plain_retrieval(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the distance itself in place of the re-ranked one, every metric must come out the same."""
    from edgerecall.bench.retrieval import rerank

    rows, labels = clusters(120, 15, 0.9, seed=2)
    cameras = np.arange(120) // 15 % 3

    def plain(queries, gallery, *rest):  # type: ignore[no-untyped-def]
        yield 0, -(queries.astype(np.float64) @ (queries if gallery is None else gallery).astype(np.float64).T)

    monkeypatch.setattr(rerank, "reranked_distances", plain)
    for cameras_given in (None, cameras):
        expected = retrieval_scores(rows, labels, ks=(1, 5, 10), query_cameras=cameras_given)
        found = reranked_scores(rows, labels, ks=(1, 5, 10), query_cameras=cameras_given)
        assert found.recall == pytest.approx(expected.recall)
        assert (found.nearest == expected.nearest).all() and (found.hits == expected.hits).all()
        for name in ("mean_ap", "r_precision", "map_at_r"):
            assert getattr(found, name) == pytest.approx(getattr(expected, name))
    split = (rows[:50], labels[:50], rows[50:], labels[50:], (1, 5), cameras[:50], cameras[50:])
    assert reranked_scores(*split).recall == pytest.approx(retrieval_scores(*split).recall)


def test_embeddings_that_are_not_finite() -> None:
    rows, labels = clusters(40, 4, 0.1)
    rows[7, 2] = np.nan
    with pytest.raises(InputError, match="embedding 7 is not finite"):
        reranked_scores(rows, labels)


def test_too_few_images() -> None:
    rows, labels = clusters(20, 4, 0.1)
    with pytest.raises(InputError, match="more than 20 images"):
        reranked_scores(rows, labels)
