"""--sequential: rows that surely fail are stopped on the way, sound ones are measured as without it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgerecall.bench.measure import early_stop
from edgerecall.bench.measure.early_stop import LOOKS, EarlyStop
from edgerecall.bench.measure.image_set import ImageSet
from edgerecall.bench.measure.parity import Embedded
from edgerecall.bench.measure.resume_store import ResumeStore
from edgerecall.bench.measure.row_runner import RowRunner
from edgerecall.bench.measure.runner import run_bench
from edgerecall.bench.schema.gates import Gates
from edgerecall.bench.schema.options import BenchOptions
from edgerecall.bench.schema.power import decide
from edgerecall.bench.schema.rows import BenchResult
from edgerecall.bench.schema.statistics import clustered_interval
from edgerecall.runtimes.bundle.bundle import Bundle

LOOSE = Gates(min_cosine=-1, max_recall_drop=0.05)


def embedded(classes: int, noise: float = 0.0, seed: int = 1) -> np.ndarray:
    """Normalised embeddings of 6 images in each of `classes` classes; noise: added to those of seed 0's."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), 6)
    x = rng.standard_normal((classes, 16))[labels] + 0.7 * rng.standard_normal((len(labels), 16))
    x += noise * np.random.default_rng(seed).standard_normal(x.shape)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def stopped_after(noise: float, gates: Gates, classes: int = 160, lowered: bool = False) -> tuple[int, str] | None:
    """After how many images, and why, a row with noise stops."""
    labels = np.repeat(np.arange(classes), 6)[np.random.default_rng(2).permutation(6 * classes)]
    place = np.argsort(np.argsort(labels, kind="stable"), kind="stable")  # embeddings in the labels' order
    early = EarlyStop(Embedded("base", embedded(classes)[place], labels), gates)
    row = embedded(classes, noise)[place]
    for look in early.looks:
        if problem := early.problem(row[early.order[:look]], lowered):
            return look, problem
    return None


def test_classes_are_embedded_whole_and_in_random_order() -> None:
    labels = np.arange(240) % 40
    early = EarlyStop(Embedded("base", embedded(40), labels), LOOSE)
    assert sorted(early.order) == list(range(240)) and early.looks == [30, 60, 120]
    drawn = labels[early.order].reshape(40, 6)
    assert (drawn == drawn[:, :1]).all() and (np.diff(drawn[:, 0]) < 0).any()
    one_class = EarlyStop(Embedded("base", embedded(4), np.zeros(24, dtype=np.int64)), LOOSE)
    assert one_class.looks == []


def test_a_row_that_lost_its_recall_stops_at_the_first_look() -> None:
    found = stopped_after(2.0, LOOSE)
    assert found is not None and found[0] == 120
    assert "recall@1 in the baseline's gallery fell by" in found[1] and "by 120 of 960 images" in found[1]
    later = stopped_after(0.55, LOOSE)
    assert later is not None and later[0] > 120


def test_a_sound_row_never_stops() -> None:
    assert stopped_after(0.0, LOOSE) is None and stopped_after(0.01, LOOSE) is None
    assert stopped_after(2.0, Gates(min_cosine=-1, max_recall_drop=0)) is None  # of these images alone: of all
    assert stopped_after(2.0, LOOSE, classes=8) is None  # one class at the first look, four at the last


def test_one_image_below_the_cosine_is_enough() -> None:
    found = stopped_after(0.5, Gates(min_cosine=0.999))
    assert found is not None and found[0] == 120 and "cosine fell to" in found[1]
    assert stopped_after(0.5, Gates(max_recall_drop=0.5)) == found
    assert stopped_after(0.5, Gates(max_recall_drop=0.5), lowered=True) is None  # recall judges it


