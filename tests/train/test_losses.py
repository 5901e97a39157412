"""The loss against a literal double loop in float64: value and gradient, across the ring's wrap, label 0 present."""

from __future__ import annotations

from collections import deque

import numpy as np
import paddle
import pytest

from edgerecall.runtimes.errors import InputError
from edgerecall.train.losses import ContrastiveLoss, XbmContrastiveLoss

MARGIN, DIM, BATCH, SIZE = 0.3, 6, 8, 20


def pair_terms(x, labels, keys, key_labels, own):  # type: ignore[no-untyped-def]
    """Loss and its gradient by the normalised queries and by the keys, one pair at a time."""
    loss, by_query, by_key = 0.0, np.zeros_like(x), np.zeros_like(keys)
    for i in range(len(x)):
        for j in range(len(keys)):
            if j == own[i]:
                continue
            similarity = float(x[i] @ keys[j])
            if labels[i] == key_labels[j]:
                loss += 1 - similarity
                by_query[i] -= keys[j]
                by_key[j] -= x[i]
            elif similarity > MARGIN:
                loss += similarity
                by_query[i] += keys[j]
                by_key[j] += x[i]
    return loss / len(x), by_query / len(x), by_key / len(x)


def through_norm(raw, gradient):  # type: ignore[no-untyped-def]
    """The gradient by the raw features from the one by the normalised features."""
    out = np.zeros_like(raw)
    for i in range(len(raw)):
        norm = np.sqrt((raw[i] ** 2).sum())
        unit = raw[i] / norm
        out[i] = (gradient[i] - unit * (unit @ gradient[i])) / norm
    return out


def test_equals_the_double_loop_over_the_wrap() -> None:
    rng = np.random.default_rng(3)
    loss = XbmContrastiveLoss(SIZE, DIM, MARGIN, xbm_weight=0.7, start_iter=2)
    memory: deque[tuple[np.ndarray, int, int]] = deque(maxlen=SIZE)
    serial = 0
    for step in range(9):  # 7 batches of 8 through a memory of 20: two wraps, both in mid-batch
        raw, labels = rng.standard_normal((BATCH, DIM)), rng.integers(0, 3, BATCH)
        raw[1], labels[1] = raw[0], labels[0]  # an exact duplicate is another sample and stays a pair
        labels[-1] = 0
        tensor = paddle.to_tensor(raw.astype(np.float32), stop_gradient=False)
        value = loss(tensor, paddle.to_tensor(labels.reshape(-1, 1)))
        value.backward()

        raw = raw.astype(np.float32).astype(np.float64)
        unit = raw / np.sqrt((raw**2).sum(axis=1, keepdims=True))
        expected, by_query, by_key = pair_terms(unit, labels, unit, labels, range(BATCH))
        gradient = by_query + by_key
        if step >= 2:
            ids = list(range(serial, serial + BATCH))
            memory.extend(zip(unit, labels, ids, strict=True))
            serial += BATCH
            keys = np.stack([entry[0] for entry in memory])
            own = [next(k for k, entry in enumerate(memory) if entry[2] == i) for i in ids]
            more, by_query, _ = pair_terms(unit, labels, keys, [entry[1] for entry in memory], own)
            expected += 0.7 * more
            gradient = gradient + 0.7 * by_query  # the memory itself gets no gradient
        assert float(value) == pytest.approx(expected, rel=1e-5)
        np.testing.assert_allclose(tensor.grad.numpy(), through_norm(raw, gradient), rtol=1e-5, atol=1e-5)


def test_batch_loss_takes_labels_of_either_shape() -> None:
    feats = paddle.randn([6, 4])
    labels = paddle.to_tensor([0, 0, 1, 1, 2, 2])
    loss = ContrastiveLoss(0.5)
    assert float(loss(feats, labels)) == float(loss(feats, labels.reshape([-1, 1])))


def test_hand_placed_points() -> None:
    feats = paddle.to_tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    labels = paddle.to_tensor([0, 0, 1])
    # positives 0-1 both ways: 1 + 1; negatives 0-2 at 0.6 and 1-2 at 0.8, both ways, above 0.5.
    assert float(ContrastiveLoss(0.5)(feats, labels)) == pytest.approx((2 + 2 * 0.6 + 2 * 0.8) / 3, rel=1e-6)
    assert float(ContrastiveLoss(0.7)(feats, labels)) == pytest.approx((2 + 2 * 0.8) / 3, rel=1e-6)


def test_batch_larger_than_memory_is_refused() -> None:
    with pytest.raises(InputError, match="does not fit"):
        XbmContrastiveLoss(4, 2, 0.5)(paddle.randn([5, 2]), paddle.zeros([5], dtype="int64"))
