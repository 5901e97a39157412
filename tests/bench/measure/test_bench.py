"""The bench over fake runtimes: rows, gates, deaths and printers, in milliseconds."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bf16 import FP32_COSINE, run_in_bf16
from rich.console import Console

import edgerecall
from edgerecall.bench.measure import row_runner, runner
from edgerecall.bench.measure.image_set import ImageSet
from edgerecall.bench.measure.parity import Embedded, collapse_warning, cross_recall, judge
from edgerecall.bench.measure.runner import run_bench
from edgerecall.bench.report import tables
from edgerecall.bench.report.compare import compare_results
from edgerecall.bench.report.html import html_report
from edgerecall.bench.schema.gates import Gates
from edgerecall.bench.schema.options import BenchOptions
from edgerecall.bench.schema.recommendation import verdict
from edgerecall.bench.schema.rows import BenchResult, Row
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError, RuntimeFailed
from edgerecall.runtimes.predictor.precision import TOLERANCE
from edgerecall.runtimes.preprocess.ops import Preprocess, ResizeExact
from edgerecall.runtimes.worker.client import WorkerPredictor

Make = Callable[..., Bundle]


def bench(bundle: Bundle, data: Path, **options: Any) -> BenchResult:
    settings = {"runtimes": ("fake",), "samples": 10, "rounds": 2, **options}
    return run_bench(bundle, ImageSet.find(data), BenchOptions(**settings), "tests", lambda what, share: None)


@pytest.mark.cpu_sensitive
def test_a_sound_row(fake_bundle: Make, data: Path) -> None:
    result = bench(fake_bundle(sleep_ms=3), data)
    row = result.rows[0]
    assert (row.status, row.reason, result.exit_code) == ("ok", None, 0)
    assert result.images == 36 and result.labelled and result.baseline == "fake"
    assert len(row.samples_ns) == 10 and min(row.samples_ns) >= 3_000_000
    assert row.latency_p50_ms == pytest.approx(np.median(row.samples_ns) / 1e6)
    assert row.images_per_s == pytest.approx(1e9 * 10 / sum(row.samples_ns))
    assert row.cosine_min == pytest.approx(1.0) and row.delta_recall1 == 0.0
    assert row.peak_rss_mb is not None and row.peak_rss_mb > 10
    for value in (row.load_ms, row.first_ms, row.latency_p90_ms, row.latency_p99_ms, row.size_mb, row.recall1):
        assert value is not None


def test_an_artifact_that_differs(fake_bundle: Make, data: Path) -> None:
    row = bench(fake_bundle(noise=0.5), data).rows[0]
    assert row.status == "parity" and "embeddings differ from the reference" in str(row.reason)


def test_another_precision_than_asked(fake_bundle: Make, data: Path) -> None:
    result = bench(fake_bundle(precision="bf16"), data)
    assert result.rows[0].status == "parity" and result.rows[0].reason == "asked for fp32, runs bf16"
    assert result.exit_code == 1


def test_a_gpu_is_told_with_its_row(fake_bundle: Make, data: Path) -> None:
    told = {"name": "A GPU (8.7)", "driver": "580.1", "memory_mb": 512.4, "clock_mhz": 1300, "compute_ms": 0.4321}
    result = bench(fake_bundle(gpu=told), data)
    row = result.rows[0]
    assert (row.gpu, row.gpu_driver, row.gpu_memory_mb) == ("A GPU (8.7)", "580.1", 512.4)
    assert (row.gpu_clock_mhz, row.gpu_compute_ms) == (1300, 0.4321)
    line = "fake: on A GPU (8.7), driver 580.1, 0.432 ms on the GPU itself, 512 MB of its memory, 1300 MHz"
    assert line in tables.notes(result)
    quiet = bench(fake_bundle("quiet", gpu={"name": "A GPU (9.0)", "driver": "580.1"}), data)
    assert "fake: on A GPU (9.0), driver 580.1" in tables.notes(quiet)
    assert not any("GPU" in line for line in tables.notes(bench(fake_bundle("none"), data)))
    compared = compare_results(result, quiet, 0.5)
    assert any("A GPU (8.7)" in line and "A GPU (9.0)" in line for line in compared.differences)


def test_what_the_record_says_counts_and_not_the_configuration(fake_bundle: Make, data: Path) -> None:
    row = bench(fake_bundle(precision="fp32", runs="bf16"), data).rows[0]
    assert (row.precision, row.precision_source, row.operators) == ("bf16", "the fake's record", {"projection": 1})
    assert row.status == "parity" and row.reason == "asked for fp32, runs bf16"
    assert "fp32*" in tables.markdown(bench(fake_bundle("b"), data))


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [({"crash_after": 7}, "ended by signal 9"), ({"hang_after": 7}, "no answer within 2 s")],
)
def test_a_worker_that_dies_or_hangs_costs_its_row(
    fake_bundle: Make, data: Path, behaviour: dict[str, int], reason: str
) -> None:
    result = bench(fake_bundle(**behaviour), data, runtimes=("fake", "lite"), timeout_s=2.0)
    dead, missing = result.rows
    assert dead.status == "failed" and reason in str(dead.reason)
    assert missing.status == "missing" and "no artifact for runtime 'lite'" in str(missing.reason)
    assert result.exit_code == 1 and result.baseline is None


def test_what_is_missing_is_a_failure_only_where_it_was_named(fake_bundle: Make, data: Path) -> None:
    named = bench(fake_bundle(), data, runtimes=("fake", "lite"))
    every = bench(fake_bundle("b"), data, runtimes=("fake", "lite"), every=True)
    assert [row.status for row in named.rows] == [row.status for row in every.rows] == ["ok", "missing"]
    assert (named.exit_code, every.exit_code) == (1, 0)
    assert bench(fake_bundle("c", crash_after=7), data, runtimes=("fake", "lite"), every=True).exit_code == 1
    assert bench(fake_bundle("d"), data, runtimes=("lite",), every=True).exit_code == 2
    assert bench(fake_bundle("e"), data, runtimes=("fake", "lite"), every=True, strict=True).exit_code == 1
    asked = {"runtimes": ("fake", "lite"), "every": True, "precision": ("bf16",)}
    precise = bench(fake_bundle("f", precision="bf16"), data, **asked)
    assert [row.status for row in precise.rows] == ["ok", "missing"] and precise.exit_code == 1


def test_nothing_to_run_is_exit_code_2(fake_bundle: Make, data: Path) -> None:
    assert bench(fake_bundle(), data, runtimes=("lite",)).exit_code == 2


def test_bad_images_are_left_out_and_named(fake_bundle: Make, data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for index, image in enumerate(sorted(data.glob("*_final/*.JPG"))[:5]):
        (folder / f"{index}.jpg").write_bytes(image.read_bytes())
    (folder / "broken.jpg").write_text("no image")
    result = bench(fake_bundle(), folder)
    assert result.images == 5 and not result.labelled and result.rows[0].recall1 is None
    assert result.rows[0].status == "ok" and "broken.jpg" in result.bad_images[0]
    assert any("1 bad images left out" in line for line in tables.notes(result))


def clustered(spread: float, classes: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Normalised embeddings in classes of 6 around random centres, and their labels."""
    rng = np.random.default_rng(0)
    labels = np.arange(6 * classes) // 6
    x = rng.standard_normal((classes, 16))[labels] + spread * rng.standard_normal((len(labels), 16))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32), labels


