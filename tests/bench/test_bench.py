"""The bench over fake runtimes: rows, gates, deaths and printers, in milliseconds."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from edgerecall.bench import report, runner
from edgerecall.bench.image_set import ImageSet
from edgerecall.bench.parity import Gates, collapse_warning, judge
from edgerecall.bench.retrieval import retrieval_scores
from edgerecall.bench.rows import BenchResult, Row
from edgerecall.bench.runner import BenchOptions, run_bench
from edgerecall.runtimes.bundle import Bundle
from edgerecall.runtimes.errors import InputError, RuntimeFailed

Make = Callable[..., Bundle]


def bench(bundle: Bundle, data: Path, **options: Any) -> BenchResult:
    settings = {"runtimes": ("fake",), "samples": 10, "rounds": 2, "warmup": 1, **options}
    return run_bench(bundle, ImageSet.find(data), BenchOptions(**settings), "tests", lambda what, count: None)


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
    assert any("1 bad images left out" in line for line in report.notes(result))


def judged(perturb: float, gates: Gates) -> Row:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((60, 16)).astype(np.float32)
    y = x + perturb * rng.standard_normal(x.shape).astype(np.float32)
    x, y = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (x, y))
    labels = np.arange(60) // 6
    row = Row("x")
    judge(row, y, x, retrieval_scores(y, labels), retrieval_scores(x, labels), 1.0, gates)
    return row


def test_gates() -> None:
    assert judged(1e-5, Gates()).status == "ok"
    broken = judged(0.5, Gates(max_recall_drop=1.0))
    assert broken.status == "parity" and "cosine fell to" in str(broken.reason)
    worse = judged(3.0, Gates(min_cosine=-1.0, max_recall_drop=0.01))
    assert worse.delta_recall1 is not None and worse.delta_recall1 < -0.01
    assert worse.status == "parity" and "recall@1 fell by" in str(worse.reason)


def test_a_gain_in_recall_breaks_no_gate() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) // 6
    good = np.eye(10, 16, dtype=np.float32)[labels] + 0.05 * rng.standard_normal((60, 16)).astype(np.float32)
    bad = good + rng.standard_normal((60, 16)).astype(np.float32)
    good, bad = (v / np.linalg.norm(v, axis=1, keepdims=True) for v in (good, bad))
    row = Row("x")
    scores = (retrieval_scores(good, labels), retrieval_scores(bad, labels))
    judge(row, good, bad, *scores, 1.0, Gates(min_cosine=-1.0))
    assert row.delta_recall1 is not None and row.delta_recall1 > 0.1 and row.status == "ok"


def test_exactly_the_samples_asked_for(fake_bundle: Make, data: Path) -> None:
    assert len(bench(fake_bundle(), data, samples=5, rounds=2).rows[0].samples_ns) == 5


def test_images_of_different_classes_only(fake_bundle: Make, data: Path, tmp_path: Path) -> None:
    lines = (data / "test_list.txt").read_text().splitlines()
    (tmp_path / "few.txt").write_text(f"{lines[0]}\n{lines[-1]}\n")
    options = BenchOptions(runtimes=("fake",), samples=4, rounds=2)
    images = ImageSet.find(data, tmp_path / "few.txt")
    result = run_bench(fake_bundle(), images, options, "tests", lambda what, count: None)
    assert result.rows[0].status == "ok" and result.rows[0].recall1 is None and not result.labelled
    assert any("recall is not measured" in line for line in report.notes(result))


def test_a_collapsed_network_is_said_so() -> None:
    rng = np.random.default_rng(0)
    for noise, collapsed in ((1e-4, True), (1.0, False)):
        x = np.ones((50, 16)) + noise * rng.standard_normal((50, 16))
        x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
        assert (collapse_warning(x) is not None) is collapsed


def test_printers(fake_bundle: Make, data: Path) -> None:
    result = bench(fake_bundle(), data, runtimes=("fake", "lite"))
    for width in (200, 80):
        console = Console(file=io.StringIO(), width=width)
        report.terminal(result, console)
        printed = console.file.getvalue()  # type: ignore[attr-defined]
        for column in report.COLUMNS:
            assert column.title in printed
        assert "lite: missing: " in printed and "…" not in printed
    markdown = report.markdown(result)
    table = [line for line in markdown.splitlines() if line.startswith("|")]
    assert len(table) == 4 and all(line.count("|") == len(report.COLUMNS) + 1 for line in table)
    rows = list(csv.DictReader(io.StringIO(report.as_csv(result))))
    assert [row["status"] for row in rows] == ["ok", "missing"]
    loaded = json.loads(report.as_json(result))
    assert loaded["rows"][0]["samples_ns"] == result.rows[0].samples_ns
    assert {"command", "machine", "packages", "options"} <= loaded.keys()


def test_cosine_is_never_rounded_up_to_one() -> None:
    column = next(column for column in report.COLUMNS if column.field == "cosine_min")
    assert column.cell(Row("x", cosine_min=0.9999999)) == "0.999999"
    assert column.cell(Row("x", cosine_min=1.0)) == "1.000000"


def test_lower_precision_is_judged_against_fp32(real_bundle: Path, data: Path) -> None:
    """Alone in its run, a bf16 row would be its own baseline and lose nothing."""
    result = bench(Bundle.open(real_bundle), data, runtimes=("openvino",), precision="bf16")
    row = result.rows[0]
    assert result.baseline == "paddle in fp32" and len(result.rows) == 1
    assert row.cosine_min is not None and (row.cosine_min < 1 - 1e-7 or row.precision == "fp32")


def test_a_witness_that_dies_ends_the_run(fake_bundle: Make, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = runner._fp32_witness

    def dying(*arguments: Any) -> runner.Contender:
        witness = honest(*arguments)
        assert witness.worker is not None
        os.kill(witness.worker.pid, signal.SIGKILL)
        return witness

    monkeypatch.setattr(runner, "_fp32_witness", dying)
    with pytest.raises(RuntimeFailed, match=r"rows are compared with: fake: .* ended by signal 9"):
        bench(fake_bundle(), data, precision="bf16")


def test_fewer_threads_than_asked_are_said(real_bundle: Path, data: Path) -> None:
    result = bench(Bundle.open(real_bundle), data, runtimes=("onnxruntime", "lite"), threads=2)
    said = [line for line in report.notes(result) if "asked for 2 threads, runs 1" in line]
    assert len(said) == 1 and said[0].startswith("lite")


@pytest.mark.parametrize("wrong", [{"threads": 0}, {"precision": "int8"}, {"runtimes": ("tensorrt",)}, {"rounds": 99}])
def test_wrong_options_are_no_rows(fake_bundle: Make, data: Path, wrong: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        bench(fake_bundle(), data, **wrong)


def test_the_four_real_runtimes(real_bundle: Path, data: Path) -> None:
    """What the demo prints, on a small set: four valid rows without loss."""
    result = bench(Bundle.open(real_bundle), data, runtimes=("paddle", "onnxruntime", "openvino", "lite"))
    for row in result.rows:
        assert (row.status, row.reason) == ("ok", None)
        assert row.precision == "fp32" and row.delta_recall1 == 0.0
        assert row.cosine_min is not None and row.cosine_min >= 0.9999
        assert row.threads == 1
    assert result.exit_code == 0 and result.baseline == "paddle"
