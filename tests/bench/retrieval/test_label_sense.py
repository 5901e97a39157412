"""Wrong labels by name, on embeddings with classes of known spread; and sound ones left in peace."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgerecall.bench.retrieval.label_sense import best_run, label_warnings
from edgerecall.bench.retrieval.metrics import retrieval_scores


class Listed:
    """Images of classes of 2 to 12, in the order of their classes, embedded with this noise."""

    def __init__(self, seed: int, classes: int = 60, noise: float = 0.8, named: bool = False) -> None:
        rng = np.random.default_rng(seed)
        sizes = rng.integers(2, 13, classes)
        self.labels = np.repeat(np.arange(classes), sizes)
        centres = rng.standard_normal((classes, 32)) / np.sqrt(32)
        rows = centres[self.labels] + noise * rng.standard_normal((len(self.labels), 32)) / np.sqrt(32)
        self.embeddings = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        names = [f"{label:05d}_{place}" for label, size in enumerate(sizes) for place in range(size)]
        plain = [f"IMG_{place}" for place in range(len(self.labels))]
        self.paths = [Path("data") / f"{name}.jpg" for name in (names if named else plain)]
        self.digests = [hashlib.sha256(name.encode()).digest() for name in plain]
        self.nearest = retrieval_scores(self.embeddings, self.labels, ks=(1,)).nearest

    def recall(self, labels: NDArray[np.int64]) -> float:
        return float((labels == labels[self.nearest]).mean())

    def warnings(self, labels: NDArray[np.int64] | None = None) -> list[str]:
        chosen = self.labels if labels is None else labels
        return label_warnings(self.paths, chosen, self.nearest, self.embeddings, self.digests)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("noise", [0.2, 0.6, 0.9, 1.1, 1.6, 3.0])
def test_sound_labels_are_left_in_peace(noise: float, named: bool) -> None:
    told = [warning for seed in range(25) for warning in Listed(seed, noise=noise, named=named).warnings()]
    assert told == []


@pytest.mark.parametrize("shift", [-3, -1, 1, 2])
@pytest.mark.parametrize("noise", [0.3, 0.9])
def test_a_shifted_list_by_its_neighbours(noise: float, shift: int) -> None:
    for seed in range(5):
        listed = Listed(seed, noise=noise)
        wrong = np.roll(listed.labels, shift)
        assert listed.recall(wrong) < listed.recall(listed.labels) - 0.05
        (told,) = listed.warnings(wrong)
        lines = f"{abs(shift)} line{'s' * (abs(shift) > 1)} {'up' if shift > 0 else 'down'}"
        assert f"moved by {lines} (recall@1" in told and "data/IMG_" in told


def test_a_line_missing_halfway() -> None:
    for seed in range(5):
        listed = Listed(seed, noise=0.3)
        half = len(listed.labels) // 2
        wrong = np.concatenate([listed.labels[:half], np.roll(listed.labels[half:], 1)])
        (told,) = listed.warnings(wrong)
        begin = int(told.split()[1])
        assert abs(begin - half) < 15 and "moved by 1 line up" in told


@pytest.mark.parametrize("shift", [-2, 1, 3])
def test_a_shifted_list_by_its_names(shift: int) -> None:
    """Even of a network that tells nothing."""
    listed = Listed(1, noise=20.0, named=True)
    told = listed.warnings(np.roll(listed.labels, shift))
    assert f"labels change {abs(shift)} line" in told[0] and ("after" if shift > 0 else "before") in told[0]


def test_names_that_say_nothing_of_classes() -> None:
    """Every image in a folder of its own, or classes over several folders."""
    listed = Listed(2)
    listed.paths = [Path(f"{index:04d}") / "front.jpg" for index in range(len(listed.labels))]
    assert listed.warnings() == []
    listed.paths = [Path(f"shelf{index // 20}") / f"{index}.jpg" for index in range(len(listed.labels))]
    assert listed.warnings() == []


def test_the_same_content() -> None:
    listed = Listed(3)
    listed.digests[5], listed.digests[40] = listed.digests[4], listed.digests[6]
    assert listed.labels[5] == listed.labels[4] and listed.labels[40] != listed.labels[6]
    alike, unlike = listed.warnings()
    assert alike.startswith("2 of ") and "data/IMG_4.jpg and data/IMG_5.jpg: each finds its copy" in alike
    assert "data/IMG_6.jpg (0) and data/IMG_40.jpg" in unlike and "different labels" in unlike
    missing = hashlib.sha256(b"").digest()
    listed.digests = [missing] * len(listed.paths)
    assert listed.warnings() == []


@pytest.mark.parametrize("share", [0.3, 0.6, 1.0])
def test_labels_that_the_neighbourhoods_deny(share: float) -> None:
    for seed in range(5):
        listed, rng = Listed(seed, classes=150, noise=0.3), np.random.default_rng(seed)
        chosen = np.flatnonzero(rng.random(len(listed.labels)) < share)
        wrong = listed.labels.copy()
        wrong[chosen] = rng.permutation(wrong[chosen])
        (told,) = listed.warnings(wrong)
        assert "that the embedding is sure of" in told and "are the labels right" in told


def test_few_images_say_nothing() -> None:
    listed = Listed(4, classes=2)
    assert listed.warnings(np.roll(listed.labels, 1)) == []


def test_the_run_with_the_largest_sum() -> None:
    assert best_run(np.array([-1, 2, -1, 3, -5, 1])) == (1, 4)
    assert best_run(np.array([-1, -1])) == (0, 0)
