"""An int8 ONNX model in QDQ form, layer by layer: what each loses, and constants and ranges that are wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtimes.core.errors import InputError, RuntimeFailed
from ...runtimes.core.text import one_line
from ...runtimes.embed.model import l2_normalize
from ...runtimes.graphs.onnx_inner import attributes, load, showing
from ...runtimes.graphs.onnx_qdq import HEAVY, QdqGraph, Scale
from .quantised_layers import STEPS, Int8Fault, Noise, QuantisedLayers, Reach, Runner, Tensors, wrong_constant


class QdqLayers(QuantisedLayers):
    """A QDQ model beside the folded float model that it was made from, whose operators have the same names.

    layers: operators that multiply by weights, in both, with other inputs, by name: the float one and the other.
    InputError where there is none.
    """

    def __init__(self, plain: Any, quantised: Any) -> None:
        self.plain, self.quantised = plain, quantised
        self.makers = {name: node for node in plain.graph.node for name in node.output}
        self.made = {name: node for node in quantised.graph.node for name in node.output}
        self.weights = {tensor.name: tensor for tensor in plain.graph.initializer}
        floats = {node.name: node for node in plain.graph.node}
        given = {*self.made, *self.weights, *(one.name for one in quantised.graph.input), ""}
        self.layers: dict[str, tuple[Any, Any]] = {}
        for node in quantised.graph.node:
            twin = floats.get(node.name)
            if twin is None or node.op_type not in HEAVY or twin.op_type != node.op_type:
                continue
            if list(twin.input) != list(node.input) and given.issuperset(twin.input):
                self.layers[node.name] = twin, node
        if not self.layers:
            raise InputError("the two ONNX models have no quantised layer in common: they are not of one network")
        self.kinds = {name: twin.op_type for name, (twin, _) in self.layers.items()}

    @classmethod
    def read(cls, plain: Path, quantised: Path) -> QdqLayers:
        """plain: the float artifact, which is folded as the quantiser does."""
        from ...runtimes.graphs.onnx_fold import folded

        return cls(folded(load(str(plain))), load(str(quantised)))

    def in_float(self, names: Sequence[str]) -> Any:
        import onnx

        model = onnx.ModelProto()
        model.CopyFrom(self.quantised)
        del model.graph.node[:]
        floats: dict[str, str] = {}  # the float model's constants, under names of their own

        def constant(name: str) -> str:
            if name not in self.weights:
                return name
            if name not in floats:
                floats[name] = f"{name}::float"
                tensor = model.graph.initializer.add()
                tensor.CopyFrom(self.weights[name])
                tensor.name = floats[name]
            return floats[name]

        for node in self.quantised.graph.node:
            if node.name in names:
                changed, twin = onnx.NodeProto(), self.layers[node.name][0]
                changed.CopyFrom(node)
                changed.input[:] = [constant(name) for name in twin.input]
                for place, name in enumerate(twin.input):
                    if (clip := self.left_to_rounding(name)) is not None:
                        clip.input[:] = [name, *map(constant, clip.input[1:])]
                        clip.name = clip.output[0] = changed.input[place] = f"{name}::clipped for {node.name}"
                        model.graph.node.append(clip)
                node = changed
            model.graph.node.append(node)
        return model

    def left_to_rounding(self, name: str) -> Any:
        """A copy of the Relu or Clip that makes a tensor in the float model and that the quantiser left out, since
        rounding into the tensor's range clips too; None for any other tensor.
        """
        import onnx

        maker, own = self.makers.get(name), self.made.get(name)
        if maker is None or own is None or maker.op_type not in ("Relu", "Clip") or own.op_type == maker.op_type:
            return None
        copy = onnx.NodeProto()
        copy.CopyFrom(maker)
        return copy

    def runner(self, model: Any) -> Runner:
        opened = session(model)
        (given,) = opened.get_inputs()

        def embed(tensors: Tensors) -> Tensors:
            return l2_normalize(np.concatenate([opened.run(None, {given.name: one[None]})[0] for one in tensors]))

        return embed

    def signal_to_noise(self, tensors: Tensors) -> dict[str, float]:
        """Before what follows the layers."""
        noise = Noise(list(self.layers))
        outputs = [[pair[side].output[0] for pair in self.layers.values()] for side in (0, 1)]
        runners = [session(model, own) for model, own in zip((self.plain, self.quantised), outputs, strict=True)]
        given = runners[0].get_inputs()[0].name
        for one in tensors:
            left, right = (runner.run(own, {given: one[None]}) for runner, own in zip(runners, outputs, strict=True))
            for name, plain, rounded in zip(self.layers, left, right, strict=True):
                noise.add(name, plain, rounded)
        return noise.ratios()

    def faults(self, tensors: Tensors) -> list[Int8Fault]:
        return QdqFaults(self).find(tensors)


class QdqFaults:
    """The constants around a QDQ model's layers, read back."""

    def __init__(self, layers: QdqLayers) -> None:
        from onnx import numpy_helper

        self.layers, self.graph = layers, QdqGraph(layers.quantised)
        self.floats = {name: numpy_helper.to_array(tensor) for name, tensor in layers.weights.items()}

    def find(self, tensors: Tensors) -> list[Int8Fault]:
        """In the graph's order. tensors: float32 `(n, 3, H, W)`, what activations are seen on."""
        found = [fault for name in self.layers.layers for fault in self._weights(name)]
        order = list(self.layers.layers)
        return sorted([*found, *self._activations(tensors)], key=lambda fault: order.index(fault.layer))

    def _weights(self, name: str) -> Iterator[Int8Fault]:
        twin, node = self.layers.layers[name]
        for what, plain, rounded in zip(("input", "weight", "bias"), twin.input, node.input, strict=False):
            held = self.graph.held(rounded) if plain in self.floats else None
            if held is None or held.values.shape != self.floats[plain].shape:
                continue
            wanted = self.floats[plain].astype(np.float64)
            allowed = STEPS * np.abs(held.step) + (self._corrected(twin, node) if what == "bias" else 0.0)
            if text := wrong_constant(what, held.values, wanted, allowed):
                yield Int8Fault(name, "fault", text)

    def _corrected(self, twin: Any, node: Any) -> NDArray[np.float64]:
        """By how much correction may have moved a layer's biases, `(out,)`: by no more than what its weights lost times
        the largest input.
        """
        weights, fed = self.graph.held(node.input[1]), self.graph.rounded_by(node.input[0])
        plain = self.floats.get(twin.input[1])
        if weights is None or fed is None or plain is None or plain.shape != weights.values.shape:
            return np.zeros(1)
        lost = np.abs(plain - weights.values)
        if node.op_type != "Conv" and not attributes(node).get("transB", 0):
            lost = lost.T
        return np.asarray(lost.reshape(len(lost), -1).sum(axis=1) * max(map(abs, fed.ends)))

    def _activations(self, tensors: Tensors) -> Iterator[Int8Fault]:
        """Ranges of what the layers are fed, against the float model's values."""
        fed: dict[str, tuple[str, Scale]] = {}
        for name, (twin, node) in self.layers.layers.items():
            for plain, rounded in zip(twin.input, node.input, strict=False):
                scale = None if plain in self.floats else self.graph.rounded_by(rounded)
                if scale is not None:
                    fed.setdefault(plain, (name, scale))
        given = self.layers.plain.graph.input[0].name
        names = [name for name in fed if name != given]
        runner = session(self.layers.plain, names)
        reach = Reach({name: scale.ends for name, (_, scale) in fed.items()})
        for one in tensors:
            values = dict(zip(names, runner.run(names, {given: one[None]}), strict=True))
            for name in fed:
                reach.see(name, values.get(name, one))
        yield from filter(None, (reach.fault(name, layer) for name, (layer, _) in fed.items()))


def session(model: Any, outputs: Sequence[str] = ()) -> Any:
    """An ONNX Runtime session of one thread; with `outputs` nothing is fused, so that each tensor is there."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if outputs:
        model = showing(model, outputs)
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its errors have no class in common
        raise RuntimeFailed(f"onnxruntime: {one_line(error)}") from error