def test_looking_on_the_way_keeps_the_error_rates(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit, where the end's interval fails 2.5 %: with the looks hardly more. Far below: early."""
    rng = np.random.default_rng(4)
    failed, early, ends = 0, 0, []
    count, simulations = 60, 100
    ranks = np.empty(0, np.int64)  # of each query's first relevant image, by the row's embedding
    monkeypatch.setattr(early_stop, "some_across", lambda _, images, *rest: SimpleNamespace(first_rank=ranks[images]))
    for seed in range(simulations):
        for lost, is_limit in ((0.10, True), (0.40, False)):
            classes = np.repeat(np.arange(count), rng.integers(2, 20, count))
            same = np.ones((len(classes), 1), np.float32)
            baseline = Embedded("base", same, classes)
            share = rng.beta(9 * lost, 9 * (1 - lost), count)[classes]
            ranks = 1 + (rng.random(len(classes)) < share)
            rule = EarlyStop(baseline, Gates(min_cosine=-1, max_recall_drop=0.10), seed)
            rule.first_rank = np.ones(len(classes), np.int64)
            assert len(rule.looks) == len(LOOKS)
            stop = next((look for look in rule.looks if rule.problem(same[:look])), None)
            if is_limit:
                change = clustered_interval((ranks == 1) - 1.0, classes, seed)
                failed += stop is not None or decide(change, 0.10, len(classes)).decision == "fails"
                early += stop is not None
            else:
                ends.append((stop or len(classes)) / len(classes))
    assert failed <= 6 and early <= 2, (failed, early)  # 2.9 and 0.45 expected
    assert np.mean(ends) < 0.6


def bench(bundle: Bundle, data: Path, state: ResumeStore | None = None, **options: Any) -> BenchResult:
    settings = {"runtimes": ("fake",), "samples": 10, "rounds": 2, "precision": ("fp32", "bf16"), **options}
    images = ImageSet.find(data)
    return run_bench(bundle, images, BenchOptions(**settings), "tests", lambda what, share: None, state=state)


@pytest.mark.parametrize("together", [8, 1])
def test_a_bench_stops_the_row_that_fails_and_measures_the_other(
    fake_bundle: Callable[..., Bundle], data: Path, monkeypatch: pytest.MonkeyPatch, together: int
) -> None:
    honest, taken = RowRunner.encode, {"fp32": 0, "bf16": 0}

    def noisy(self: RowRunner, tensors: np.ndarray) -> None:
        honest(self, tensors)
        taken[self.row.requested_precision] += len(tensors)
        if self.row.requested_precision == "bf16":
            self.embeddings[-1] = self.embeddings[-1] + np.random.default_rng(0).standard_normal(
                self.embeddings[-1].shape
            ).astype(np.float32)

    monkeypatch.setattr(RowRunner, "encode", noisy)
    gates = Gates(min_cosine=0.999)  # of fp32 alone by default
    result = bench(fake_bundle(), data, sequential=True, together=together, gates=gates)
    sound, stopped = result.rows
    assert (sound.status, sound.stopped_after, result.baseline) == ("ok", None, sound.name)
    assert (stopped.status, stopped.stopped_after) == ("parity", 6) and taken == {"fp32": 36, "bf16": 6}
    assert "6 of 36 images" in str(stopped.reason) and stopped.recall1 is None
    assert stopped.latency_p50_ms is not None and result.exit_code == 1


@pytest.mark.cpu_sensitive
def test_rows_that_hold_have_the_figures_of_a_run_without(
    fake_bundle: Callable[..., Bundle], data: Path, tmp_path: Path
) -> None:
    bundle = fake_bundle()
    store = ResumeStore(tmp_path / "r.json", {}, False)
    plain, sequential = bench(bundle, data), bench(bundle, data, store, sequential=True, together=1)
    resumed = bench(bundle, data, ResumeStore(tmp_path / "r.json", {}, True), sequential=True, together=1)
    for one in (sequential, resumed):
        for before, after in zip(plain.rows, one.rows, strict=True):
            for name in ("recall1", "mean_ap", "hits", "cosine_min", "delta_mixed1", "neighbour_flips"):
                assert getattr(before, name) == getattr(after, name), name


def test_unlabelled_images_are_embedded_whole(fake_bundle: Callable[..., Bundle], data: Path, tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for path in sorted(data.glob("*_final/*.JPG"))[:3]:
        (images / path.name).write_bytes(path.read_bytes())
    assert [row.stopped_after for row in bench(fake_bundle(), images, sequential=True).rows] == [None, None]
