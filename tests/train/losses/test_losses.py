"""The losses against literal loops over pairs and triplets in float64: value and gradient, across the ring's wrap."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import paddle
import pytest
from pydantic import ValidationError

from edgerecall.runtimes.core.errors import InputError
from edgerecall.train.config.loss import ContrastiveMemoryOptions
from edgerecall.train.losses.embedding_loss import EmbeddingLoss
from edgerecall.train.losses.memory import CrossBatchMemory
from edgerecall.train.losses.memory import matched as moments_matched
from edgerecall.train.losses.mined_losses import PairwiseCosface, SupervisedContrastive, TripletAngularMargin
from edgerecall.train.losses.pair_losses import (
    CHUNK,
    Contrastive,
    MultiSimilarity,
    PairLoss,
    TripletMargin,
    keys_at_a_time,
)
from edgerecall.train.losses.recall_surrogate import RecallSurrogate

pytestmark = pytest.mark.cpu_sensitive

MARGIN, DIM, BATCH, SIZE = 0.3, 6, 8, 20
Row = tuple[list[float], list[float]]  # the similarities' derivative, of one query


def contrastive_row(similarities: Sequence[float], positive: Sequence[bool], negative: Sequence[bool]):  # type: ignore[no-untyped-def]
    loss, slope = 0.0, [0.0] * len(similarities)
    for j, s in enumerate(similarities):
        if positive[j]:
            loss, slope[j] = loss + 1 - s, -1.0
        elif negative[j] and s > MARGIN:
            loss, slope[j] = loss + s, 1.0
    return loss, slope


def triplet_row(similarities: Sequence[float], positive: Sequence[bool], negative: Sequence[bool]):  # type: ignore[no-untyped-def]
    loss, slope, count = 0.0, [0.0] * len(similarities), 0
    for p, s_p in enumerate(similarities):
        for n, s_n in enumerate(similarities):
            if positive[p] and negative[n] and s_n - s_p + MARGIN > 0:
                loss, count = loss + s_n - s_p + MARGIN, count + 1
                slope[p] -= 1
                slope[n] += 1
    return loss / max(count, 1), [value / max(count, 1) for value in slope]


def similarity_row(similarities: Sequence[float], positive: Sequence[bool], negative: Sequence[bool]):  # type: ignore[no-untyped-def]
    alpha, beta, base, mining = 2.0, 50.0, 0.5, 0.1
    slope = [0.0] * len(similarities)
    positives = [s for s, wanted in zip(similarities, positive, strict=True) if wanted]
    negatives = [s for s, wanted in zip(similarities, negative, strict=True) if wanted]
    if not positives or not negatives:
        return 0.0, slope
    hard = [j for j, s in enumerate(similarities) if negative[j] and s > min(positives) - mining]
    easy = [j for j, s in enumerate(similarities) if positive[j] and s < max(negatives) + mining]
    if not hard or not easy:
        return 0.0, slope
    below = 1 + sum(math.exp(-alpha * (similarities[j] - base)) for j in easy)
    above = 1 + sum(math.exp(beta * (similarities[j] - base)) for j in hard)
    for j in easy:
        slope[j] = -math.exp(-alpha * (similarities[j] - base)) / below
    for j in hard:
        slope[j] = math.exp(beta * (similarities[j] - base)) / above
    return math.log(below) / alpha + math.log(above) / beta, slope


def angular_row(similarities: Sequence[float], positive: Sequence[bool], negative: Sequence[bool]):  # type: ignore[no-untyped-def]
    slope = [0.0] * len(similarities)
    if not any(positive) or not any(negative):
        return 0.0, slope
    least = min(s for s, wanted in zip(similarities, positive, strict=True) if wanted)
    most = max(s for s, wanted in zip(similarities, negative, strict=True) if wanted)
    loss, by_least, by_most = 0.0, 0.0, 0.0
    if most - least + MARGIN > 0:
        loss, by_least, by_most = most - least + MARGIN, -1.0, 1.0
    if least < 0.8:
        loss, by_least = loss + 0.1 * (0.8 - least), by_least - 0.1
    if most > 0.4:
        loss, by_most = loss + 0.1 * (most - 0.4), by_most + 0.1
    for mask, extreme, value in ((positive, least, by_least), (negative, most, by_most)):
        tied = [j for j, s in enumerate(similarities) if mask[j] and s == extreme]  # which share the derivative
        for j in tied:
            slope[j] += value / len(tied)
    return loss, slope


def supcon_row(similarities: Sequence[float], positive: Sequence[bool], negative: Sequence[bool]):  # type: ignore[no-untyped-def]
    temperature, base = 0.2, 0.1
    slope, count = [0.0] * len(similarities), sum(positive)
    if not count:
        return 0.0, slope
    others = [j for j in range(len(similarities)) if positive[j] or negative[j]]
    total = sum(math.exp(similarities[j] / temperature) for j in others)
    loss = 0.0
    for j in others:
        share = math.exp(similarities[j] / temperature) / total
        loss -= positive[j] * math.log(share) / count
        slope[j] = (share - positive[j] / count) / temperature
    return loss * temperature / base, [value * temperature / base for value in slope]


def cosface_row(similarities: Sequence[float], positive: Sequence[bool], negative: Sequence[bool]):  # type: ignore[no-untyped-def]
    gamma, slope = 8.0, [0.0] * len(similarities)
    if not any(positive) or not any(negative):
        return 0.0, slope
    near = {j: math.exp(-gamma * s) for j, s in enumerate(similarities) if positive[j]}
    far = {j: math.exp(gamma * (s + MARGIN)) for j, s in enumerate(similarities) if negative[j]}
    product = sum(near.values()) * sum(far.values())
    for j, term in near.items():
        slope[j] = -gamma * term / sum(near.values()) * product / (1 + product)
    for j, term in far.items():
        slope[j] = gamma * term / sum(far.values()) * product / (1 + product)
    return math.log(1 + product), slope


def recall_row(similarities: Sequence[float], positive: Sequence[bool], negative: Sequence[bool]):  # type: ignore[no-untyped-def]
    ks, temperature, rank_temperature = (1, 3), 0.1, 0.7
    slope, count = [0.0] * len(similarities), sum(positive)
    if not count:
        return 0.0, slope
    loss = 1.0
    for p in (j for j, wanted in enumerate(positive) if wanted):
        others = [j for j in range(len(similarities)) if (positive[j] or negative[j]) and j != p]
        ahead = {j: 1 / (1 + math.exp(-(similarities[j] - similarities[p]) / temperature)) for j in others}
        for k in ks:
            among = 1 / (1 + math.exp(-(k - 1 - sum(ahead.values())) / rank_temperature))
            loss -= among / count / len(ks)
            outer = among * (1 - among) / rank_temperature / count / len(ks)
            for j, share in ahead.items():
                inner = share * (1 - share) / temperature
                slope[j] += outer * inner
                slope[p] -= outer * inner
    return loss, slope


LOSSES: dict[str, tuple[Callable[[float | None], PairLoss], Callable[..., tuple[float, list[float]]]]] = {
    "contrastive": (lambda epsilon: Contrastive(MARGIN, epsilon), contrastive_row),
    "triplet": (lambda epsilon: TripletMargin(MARGIN, epsilon), triplet_row),
    "multi-similarity": (lambda epsilon: MultiSimilarity(2.0, 50.0, 0.5, 0.1, epsilon), similarity_row),
    "triplet-angular": (lambda epsilon: TripletAngularMargin(MARGIN, (0.1, 0.8, 0.4), epsilon), angular_row),
    "supervised-contrastive": (lambda epsilon: SupervisedContrastive(0.2, 0.1, epsilon), supcon_row),
    "pairwise-cosface": (lambda epsilon: PairwiseCosface(MARGIN, 8.0, epsilon), cosface_row),
    "recall-surrogate": (lambda epsilon: RecallSurrogate((1, 3), 0.1, 0.7, epsilon), recall_row),
}


def literal(row, x, labels, keys, key_labels, own, epsilon=None):  # type: ignore[no-untyped-def]
    """Loss and its gradient by the queries and by the keys, one pair at a time."""
    loss, by_query, by_key = 0.0, np.zeros_like(x), np.zeros_like(keys)
    for i in range(len(x)):
        s = [float(x[i] @ key) for key in keys]
        itself = [j == own[i] if epsilon is None else s[j] >= 1 - epsilon for j in range(len(keys))]
        positive = [labels[i] == key_labels[j] and not itself[j] for j in range(len(keys))]
        negative = [labels[i] != key_labels[j] for j in range(len(keys))]
        value, slope = row(s, positive, negative)
        loss += value
        for j in range(len(keys)):
            by_query[i] += slope[j] * keys[j]
            by_key[j] += slope[j] * x[i]
    return loss / len(x), by_query / len(x), by_key / len(x)


def through_norm(raw, gradient):  # type: ignore[no-untyped-def]
    """The gradient by the raw features from the one by the normalised features."""
    out = np.zeros_like(raw)
    for i in range(len(raw)):
        norm = np.sqrt((raw[i] ** 2).sum())
        unit = raw[i] / norm
        out[i] = (gradient[i] - unit * (unit @ gradient[i])) / norm
    return out


def normalised(rows):  # type: ignore[no-untyped-def]
    return rows / np.sqrt((rows**2).sum(axis=1, keepdims=True))


def make(name: str, epsilon: float | None = None, **options: Any) -> EmbeddingLoss:
    return EmbeddingLoss(LOSSES[name][0](epsilon), True, CrossBatchMemory(SIZE, DIM), **options)


def matched(keys: np.ndarray, batch: np.ndarray) -> np.ndarray:
    """Keys with the batch's mean and standard deviation in each dimension, of length 1."""
    out = np.zeros_like(keys)
    for d in range(keys.shape[1]):
        spread = np.sqrt(((keys[:, d] - keys[:, d].mean()) ** 2).mean()) + 1e-6
        wanted = np.sqrt(((batch[:, d] - batch[:, d].mean()) ** 2).mean())
        out[:, d] = (keys[:, d] - keys[:, d].mean()) / spread * wanted + batch[:, d].mean()
    return out / np.sqrt((out**2).sum(axis=1, keepdims=True))


