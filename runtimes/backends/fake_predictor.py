"""A predictor without a runtime: makes bench, command line and report testable in milliseconds."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..predictor.backend import Backend
from ..predictor.interface import (
    Accelerator,
    ExecutionRecord,
    ModelIO,
    Predictor,
    RunOptions,
    RuntimeInfo,
    checked_output,
)

BACKENDS = (
    Backend(
        name="fake",
        predictor=f"{__name__}:FakePredictor",
        quantisations=("fp32", "fp16", "int8"),
        executions=("fp32", "tf32", "fp16", "bf16"),
        tolerance={"fp32": 1e-5, "tf32": 5e-3, "fp16": 5e-3, "bf16": 5e-2, "int8": 0.5},
        in_all=False,
        order=1000,
    ),
)
CELLS = 4


def pooled_projection(dim: int, seed: int = 0) -> Callable[[NDArray[Any]], NDArray[Any]]:
    """A fixed random projection of the image averaged over a 4 x 4 grid; similar images stay similar."""
    weights = np.random.default_rng(seed).standard_normal((3 * CELLS * CELLS, dim)).astype(np.float32)

    def embed(batch: NDArray[Any]) -> NDArray[Any]:
        count, channels, height, width = batch.shape
        rows = batch[:, :, : height - height % CELLS, : width - width % CELLS]
        grid = rows.reshape(count, channels, CELLS, height // CELLS, CELLS, width // CELLS)
        return np.asarray(grid.mean(axis=(3, 5)).reshape(count, -1) @ weights)

    return embed


class FakePredictor(Predictor):
    """From a function, or from a file `model`: JSON with any of

    `noise` (added to the output), `sleep_ms`, `awake` (the first so many inputs, whenever they come, are answered
    without sleep), `spin_ms` (of work), `precision` (claimed), `crash_after` (calls until SIGKILL), `hang_after` (calls
    until it never answers), `forget_after` (calls until its answers mean nothing), `garbage_first` (whether the first
    one means nothing), `runs` (the precision that its record tells), `gpu` (its `Accelerator`).
    """

    def __init__(
        self,
        files: dict[str, str] | Callable[[NDArray[Any]], NDArray[Any]],
        io: ModelIO,
        options: RunOptions | None = None,
    ) -> None:
        options = options or RunOptions()
        self._behaviour = {} if callable(files) else json.loads(Path(files["model"]).read_text())
        self._function = files if callable(files) else pooled_projection(io.embedding_dim)
        self._calls = 0
        self._awake: set[bytes] = set()
        self.io = io
        self.info = RuntimeInfo("fake", "1", self._behaviour.get("precision", options.precision), options.threads)

    def embed(self, batch: NDArray[Any]) -> NDArray[Any]:
        self._calls += 1
        if self._calls > self._behaviour.get("crash_after", self._calls):
            os.kill(os.getpid(), signal.SIGKILL)
        if self._calls > self._behaviour.get("hang_after", self._calls):
            time.sleep(3600)
        if not self._is_awake(batch):
            time.sleep(self._behaviour.get("sleep_ms", 0) / 1000)
        end = time.perf_counter() + self._behaviour.get("spin_ms", 0) / 1000
        while time.perf_counter() < end:
            pass
        output = self._function(batch)
        garbage = self._calls == 1 and self._behaviour.get("garbage_first", False)
        if garbage or self._calls > self._behaviour.get("forget_after", self._calls):
            output = np.random.default_rng(self._calls).standard_normal(output.shape)
        noise = self._behaviour.get("noise", 0.0)
        if noise:
            output = output + noise * np.random.default_rng(1).standard_normal(output.shape)
        return checked_output("fake", output, len(batch), self.io)

    def _is_awake(self, batch: NDArray[Any]) -> bool:
        given = batch.tobytes() if "awake" in self._behaviour else b""
        if len(self._awake) < self._behaviour.get("awake", 0):
            self._awake.add(given)
        return given in self._awake

    def execution_record(self, batch: NDArray[Any]) -> ExecutionRecord | None:
        runs = self._behaviour.get("runs")
        return ExecutionRecord(runs, "the fake's record", {"projection": 1}) if runs else None

    def accelerator(self, batch: NDArray[Any]) -> Accelerator | None:
        gpu = self._behaviour.get("gpu")
        return Accelerator(**gpu) if gpu else None
