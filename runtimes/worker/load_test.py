"""MLPerf LoadGen inside the worker: its queries, answered by the worker's predictor. Runs in the sidecar too.

https://github.com/mlcommons/inference/tree/master/loadgen, through its own package `mlcommons-loadgen`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..core.errors import RuntimeFailed, RuntimeUnavailable
from ..predictor.interface import Predictor
from .micro_batches import MicroBatcher

DETAIL, SUMMARY = "mlperf_log_detail.txt", "mlperf_log_summary.txt"


class SystemUnderTest:
    """Answers LoadGen's queries with embeddings of `samples`, float32 `(n, 3, H, W)`, in batches of at most `batch`."""

    def __init__(self, loadgen: Any, predictor: Predictor, samples: NDArray[Any], batch: int) -> None:
        self.loadgen, self.predictor, self.samples, self.batch = loadgen, predictor, samples, batch
        self.error: BaseException | None = None
        self.inference_ns: list[int] = []

    def answer(self, queries: Sequence[Any]) -> None:
        """Embeds, and completes every query even after an error: LoadGen would wait for it for ever."""
        for start in range(0, len(queries), self.batch):
            part = queries[start : start + self.batch]
            if self.error is None:
                try:
                    begin = time.perf_counter_ns()
                    self.predictor.embed(self.samples[[query.index for query in part]])
                    self.inference_ns.append(time.perf_counter_ns() - begin)
                except BaseException as error:  # one that passed through LoadGen's C++ would end the process
                    self.error = error
            self.loadgen.QuerySamplesComplete([self.loadgen.QuerySampleResponse(query.id, 0, 0) for query in part])


def load_loadgen() -> Any:
    """LoadGen's module. RuntimeUnavailable with the remedy."""
    try:
        import mlperf_loadgen
    except ImportError as error:
        raise RuntimeUnavailable(
            "scenarios need MLPerf LoadGen: run \"pip install 'edgerecall[bench]'\", for runtime 'lite' also"
            " 'edgerecall doctor --fix lite'"
        ) from error
    return mlperf_loadgen


def run_queries(
    issue: Callable[[Sequence[Any]], None], samples: int, scenario: str, settings: dict[str, Any], folder: str
) -> None:
    """One scenario of a system under test, whatever it is; LoadGen's logs go to `folder`.

    issue: takes queries of samples by index, and has each completed by `QuerySamplesComplete`, from any thread. It must
    not raise.
    """
    loadgen = load_loadgen()
    test = loadgen.TestSettings()
    test.scenario = getattr(loadgen.TestScenario, scenario)
    test.mode = loadgen.TestMode.PerformanceOnly
    for name, value in settings.items():
        setattr(test, name, value)
    output = loadgen.LogOutputSettings()
    output.outdir, output.copy_summary_to_stdout = folder, False
    logs = loadgen.LogSettings()
    logs.log_output, logs.enable_trace = output, False
    handle = loadgen.ConstructSUT(issue, lambda: None)
    library = loadgen.ConstructQSL(samples, samples, lambda indices: None, lambda indices: None)
    try:
        # Named so that a file of that name in the current folder does not change the test.
        loadgen.StartTestWithLogSettings(handle, library, test, logs, str(Path(folder) / "audit.config"))
    finally:
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(handle)
    if not (Path(folder) / DETAIL).is_file():
        raise RuntimeFailed(f"LoadGen wrote no {DETAIL} for {scenario}")


def run_load_test(
    predictor: Predictor, samples: NDArray[Any], scenario: str, batch: int, settings: dict[str, Any], folder: str
) -> list[int]:
    """One scenario; LoadGen's logs go to `folder`. settings: attributes of its TestSettings.

    Returns the nanoseconds of every inference as this side saw it.
    """
    loadgen = load_loadgen()
    for size in sorted({1, min(batch, len(samples))}):  # some runtimes compile for a size when it first comes
        predictor.embed(samples[:size])
    system = SystemUnderTest(loadgen, predictor, samples, batch)
    # The Server scenario's queries come one by one: as many as wait are answered at once.
    batcher = MicroBatcher(system.answer, batch) if scenario == "Server" else None
    try:
        run_queries(batcher.put if batcher else system.answer, len(samples), scenario, settings, folder)
    except RuntimeFailed:
        if system.error is None:
            raise
    finally:
        if batcher:
            batcher.stop()
    if system.error is not None:
        raise RuntimeFailed(f"in LoadGen's {scenario}: {system.error}") from system.error
    return system.inference_ns
