"""The C++ core's predictors: the code that runs on devices, as rows beside the Python ones."""

from __future__ import annotations

import os
from typing import Any

from numpy.typing import NDArray

from .errors import InputError, RuntimeFailed, RuntimeUnavailable
from .package_folders import LIBRARIES, package_library
from .predictor import Executed, ModelIO, Predictor, RunOptions, RuntimeInfo, artifact_runtime
from .versions import needs


def wheel_library(package: str) -> str:
    """A shared library inside an installed wheel, without importing it; empty when the environment names another.

    Raises RuntimeUnavailable with the remedy.
    """
    _, stem, variable = LIBRARIES[package]
    if os.environ.get(variable):
        return ""
    found = package_library(package)
    if found is None:
        raise RuntimeUnavailable(f"{needs(package)}, or name {stem} in {variable}")
    return found


class NativePredictor(Predictor):
    """files: as the Python predictor of the same runtime."""

    runtime = ""

    def library(self) -> str:
        """The runtime's shared library, for those that the core opens; empty: none, or the environment's."""
        return ""

    def __init__(self, files: dict[str, str], io: ModelIO, options: RunOptions) -> None:
        from . import _native

        self.io = io
        try:
            self._core = _native.Predictor(
                artifact_runtime(self.runtime),
                files,
                io.input_name,
                io.input_shape,
                io.embedding_dim,
                options.threads,
                options.precision,
                options.batch,
                self.library(),
            )
        except (_native.Unavailable, RuntimeUnavailable) as error:
            raise RuntimeUnavailable(f"runtime '{self.runtime}': {error}") from error
        except _native.RuntimeFailed as error:
            raise RuntimeFailed(f"{self.runtime} cannot load the model: {error}") from error
        except _native.InputError as error:
            raise InputError(str(error)) from error
        self.info = RuntimeInfo(
            runtime=self.runtime,
            version=self._core.version,
            precision=self._core.precision,
            threads=self._core.threads or None,
            detail=dict(self._core.detail),
        )

    def embed(self, batch: NDArray[Any]) -> NDArray[Any]:
        from . import _native

        try:
            return self._core.embed(batch)
        except _native.RuntimeFailed as error:
            raise RuntimeFailed(f"native:{error}") from error

    def executed(self, batch: NDArray[Any]) -> Executed | None:
        told = self._core.executed(batch)
        return Executed(*told) if told else None


class NativeOnnxRuntime(NativePredictor):
    """files: `model` (`.onnx`)."""

    runtime = "native:onnxruntime"

    def library(self) -> str:
        return wheel_library("onnxruntime")


class NativeOpenVino(NativePredictor):
    """files: `model` (`.xml`), `weights` (`.bin`)."""

    runtime = "native:openvino"
    sized = True

    def library(self) -> str:
        return wheel_library("openvino")


class NativeNcnn(NativePredictor):
    """files: `model` (`.param`), `weights` (`.bin`). Only in a core configured with EDGERECALL_NCNN_DIR."""

    runtime = "native:ncnn"


class NativeLite(NativePredictor):
    """files: `model` (`.nb`). Only in a core configured with EDGERECALL_PADDLE_LITE_DIR."""

    runtime = "native:lite"


class NativePaddle(NativePredictor):
    """files: `model`, `params`. Only in a core configured with EDGERECALL_PADDLE_INFERENCE_DIR."""

    runtime = "native:paddle"
