"""An NVIDIA GPU that is none: its driver, CUDA's runtime over this machine's memory, and a TensorRT that computes by
ONNX Runtime. They answer as the real packages do where EdgeRecall calls them.
"""

from __future__ import annotations

import ctypes
import json
import types
from enum import IntEnum
from typing import Any

import numpy as np
import onnxruntime


class NVMLError(Exception):
    """What pynvml raises."""


def fake_nvml(**changed: Any) -> types.ModuleType:
    """The module pynvml of one GPU. changed: what functions return, an exception to raise it."""
    answers = {
        "nvmlInit": None,
        "nvmlShutdown": None,
        "nvmlDeviceGetHandleByIndex": "handle",
        "nvmlDeviceGetCount": 1,
        "nvmlDeviceGetUUID": "GPU-12ab34cd-5678",
        "nvmlDeviceGetName": b"A GPU",
        "nvmlDeviceGetCudaComputeCapability": (8, 7),
        "nvmlSystemGetDriverVersion": "580.1",
        "nvmlDeviceGetComputeRunningProcesses": [],
        "nvmlDeviceGetClockInfo": 1300,
        **changed,
    }
    module = types.ModuleType("pynvml")
    module.NVMLError, module.NVML_CLOCK_SM = NVMLError, 1  # type: ignore[attr-defined]
    for name, answer in answers.items():

        def call(*_: Any, answer: Any = answer) -> Any:
            if isinstance(answer, Exception):
                raise answer
            return answer

        setattr(module, name, call)
    return module


class FakeRuntime:
    """The module cuda.bindings.runtime: device memory is this process's, and a device event a count of calls.

    held: what is allocated, address -> buffer. fail: the name of a function that answers with an error.
    """

    class cudaMemcpyKind(IntEnum):
        """Directions."""

        cudaMemcpyHostToDevice = 1
        cudaMemcpyDeviceToHost = 2

    def __init__(self) -> None:
        self.held: dict[int, Any] = {}
        self.fail = ""

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cuda"):
            raise AttributeError(name)
        return lambda *given: (2,) if name == self.fail else (0, *self._answer(name, *given))

    def _answer(self, name: str, *given: Any) -> tuple[Any, ...]:
        if name == "cudaMalloc":
            buffer = ctypes.create_string_buffer(given[0])
            self.held[ctypes.addressof(buffer)] = buffer
            return (ctypes.addressof(buffer),)
        if name == "cudaFree":
            del self.held[given[0]]
            return ()
        if name == "cudaMemcpyAsync":
            ctypes.memmove(given[0], given[1], given[2])
            return ()
        if name == "cudaGetErrorName":
            return (b"cudaErrorMemoryAllocation",)
        return {"cudaStreamCreate": (7,), "cudaEventCreate": (1,), "cudaEventElapsedTime": (0.25,)}.get(name, ())


def fake_tensorrt(name: str = "tensorrt") -> types.ModuleType:
    """The module tensorrt, or tensorrt_rtx. Its engine is the ONNX model behind a line of JSON: the largest batch.

    module.built: a list, the flags of each build. module.refuse: the reason for which no engine is loaded, "" for none.
    """
    module = types.ModuleType(name)
    vars(module).update(__version__="10.3", built=[], refuse="")
    if name == "tensorrt_rtx":
        vars(module).update(ComputeCapability=types.SimpleNamespace(CURRENT="this GPU"))

    class ILogger:
        pass

    class Logger:
        INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)

    class Network:
        num_inputs = num_outputs = 1
        model = b""

        def get_input(self, _: int) -> Any:
            return types.SimpleNamespace(name="x")

    class Builder:
        def __init__(self, log: Any) -> None:
            self.log = log

        def create_network(self, flags: int) -> Network:
            assert flags == 1 << 1
            return Network()

        def create_builder_config(self) -> Any:
            config = types.SimpleNamespace(flags={"TF32"}, most=0, num_compute_capabilities=0)
            config.set_compute_capability = lambda value, index: config.flags.add(f"for {value}")
            config.set_flag, config.clear_flag = config.flags.add, config.flags.discard
            config.add_optimization_profile = lambda profile: setattr(config, "most", profile.most)
            return config

        def create_optimization_profile(self) -> Any:
            profile = types.SimpleNamespace(most=0)
            profile.set_shape = lambda _, least, usual, most: setattr(profile, "most", most[0])
            return profile

        def build_serialized_network(self, network: Network, config: Any) -> bytes | None:
            if b"no engine" in network.model:
                self.log.log(Logger.ERROR, "no kernel for this")
                return None
            module.built.append(sorted(config.flags))  # type: ignore[attr-defined]
            return json.dumps({"most": config.most}).encode() + b"\n" + network.model

    class OnnxParser:
        num_errors = 1

        def __init__(self, network: Network, _: Any) -> None:
            self.network = network

        def parse(self, content: bytes) -> bool:
            self.network.model = content
            return b"garbage" not in content

        def get_error(self, _: int) -> Any:
            return types.SimpleNamespace(desc=lambda: "Failed to parse", node_name=lambda: "", node=lambda: -1)

    class Context:
        def __init__(self, engine: Engine) -> None:
            self.engine, self.addresses, self.shape = engine, dict[str, int](), (0,)

        def set_input_shape(self, _: str, shape: tuple[int, ...]) -> bool:
            self.shape = shape
            return shape[0] <= self.engine.most

        def get_tensor_shape(self, _: str) -> tuple[int, int]:
            return (self.shape[0], self.engine.dim)

        def set_tensor_address(self, name: str, address: int) -> bool:
            self.addresses[name] = address
            return True

        def execute_async_v3(self, _: int) -> bool:
            size = int(np.prod(self.shape))
            given = np.ctypeslib.as_array((ctypes.c_float * size).from_address(self.addresses["x"])).reshape(self.shape)
            output = self.engine.session.run(None, {self.engine.session.get_inputs()[0].name: given})[0]
            ctypes.memmove(self.addresses["y"], output.ctypes.data, output.nbytes)
            return True

    class Engine:
        num_io_tensors = 2

        def __init__(self, content: bytes) -> None:
            head, model = content.split(b"\n", 1)
            self.most = json.loads(head)["most"]
            self.session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
            self.dim = self.session.get_outputs()[0].shape[1]

        def create_execution_context(self) -> Context:
            return Context(self)

        def get_tensor_name(self, index: int) -> str:
            return "xy"[index]

        def get_tensor_mode(self, name: str) -> int:
            return "xy".index(name)

    class Runtime:
        def __init__(self, log: Any) -> None:
            self.log = log

        def deserialize_cuda_engine(self, content: bytes) -> Engine | None:
            if module.refuse or not content.startswith(b"{"):  # type: ignore[attr-defined]
                self.log.log(Logger.ERROR, module.refuse)  # type: ignore[attr-defined]
                return None
            return Engine(content)

    flag = types.SimpleNamespace(TF32="TF32")
    kinds = types.SimpleNamespace(STRONGLY_TYPED=1)
    vars(module).update(
        ILogger=ILogger, Logger=Logger, Builder=Builder, OnnxParser=OnnxParser, Runtime=Runtime, BuilderFlag=flag
    )
    vars(module).update(NetworkDefinitionCreationFlag=kinds, TensorIOMode=types.SimpleNamespace(INPUT=0))
    return module
