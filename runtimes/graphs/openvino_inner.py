"""Inside an OpenVINO model: every activation as a result, activations as parameters of the model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..predictor.interface import InnerTensor, activations

SETTINGS = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}


def described(model: Any) -> tuple[list[InnerTensor], list[Any]]:
    """Every activation without its values, and its output. A tensor is named like the layer in the `.xml`."""
    sources: dict[str, list[str]] = {}
    found: list[InnerTensor] = []
    outputs: list[Any] = []
    for node in model.get_ordered_ops():
        kind, operator = node.get_type_name(), node.get_friendly_name()
        above = [value.get_node().get_friendly_name() for value in node.input_values()]
        if kind == "Constant":
            sources[operator] = [operator]
        elif above and all(name in sources for name in above):
            sources[operator] = [source for name in above for source in sources[name]]
        elif kind not in ("Result", "Parameter"):
            constants = [(str(place), source) for place, name in enumerate(above) for source in sources.get(name, ())]
            inputs = [tensor_name(v) for v, name in zip(node.input_values(), above, strict=True) if name not in sources]
            for output in node.outputs():
                found.append(
                    InnerTensor(tensor_name(output), kind, np.empty(0), operator, tuple(inputs), tuple(constants))
                )
                outputs.append(output)
    return found, outputs


def tensor_name(output: Any) -> str:
    """The layer's name, with the output's index where it has several."""
    node = output.get_node()
    name: str = node.get_friendly_name()
    return name if node.get_output_size() == 1 else f"{name}:{output.get_index()}"


def parameters(model: Any) -> dict[str, NDArray[Any]]:
    """Its float32 and float16 constants by the layers' names: views of the model's own memory."""
    constants = (node for node in model.get_ordered_ops() if node.get_type_name() == "Constant")
    return {
        node.get_friendly_name(): np.asarray(node.data)
        for node in constants
        if node.get_element_type().get_type_name() in ("f32", "f16")
    }


def inner_tensors(core: Any, path: str, batch: NDArray[Any], given: Mapping[str, NDArray[Any]]) -> list[InnerTensor]:
    """Every activation with its values."""
    import openvino
    from openvino import opset1

    model = core.read_model(path)
    tensors, outputs = described(model)
    consumers = [output.get_target_inputs() for output in outputs]
    results = [opset1.result(output) for output in outputs]  # one for every value, in this order
    takes, fed = list(model.get_parameters()), [batch]
    for tensor, of_it in zip(tensors, consumers, strict=True):
        if tensor.name in given:
            fed.append(np.ascontiguousarray(given[tensor.name]))
            takes.append(opset1.parameter([-1, *fed[-1].shape[1:]], np.float32))
            for consumer in of_it:
                consumer.replace_source_output(takes[-1].output(0))
    compiled = core.compile_model(openvino.Model(results, takes, "inner"), "CPU", SETTINGS)
    request = compiled.create_infer_request()
    request.infer(fed)
    return activations(tensors, [np.array(request.get_output_tensor(index).data) for index in range(len(results))])
