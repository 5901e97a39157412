"""OpenVINO, CPU plugin."""

from __future__ import annotations

import copy
from collections import Counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import RuntimeUnavailable
from .predictor import (
    PRECISION_NAMES,
    Executed,
    InnerTensor,
    ModelIO,
    Predictor,
    RunOptions,
    RuntimeInfo,
    checked_output,
    is_activation,
    precisions,
)

HINTS = {"fp32": "f32", "fp16": "f16", "bf16": "bf16"}
HEAVY_LAYERS = {"Convolution", "FullyConnected", "MatMul", "Deconvolution"}
LAYER_FIELDS = ("layerType", "runtimePrecision", "primitiveType")


def executed_layers(compiled: Any) -> Counter[str]:
    """The heavy layers of the execution graph by kind, precision and kernel."""
    layers: Counter[str] = Counter()
    for operation in compiled.get_runtime_model().get_ordered_ops():
        info = {key: value.astype(str) for key, value in operation.get_rt_info().items() if key in LAYER_FIELDS}
        if info.get("layerType") in HEAVY_LAYERS and "runtimePrecision" in info:
            layers[f"{info['layerType']} {info['runtimePrecision'].lower()} {info.get('primitiveType', '')}"] += 1
    return layers


class OpenVinoPredictor(Predictor):
    """files: `model` (`.xml`, its `.bin` beside it)."""

    package = "openvino"

    def __init__(self, files: dict[str, str], io: ModelIO, options: RunOptions) -> None:
        try:
            import openvino
        except ImportError as error:
            raise RuntimeUnavailable(
                "runtime 'openvino' needs openvino: run 'pip install edgerecall[openvino]'"
            ) from error
        core = openvino.Core()
        self.io, self._model = io, files["model"]
        # Without the hint OpenVINO chooses bf16 by itself on CPUs that have it.
        self._compiled = core.compile_model(
            files["model"],
            "CPU",
            {
                "INFERENCE_PRECISION_HINT": HINTS[options.precision],
                "INFERENCE_NUM_THREADS": options.threads * options.lanes,
                "NUM_STREAMS": options.lanes,
                "PERFORMANCE_HINT": "LATENCY" if options.lanes == 1 else "THROUGHPUT",
            },
        )
        self._request = self._compiled.create_infer_request()
        layers = executed_layers(self._compiled)
        types = {name.split()[1] for name in layers}
        self._executed = Executed(
            precisions(PRECISION_NAMES.get(name, name) for name in types), "OpenVINO's execution graph", dict(layers)
        )
        self.info = RuntimeInfo(
            runtime="openvino",
            version=openvino.__version__,
            precision=self._executed.precision,
            threads=int(self._compiled.get_property("INFERENCE_NUM_THREADS")) // options.lanes,
            detail={"streams": int(self._compiled.get_property("NUM_STREAMS"))},
        )

    def embed(self, batch: NDArray[Any]) -> NDArray[Any]:
        results = self._request.infer([batch], share_inputs=True)
        return checked_output("openvino", results[0], len(batch), self.io)

    def sibling(self) -> Predictor | None:
        other = copy.copy(self)
        other._request = self._compiled.create_infer_request()
        return other

    def executed(self, batch: NDArray[Any]) -> Executed | None:
        return self._executed

    def inner_tensors(self, batch: NDArray[Any]) -> list[InnerTensor] | None:
        import openvino
        from openvino import opset1

        core = openvino.Core()
        model = core.read_model(self._model)
        constant: set[str] = set()
        names, kinds, outputs = [], [], []
        for node in model.get_ordered_ops():
            kind, friendly = node.get_type_name(), node.get_friendly_name()
            inputs = [value.get_node().get_friendly_name() for value in node.input_values()]
            if kind == "Constant" or (inputs and all(name in constant for name in inputs)):
                constant.add(friendly)
            elif kind not in ("Result", "Parameter"):
                for output in node.outputs():
                    names.append(min(output.get_names(), default=friendly))
                    kinds.append(kind)
                    outputs.append(output)
        # A result for every value, in this order: names may be missing or stand twice.
        whole = openvino.Model([opset1.result(output) for output in outputs], model.get_parameters(), "inner")
        compiled = core.compile_model(whole, "CPU", {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1})
        request = compiled.create_infer_request()
        request.infer({0: batch})
        values = [np.array(request.get_output_tensor(index).data) for index in range(len(outputs))]
        return [InnerTensor(n, k, v) for n, k, v in zip(names, kinds, values, strict=True) if is_activation(v)]

    def close(self) -> None:
        del self._request, self._compiled
