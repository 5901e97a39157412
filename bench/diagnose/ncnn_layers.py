"""An int8 ncnn model, layer by layer: what each loses, and constants and ranges that are wrong."""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from ...runtimes.core.errors import InputError
from ...runtimes.embed.model import l2_normalize
from ...runtimes.graphs.ncnn_int8 import HIGHEST, Int8Layer, part_int8
from ...runtimes.graphs.ncnn_model import INT8_TERM, REQUANTISED, Layer, NcnnModel
from ...runtimes.graphs.ncnn_network import NcnnNetwork
from .quantised_layers import STEPS, Int8Fault, Noise, QuantisedLayers, Reach, Runner, Tensors, wrong_constant

ROUNDED = 1e-5  # of a float32 bias or scale


class NcnnLayers(QuantisedLayers):
    """An int8 ncnn model beside the float one that it was made from, whose layers have the same names.

    places: of the int8 layers in both models, by name: in the float one and the other. InputError where there is none.
    """

    def __init__(self, plain: NcnnModel, quantised: NcnnModel) -> None:
        self.plain, self.quantised = plain, copy.deepcopy(quantised)
        self.joined = [*joined_faults(quantised)]
        part_int8(self.quantised)  # so that each output can be looked at
        there = {layer.name: place for place, layer in enumerate(plain.layers)}
        self.places: dict[str, tuple[int, int]] = {}
        for place, layer in enumerate(self.quantised.layers):
            own = there.get(layer.name)
            if layer.is_int8 and own is not None and same_layer(plain.layers[own], layer):
                self.places[layer.name] = own, place
        if not self.places:
            raise InputError("the two ncnn models have no quantised layer in common: they are not of one network")
        self.kinds = {name: plain.layers[own].kind for name, (own, _) in self.places.items()}

    @classmethod
    def read(cls, plain: Path, quantised: Path) -> NcnnLayers:
        """Of two `.param` files, with their weights beside them."""
        return cls(NcnnModel.read(plain), NcnnModel.read(quantised))

    def in_float(self, names: Sequence[str]) -> NcnnModel:
        layers, weights = list(self.quantised.layers), list(self.quantised.weights)
        for own, place in (self.places[name] for name in names):
            layers[place], weights[place] = self.plain.layers[own], self.plain.weights[own]
        return NcnnModel(self.quantised.header, layers, weights)

    def runner(self, model: NcnnModel) -> Runner:
        network = opened(model)
        return lambda tensors: l2_normalize(network.embed(tensors))

    def signal_to_noise(self, tensors: Tensors) -> dict[str, float]:
        """Behind the activation that ncnn joins to a layer."""
        noise = Noise(list(self.places))
        outputs = {name: self.plain.layers[own].outputs[0] for name, (own, _) in self.places.items()}
        networks = [opened(model) for model in (self.plain, self.quantised)]
        blobs = [network.blobs(list(outputs.values()), tensors) for network in networks]
        for left, right in zip(*blobs, strict=True):
            for name, blob in outputs.items():
                noise.add(name, left[blob], right[blob])
        return noise.ratios()

    def faults(self, tensors: Tensors) -> list[Int8Fault]:
        found = [fault for name in self.places for fault in self._constants(name)]
        found = [*found, *self.joined, *self._activations(tensors)]
        order = list(self.places)
        return sorted(found, key=lambda fault: order.index(fault.layer) if fault.layer in order else len(order))

    def _constants(self, name: str) -> Iterator[Int8Fault]:
        own, place = self.places[name]
        layer, held = self.plain.layers[own], self._held(place)
        weights, *biases = [one.values.astype(np.float64) for one in self.plain.weights[own]]
        wanted = weights.reshape(held.values.shape)
        steps = np.divide(1.0, np.abs(held.scales), out=np.zeros(len(held.scales)), where=held.scales != 0)
        shape = weight_shape(layer, weights.size)
        allowed = np.broadcast_to(STEPS * steps[:, None], wanted.shape).reshape(shape)
        if text := wrong_constant("weight", held.values.reshape(shape), wanted.reshape(shape), allowed):
            yield Int8Fault(name, "fault", text)
        if biases and held.bias is not None:
            # Moved by no more than what its weights lost times the largest input, and two steps of its inputs.
            lost = np.abs(wanted - held.values) * held.end + np.abs(wanted) * 2 * held.end / HIGHEST
            room = lost.reshape(len(held.bias), -1).sum(axis=1) + ROUNDED * np.abs(biases[0])
            if text := wrong_constant("bias", held.bias.astype(np.float64), biases[0], room):
                yield Int8Fault(name, "fault", text)

    def _held(self, place: int) -> Int8Layer:
        return Int8Layer.read(self.quantised.layers[place], self.quantised.weights[place])

    def _activations(self, tensors: Tensors) -> Iterator[Int8Fault]:
        """Ranges of what the layers are fed, against the float model's values."""
        ends: dict[str, tuple[float, float]] = {}
        for name, (_, place) in self.places.items():
            end = abs(self._held(place).end)
            ends[name] = -end, end
        fed = {name: self.plain.layers[own].inputs[0] for name, (own, _) in self.places.items()}
        reach = Reach(ends, fed)
        for blobs in opened(self.plain).blobs(list(dict.fromkeys(fed.values())), tensors):
            for name, blob in fed.items():
                reach.see(name, blobs[blob])
        yield from filter(None, (reach.fault(name, name) for name in fed))


def same_layer(plain: Layer, quantised: Layer) -> bool:
    """Whether the two differ in their numbers alone."""
    return plain.kind == quantised.kind and (plain.inputs, plain.outputs) == (quantised.inputs, quantised.outputs)


def weight_shape(layer: Layer, size: int) -> tuple[int, ...]:
    """Of its weights: `(outputs, inputs)`, for a convolution `(outputs, inputs of a group, height, width)`."""
    outputs, width = layer.number(0), layer.number(1)
    if layer.kind == "InnerProduct":
        return outputs, size // outputs
    height = layer.number(11, width)
    return outputs, size // (outputs * height * width), height, width


def joined_faults(model: NcnnModel) -> Iterator[Int8Fault]:
    """Outputs that stay int8 in another scale than the next layer takes them in."""
    users = {layer.inputs[0]: place for place, layer in enumerate(model.layers) if layer.is_int8}
    for place, layer in enumerate(model.layers):
        if not layer.is_int8 or layer.number(INT8_TERM) <= REQUANTISED or layer.outputs[0] not in users:
            continue
        following = users[layer.outputs[0]]
        fed = Int8Layer.read(model.layers[following], model.weights[following]).fed
        given = float(model.weights[place][-1].values[0])
        if abs(given - fed) > ROUNDED * abs(fed):
            taker = model.layers[following].name
            text = f"its output's scale is {given:.4g}, and '{taker}' takes it by {fed:.4g}"
            yield Int8Fault(layer.name, "fault", text)


def opened(model: NcnnModel) -> NcnnNetwork:
    """The model in ncnn, which reads files."""
    with tempfile.TemporaryDirectory(prefix="edgerecall-") as folder:
        path = Path(folder) / "model.param"
        model.save(path)
        return NcnnNetwork(path)
