"""An ncnn model in int8, and with its weights halved: the files that ncnn's own kernels read, written here.

Weights are symmetric, a scale for each output channel; of activations, ranges are measured in ncnn's float model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...runtimes.core.errors import InputError
from ...runtimes.graphs.ncnn_int8 import HIGHEST, join_int8, scale_count, with_term
from ...runtimes.graphs.ncnn_model import INT8_KINDS, NcnnModel, Weights
from ...runtimes.graphs.ncnn_model import Layer as Line
from ...runtimes.graphs.ncnn_network import NcnnNetwork
from .bias_correction import MEANS_OF
from .ranges import Ranges
from .recipes import Int8Recipe, Layer, kept_layers

DEPTHWISE = "ConvolutionDepthWise"
BY_GROUP, BY_OUTPUT = 1, 2  # terms of int8
FEATURES_OFF, NO_WINOGRAD = 31, 64  # the number of a param, and a bit of it
PAD_VALUE = "18"
WINOGRADS = 31  # the highest weight there, as ncnn's own tool has it
# By how much the transforms of F(4 x 4, 3 x 3) may make a sum of products larger (Lavin and Gray 2016; of the weights
# 24 squared, as ncnn scales them), whose 32 bits then overflow.
WINOGRAD_GROWTH, LARGEST_SUM = 576, 2**31 - 1
SMALL = 64  # weights, below which halving is not worth it


def quantize_ncnn(source: Path, tensors: NDArray[np.float32], recipe: Int8Recipe, target: Path) -> list[str]:
    """Writes the quantised `.param` and `.bin`; what was left in float. source: the float `.param`. tensors: float32
    `(n, 3, H, W)`. InputError where the recipe does not fit.
    """
    model = NcnnModel.read(source)
    kept = kept_layers(layers(model), recipe.keep)
    network = NcnnNetwork(source)
    possible = computable(model, network, tensors[:1])
    chosen = {place: line for place, line in possible.items() if line.name not in kept}
    if not chosen:
        raise InputError("recipe: every layer that ncnn computes in int8 is left in float: keep fewer")
    names = list(dict.fromkeys(line.inputs[0] for line in chosen.values()))
    ends = measured_ends(network, names, tensors, recipe)
    means = measured_means(network, ends, tensors) if recipe.bias_correction else {}
    for place, line in chosen.items():
        fed = line.inputs[0]
        model.layers[place], model.weights[place] = quantised(
            line, model.weights[place], ends[fed], means.get(fed), recipe
        )
    join_int8(model)
    model.save(target)
    left = [line.name for line in model.layers if line.kind in INT8_KINDS and not line.is_int8]
    return list(dict.fromkeys([*kept, *left]))


def layers(model: NcnnModel) -> list[Layer]:
    """The model's layers."""
    return [Layer(line.name, line.kind, line.kind in INT8_KINDS, line.kind == DEPTHWISE) for line in model.layers]


def computable(model: NcnnModel, network: NcnnNetwork, tensor: NDArray[np.float32]) -> dict[int, Line]:
    """The layers that ncnn computes rightly in int8, by place. tensor: one image.

    Not so: convolutions in groups that are not depthwise (what x86's kernels leave of their output is not written),
    those padded with another number than 0 (which is padded unscaled), and those fed a blob of other dimensions.
    """
    heavy = {place: line for place, line in enumerate(model.layers) if line.kind in INT8_KINDS and model.weights[place]}
    (blobs,) = network.blobs(list(dict.fromkeys(line.inputs[0] for line in heavy.values())), tensor)

    def fits(place: int, line: Line) -> bool:
        given = blobs[line.inputs[0]]
        if line.kind == "InnerProduct":
            return given.ndim != 2
        groups, outputs = line.number(7, 1), line.number(0)
        alone = line.kind != DEPTHWISE or 1 < groups == outputs == len(given)
        return given.ndim == 3 and alone and float(line.params.get(PAD_VALUE, "0")) == 0

    return {place: line for place, line in heavy.items() if fits(place, line)}


def halve_ncnn(source: Path, target: Path) -> None:
    """Writes the model with its weights as float16, which ncnn widens when it loads them."""
    model = NcnnModel.read(source)
    model.weights = [[halved(one) for one in own] for own in model.weights]
    model.save(target)


def halved(weights: Weights) -> Weights:
    """As float16 where they may be, and fit."""
    values = weights.values
    fits = values.dtype == np.float32 and np.abs(values).max(initial=0) <= np.finfo(np.float16).max
    return (
        replace(weights, values=values.astype(np.float16))
        if weights.tagged and fits and len(values) >= SMALL
        else weights
    )


