"""ncnn's two files as data: the layers of `.param`, a line each, and the weights that `.bin` holds for them in order.

The layout is that of ncnn's documentation, "param and model file structure", and of its layers' `load_model`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import RuntimeFailed

HEADER_LINES = 2  # the magic number; how many layers and blobs
RAW = 0x0002C056  # float32 too
TYPES: dict[int, np.dtype[Any]] = {
    0: np.dtype(np.float32),
    0x0002C056: np.dtype(np.float32),
    0x01306B47: np.dtype(np.float16),
    0x000D4B38: np.dtype(np.int8),
}
TAGS = {dtype: tag for tag, dtype in TYPES.items() if tag != RAW}
ALIGNED = 4  # bytes
INT8_KINDS = ("Convolution", "ConvolutionDepthWise", "InnerProduct")  # of those that networks here are made of
INT8_TERM = 8  # the number of their param that says where scales stand
REQUANTISED = 100  # added to it where the output stays int8


@dataclass(frozen=True)
class Layer:
    """A line of the `.param` file. params: the text of each, by its number; arrays have -23300 less their number."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: dict[str, str] = field(default_factory=dict)

    def number(self, key: int, default: int = 0) -> int:
        """A whole number of its params. RuntimeFailed where it is none."""
        text = self.params.get(str(key))
        try:
            return default if text is None else int(text)
        except ValueError as error:
            raise RuntimeFailed(f"ncnn: layer {self.name}: expected a whole number for {key}, got '{text}'") from error

    @property
    def is_int8(self) -> bool:
        """Whether it computes in int8."""
        return self.kind in INT8_KINDS and self.number(INT8_TERM) > 0

    def line(self) -> str:
        """As the file has it."""
        words = [self.kind, self.name, len(self.inputs), len(self.outputs), *self.inputs, *self.outputs]
        return " ".join([*map(str, words), *(f"{key}={text}" for key, text in self.params.items())])


def read_layers(path: Path) -> list[Layer]:
    """The layers in order. RuntimeFailed when it is not ncnn's text."""
    found = []
    try:
        for line in path.read_text(encoding="utf-8").splitlines()[HEADER_LINES:]:
            if words := line.split():
                count, made = int(words[2]), int(words[3])
                blobs = words[4 : 4 + count + made]
                params = dict(word.split("=", 1) for word in words[4 + count + made :])
                found.append(Layer(words[0], words[1], tuple(blobs[:count]), tuple(blobs[count:]), params))
    except (OSError, ValueError, IndexError) as error:
        raise RuntimeFailed(f"{path}: expected ncnn's layers, a line each: {error}") from error
    return found


