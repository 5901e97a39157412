"""What each layer of an int8 ONNX model loses: its signal-to-noise ratio, and the model with it left in float."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtimes.core.errors import InputError, RuntimeFailed
from ...runtimes.core.text import one_line
from ...runtimes.embed.model import l2_normalize
from ...runtimes.embed.verify import cosines
from ...runtimes.graphs.onnx_inner import load, showing
from ...runtimes.graphs.onnx_qdq import HEAVY

Tensors = NDArray[np.float32]
NO_NOISE = 1e-20  # relative power of the error, below which there is none: 200 dB


@dataclass(frozen=True)
class LayerLoss:
    """sqnr_db: of its output in the int8 model against the float one's, 10 log10 of the powers' ratio. cosine: mean of
    the embeddings with the float model's, were this layer alone in float.
    """

    name: str
    kind: str
    sqnr_db: float
    cosine: float


class QuantisedLayers:
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

    @classmethod
    def read(cls, plain: Path, quantised: Path) -> QuantisedLayers:
        """plain: the float artifact, which is folded as the quantiser does."""
        from ...runtimes.graphs.onnx_fold import folded

        return cls(folded(load(str(plain))), load(str(quantised)))

    def in_float(self, names: Sequence[str]) -> Any:
        """The QDQ model with these layers computed in float, from unrounded weights and inputs."""
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

    def losses(self, tensors: Tensors, on_layer: Callable[[], None] = lambda: None) -> tuple[float, list[LayerLoss]]:
        """The int8 model's mean cosine with the float model's embeddings, and each layer's loss in the graph's order.

        tensors: float32 `(n, 3, H, W)`. on_layer: called after each.
        """
        truth = embed(self.plain, tensors)
        noise = self.signal_to_noise(tensors)
        found = []
        for name, (twin, _) in self.layers.items():
            kept = embed(self.in_float([name]), tensors)
            found.append(LayerLoss(name, twin.op_type, noise[name], mean_cosine(kept, truth)))
            on_layer()
        return mean_cosine(embed(self.quantised, tensors), truth), found

    def cosine_with(self, names: Sequence[str], tensors: Tensors) -> float:
        """The mean cosine with the float model's embeddings, were these layers in float."""
        return mean_cosine(embed(self.in_float(names), tensors), embed(self.plain, tensors))

    def signal_to_noise(self, tensors: Tensors) -> dict[str, float]:
        """Of each layer's output, before what follows it, in dB, over all images together."""
        names = list(self.layers)
        outputs = [[pair[side].output[0] for pair in self.layers.values()] for side in (0, 1)]
        runners = [session(model, own) for model, own in zip((self.plain, self.quantised), outputs, strict=True)]
        given = runners[0].get_inputs()[0].name
        signal, error = np.zeros(len(names)), np.zeros(len(names))
        for one in tensors:
            left, right = (runner.run(own, {given: one[None]}) for runner, own in zip(runners, outputs, strict=True))
            for index, (a, b) in enumerate(zip(left, right, strict=True)):
                signal[index] += np.square(a, dtype=np.float64).sum()
                error[index] += np.square(a.astype(np.float64) - b).sum()
        found = 10 * np.log10(np.maximum(signal, 1e-300) / np.maximum(error, np.maximum(NO_NOISE * signal, 1e-300)))
        return dict(zip(names, found.tolist(), strict=True))


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


def embed(model: Any, tensors: Tensors) -> Tensors:
    """Its embeddings, L2-normalised `(n, D)`."""
    runner = session(model)
    (given,) = runner.get_inputs()
    return l2_normalize(np.concatenate([runner.run(None, {given.name: one[None]})[0] for one in tensors]))


def mean_cosine(a: Tensors, b: Tensors) -> float:
    """Of paired rows."""
    return float(cosines(a, b).mean())


def ranked(losses: Sequence[LayerLoss]) -> list[LayerLoss]:
    """Those first that leave the embedding nearest to the float model's when they are kept in float."""
    return sorted(losses, key=lambda one: -one.cosine)