@pytest.mark.parametrize(
    ("epsilon", "xbn", "prefixes"),
    [(None, False, ()), (1e-3, False, ()), (None, True, ()), (None, False, (2, 3)), (None, True, (3,))],
)
@pytest.mark.parametrize("name", LOSSES)
def test_equals_the_literal_loops_over_the_wrap(
    name: str, epsilon: float | None, xbn: bool, prefixes: tuple[int, ...]
) -> None:
    rng = np.random.default_rng(3)
    loss = make(name, epsilon, xbm_weight=0.7, start_iter=2, match_moments=xbn, prefixes=prefixes)
    row = LOSSES[name][1]
    memory: deque[tuple[np.ndarray, int, int]] = deque(maxlen=SIZE)
    serial = 0
    for step in range(14):  # 12 batches of 8 through a memory of 20: wraps, also in mid-batch
        raw, labels = rng.standard_normal((BATCH, DIM)), rng.integers(0, 3, BATCH)
        raw[1], labels[1] = raw[0], labels[0]  # an exact duplicate is another sample
        if step == 5:
            labels[:] = 1  # a batch without negatives
        labels[-1] = 0
        tensor = paddle.to_tensor(raw.astype(np.float32), stop_gradient=False)
        value = loss(tensor, paddle.to_tensor(labels.reshape(-1, 1)))
        value.backward()

        raw = raw.astype(np.float32).astype(np.float64)
        ids = list(range(serial, serial + BATCH))
        if step >= 2:
            memory.extend(zip(raw, labels, ids, strict=True))
            serial += BATCH
        expected, wanted, sizes = 0.0, np.zeros_like(raw), (DIM, *prefixes)
        for size in sizes:
            unit = normalised(raw[:, :size])
            part, by_query, by_key = literal(row, unit, labels, unit, labels, range(BATCH), epsilon)
            gradient = by_query + by_key
            if step >= 2:
                keys = normalised(np.stack([entry[0][:size] for entry in memory]))
                keys = matched(keys, unit) if xbn else keys
                own = [next(k for k, entry in enumerate(memory) if entry[2] == i) for i in ids]
                more, by_query, _ = literal(row, unit, labels, keys, [entry[1] for entry in memory], own, epsilon)
                part += 0.7 * more
                gradient = gradient + 0.7 * by_query  # the memory itself gets no gradient
            expected += part / len(sizes)
            wanted[:, :size] += through_norm(raw[:, :size], gradient) / len(sizes)
        assert float(value) == pytest.approx(expected, rel=1e-5, abs=1e-6)
        np.testing.assert_allclose(tensor.grad.numpy(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", LOSSES)
def test_autograd_of_the_value_agrees(name: str) -> None:
    """Central differences, in case literal loops and code share a mistake in the derivative."""
    rng = np.random.default_rng(1)
    labels = np.array([0, 0, 1, 1, 2, 2, 2, 3])
    queries, keys = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in rng.standard_normal((2, 8, 5)))
    row, step = LOSSES[name][1], 1e-6
    _, by_query, _ = literal(row, queries, labels, keys, labels, range(8))
    for i, d in ((0, 1), (5, 3), (7, 0)):
        up, down = queries.copy(), queries.copy()
        up[i, d] += step
        down[i, d] -= step
        values = [literal(row, x, labels, keys, labels, range(8))[0] for x in (up, down)]
        assert by_query[i, d] == pytest.approx((values[0] - values[1]) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("epsilon", [None, 1e-3])
def test_the_chunked_contrastive_equals_the_dense_one(epsilon: float | None) -> None:
    rng = np.random.default_rng(5)
    count = 2 * CHUNK + 17
    keys = rng.standard_normal((count, DIM)).astype(np.float32)
    keys /= np.linalg.norm(keys, axis=1, keepdims=True)
    labels = rng.integers(-2, 40, count)
    own = rng.permutation(count)[:BATCH]
    arguments = [paddle.to_tensor(x) for x in (keys[own], labels[own], keys, labels, own)]
    loss = Contrastive(MARGIN, epsilon)
    fast, slow = loss.memory(*arguments), PairLoss.memory(loss, *arguments)
    assert float(fast[0]) == pytest.approx(float(slow[0]), rel=1e-5)
    np.testing.assert_allclose(fast[1].numpy(), slow[1].numpy(), rtol=1e-4, atol=1e-4)


def test_on_a_gpu_few_pieces() -> None:
    assert keys_at_a_time(64, on_gpu=False) == CHUNK
    assert keys_at_a_time(64, on_gpu=True) == 2**21 and keys_at_a_time(10**6, on_gpu=True) == CHUNK


def test_moments_of_one_embedding_alone() -> None:
    """A memory of one entry has no spread: it becomes the batch's mean."""
    memory = CrossBatchMemory(4, 3)
    memory.enqueue(paddle.to_tensor([[0.0, 1.0, 0.0]]), paddle.to_tensor([5]))
    batch = paddle.to_tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    found = moments_matched(memory.get()[0], batch, True).numpy()
    np.testing.assert_allclose(found, [[0.5**0.5, 0.0, 0.5**0.5]], atol=1e-6)
    np.testing.assert_array_equal(memory.feats.numpy()[0], [0.0, 1.0, 0.0])


@pytest.mark.parametrize("name", LOSSES)
def test_queries_without_positives_or_negatives(name: str) -> None:
    for labels in ([0, 1, 2, 3], [0, 0, 0, 0]):
        feats = paddle.to_tensor(np.eye(4, DIM, dtype=np.float32) + 0.1, stop_gradient=False)
        loss = make(name)(feats, paddle.to_tensor(labels))
        loss.backward()
        assert np.isfinite(float(loss)) and np.isfinite(feats.grad.numpy()).all()


def test_batch_loss_takes_labels_of_either_shape() -> None:
    feats = paddle.randn([6, 4])
    labels = paddle.to_tensor([0, 0, 1, 1, 2, 2])
    loss = EmbeddingLoss(Contrastive(0.5))
    assert float(loss(feats, labels)) == float(loss(feats, labels.reshape([-1, 1])))


def test_hand_placed_points() -> None:
    feats = paddle.to_tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    labels = paddle.to_tensor([0, 0, 1])
    # positives 0-1 both ways: 1 + 1; negatives 0-2 at 0.6 and 1-2 at 0.8, both ways, above 0.5.
    assert float(EmbeddingLoss(Contrastive(0.5))(feats, labels)) == pytest.approx((2 + 2 * 0.6 + 2 * 0.8) / 3, rel=1e-6)
    assert float(EmbeddingLoss(Contrastive(0.7))(feats, labels)) == pytest.approx((2 + 2 * 0.8) / 3, rel=1e-6)


def test_half_precision_features_are_compared_in_float32() -> None:
    feats = paddle.randn([8, DIM]).astype("bfloat16")
    labels = paddle.to_tensor([0, 0, 1, 1, 2, 2, 3, 3])
    exact, given = make("contrastive"), make("contrastive")
    assert float(given(feats, labels)) == float(exact(feats.astype("float32"), labels))
    assert (exact.xbm.feats.numpy() == given.xbm.feats.numpy()).all()  # type: ignore[union-attr]


def test_batch_larger_than_memory_is_refused() -> None:
    with pytest.raises(InputError, match="does not fit"):
        EmbeddingLoss(Contrastive(0.5), True, CrossBatchMemory(4, 2))(paddle.randn([5, 2]), paddle.zeros([5], "int64"))


def test_moments_and_epsilon_do_not_go_together() -> None:
    """A query's own entry is moved, and would be taken for a positive."""
    with pytest.raises(ValidationError, match="leave out one"):
        ContrastiveMemoryOptions(xbm_size=8, xbn=True, epsilon=1e-5)
