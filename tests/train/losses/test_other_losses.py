"""Losses of logits, centres and raw distances, and the class heads, against literal loops in float64; their gradients
against central differences.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import paddle
import pytest

from edgerecall.runtimes.core.errors import InputError
from edgerecall.train.config.arch import ArchSection
from edgerecall.train.config.loss import LossSection
from edgerecall.train.heads import build_head
from edgerecall.train.losses.other_losses import Center, CrossEntropy, HardTriplet
from edgerecall.train.losses.train_loss import Outputs, TrainLoss

pytestmark = pytest.mark.cpu_sensitive
DIM, CLASSES, BATCH = 5, 4, 8
LABELS = np.array([0, 0, 1, 1, 2, 2, 3, 0])
ARC = {"name": "ArcMargin", "margin": 0.5, "scale": 16.0}
HEADS: dict[str, dict[str, Any]] = {
    "fc": {"name": "FC"},
    "arc": ARC,
    "arc easy": {**ARC, "easy_margin": True},
    "cos": {"name": "CosMargin", "margin": 0.3, "scale": 16.0},
    "circle": {"name": "CircleMargin", "margin": 0.25, "scale": 8.0},
    "ada": {"name": "AdaMargin", "m": 0.4, "h": 0.333, "s": 16.0},
}


def head_of(options: dict[str, Any]) -> Any:
    paddle.seed(3)
    full = {**options, "embedding_size": DIM, "class_num": CLASSES}
    arch = ArchSection.model_validate({"name": "RecModel", "Backbone": {"name": "ResNet50"}, "Head": full})
    assert arch.Head is not None
    return build_head(arch.Head)


def literal_logits(options: dict[str, Any], x: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """One number at a time, from the papers."""
    name = options["name"]
    out = np.zeros((len(x), CLASSES))
    lengths = np.sqrt((x**2).sum(axis=1))
    mean, spread = lengths.mean(), lengths.std(ddof=1)
    for i, row in enumerate(x):
        for j in range(CLASSES):
            own = LABELS[i] == j
            if name == "FC":
                out[i, j] = row @ weight[:, j] + bias[j]
                continue
            cosine = row @ weight[:, j] / math.sqrt(row @ row) / math.sqrt(weight[:, j] @ weight[:, j])
            if name == "ArcMargin":
                angle, limit = (
                    math.acos(min(max(cosine, -1), 1)),
                    0.0 if options.get("easy_margin") else -math.cos(options["margin"]),
                )
                if own and cosine > limit:
                    cosine = math.cos(angle + options["margin"])
                elif own and not options.get("easy_margin"):
                    cosine -= math.sin(options["margin"]) * options["margin"]
                out[i, j] = options["scale"] * cosine
            elif name == "CosMargin":
                out[i, j] = options["scale"] * (cosine - (options["margin"] if own else 0))
            elif name == "CircleMargin":
                m = options["margin"]
                factor = max(1 + m - cosine, 0) if own else max(cosine + m, 0)
                out[i, j] = options["scale"] * factor * (cosine - (1 - m if own else m))
            else:
                quality = min(max((lengths[i] - mean) / (spread + 1e-3) * options["h"], -1), 1)
                if own:
                    m = options["m"]
                    cosine = math.cos(math.acos(cosine) - m * quality) - (m + m * quality)
                out[i, j] = options["s"] * cosine
    return out


@pytest.mark.parametrize("name", HEADS)
def test_logits_of_every_head(name: str) -> None:
    head, rng = head_of(HEADS[name]), np.random.default_rng(1)
    x = 3 * rng.standard_normal((BATCH, DIM)).astype(np.float32)
    state = {key: value.numpy().astype(np.float64) for key, value in head.state_dict().items()}
    weight = next(value for value in state.values() if value.shape == (DIM, CLASSES))
    if name.startswith("arc"):  # one query of each branch: beyond pi less the margin, and near its class
        x[0], x[1] = -weight[:, 0], weight[:, 0]
    expected = literal_logits(HEADS[name], x.astype(np.float64), weight, state.get("fc.bias", np.zeros(CLASSES)))
    found = head(paddle.to_tensor(x), paddle.to_tensor(LABELS)).numpy()
    # The sine of ArcMargin has 1e-6 under its root, which shows where it is near zero.
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=0.02 if name.startswith("arc") else 1e-4)
    np.testing.assert_allclose(found[2:], expected[2:], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("smoothing", [None, 0.1])
def test_cross_entropy(smoothing: float | None) -> None:
    logits = np.random.default_rng(2).standard_normal((BATCH, CLASSES))
    share = smoothing or 0.0
    expected = 0.0
    for row, label in zip(logits, LABELS, strict=True):
        logs = row - math.log(sum(math.exp(v) for v in row))
        target = [(1 - share) * (j == label) + share / CLASSES for j in range(CLASSES)]
        expected -= sum(t * v for t, v in zip(target, logs, strict=True)) / BATCH
    found = CrossEntropy(smoothing)(paddle.to_tensor(logits.astype(np.float32)), paddle.to_tensor(LABELS))
    assert float(found) == pytest.approx(expected, rel=1e-5)


def literal_triplet(x: np.ndarray, normalize: bool) -> float:
    if normalize:
        x = x / np.sqrt((x**2).sum(axis=1, keepdims=True))
    loss = 0.0
    for i in range(len(x)):
        distances = [math.sqrt(((x[i] - x[j]) ** 2).sum()) for j in range(len(x))]
        same = max(d for d, label in zip(distances, LABELS, strict=True) if label == LABELS[i])
        other = min(d for d, label in zip(distances, LABELS, strict=True) if label != LABELS[i])
        loss += max(same - other + 0.3, 0) / len(x)
    return loss


@pytest.mark.parametrize("normalize", [False, True])
def test_hard_triplets(normalize: bool) -> None:
    x = np.random.default_rng(4).standard_normal((BATCH, DIM))
    loss = HardTriplet(0.3, normalize)
    check(lambda v: literal_triplet(v, normalize), lambda t: loss(t, paddle.to_tensor(LABELS)), x)
    alone = paddle.zeros([3], dtype="int64")
    assert float(loss(paddle.randn([3, DIM]), alone)) == 0.0  # no other class


def test_centers() -> None:
    loss = Center(CLASSES, DIM)
    centers = loss.centers.numpy().astype(np.float64)
    x = np.random.default_rng(5).standard_normal((BATCH, DIM))
    check(
        lambda v: sum(((row - centers[label]) ** 2).sum() for row, label in zip(v, LABELS, strict=True)) / BATCH,
        lambda t: loss(t, paddle.to_tensor(LABELS)),
        x,
    )


def check(literal: Callable[[np.ndarray], float], ours: Callable[[paddle.Tensor], Any], x: np.ndarray) -> None:
    """Value, and the gradient against central differences of the literal one."""
    x = x.astype(np.float32).astype(np.float64)
    tensor = paddle.to_tensor(x.astype(np.float32), stop_gradient=False)
    value = ours(tensor)
    value.backward()
    assert float(value) == pytest.approx(literal(x), rel=1e-5)
    slopes = np.zeros_like(x)
    for place in np.ndindex(*x.shape):
        moved = [x.copy(), x.copy()]
        moved[0][place] += 1e-6
        moved[1][place] -= 1e-6
        slopes[place] = (literal(moved[0]) - literal(moved[1])) / 2e-6
    np.testing.assert_allclose(tensor.grad.numpy(), slopes, rtol=1e-3, atol=1e-5)


SUM = [
    {"CELoss": {"weight": 2.0, "epsilon": 0.1}},
    {"TripletLossV2": {"weight": 0.5, "feature_from": "backbone", "normalize_feature": False}},
    {"ContrastiveLoss_XBM": {"weight": 0.25, "xbm_size": 16, "embedding_size": DIM}},
    {"CenterLoss": {"weight": 0.125, "num_classes": CLASSES, "feat_dim": DIM}},
]


def test_the_weighted_sum_with_a_memory_and_its_checkpoint() -> None:
    section = LossSection.model_validate({"Train": SUM})
    loss, again = (TrainLoss(section, 7, DIM, CLASSES, 100) for _ in range(2))
    rng = np.random.default_rng(6)
    tensors = [paddle.to_tensor(rng.standard_normal((BATCH, n)).astype(np.float32)) for n in (7, DIM, CLASSES)]
    labels = paddle.to_tensor(LABELS)
    total = float(loss(Outputs(*tensors), labels))
    values = loss.named_values()
    assert list(values) == ["CELoss", "TripletLossV2", "ContrastiveLoss_XBM", "CenterLoss"]
    weights = [next(iter(entry.values()))["weight"] for entry in SUM]
    assert total == pytest.approx(sum(w * v for w, v in zip(weights, values.values(), strict=True)), rel=1e-6)
    once = TrainLoss(section, 7, DIM, CLASSES, 100)
    once.parts[3].centers.set_value(loss.parts[3].centers)
    leaves = [tensor.detach() for tensor in tensors]
    for leaf in leaves:
        leaf.stop_gradient = False
    once(Outputs(*leaves), labels).backward()
    expected = [np.zeros(tensor.shape, np.float32) for tensor in tensors]
    for place, width, weight in ((2, 7, 2.0), (0, 7, 0.5), (1, 7, 0.25), (1, 7, 0.125)):
        index = {2.0: 0, 0.5: 1, 0.25: 2, 0.125: 3}[weight]
        alone = TrainLoss(LossSection.model_validate({"Train": [SUM[index]]}), width, DIM, CLASSES, 100)
        if index == 3:
            alone.parts[0].centers.set_value(loss.parts[3].centers)
        parts = [tensor.detach() for tensor in tensors]
        parts[place].stop_gradient = False
        alone(Outputs(*parts), labels).backward()
        expected[place] += parts[place].grad.numpy()  # its own weight included
    for leaf, sum_of_parts in zip(leaves, expected, strict=True):
        np.testing.assert_allclose(leaf.grad.numpy(), sum_of_parts, rtol=1e-5, atol=1e-6)
    assert values["TripletLossV2"] == pytest.approx(float(HardTriplet(0.5, False)(tensors[0], labels)))
    state = loss.state()
    assert {"2.xbm.feats", "2.xbm.targets", "2.xbm.state", "3.centers"} == set(state)
    again.load({name: value.numpy() for name, value in state.items()}, "here")
    assert again.xbm is not None and again.xbm.fill == BATCH
    assert float(again(Outputs(*tensors), labels)) == pytest.approx(float(loss(Outputs(*tensors), labels)), rel=1e-6)
    assert [name for name, _ in loss.named_weights()] == ["3.centers"]
    with pytest.raises(InputError, match=r"expected centers \(4, 5\), found None"):
        again.load({name: v.numpy() for name, v in state.items() if "centers" not in name}, "here")


@pytest.mark.parametrize(
    ("losses", "message"),
    [
        ([SUM[0]], "CELoss: needs logits"),
        ([{"CenterLoss": {"num_classes": 4, "feat_dim": 9}}], "feat_dim 9, but 5 dimensions"),
        ([{"SupConLoss": {"embedding_size": 6}}], "embedding_size 6, but 5 dimensions"),
    ],
)
def test_losses_that_do_not_fit(losses: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainLoss(LossSection.model_validate({"Train": losses}), 7, DIM, None, 100)
