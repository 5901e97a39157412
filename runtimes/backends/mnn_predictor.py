"""MNN, by its own Python package."""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import RuntimeFailed, RuntimeUnavailable
from ..core.versions import Package, needs
from ..predictor.backend import Backend
from ..predictor.interface import ModelIO, Predictor, RunOptions, RuntimeInfo, checked_output

PACKAGE = Package("MNN", "MNN", "mnn")
BACKENDS = (
    Backend(
        name="mnn",
        predictor=f"{__name__}:MnnPredictor",
        title="MNN",
        package=PACKAGE,
        file_format="`.mnn`",
        quantisations=("fp32", "fp16"),
        order=45,
    ),
)


@contextlib.contextmanager
def silent() -> Iterator[None]:
    """Drops what a library prints to standard output; what other threads print there meanwhile is lost too."""
    libc = ctypes.CDLL(None)
    sys.stdout.flush()
    libc.fflush(None)
    standard_output, nowhere = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    try:
        yield
    finally:
        libc.fflush(None)
        os.dup2(standard_output, 1)
        os.close(standard_output)
        os.close(nowhere)


class MnnPredictor(Predictor):
    """files: `model` (`.mnn`). It tells nothing of what it computes."""

    concurrent = False  # its modules share one executor a process

    def __init__(self, files: dict[str, str], io: ModelIO, options: RunOptions) -> None:
        try:
            with silent():  # it greets
                import MNN
                from MNN import expr, nn
        except ImportError as error:
            raise RuntimeUnavailable(f"runtime 'mnn' {needs(PACKAGE, error=error)}") from error
        if options.precision != "fp32":
            raise RuntimeUnavailable("runtime 'mnn' on this machine runs fp32: ask for it")
        self.io, self._expr = io, expr
        load, model = nn.load_module_from_file, files["model"]
        try:
            with silent():
                told = load(model, [], []).get_info()
                self._module = load(
                    model,
                    told["inputNames"],
                    told["outputNames"],
                    thread_num=options.threads,
                    precision_mode=expr.PrecisionMode.High,
                )
        except (SystemError, RuntimeError) as error:  # the reason goes to standard output alone
            raise RuntimeFailed("mnn cannot load the model: it is none, or of a newer MNN") from error
        self.info = RuntimeInfo("mnn", MNN.version(), "fp32", None)

    def embed(self, batch: NDArray[Any]) -> NDArray[Any]:
        given = self._expr.const(batch, list(batch.shape), self._expr.NCHW, self._expr.float)
        (output,) = self._module.forward([given])
        found = np.array(self._expr.convert(output, self._expr.NCHW).read(), dtype=np.float32)
        return checked_output("mnn", found, len(batch), self.io)