def judged(perturb: float, gates: Gates, classes: int = 40, spread: float = 0.7) -> Row:
    """A row whose embeddings are the baseline's with noise."""
    x, labels = clustered(spread, classes)
    y = x + perturb * np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    row = Row("x")
    judge(row, Embedded("x", y, labels), Embedded("base", x, labels))
    gates.check(row)
    return row


@pytest.mark.cpu_sensitive
def test_gates() -> None:
    assert judged(1e-5, Gates()).status == "ok"
    assert judged(0.0, Gates(max_recall_drop=1e-6)).status == "ok"
    broken = judged(0.5, Gates(max_recall_drop=1.0))
    assert broken.status == "parity" and "cosine fell to" in str(broken.reason)
    worse = judged(0.5, Gates(min_cosine=-1.0, max_recall_drop=0.01))
    assert worse.delta_recall1 is not None and worse.delta_recall1 < -0.1
    assert worse.status == "parity" and "recall@1 fell by" in str(worse.reason)


def test_too_few_queries_decide_nothing() -> None:
    """No answer changed, and yet 240 queries whose margins move cannot tell a fifth of a point; 20 points they can."""
    row = judged(0.01, Gates(min_cosine=-1.0), spread=0.2)
    assert row.delta_recall1 == 0.0 and row.delta_recall1_low is not None and row.delta_recall1_low < -0.002
    assert row.status == "undecided" and row.queries_to_decide is not None and row.queries_to_decide > 240
    assert f"240 queries cannot tell; about {row.queries_to_decide:,}, in such classes, would" in str(row.reason)
    assert judged(0.01, Gates(min_cosine=-1.0, max_recall_drop=0.2), spread=0.2).status == "ok"
    # At 0 it is these images that count.
    assert judged(0.01, Gates(min_cosine=-1.0, max_recall_drop=0.0), spread=0.2).status == "ok"
    assert judged(0.5, Gates(min_cosine=-1.0, max_recall_drop=0.0)).status == "parity"


