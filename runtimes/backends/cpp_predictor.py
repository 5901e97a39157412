"""The C++ core's predictors: the code that runs on devices, as rows beside the Python ones."""

from __future__ import annotations

import os
from typing import Any

from numpy.typing import NDArray

from ..core.errors import RuntimeFailed, RuntimeUnavailable
from ..core.package_folders import package_library
from ..core.versions import needs
from ..predictor.backend import Backend
from ..predictor.interface import ExecutionRecord, ModelIO, Predictor, RunOptions, RuntimeInfo
from .cpp_backends import BY_NAME


def wheel_library(backend: Backend) -> str:
    """A shared library inside an installed wheel, without importing it; empty when the environment names another.

    Raises RuntimeUnavailable with the remedy.
    """
    library, package = backend.library, backend.package
    assert library is not None and package is not None
    if os.environ.get(library.variable):
        return ""
    found = package_library(package.module, library.folder, library.stem)
    if found is None:
        raise RuntimeUnavailable(f"{needs(package)}, or name {library.stem} in {library.variable}")
    return found


class CppPredictor(Predictor):
    """files: as the Python predictor of the same runtime."""

    runtime = ""

    def __init__(self, files: dict[str, str], io: ModelIO, options: RunOptions) -> None:
        from .. import _native

        self.io, backend = io, BY_NAME[self.runtime]
        self._prefix = self.runtime.removesuffix(backend.artifacts)  # what the core's own messages lack
        if options.precision not in backend.executions:
            runs = " or ".join(backend.executions)
            raise RuntimeUnavailable(f"runtime '{self.runtime}' does not run {options.precision}: ask for {runs}")
        try:
            self._core = _native.Predictor(
                backend.artifacts,
                files,
                io.input_name,
                io.input_shape,
                io.embedding_dim,
                options.threads,
                options.precision,
                options.batch,
                wheel_library(backend) if backend.package else "",
            )
        except RuntimeUnavailable as error:
            said = f"runtime '{self.runtime}': " if self._prefix else ""
            raise RuntimeUnavailable(f"{said}{error}") from error
        except RuntimeFailed as error:
            raise RuntimeFailed(f"{self.runtime} cannot load the model: {error}") from error
        self.info = RuntimeInfo(
            runtime=self.runtime,
            version=self._core.version,
            precision=self._core.precision,
            threads=self._core.threads or None,
            detail=dict(self._core.detail),
        )

    def embed(self, batch: NDArray[Any]) -> NDArray[Any]:
        try:
            return self._core.embed(batch)
        except RuntimeFailed as error:
            raise RuntimeFailed(f"{self._prefix}{error}") from error

    def execution_record(self, batch: NDArray[Any]) -> ExecutionRecord | None:
        told = self._core.execution_record(batch)
        return ExecutionRecord(*told) if told else None


class CppOnnxRuntime(CppPredictor):
    """files: `model` (`.onnx`)."""

    runtime = "cpp-onnxruntime"


class CppOpenVino(CppPredictor):
    """files: `model` (`.xml`), `weights` (`.bin`)."""

    runtime = "cpp-openvino"
    compiles_per_batch = True


class CppNcnn(CppPredictor):
    """files: `model` (`.param`), `weights` (`.bin`). Only in a core configured with EDGERECALL_NCNN_DIR."""

    runtime = "cpp-ncnn"


class CppMnn(CppPredictor):
    """files: `model` (`.mnn`). Only in a core configured with EDGERECALL_MNN_DIR."""

    runtime = "cpp-mnn"


class CppTnn(CppPredictor):
    """files: `model` (`.tnnproto`), `weights` (`.tnnmodel`). Only in a core configured with EDGERECALL_TNN_DIR."""

    runtime = "tnn"
    compiles_per_batch = True


class CppLite(CppPredictor):
    """files: `model` (`.nb`). Only in a core configured with EDGERECALL_PADDLE_LITE_DIR."""

    runtime = "cpp-lite"


class CppPaddle(CppPredictor):
    """files: `model`, `params`. Only in a core configured with EDGERECALL_PADDLE_INFERENCE_DIR."""

    runtime = "cpp-paddle"