def measured_ends(
    network: NcnnNetwork, names: Sequence[str], tensors: NDArray[np.float32], recipe: Int8Recipe
) -> dict[str, float]:
    """Of each blob, the largest size that int8 is to hold."""
    ranges = Ranges(names)
    for found in network.blobs(names, tensors):
        ranges.see_ends(found)
    if recipe.calibration != "minmax":
        for found in network.blobs(names, tensors):
            ranges.see_sizes(found)
    return {name: ranges.end(name, recipe.calibration, recipe.percentile) for name in names}


class Means(NamedTuple):
    """Of a blob, of its shape: as it is, and rounded to int8."""

    plain: NDArray[np.float64]
    rounded: NDArray[np.float64]


def measured_means(network: NcnnNetwork, ends: Mapping[str, float], tensors: NDArray[np.float32]) -> dict[str, Means]:
    """Of blobs over some of the images. ends: of their ranges."""
    some = tensors[:: max(len(tensors) // MEANS_OF, 1)][:MEANS_OF]
    sums: dict[str, list[Any]] = {name: [0.0, 0.0] for name in ends}
    for found in network.blobs(list(ends), some):
        for name, value in found.items():
            scale = scale_to(ends[name])
            rounded = np.clip(rounding(value * scale), -HIGHEST, HIGHEST)
            sums[name][0] = sums[name][0] + value.astype(np.float64)
            sums[name][1] = sums[name][1] + rounded / np.float64(scale)
    return {name: Means(*(total / len(some) for total in both)) for name, both in sums.items()}


def scale_to(end: float) -> np.float32:
    """What int8 multiplies an input by whose range ends there."""
    return np.float32(HIGHEST / end if end > 0 else HIGHEST)


def quantised(
    line: Line, weights: Sequence[Weights], end: float, means: Means | None, recipe: Int8Recipe
) -> tuple[Line, list[Weights]]:
    """A layer in int8. end: of its input's range. means: of its input, where its bias is to be corrected."""
    rows = scale_count(line)
    values = weights[0].values.astype(np.float64).reshape(rows, -1)
    largest = np.abs(values).max(axis=1)
    if not recipe.per_channel:
        largest[:] = largest.max()

    def scales_to(highest: int) -> NDArray[np.float32]:  # dead outputs have one too: ncnn divides by it
        return np.asarray(np.divide(highest, largest, out=np.ones(rows), where=largest > 0), np.float32)

    scales, winograd = scales_to(HIGHEST), False
    if is_winograds(line) and recipe.reduce_range:
        sums = np.abs(rounding(values * scales_to(WINOGRADS)[:, None])).sum(axis=1)
        winograd = bool(HIGHEST * sums.max() * WINOGRAD_GROWTH <= LARGEST_SUM)
        scales = scales_to(WINOGRADS) if winograd else scales
    rounded = np.clip(rounding(values * scales[:, None]), -HIGHEST, HIGHEST)
    changed = with_term(line, BY_GROUP if line.kind == DEPTHWISE else BY_OUTPUT)
    if is_winograds(line) and not winograd:
        features = {str(FEATURES_OFF): str(line.number(FEATURES_OFF) | NO_WINOGRAD)}
        changed = replace(changed, params=changed.params | features)
    biases = list(weights[1:])
    if biases and means is not None:
        shift = output_mean(line, values, means.plain) - output_mean(line, rounded / scales[:, None], means.rounded)
        biases[0] = replace(biases[0], values=(biases[0].values + shift).astype(np.float32))
    fed = scale_to(end).reshape(1)
    made = [Weights(rounded.astype(np.int8).reshape(-1), True), *biases]
    return changed, [*made, Weights(scales, False), Weights(fed, False)]


def rounding(values: NDArray[Any]) -> NDArray[Any]:
    """To the nearest whole number, halves away from zero, as ncnn rounds."""
    return np.asarray(np.trunc(values + np.copysign(0.5, values)))


def is_winograds(line: Line) -> bool:
    """Whether ncnn may compute it by Winograd's transform: 3 x 3, neither strided nor dilated."""
    side, dilation, stride = line.number(1), line.number(2, 1), line.number(3, 1)
    given = (side, line.number(11, side), dilation, line.number(12, dilation), stride, line.number(13, stride))
    return line.kind == "Convolution" and given == (3, 3, 1, 1, 1, 1)


def output_mean(line: Line, weights: NDArray[np.float64], mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """The mean of each output without its bias, `(outputs,)`, of an input of this mean. At a convolution's borders,
    which are fed zeros, it is less.
    """
    outputs = line.number(0)
    if line.kind == "InnerProduct":
        return np.asarray(weights.reshape(outputs, -1) @ mean.reshape(-1))
    groups = line.number(7, 1)
    channels = mean.reshape(mean.shape[0], -1).mean(axis=1).reshape(groups, -1)
    each = weights.reshape(groups, outputs // groups, channels.shape[1], -1).sum(axis=3)
    return np.asarray(np.einsum("goi,gi->go", each, channels).reshape(-1))