def test_intervals_are_of_classes_not_of_queries() -> None:
    """Classes that lose all or nothing: as if each were one query, and so far wider than over single queries."""
    x, labels = clustered(0.05)
    y = x.copy()
    rng = np.random.default_rng(1)
    for one in range(8):  # of 40
        y[labels == one] = rng.standard_normal((6, 16))
    y /= np.linalg.norm(y, axis=1, keepdims=True)
    row = Row("x")
    judge(row, Embedded("x", y, labels), Embedded("base", x, labels))
    assert row.delta_recall1 is not None and -0.2 - 1e-9 <= row.delta_recall1 < -0.17
    assert row.delta_recall1_low is not None and row.delta_recall1_high is not None
    own = Row("x")
    judge(own, Embedded("x", y, labels), Embedded("base", x, labels))
    assert (own.delta_recall1_low, own.delta_recall1_high) == (row.delta_recall1_low, row.delta_recall1_high)
    wide = row.delta_recall1_high - row.delta_recall1_low
    single = 2 * 1.96 * (0.2 * 0.8 / len(labels)) ** 0.5
    assert 1.9 * single < wide < 3.5 * single  # the square root of 6 is 2.45


def test_the_mixed_gallery_is_gated() -> None:
    """A row that turns all embeddings alike loses nothing in its own gallery, and everything in the baseline's."""
    x, labels = clustered(0.2)
    row = Row("x")
    turned = np.ascontiguousarray(np.roll(x, 1, axis=1))
    judge(row, Embedded("x", turned, labels), Embedded("base", x, labels))
    assert row.recall1 is not None and row.mixed_recall1 is not None and row.mixed_recall1 < row.recall1 - 0.5
    assert row.delta_recall1 == 0.0
    Gates(min_cosine=-1.0, max_recall_drop=0.3).check(row)
    assert row.status == "parity" and "recall@1 in the baseline's gallery fell by" in str(row.reason)


def test_recall_across_rows_is_that_of_each_pair() -> None:
    """Also of those that were ranked before, when a row was judged."""
    x, labels = clustered(0.7)
    noisy = x + 0.5 * np.random.default_rng(1).standard_normal(x.shape).astype(np.float32)
    noisy /= np.linalg.norm(noisy, axis=1, keepdims=True)
    sets = [Embedded("a", x, labels), Embedded("b", noisy, labels), Embedded("c", np.roll(x, 1, axis=1), labels)]
    for one in sets:
        judge(Row(one.name), one, sets[0])
    expected = []
    for queries in sets:
        similarity = [queries.embeddings.astype(np.float64) @ gallery.embeddings.T for gallery in sets]
        for matrix in similarity:
            np.fill_diagonal(matrix, -np.inf)
        expected.append([float(np.mean(labels[matrix.argmax(axis=1)] == labels)) for matrix in similarity])
    found = cross_recall(sets)
    assert found is not None and np.allclose(found.recall1, expected) and len(np.unique(expected)) > 6


@pytest.mark.parametrize(
    ("given", "lowered", "labelled", "status"),
    [
        (None, False, True, "parity"),  # 0.999 by default
        (None, True, True, "ok"),  # recall judges
        (None, True, False, "undecided"),  # and cannot
        (None, False, False, "parity"),
        (0.999, True, True, "parity"),
        (-1.0, False, False, "ok"),
        (-1.0, True, False, "ok"),
    ],
)
@pytest.mark.parametrize("how", [{"quantisation": "int8"}, {"requested_precision": "bf16"}])
def test_what_the_cosine_gate_is_for(
    given: float | None, lowered: bool, labelled: bool, status: str, how: dict[str, str]
) -> None:
    row = Row("x", **(how if lowered else {}))
    row.cosine_min, row.recall1 = 0.95, 0.9 if labelled else None
    Gates(min_cosine=given).check(row)
    assert row.status == status and (status != "undecided" or "have no labels" in str(row.reason))


def test_the_mixed_gallerys_map_is_gated_and_every_verdict_kept() -> None:
    """Turned alike, embeddings keep their own mAP and lose the baseline's."""
    x, labels = clustered(0.2)
    row = Row("x")
    judge(row, Embedded("x", np.ascontiguousarray(np.roll(x, 1, axis=1)), labels), Embedded("base", x, labels))
    assert row.mean_ap is not None and row.mixed_map is not None and row.mixed_map < row.mean_ap - 0.3
    Gates(min_cosine=-1.0, max_recall_drop=1.0, max_map_drop=0.2).check(row)
    assert row.status == "parity" and "mAP in the baseline's gallery fell by" in str(row.reason)
    assert {one.gate: one.decision for one in row.verdicts} == {
        "recall@1": "holds",
        "recall@1 in the baseline's gallery": "holds",
        "mAP": "holds",
        "mAP in the baseline's gallery": "fails",
    }


