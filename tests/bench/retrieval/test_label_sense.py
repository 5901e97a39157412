"""Wrong labels by name, on embeddings with classes of known spread; and sound ones left in peace."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from edgerecall.bench.retrieval.label_sense import best_run, label_warnings
from edgerecall.bench.retrieval.metrics import retrieval_scores


class Listed:
    """Images of classes of 2 to 12, in the order of their classes, embedded with this noise."""

    def __init__(
        self,
        seed: int,
        classes: int = 60,
        noise: float = 0.8,
        named: bool = False,
        sizes: NDArray[np.int64] | None = None,
    ) -> None:
        rng = np.random.default_rng(seed)
        sizes = rng.integers(2, 13, classes) if sizes is None else sizes
        classes = len(sizes)
        self.labels = np.repeat(np.arange(classes), sizes)
        centres = rng.standard_normal((classes, 32)) / np.sqrt(32)
        rows = centres[self.labels] + noise * rng.standard_normal((len(self.labels), 32)) / np.sqrt(32)
        self.embeddings = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
        names = [f"{label:05d}_{place}" for label, size in enumerate(sizes) for place in range(size)]
        plain = [f"IMG_{place}" for place in range(len(self.labels))]
        self.paths = [Path("data") / f"{name}.jpg" for name in (names if named else plain)]
        self.digests = [hashlib.sha256(name.encode()).digest() for name in plain]

    def recall(self, labels: NDArray[np.int64]) -> float:
        return retrieval_scores(self.embeddings, labels, ks=(1,)).recall[1]

    def warnings(self, labels: NDArray[np.int64] | None = None) -> list[str]:
        chosen = self.labels if labels is None else labels
        return label_warnings(self.paths, chosen, self.embeddings, self.digests)


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("noise", [0.2, 0.6, 0.9, 1.1, 1.6, 3.0])
def test_sound_labels_are_left_in_peace(noise: float, named: bool) -> None:
    told = [warning for seed in range(25) for warning in Listed(seed, noise=noise, named=named).warnings()]
    assert told == []


@pytest.mark.parametrize("shift", [-3, -1, 1, 2])
@pytest.mark.parametrize("noise", [0.3, 0.9])
def test_a_shifted_list_by_its_neighbours(noise: float, shift: int) -> None:
    for seed in range(5):
        listed = Listed(seed, classes=100, noise=noise)
        wrong = np.roll(listed.labels, shift)
        assert listed.recall(wrong) < listed.recall(listed.labels) - 0.05
        (told,) = listed.warnings(wrong)
        lines = f"{abs(shift)} line{'s' * (abs(shift) > 1)} {'up' if shift > 0 else 'down'}"
        assert f"moved by {lines} (" in told
        image, label, meant = re.findall(r"IMG_(\d+).jpg with label (\d+), where (\d+) may", told)[0]
        assert wrong[int(image)] == int(label) != int(meant) == listed.labels[int(image)]


def test_a_line_missing_halfway() -> None:
    for seed in range(5):
        listed = Listed(seed, classes=200, noise=0.3)
        half = len(listed.labels) // 2
        wrong = np.concatenate([listed.labels[:half], np.roll(listed.labels[half:], 1)])
        (told,) = listed.warnings(wrong)
        begin = int(re.findall(r"from data/IMG_(\d+)", told)[0])
        assert abs(begin - half) < 60 and "moved by 1 line up" in told


@pytest.mark.parametrize("shift", [-2, 1, 3])
def test_a_shifted_list_by_its_names(shift: int) -> None:
    """Even of a network that tells nothing."""
    listed = Listed(1, noise=20.0, named=True)
    told = listed.warnings(np.roll(listed.labels, shift))
    lines = f"{abs(shift)} line{'s' * (abs(shift) > 1)} {'after' if shift > 0 else 'before'} the names"
    assert f"labels change {lines}" in told[0]
    name, label = re.findall(r"at data/(\d+)_\d+.jpg \(label (\d+)\)", told[0])[0]
    assert int(name) != int(label)


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


@pytest.mark.parametrize("share", [0.15, 0.4])
def test_labels_that_the_neighbourhoods_deny(share: float) -> None:
    for seed in range(5):
        listed, rng = Listed(seed, classes=300, noise=0.3), np.random.default_rng(seed)
        chosen = np.flatnonzero(rng.random(len(listed.labels)) < share)
        wrong = listed.labels.copy()
        wrong[chosen] = rng.permutation(wrong[chosen])
        (told,) = listed.warnings(wrong)
        assert "that the embedding is sure of" in told and "are the labels right" in told
        image, label = re.findall(r"IMG_(\d+).jpg \((\d+)\) beside", told)[0]
        assert wrong[int(image)] == int(label) != listed.labels[int(image)]


@pytest.mark.parametrize("size", [2, 3, 4, 5])
@pytest.mark.parametrize("named", [False, True])
def test_classes_of_one_size(size: int, named: bool) -> None:
    """By 1 line one way is as good as by all but one the other way: the least is told, and both ways for pairs."""
    for shift in (1, -1):
        listed = Listed(6, sizes=np.full(120, size), noise=0.3, named=named)
        (told,) = listed.warnings(np.roll(listed.labels, shift))
        way = ("after", "before") if named else ("up", "down")
        assert f"1 line {way[shift < 0] if size > 2 else ' or '.join(way)}" in told


def clustered(centres: NDArray[np.float64], of: NDArray[np.int64], noise: float) -> NDArray[np.float32]:
    rng = np.random.default_rng(0)
    rows = centres[of] + noise * rng.standard_normal((len(of), centres.shape[1])) / np.sqrt(centres.shape[1])
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def test_one_image_that_many_find() -> None:
    """A hub: all of the next class find the last image of this one."""
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((30, 512)) / np.sqrt(512)
    centres /= np.linalg.norm(centres, axis=1, keepdims=True)
    labels = np.repeat(np.arange(30), [30, 80, *[8] * 28])
    rows = 0.95 * centres[labels] + 0.31 * rng.standard_normal((len(labels), 512)) / np.sqrt(512)
    rows[29] = centres[0]
    rows[30:110] = 0.6 * centres[0] + 0.8 * rng.standard_normal((80, 512)) / np.sqrt(512)
    embeddings = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    assert label_warnings([Path(f"{index}.jpg") for index in range(len(labels))], labels, embeddings) == []


@pytest.mark.parametrize("dim", [2, 3, 4, 6, 8, 128])
def test_networks_that_tell_nothing_or_other_things(dim: int) -> None:
    rng = np.random.default_rng(dim)
    labels = np.repeat(np.arange(200), 5)
    paths = [Path(f"{index}.jpg") for index in range(1000)]
    noise = clustered(np.zeros((1, dim)), np.zeros(1000, dtype=np.int64), 1.0)
    kinds = clustered(rng.standard_normal((60, dim)), labels % 60, 0.3)
    collapsed = np.tile(noise[:1], (1000, 1))
    for embeddings in (noise, kinds, collapsed):
        assert label_warnings(paths, labels, embeddings) == []


def test_few_images_say_nothing() -> None:
    listed = Listed(4, classes=2)
    assert listed.warnings(np.roll(listed.labels, 1)) == []


def test_the_run_with_the_largest_sum() -> None:
    assert best_run(np.array([-1, 2, -1, 3, -5, 1])) == (1, 4)
    assert best_run(np.array([-1, -1])) == (0, 0) and best_run(np.array([0, 0, 5, 0])) == (2, 3)
