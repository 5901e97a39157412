"""MNN, by its own Python package."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import RuntimeFailed, RuntimeUnavailable
from ..core.versions import Package, needs
from ..predictor.backend import Backend
from ..predictor.interface import ModelIO, Predictor, RunOptions, RuntimeInfo, checked_output
from ..predictor.prints import silenced

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


class MnnPredictor(Predictor):
    """files: `model` (`.mnn`). It tells nothing of what it computes.

    By its older interface, sessions: its modules (3.6) compute on four threads whatever is asked.
    """

    concurrent = False  # not said of its interpreters

    def __init__(self, files: dict[str, str], io: ModelIO, options: RunOptions) -> None:
        try:
            with silenced(1):  # it greets
                import MNN
        except ImportError as error:
            raise RuntimeUnavailable(f"runtime 'mnn' {needs(PACKAGE, error=error)}") from error
        if options.precision != "fp32":
            raise RuntimeUnavailable("runtime 'mnn' on this machine runs fp32: ask for it")
        self.io, self._mnn, self._ready = io, MNN, 0
        wanted = {"backend": "CPU", "precision": "high", "numThread": options.threads}
        try:
            with silenced(1):  # the reason goes to standard output alone
                self._interpreter = MNN.Interpreter(files["model"])
                self._session = self._interpreter.createSession(wanted)
                self._input = self._interpreter.getSessionInput(self._session)
                self._prepare(options.batch)
        except Exception as error:
            raise RuntimeFailed("mnn cannot load the model: it is none, or of a newer MNN") from error
        self.info = RuntimeInfo("mnn", MNN.version(), "fp32", None)

    def _prepare(self, count: int) -> None:
        """Makes the session ready for a batch size."""
        self._interpreter.resizeTensor(self._input, (count, *self.io.input_shape))
        self._interpreter.resizeSession(self._session)
        self._ready = count

    def _tensor(self, array: NDArray[Any]) -> Any:
        """A tensor of MNN's in the memory's own order."""
        mnn = self._mnn
        return mnn.Tensor(array.shape, mnn.Halide_Type_Float, array, mnn.Tensor_DimensionType_Caffe)

    def embed(self, batch: NDArray[Any]) -> NDArray[Any]:
        count = len(batch)
        if count != self._ready:
            self._prepare(count)
        self._input.copyFrom(self._tensor(batch))
        if failed := self._interpreter.runSession(self._session):
            raise RuntimeFailed(f"mnn: the inference failed ({failed})")
        output = self._interpreter.getSessionOutput(self._session)
        found = self._tensor(np.zeros(output.getShape(), np.float32))
        output.copyToHostTensor(found)
        return checked_output("mnn", np.array(found.getNumpyData(), dtype=np.float32), count, self.io)