def test_a_gain_in_recall_breaks_no_gate() -> None:
    good, labels = clustered(0.05)
    bad = good + 0.3 * np.random.default_rng(0).standard_normal(good.shape).astype(np.float32)
    bad /= np.linalg.norm(bad, axis=1, keepdims=True)
    row = Row("x")
    judge(row, Embedded("x", good, labels), Embedded("base", bad, labels))
    Gates(min_cosine=-1.0, max_recall_drop=0.1).check(row)
    assert row.delta_recall1 is not None and row.delta_recall1 > 0.1 and row.status == "ok", row.reason


def test_exactly_the_samples_asked_for(fake_bundle: Make, data: Path) -> None:
    assert len(bench(fake_bundle(), data, samples=5, rounds=2).rows[0].samples_ns) == 5


def test_images_of_different_classes_only(fake_bundle: Make, data: Path, tmp_path: Path) -> None:
    lines = (data / "test_list.txt").read_text().splitlines()
    (tmp_path / "few.txt").write_text(f"{lines[0]}\n{lines[-1]}\n")
    options = BenchOptions(runtimes=("fake",), samples=4, rounds=2)
    images = ImageSet.find(data, tmp_path / "few.txt")
    result = run_bench(fake_bundle(), images, options, "tests", lambda what, share: None)
    assert result.rows[0].status == "ok" and result.rows[0].recall1 is None and not result.labelled
    assert any("recall is not measured" in line for line in tables.notes(result))


def test_a_collapsed_network_is_said_so() -> None:
    rng = np.random.default_rng(0)
    for noise, collapsed in ((1e-4, True), (1.0, False)):
        x = np.ones((50, 16)) + noise * rng.standard_normal((50, 16))
        x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
        assert (collapse_warning(x) is not None) is collapsed


def test_a_sweep_is_the_cross_product_in_groups(fake_bundle: Make, data: Path) -> None:
    result = bench(fake_bundle(), data, threads=(1, 2), batch=(1, 3), together=2)
    assert [row.name for row in result.rows] == ["fake 1t b1", "fake 1t b3", "fake 2t b1", "fake 2t b3"]
    assert [row.group for row in result.rows] == [0, 0, 1, 1]
    assert all(row.status == "ok" for row in result.rows)
    assert not result.speeds, "rows of other batches or groups were not timed in turns with equal work"


def test_rows_are_compared_in_pairs(fake_bundle: Make, data: Path) -> None:
    result = bench(fake_bundle(sleep_ms=2), data, threads=(1, 2), samples=20, rounds=5)
    (speed,) = result.speeds
    assert {speed.slow, speed.fast} == {"fake 1t", "fake 2t"}
    assert speed.low is not None and speed.high is not None and speed.low < speed.ratio < speed.high < 1.5
    assert verdict(result).startswith("ship fake ")


def test_stages_and_end_to_end(fake_bundle: Make, data: Path) -> None:
    model = bench(fake_bundle("a", sleep_ms=3), data).rows[0]
    assert list(model.stages_ms) == ["decode", "preprocess", "inference", "normalise", "search"]
    assert model.stages_ms["inference"] >= 3 and all(value > 0 for value in model.stages_ms.values())
    whole = bench(fake_bundle("b", sleep_ms=3), data, stage="e2e").rows[0]
    assert whole.latency_p50_ms is not None and model.latency_p50_ms is not None
    assert whole.latency_p50_ms > whole.stages_ms["inference"]
    assert whole.latency_p50_ms == pytest.approx(sum(whole.stages_ms.values()), rel=0.3)


def test_the_time_of_a_row_is_bounded(fake_bundle: Make, data: Path) -> None:
    row = bench(fake_bundle(sleep_ms=20), data, samples=100, rounds=2, seconds=0.1).rows[0]
    assert 2 <= len(row.samples_ns) <= 10 and row.status == "ok"


@pytest.mark.alone
def test_a_row_is_pinned_and_says_where(fake_bundle: Make, data: Path) -> None:
    last = max(os.sched_getaffinity(0))
    row = bench(fake_bundle(spin_ms=2), data).rows[0]
    assert row.cpus == str(last) and row.busy_threads == 1
    assert row.cores_used is not None and row.cores_used > 0.5


