"""The standard scenarios of MLPerf Inference, by LoadGen: what to ask of it, and what its logs say."""

from __future__ import annotations

import importlib.util
import json
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...runtimes.core.errors import InputError, RuntimeFailed
from ...runtimes.core.files import write_error
from ...runtimes.core.versions import needs
from ...runtimes.worker.load_test import DETAIL, SUMMARY
from ..schema.rows import Row, Scenario

if TYPE_CHECKING:
    from .row_runner import RowRunner

# Scenario -> (the official metric, its key in the detail log, its unit).
METRICS = {
    "SingleStream": ("p90 latency, early-stopping estimate", "early_stopping_latency_ss", "ms"),
    "MultiStream": ("p99 query latency, early-stopping estimate", "early_stopping_latency_ms", "ms"),
    "Offline": ("throughput", "result_samples_per_second", "samples/s"),
    "Server": ("completed throughput", "result_completed_samples_per_sec", "samples/s"),
}
SCENARIOS = tuple(METRICS)
# The fewest queries with which LoadGen's early stopping can vouch for the scenario's percentile.
FEWEST = {"SingleStream": 64, "MultiStream": 662, "Offline": 1, "Server": 459}
MULTI_STREAM_SAMPLES = 8


@dataclass(frozen=True)
class LoadSettings:
    """scenarios: of `SCENARIOS`. seconds: the shortest a scenario lasts. target_qps: Server's Poisson rate, half of
    what the row can do when None. target_latency_ms: Server's p99 bound, ten latencies when None. logs: folder that
    keeps LoadGen's logs, one folder a row and scenario in it.
    """

    scenarios: tuple[str, ...] = ()
    seconds: float = 5.0
    target_qps: float | None = None
    target_latency_ms: float | None = None
    logs: str | None = None

    def __post_init__(self) -> None:
        for scenario in self.scenarios:
            if scenario not in METRICS:
                raise InputError(f"scenario: expected one of {', '.join(METRICS)}, got '{scenario}'")
        for name in ("seconds", "target_qps", "target_latency_ms"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                raise InputError(f"{name}: expected more than 0, got {value:g}")
        if self.scenarios and importlib.util.find_spec("mlperf_loadgen") is None:
            raise InputError(f"--scenario {needs('mlperf_loadgen')}")
        if self.logs is not None:
            try:
                Path(self.logs).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise write_error(Path(self.logs), error) from error


def test_settings(scenario: str, latency_ns: float, images_per_s: float, load: LoadSettings) -> dict[str, Any]:
    """LoadGen's settings for a model of this latency. Expected rates are set high: it draws its queries beforehand and
    a test that runs out of them is invalid.
    """
    settings: dict[str, Any] = {"min_duration_ms": int(load.seconds * 1000), "min_query_count": FEWEST[scenario]}
    if scenario == "SingleStream":
        settings["single_stream_expected_latency_ns"] = int(latency_ns / 2)
    elif scenario == "MultiStream":
        settings["multi_stream_samples_per_query"] = MULTI_STREAM_SAMPLES
        settings["multi_stream_expected_latency_ns"] = int(latency_ns * MULTI_STREAM_SAMPLES / 4)
    elif scenario == "Offline":
        settings["offline_expected_qps"] = 1.5 * images_per_s
    else:
        settings["server_target_qps"] = load.target_qps or 0.5 * images_per_s
        bound_ms = load.target_latency_ms or max(10 * latency_ns / 1e6, 10.0)
        settings["server_target_latency_ns"] = int(bound_ms * 1e6)
    return settings


def shortest_s(scenario: str, latency_ns: float, load: LoadSettings) -> float:
    """How long the fewest queries take."""
    each = MULTI_STREAM_SAMPLES if scenario == "MultiStream" else 1
    rate = 1 / load.target_qps if scenario == "Server" and load.target_qps else 2 * each * latency_ns / 1e9
    return FEWEST[scenario] * rate


@contextmanager
def log_folder(load: LoadSettings, row: Row, scenario: str) -> Iterator[Path]:
    """Where a scenario's logs go: kept, or thrown away at the end."""
    if load.logs is None:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
        return
    path = Path(load.logs) / re.sub(r"[^A-Za-z0-9.-]+", "-", row.name) / scenario
    path.mkdir(parents=True, exist_ok=True)
    yield path.resolve()


def run_scenarios(runner: RowRunner, tensors: NDArray[np.float32], load: LoadSettings) -> None:
    """Every scenario asked for, in the runner's worker; tensors: its samples, float32 `(n, 3, H, W)`."""
    row, worker = runner.row, runner.worker
    assert worker is not None
    latency_ns = float(np.median(np.concatenate(runner.rounds)))
    for scenario in load.scenarios:
        settings = test_settings(scenario, latency_ns / row.batch, row.batch * 1e9 / latency_ns, load)
        with log_folder(load, row, scenario) as folder:
            longer_s = 10 * load.seconds + 3 * shortest_s(scenario, latency_ns / row.batch, load)
            inference_ns = worker.load_test(tensors, scenario, row.batch, settings, str(folder), longer_s)
            found = read_logs(folder, scenario, settings)
        row.scenarios.append(found)
        check_against(found, inference_ns)
        if not found.valid:
            row.warnings.append(f"LoadGen {scenario}: INVALID: {found.problem}")


def read_logs(folder: Path, scenario: str, settings: dict[str, Any]) -> Scenario:
    """A scenario's result from `mlperf_log_detail.txt`; RuntimeFailed when it holds none."""
    values: dict[str, Any] = {}
    try:
        for line in (folder / DETAIL).read_text(encoding="utf-8").splitlines():
            if line.startswith(":::MLLOG "):
                entry = json.loads(line[len(":::MLLOG ") :])
                values[entry["key"]] = entry["value"]
        summary = (folder / SUMMARY).read_text(encoding="utf-8")
        metric, key, unit = METRICS[scenario]
        query = "per_query_" if scenario == "MultiStream" else ""
        p50, p90, p99 = (values[f"result_{p}.00_percentile_{query}latency_ns"] / 1e6 for p in (50, 90, 99))
        official = values[key] / 1e6 if unit == "ms" else values[key]
        valid = values["result_validity"] == "VALID"
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RuntimeFailed(f"LoadGen's logs of {scenario} do not hold the result: {error!r}") from error
    said = re.findall(r"^Result is\s*: (\S+)", summary, re.MULTILINE)
    if said != ["VALID" if valid else "INVALID"]:
        raise RuntimeFailed(f"LoadGen's summary of {scenario} says {said}, its detail log {valid}")
    return Scenario(
        name=scenario,
        valid=valid,
        queries=int(values.get("result_query_count", 0)),
        latency_p50_ms=p50,
        latency_p90_ms=p90,
        latency_p99_ms=p99,
        samples_per_s=throughput(values, scenario),
        problem=None if valid else invalid_reason(values),
        log={"metric": metric, "value": official, "unit": unit, "settings": settings},
    )


def invalid_reason(values: dict[str, Any]) -> str:
    """Why LoadGen does not vouch for a result; where only early stopping failed, its reason is empty."""
    said = values.get("result_invalid_reason") or values.get("early_stopping_result") or "no reason given"
    return " ".join(line.strip(" *") for line in str(said).splitlines())


def throughput(values: dict[str, Any], scenario: str) -> float | None:
    """Samples a second of a detail log."""
    if scenario == "SingleStream":
        found = values.get("result_qps_with_loadgen_overhead")
    elif scenario == "MultiStream":
        mean = values.get("result_mean_query_latency_ns")
        found = MULTI_STREAM_SAMPLES * 1e9 / mean if mean else None
    else:
        found = values.get(METRICS[scenario][1])
    return None if found is None else float(found)


def check_against(found: Scenario, inference_ns: list[int]) -> None:
    """RuntimeFailed when LoadGen's latency is shorter than the inference itself: its figures are of something else."""
    if found.name == "SingleStream" and found.latency_p50_ms is not None:
        own = float(np.median(inference_ns)) / 1e6
        if found.latency_p50_ms < 0.98 * own:
            raise RuntimeFailed(f"LoadGen reports a median of {found.latency_p50_ms:.3f} ms, inference took {own:.3f}")
