"""MLPerf LoadGen inside the worker: its queries, answered by the worker's predictor. Runs in the sidecar too.

https://github.com/mlcommons/inference/tree/master/loadgen, through its own package `mlcommons-loadgen`.
"""

from __future__ import annotations

import queue
import threading
import time
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from .errors import RuntimeFailed, RuntimeUnavailable
from .predictor import Predictor

DETAIL, SUMMARY = "mlperf_log_detail.txt", "mlperf_log_summary.txt"


class Answerer:
    """Answers LoadGen's queries with embeddings of `samples`, float32 `(n, 3, H, W)`, in batches of at most `batch`."""

    def __init__(self, loadgen: Any, predictor: Predictor, samples: NDArray[Any], batch: int) -> None:
        self.loadgen, self.predictor, self.samples, self.batch = loadgen, predictor, samples, batch
        self.error: BaseException | None = None
        self.inference_ns: list[int] = []

    def answer(self, queries: list[Any]) -> None:
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


class QueuedAnswerer:
    """Answers on a thread of its own, as many waiting queries at once as a batch holds."""

    def __init__(self, answerer: Answerer) -> None:
        self.answerer = answerer
        self._waiting: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def answer(self, queries: list[Any]) -> None:
        """Only puts them down."""
        for query in queries:
            self._waiting.put(query)

    def _serve(self) -> None:
        while True:
            batch = [self._waiting.get()]
            while batch[-1] is not None and len(batch) < self.answerer.batch:
                try:
                    batch.append(self._waiting.get_nowait())
                except queue.Empty:
                    break
            stop = batch[-1] is None
            self.answerer.answer([query for query in batch if query is not None])
            if stop:
                return

    def stop(self) -> None:
        """After the test."""
        self._waiting.put(None)
        self._thread.join()


def run_load_test(
    predictor: Predictor, samples: NDArray[Any], scenario: str, batch: int, settings: dict[str, Any], folder: str
) -> list[int]:
    """One scenario; LoadGen's logs go to `folder`. settings: attributes of its TestSettings.

    Returns the nanoseconds of every inference as this side saw it.
    """
    try:
        import mlperf_loadgen as loadgen
    except ImportError as error:
        raise RuntimeUnavailable(
            "scenarios need MLPerf LoadGen: run \"pip install 'edgerecall[bench]'\", for runtime 'lite' also"
            " 'edgerecall doctor --fix lite'"
        ) from error
    test = loadgen.TestSettings()
    test.scenario = getattr(loadgen.TestScenario, scenario)
    test.mode = loadgen.TestMode.PerformanceOnly
    for name, value in settings.items():
        setattr(test, name, value)
    output = loadgen.LogOutputSettings()
    output.outdir, output.copy_summary_to_stdout = folder, False
    logs = loadgen.LogSettings()
    logs.log_output, logs.enable_trace = output, False
    for size in sorted({1, min(batch, len(samples))}):  # some runtimes compile for a size when it first comes
        predictor.embed(samples[:size])
    answerer = Answerer(loadgen, predictor, samples, batch)
    queued = QueuedAnswerer(answerer) if scenario == "Server" else None
    system = loadgen.ConstructSUT((queued or answerer).answer, lambda: None)
    library = loadgen.ConstructQSL(len(samples), len(samples), lambda indices: None, lambda indices: None)
    try:
        # Named so that a file of that name in the current folder does not change the test.
        loadgen.StartTestWithLogSettings(system, library, test, logs, str(Path(folder) / "audit.config"))
    finally:
        if queued:
            queued.stop()
        loadgen.DestroyQSL(library)
        loadgen.DestroySUT(system)
    if answerer.error is not None:
        raise RuntimeFailed(f"in LoadGen's {scenario}: {answerer.error}") from answerer.error
    if not (Path(folder) / DETAIL).is_file():
        raise RuntimeFailed(f"LoadGen wrote no {DETAIL} for {scenario}")
    return answerer.inference_ns