def test_too_many_threads_are_said(fake_bundle: Make, data: Path) -> None:
    cores = len(os.sched_getaffinity(0))
    row = bench(fake_bundle(), data, threads=(cores + 1,)).rows[0]
    assert row.warnings[0] == f"oversubscribed: {cores + 1} threads on {cores} usable cores"
    strict = bench(fake_bundle("b"), data, threads=(cores + 1,), strict=True)
    assert strict.rows[0].status == "request" and strict.exit_code == 1


def noisy_cores(result: BenchResult) -> float:
    """What the result says that others used."""
    said = [warning.split() for warning in result.warnings if warning.startswith("noisy: other processes used")]
    return float(said[0][4]) if said else 0.0


@pytest.mark.alone
def test_a_busy_loop_beside_is_noise(fake_bundle: Make, data: Path) -> None:
    bundle = fake_bundle(sleep_ms=4)
    for _ in range(10):  # another job beside the tests may take the whole machine for a while
        quiet = bench(bundle, data, samples=200)
        if noisy_cores(quiet) < 1.0:
            break
        time.sleep(5)
    # On a large machine one process is no noise.
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(1 + os.cpu_count() // 20)]  # type: ignore[operator]
    try:
        noisy = bench(bundle, data, samples=200)
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert noisy_cores(noisy) > 0.7
    assert noisy_cores(quiet) < noisy_cores(noisy) - 0.3


def test_rows_fed_otherwise_are_judged_against_the_bundle(fake_bundle: Make, data: Path) -> None:
    bundle = fake_bundle()
    ops = bundle.spec.preprocess.ops
    squashed = Preprocess(ops=(ops[0], ResizeExact(height=64, width=64, backend="cv2"), ops[-1]))
    options = BenchOptions(runtimes=("fake",), samples=4, rounds=2)
    images = ImageSet.find(data)
    result = run_bench(bundle, images, options, "tests", lambda what, share: None, preprocess=squashed)
    (row,) = result.rows
    assert result.baseline == "fake in fp32, as the bundle says"
    assert row.status == "parity" and result.exit_code == 1
    assert result.cross_recall is not None and result.cross_recall.names == ["fake (baseline)", "fake"]
    assert result.worst_pairs and result.worst_pairs[0].row == "fake"


@pytest.mark.cpu_sensitive
def test_cross_recall_against_the_definition() -> None:
    rng = np.random.default_rng(3)
    labels = np.arange(40) // 4
    centres = np.eye(10, 12)[labels]
    sets = []
    for noise in (0.3, 0.6):
        rows = centres + noise * rng.standard_normal(centres.shape)
        sets.append((rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32))
    found = cross_recall([Embedded(str(i), rows, labels) for i, rows in enumerate(sets)])
    assert found is not None
    for a, asked in enumerate(sets):
        for b, held in enumerate(sets):
            similarity = asked.astype(np.float64) @ held.T.astype(np.float64)
            np.fill_diagonal(similarity, -np.inf)
            assert found.recall1[a][b] == pytest.approx((labels[similarity.argmax(axis=1)] == labels).mean())
    assert found.recall1[0][1] != found.recall1[1][1]


@pytest.mark.cpu_sensitive
def test_unlabelled_images_have_neighbours_too() -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((30, 8))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    rows[7] = rows[3]
    # Not rows @ rows.T: BLAS may add the products of equal rows in another order, and they are then not equal.
    similarity = (rows.astype(np.float64)[:, None] * rows[None]).sum(axis=2)
    np.fill_diagonal(similarity, -np.inf)
    nearest = Embedded("x", rows, None).nearest
    assert (nearest == similarity.argmax(axis=1)).all() and nearest[3] == 7 and nearest[7] == 3


@pytest.mark.cpu_sensitive
def test_a_runtime_that_answers_differently_each_time(fake_bundle: Make, data: Path) -> None:
    row = bench(fake_bundle(forget_after=20), data).rows[0]
    assert row.repeat_max_error is not None and row.repeat_max_error > 0
    assert row.status == "failed" and "last call gave other embeddings than the first" in str(row.reason)


def test_images_are_embedded_in_the_rows_own_batches(
    fake_bundle: Make, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[tuple[int, int]] = []
    honest = WorkerPredictor.embed_each

    def counted(worker: WorkerPredictor, tensors: Any, size: int) -> Any:
        sizes.append((len(tensors), size))
        return honest(worker, tensors, size)

    monkeypatch.setattr(WorkerPredictor, "embed_each", counted)
    bench(fake_bundle(), data, batch=(12,))  # 36 images, and 4 golden ones
    assert sorted(sizes) == [(4, 1), (12, 12), (24, 12)]


def test_stages_take_the_preprocessing_that_the_rows_are_fed(fake_bundle: Make, data: Path) -> None:
    bundle = fake_bundle()
    ops = bundle.spec.preprocess.ops
    other = Preprocess(ops=(ops[0], ResizeExact(height=64, width=64), ops[-1]))
    run = runner.Run(bundle, ImageSet.find(data), BenchOptions(runtimes=("fake",)), lambda w, s: None, other)
    assert run.spec.preprocess == other and run.spec.input_shape == bundle.spec.input_shape


def test_what_to_ship(fake_bundle: Make, data: Path) -> None:
    result = bench(fake_bundle(), data)
    rng = np.random.default_rng(0)

    def row(name: str, ms: float, memory: float, **fields: Any) -> Row:
        rounds = list(ms * 1e6 * (1 + 0.02 * rng.standard_normal(10)))
        figures = {"latency_p50_ms": ms, "peak_rss_mb": memory, "round_medians_ns": rounds, **fields}
        return Row("x", name=name, **figures)

    small, big = row("small", 1.001, 10.0), row("big", 1.0, 90.0)
    slow, wrong = row("slow", 2.0, 1.0), row("wrong", 0.1, 1.0, status="parity")
    apart, batched = row("apart", 1.0005, 1.0, group=1), row("batched", 4.0, 1.0, batch=2)
    result.rows = [slow, big, wrong, small, apart, batched]
    said = verdict(result)
    assert said.startswith("ship small: the fastest here that keeps recall (not told apart in speed from big, and")
    result.rows = [slow, big, wrong]
    assert verdict(result) == "ship big: the fastest here that keeps recall"
    big.warnings.append("x")
    assert verdict(result).endswith("; but its figures carry warnings")
    result.rows = [wrong]
    assert verdict(result) == "ship none of these: no row passed every check"


def test_a_death_in_any_phase_costs_one_row(fake_bundle: Make, data: Path) -> None:
    last = bench(fake_bundle("calls"), data, samples=4)
    assert last.exit_code == 0
    for calls in (0, 1, 3, 12, 20, 25, 30, 40, 45, 50):
        result = bench(fake_bundle(f"b{calls}", crash_after=calls), data, runtimes=("fake", "lite"), samples=4)
        assert result.rows[0].status == "failed" and "ended by signal 9" in str(result.rows[0].reason), calls
        assert result.exit_code == 1 and html_report(result) and tables.markdown(result)


def test_first_answer_that_is_garbage(fake_bundle: Make, data: Path) -> None:
    row = bench(fake_bundle(garbage_first=True), data).rows[0]
    assert row.status == "failed" and "last call gave other embeddings than the first" in str(row.reason)


def test_lower_precision_is_not_its_own_judge(fake_bundle: Make, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = runner.Run._encode

    def fp32_dies(run: runner.Run, contenders: Any, *arguments: Any) -> None:
        for one in contenders:
            if one.row.requested_precision == "fp32":
                os.kill(one.worker.pid, signal.SIGKILL)
        honest(run, contenders, *arguments)

    monkeypatch.setattr(runner.Run, "_encode", fp32_dies)
    result = bench(fake_bundle(), data, precision=("fp32", "bf16"))
    assert [row.status for row in result.rows] == ["failed", "parity"] and result.baseline is None
    assert "no fp32 row is left" in str(result.rows[1].reason)


def test_a_slow_model_is_not_called_unsteady(fake_bundle: Make, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_runner, "WARM_UP_S", 0.1)
    row = bench(fake_bundle(sleep_ms=100), data, samples=2).rows[0]
    assert not row.warnings and row.warmup_runs is not None and row.warmup_runs <= 3


def test_preprocessing_of_another_size_is_refused(fake_bundle: Make, data: Path) -> None:
    bundle = fake_bundle()
    ops = bundle.spec.preprocess.ops
    small = Preprocess(ops=(ops[0], ResizeExact(height=32, width=32), ops[-1]))
    with pytest.raises(InputError, match=r"--preprocess gives \(3, 32, 32\), the model takes \(3, 64, 64\)"):
        run_bench(bundle, ImageSet.find(data), BenchOptions(runtimes=("fake",)), "t", lambda w, s: None, small)


def test_energy_counts_every_inference(fake_bundle: Make, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A counter that rises by 1 mJ with each inference: the uncounted ones of each round are part of it."""
    monkeypatch.setattr(row_runner, "joules_between", lambda before, after: (5 + row_runner.DISCARDED) * 1e-3)
    assert bench(fake_bundle(), data).rows[0].energy_mj_per_image == pytest.approx(1.0)


def test_printers(fake_bundle: Make, data: Path) -> None:
    result = bench(fake_bundle(), data, runtimes=("fake", "lite"))
    for width in (200, 80):
        console = Console(file=io.StringIO(), width=width)
        tables.terminal(result, console)
        printed = console.file.getvalue()  # type: ignore[attr-defined]
        for column in tables.COLUMNS:
            assert column.title in printed
        assert "lite: missing: " in printed and "…" not in printed
    markdown = tables.markdown(result)
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(table) == 4 and all(line.count("|") == len(tables.COLUMNS) + 1 for line in table)
    rows = list(csv.DictReader(io.StringIO(tables.as_csv(result))))
    assert [row["status"] for row in rows] == ["ok", "missing"]
    loaded = json.loads(result.to_json())
    assert loaded["rows"][0]["samples_ns"] == result.rows[0].samples_ns
    assert {"command", "machine", "packages", "options"} <= loaded.keys()
    lines = [json.loads(line) for line in tables.as_json_lines(result).splitlines()]
    assert [line["status"] for line in lines] == ["ok", "missing"] and lines[0]["run"]["machine"] == result.machine


def test_cosine_is_never_rounded_up_to_one() -> None:
    column = next(column for column in tables.COLUMNS if column.title == "cosine min")
    assert column.cell(Row("x", cosine_min=0.9999999)) == "0.999999"
    assert column.cell(Row("x", cosine_min=1.0)) == "1.000000"


@pytest.mark.cpu_sensitive
def test_lower_precision_is_judged_against_fp32(real_bundle: Path, data: Path) -> None:
    """Alone in its run, a bf16 row would be its own baseline and lose nothing."""
    bundle = Bundle.open(real_bundle)
    told = run_in_bf16(bundle, "openvino")
    result = bench(bundle, data, runtimes=("openvino",), precision=("bf16",))
    (row,) = result.rows
    if told is None:
        assert row.status == "failed" and "openvino cannot load the model" in str(row.reason)
        return
    assert result.baseline == "paddle in fp32, as the bundle says" and row.precision == told
    assert row.cosine_min is not None and (row.cosine_min < FP32_COSINE) == ("bf16" in told)


def test_a_witness_that_dies_ends_the_run(fake_bundle: Make, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = runner.Run._encode

    def dying(run: runner.Run, contenders: Any, *arguments: Any) -> None:
        os.kill(contenders[0].worker.pid, signal.SIGKILL)
        honest(run, contenders, *arguments)

    monkeypatch.setattr(runner.Run, "_encode", dying)
    with pytest.raises(RuntimeFailed, match=r"rows are compared with: fake: .* ended by signal 9"):
        bench(fake_bundle(), data, precision=("bf16",))


def test_fewer_threads_than_asked_are_said(real_bundle: Path, lite_ready: None, data: Path) -> None:
    result = bench(Bundle.open(real_bundle), data, runtimes=("onnxruntime", "lite"), threads=(2,))
    said = [line for line in tables.notes(result) if "asked for 2 threads, runs 1" in line]
    assert len(said) == 1 and said[0].startswith("lite")


WRONG = (
    {"threads": (0,)},
    {"precision": ("int8",)},
    {"runtimes": ("caffe",)},
    {"rounds": 99},
    {"batch": (2, 2)},
    {"seconds": 0},
    {"stage": "half"},
)


@pytest.mark.parametrize("wrong", WRONG)
def test_wrong_options_are_no_rows(fake_bundle: Make, data: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        bench(fake_bundle(), data, **wrong)


def undecided_queries(real_bundle: Path, data: Path) -> int:
    """How many queries have a right and a wrong image equally near but for the rounding that a runtime may have.

    Rows off by at most t of their largest value are off by t * sqrt(dim) of their length, and a similarity by twice
    that. Training ends in another network on each CPU: this is nearly always none, and none is asked for then.
    """
    images = ImageSet.find(data)
    assert images.labels is not None
    with edgerecall.load(real_bundle, "paddle") as model:
        rows = model.embed_images(images.paths).astype(np.float64)
    similarity = rows @ rows.T
    np.fill_diagonal(similarity, -np.inf)
    right = images.labels[:, None] == images.labels
    nearest = [np.where(wanted, similarity, -np.inf).max(axis=1) for wanted in (right, ~right)]
    allowed = 2 * TOLERANCE["fp32"] * np.sqrt(rows.shape[1])
    return int((np.abs(nearest[0] - nearest[1]) <= 2 * allowed).sum())


@pytest.mark.cpu_sensitive
def test_the_four_real_runtimes(real_bundle: Path, lite_ready: None, data: Path) -> None:
    """What the demo prints, on a small set: four valid rows without loss."""
    result = bench(Bundle.open(real_bundle), data, runtimes=("paddle", "onnxruntime", "openvino", "lite"))
    undecided = undecided_queries(real_bundle, data)
    for row in result.rows:
        assert (row.status, row.reason) == ("ok", None)
        assert row.precision == "fp32" and row.delta_recall1 is not None
        assert abs(row.delta_recall1) * result.images <= undecided + 1e-9
        assert row.cosine_min is not None and row.cosine_min >= 0.9999
        assert row.threads == 1 and row.cores_used is not None and row.cores_used < 1.05
        assert row.repeat_max_error == 0.0 and row.batch_max_error is not None and row.batch_max_error < 1e-4
        assert row.random_cosine_min is not None and row.random_cosine_min > 0.9999
    assert result.exit_code == 0 and result.baseline == "paddle"
    sources = {row.runtime: row.precision_source for row in result.rows}
    assert sources == {
        "paddle": "oneDNN's log",
        "onnxruntime": "ONNX Runtime's profile",
        "openvino": "OpenVINO's execution graph",
        "lite": None,
    }
    assert all(sum(row.operators.values()) > 20 for row in result.rows if row.precision_source)


@pytest.mark.parametrize(("wrong", "told"), [("twice", "under one label"), ("shifted", "labels change 1 line after")])
def test_labels_that_make_no_sense_are_told(
    fake_bundle: Make, data: Path, tmp_path: Path, wrong: str, told: str
) -> None:
    lines = [line.rsplit(" ", 1) for line in (data / "test_list.txt").read_text().splitlines()]
    labels = [label for _, label in lines]
    if wrong == "shifted":
        labels = [labels[-1], *labels[:-1]]
    text = "".join(f"{path} {label}\n" for (path, _), label in zip(lines, labels, strict=True))
    (tmp_path / "list.txt").write_text(text * 2 if wrong == "twice" else text)
    images = ImageSet.find(data, tmp_path / "list.txt")
    for strict in (False, True):
        options = BenchOptions(runtimes=("fake",), samples=4, rounds=2, strict=strict)
        result = run_bench(fake_bundle(f"b{strict}"), images, options, "tests", lambda what, share: None)
        assert any(told in warning and "such as" in warning for warning in result.warnings)
        assert result.exit_code == (1 if strict else 0)
    assert bench(fake_bundle("sound"), data).warnings == []


def test_labels_at_chance_fail_where_it_is_strict(fake_bundle: Make, data: Path, tmp_path: Path) -> None:
    """Shuffled, they say nothing of any row: none is shipped, and strictly that is a failure."""
    lines = [line.rsplit(" ", 1) for line in (data / "test_list.txt").read_text().splitlines()]
    labels = np.random.default_rng(1).permutation([label for _, label in lines])
    text = "".join(f"{path} {label}\n" for (path, _), label in zip(lines, labels, strict=True))
    (tmp_path / "list.txt").write_text(text)
    images = ImageSet.find(data, tmp_path / "list.txt")
    for strict in (False, True):
        options = BenchOptions(runtimes=("fake",), samples=4, rounds=2, strict=strict)
        result = run_bench(fake_bundle(f"b{strict}"), images, options, "tests", lambda what, share: None)
        assert result.rows[0].meaningless is not None
        assert result.exit_code == (1 if strict else 0)


def test_weights_that_are_none_fail_though_the_embeddings_hold(
    fake_bundle: Make, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A NaN that a ReLU hides: verify and bench name it."""
    from edgerecall.runtimes.backends.fake_predictor import FakePredictor
    from edgerecall.runtimes.embed.verify import verify_runtime
    from edgerecall.runtimes.predictor.interface import RunOptions
    from edgerecall.runtimes.worker.client import WorkerPredictor

    bundle = fake_bundle()
    assert verify_runtime(bundle, "fake", RunOptions(), worker=False).problem is None
    for kind in (FakePredictor, WorkerPredictor):
        monkeypatch.setattr(kind, "parameters", lambda self: {"conv.w": np.array([1.0, np.nan], np.float32)})
    for worker in (False, True):
        problem = verify_runtime(bundle, "fake", RunOptions(), worker=worker).problem
        assert problem is not None and "'conv.w' holds NaN or infinity: 1 of 2 values" in problem
    (row,) = bench(bundle, data).rows
    assert row.status == "parity" and "'conv.w' holds NaN or infinity" in str(row.reason)
