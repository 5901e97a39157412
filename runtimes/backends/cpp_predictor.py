"""The C++ core's predictors: the code that runs on devices, as rows beside the Python ones."""

from __future__ import annotations

import os
from typing import Any

from numpy.typing import NDArray

from ..core.errors import RuntimeFailed, RuntimeUnavailable
from ..core.package_folders import package_library
from ..core.versions import Package, needs
from ..predictor.backend import CPP, Backend, Library
from ..predictor.interface import ExecutionRecord, ModelIO, Predictor, RunOptions, RuntimeInfo
from . import onnxruntime_predictor, openvino_predictor

# Of OpenVINO's libraries those that run an IR model on CPU.
OPENVINO_PARTS = (
    "libopenvino.so",
    "libopenvino_c.so",
    "_cpu_plugin.so",
    "libopenvino_ir_frontend.so",
    "libtbb.so",
    "libhwloc.so",
)


def described(name: str, predictor: str, library: Library, package: Package | None, **more: Any) -> Backend:
    """A runtime of the core, over the artifacts of the Python one of that name."""
    return Backend(
        name=f"{CPP}{name}",
        predictor=f"{__name__}:{predictor}",
        package=package,
        imports="json",  # nothing: the core opens the library itself
        artifacts=name,
        in_all=False,
        library=library,
        **more,
    )


BACKENDS = (
    described(
        "onnxruntime",
        "CppOnnxRuntime",
        Library(
            "wheel", "capi", "libonnxruntime.so", "EDGERECALL_ONNXRUNTIME", ("onnxruntime/capi/libonnxruntime.so",)
        ),
        onnxruntime_predictor.PACKAGE,
        title="ONNX Runtime, from C++",
        file_format="ONNX",
        quantisations=("fp32", "fp16", "int8"),
        order=110,
    ),
    described(
        "openvino",
        "CppOpenVino",
        Library("wheel", "libs", "libopenvino_c.so", "EDGERECALL_OPENVINO", OPENVINO_PARTS, glibc=(2, 35)),
        openvino_predictor.PACKAGE,
        title="OpenVINO, from C++",
        file_format="IR",
        quantisations=("fp32", "fp16", "int8"),
        executions=("fp32", "fp16", "bf16"),
        order=120,
    ),
    described(
        "ncnn",
        "CppNcnn",
        Library("source"),
        None,
        title="ncnn, from C++",
        file_format="`.param` and `.bin`",
        executions=("fp32", "fp16", "bf16"),
        order=130,
    ),
    described("lite", "CppLite", Library("given"), None, title="Paddle Lite, from C++", file_format="`.nb`", order=140),
    described(
        "paddle",
        "CppPaddle",
        Library("given"),
        None,
        title="Paddle Inference, from C++",
        file_format="PIR or `.pdmodel`",
        executions=("fp32", "bf16"),
        order=150,
    ),
)
BY_NAME = {backend.name: backend for backend in BACKENDS}


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
            raise RuntimeUnavailable(f"runtime '{self.runtime}': {error}") from error
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
            raise RuntimeFailed(f"{CPP}{error}") from error

    def execution_record(self, batch: NDArray[Any]) -> ExecutionRecord | None:
        told = self._core.executed(batch)
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


class CppLite(CppPredictor):
    """files: `model` (`.nb`). Only in a core configured with EDGERECALL_PADDLE_LITE_DIR."""

    runtime = "cpp-lite"


class CppPaddle(CppPredictor):
    """files: `model`, `params`. Only in a core configured with EDGERECALL_PADDLE_INFERENCE_DIR."""

    runtime = "cpp-paddle"
