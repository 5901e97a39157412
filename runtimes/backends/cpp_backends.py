"""The runtimes that the C++ core drives, described. Standard library only: `edgerecall-device` starts by it."""

from __future__ import annotations

from typing import Any

from ..core.versions import ONNXRUNTIME, OPENVINO, Package
from ..predictor.backend import CPP, Backend, Library

PREDICTORS = f"{__package__}.cpp_predictor"
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
        predictor=f"{PREDICTORS}:{predictor}",
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
        ONNXRUNTIME,
        title="ONNX Runtime, from C++",
        file_format="ONNX",
        quantisations=("fp32", "fp16", "int8"),
        order=110,
    ),
    described(
        "openvino",
        "CppOpenVino",
        Library("wheel", "libs", "libopenvino_c.so", "EDGERECALL_OPENVINO", OPENVINO_PARTS, glibc=(2, 35)),
        OPENVINO,
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
        quantisations=("fp32", "fp16", "int8"),
        executions=("fp32", "fp16", "bf16"),
        order=130,
    ),
    described(
        "mnn",
        "CppMnn",
        Library("given"),
        None,
        title="MNN, from C++",
        file_format="`.mnn`",
        quantisations=("fp32", "fp16"),
        order=135,
    ),
    Backend(  # there is no Python package of it
        name="tnn",
        predictor=f"{PREDICTORS}:CppTnn",
        imports="json",
        title="TNN, from C++",
        file_format="`.tnnproto` and `.tnnmodel`",
        order=138,
        library=Library("given"),
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