def write_layers(path: Path, layers: Sequence[Layer], header: Sequence[str]) -> None:
    """header: the first lines of the file that they were read from."""
    path.write_text("\n".join([*header, *(layer.line() for layer in layers)]) + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Weights:
    """Numbers in the `.bin` file, flat. tagged: their type stands before them; the others are float32."""

    values: NDArray[Any]
    tagged: bool

    def packed(self) -> bytes:
        """As the file has them."""
        data = self.values.astype(self.values.dtype.newbyteorder("<")).tobytes()
        if not self.tagged:
            return data
        return TAGS[self.values.dtype].to_bytes(4, "little") + data + bytes(-len(data) % ALIGNED)


Counts = list[tuple[int, bool]]  # how many numbers, and whether tagged


def of_convolution(layer: Layer) -> Counts:
    """Weights, bias, and of int8 the scales of the weights, the input and, where it stays int8, the output."""
    if layer.number(28 if layer.kind.startswith("Deconvolution") else 19):  # weights that are an input
        return []
    outputs, int8 = layer.number(0), layer.number(INT8_TERM) if layer.kind in INT8_KINDS else 0
    by_group = layer.kind == "ConvolutionDepthWise" and int8
    scales = (layer.number(7, 1) if int8 % REQUANTISED == 1 else 1) if by_group else outputs
    counts = [(layer.number(6), True), *([(outputs, False)] if layer.number(5) else [])]
    return counts + int8_scales(int8, scales)


def of_inner_product(layer: Layer) -> Counts:
    """Weights, bias, and the scales of int8."""
    outputs = layer.number(0)
    bias = [(outputs, False)] if layer.number(1) else []
    return [(layer.number(2), True), *bias, *int8_scales(layer.number(INT8_TERM), outputs)]


def int8_scales(term: int, weights: int) -> Counts:
    """term: of the layer; weights: how many scales they have."""
    return ([(weights, False), (1, False)] if term else []) + ([(1, False)] if term > REQUANTISED else [])


def of_constant(layer: Layer) -> Counts:
    """All its numbers."""
    sizes = [size for key in (0, 1, 11, 2) if (size := layer.number(key))]
    return [(int(np.prod(sizes)), layer.number(21, 1) == 0)] if sizes else []


READERS: dict[str, Callable[[Layer], Counts]] = {
    "Convolution": of_convolution,
    "ConvolutionDepthWise": of_convolution,
    "Deconvolution": of_convolution,
    "DeconvolutionDepthWise": of_convolution,
    "InnerProduct": of_inner_product,
    "MemoryData": of_constant,
    "BatchNorm": lambda layer: [(layer.number(0), False)] * 4,
    "Scale": lambda layer: [(layer.number(0), False)] * (2 if layer.number(1) else 1),
    "PReLU": lambda layer: [(layer.number(0), False)],
}


def read_weights(path: Path, layers: Sequence[Layer]) -> list[list[Weights]]:
    """Each layer's. RuntimeFailed where the file does not hold just what the layers read."""
    try:
        data, at = path.read_bytes(), 0
    except OSError as error:
        raise RuntimeFailed(f"{path}: expected ncnn's weights beside its layers: {error.strerror}") from error
    found: list[list[Weights]] = []
    for layer in layers:
        own = []
        for count, tagged in READERS[layer.kind](layer) if layer.kind in READERS else []:
            dtype: np.dtype[Any] = np.dtype(np.float32)
            if tagged:
                tag = int.from_bytes(data[at : at + 4], "little")
                if tag not in TYPES:
                    raise RuntimeFailed(f"{path}: layer {layer.name}: weights of an unknown type, {tag:#x}")
                dtype, at = TYPES[tag], at + 4
            size = count * dtype.itemsize
            if count < 0 or at + size > len(data):
                raise RuntimeFailed(f"{path}: ends inside the weights of layer {layer.name}")
            own.append(Weights(np.frombuffer(data, dtype.newbyteorder("<"), count, at).astype(dtype), tagged))
            at += size + (-size % ALIGNED if tagged else 0)
        found.append(own)
    if at != len(data):
        kinds = ", ".join(sorted({layer.kind for layer in layers}))
        raise RuntimeFailed(f"{path}: {len(data) - at} bytes more than its layers are known to read ({kinds})")
    return found


def write_weights(path: Path, weights: Sequence[Sequence[Weights]]) -> None:
    """Writes the `.bin` file."""
    path.write_bytes(b"".join(one.packed() for own in weights for one in own))


@dataclass
class NcnnModel:
    """Both files. header: the first lines of `.param`."""

    header: list[str]
    layers: list[Layer]
    weights: list[list[Weights]]

    @classmethod
    def read(cls, param: Path) -> NcnnModel:
        """param: its weights lie beside it, in `.bin`. RuntimeFailed where they are no ncnn model."""
        layers = read_layers(param)
        header = param.read_text(encoding="utf-8").splitlines()[:HEADER_LINES]
        return cls(header, layers, read_weights(param.with_suffix(".bin"), layers))

    def save(self, param: Path) -> None:
        """Writes both."""
        write_layers(param, self.layers, self.header)
        write_weights(param.with_suffix(".bin"), self.weights)
