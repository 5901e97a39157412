"""MLPerf LoadGen's scenarios on a real runtime; its own files are the witness."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgerecall.bench.measure.image_set import ImageSet
from edgerecall.bench.measure.loadgen import LoadSettings, read_logs
from edgerecall.bench.measure.runner import run_bench
from edgerecall.bench.report.tables import scenario_line
from edgerecall.bench.schema.options import BenchOptions
from edgerecall.bench.schema.rows import BenchResult
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError, RuntimeFailed

Make = Callable[..., Bundle]


def run(bundle: Bundle, data: Path, load: LoadSettings, **options: Any) -> BenchResult:
    settings = BenchOptions(**{"samples": 20, "rounds": 2, **options})
    images = ImageSet.find(data).limited(12)
    return run_bench(bundle, images, settings, "tests", lambda what, share: None, load=load)


@pytest.mark.alone  # a load that ends beside it makes the row faster than the rate that LoadGen was told
def test_scenarios_are_valid_and_ours_are_loadgens_figures(
    real_bundle: Path, lite_ready: None, data: Path, tmp_path: Path
) -> None:
    scenarios = ("SingleStream", "Offline", "Server")
    load = LoadSettings(scenarios, seconds=1.0, target_qps=50.0, target_latency_ms=200.0, logs=str(tmp_path))
    result = run(Bundle.open(real_bundle), data, load, runtimes=("onnxruntime", "lite"))
    for row in result.rows:
        assert [scenario.name for scenario in row.scenarios] == list(scenarios)
        for found in row.scenarios:
            folder = tmp_path / row.name / found.name
            summary = (folder / "mlperf_log_summary.txt").read_text()
            assert found.valid and "Result is : VALID" in summary, summary
            if found.name == "SingleStream":
                (p90,) = re.findall(r"^90.00 percentile latency \(ns\)\s*: (\d+)$", summary, re.MULTILINE)
                assert found.latency_p90_ms == int(p90) / 1e6
                (estimate,) = re.findall(r"Early stopping 90.0th percentile estimate: (\d+)", summary)
                assert found.log["value"] == int(estimate) / 1e6
                assert f"VALID, p90 latency, early-stopping estimate {int(estimate) / 1e6:.4g} ms" in scenario_line(
                    row, 0
                )
            if found.name == "Offline":
                (rate,) = re.findall(r"^Samples per second: ([\d.]+)$", summary, re.MULTILINE)
                assert found.samples_per_s == pytest.approx(float(rate), rel=1e-4)
            if found.name == "Server":
                assert found.queries >= 459 and found.samples_per_s == pytest.approx(50, rel=0.2)


def test_a_bound_that_does_not_hold_is_invalid(fake_bundle: Make, data: Path) -> None:
    load = LoadSettings(("Server",), seconds=0.5, target_qps=900.0, target_latency_ms=6.0)
    (row,) = run(fake_bundle(sleep_ms=5), data, load, runtimes=("fake",)).rows
    (found,) = row.scenarios
    assert not found.valid and row.status == "ok"
    assert any(warning.startswith("LoadGen Server: INVALID: ") and len(warning) > 40 for warning in row.warnings)


def test_a_runtime_that_dies_under_load(fake_bundle: Make, data: Path) -> None:
    load = LoadSettings(("SingleStream",), seconds=1.0)
    (row,) = run(fake_bundle(crash_after=300), data, load, runtimes=("fake",)).rows
    assert row.status == "failed" and "ended by signal 9" in str(row.reason)
    assert row.golden_max_error is not None, "it had come as far as LoadGen"


def test_logs_that_hold_no_result(tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailed, match="logs of Offline do not hold the result"):
        read_logs(tmp_path, "Offline", {})
    (tmp_path / "mlperf_log_detail.txt").write_text(
        "".join(f":::MLLOG {json.dumps({'key': k, 'value': v})}\n" for k, v in DETAIL.items())
    )
    (tmp_path / "mlperf_log_summary.txt").write_text("Result is : INVALID\n")
    with pytest.raises(RuntimeFailed, match="summary of Offline says"):
        read_logs(tmp_path, "Offline", {})


DETAIL = {
    "result_validity": "VALID",
    "result_samples_per_second": 5.0,
    **{f"result_{p}.00_percentile_latency_ns": 1 for p in (50, 90, 99)},
}


def test_settings_from_outside() -> None:
    with pytest.raises(InputError, match="scenario: expected one of SingleStream, MultiStream, Offline, Server"):
        LoadSettings(("Single",))
    with pytest.raises(InputError, match="target_qps: expected more than 0, got -1"):
        LoadSettings(target_qps=-1.0)
