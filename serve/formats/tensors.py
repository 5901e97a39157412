"""Requests and answers of the Open Inference Protocol, version 2, whichever way they came, and their tensors as bytes.

https://github.com/kserve/open-inference-protocol
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtimes.core.errors import InputError

DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("|u1")}
BYTES = "BYTES"
MOST_AXES, MOST_TENSORS, ID_LENGTH = 4, 16, 256

Tensor = NDArray[Any]
Value = Tensor | list[bytes]  # BYTES as a list, in C order
Texts = list[list[str]]  # by row, as many in each
Outputs = Mapping[str, Tensor | Texts]


@dataclass(frozen=True)
class Given:
    """A tensor of a request. shape: of `value` too, where that is an array."""

    name: str
    datatype: str
    shape: tuple[int, ...]
    value: Value


@dataclass(frozen=True)
class InferRequest:
    """outputs: the names asked for, and whether each is to come as bytes; empty: all. binary: of all, by default."""

    id: str | None
    inputs: tuple[Given, ...]
    outputs: dict[str, bool]
    binary: bool
    parameters: dict[str, Any] = field(default_factory=dict)

    def wanted(self, there: Iterable[str]) -> dict[str, bool]:
        """The outputs to send, and whether as bytes. InputError for one that is not there."""
        if not self.outputs:
            return dict.fromkeys(there, self.binary)
        names = list(there)
        if unknown := [name for name in self.outputs if name not in names]:
            raise InputError(f"outputs: there is {', '.join(names)}, and no {unknown[0]!r:.60}")
        return self.outputs


def checked_id(identity: Any) -> str | None:
    """A request's own name for itself."""
    if identity is not None and (not isinstance(identity, str) or len(identity) > ID_LENGTH):
        raise InputError(f"id: expected a text of at most {ID_LENGTH} characters")
    return identity


def checked_shape(name: str, datatype: str, shape: Any, most_images: int) -> tuple[int, ...]:
    """The shape of a tensor of a request. InputError for one, or a datatype, that no input of ours has."""
    if (
        not isinstance(shape, list)
        or not 1 <= len(shape) <= MOST_AXES
        or set(map(type, shape)) != {int}
        or not 0 < min(shape) <= max(shape) < 1 << 31
    ):
        raise InputError(f"{name}: shape: expected 1 to {MOST_AXES} whole numbers above 0, got {shape!r:.60}")
    if datatype != BYTES and datatype not in DTYPES:
        raise InputError(f"{name}: datatype: expected {', '.join((*DTYPES, BYTES))}, got {datatype!r:.40}")
    images = math.prod(shape) if datatype == BYTES else shape[0] if len(shape) == MOST_AXES else 1
    if images > most_images:
        raise InputError(f"a request has at most {most_images} images, got {images}")
    return tuple(shape)


def from_bytes(name: str, raw: bytes, datatype: str, shape: Sequence[int]) -> Value:
    """A tensor as it is sent in bytes: little-endian, in C order."""
    count = math.prod(shape)
    if datatype == BYTES:
        return _split(name, raw, count)
    dtype = DTYPES[datatype]
    if len(raw) != count * dtype.itemsize:
        raise InputError(f"{name}: expected {count * dtype.itemsize} bytes for the shape, got {len(raw)}")
    return finite(name, np.frombuffer(raw, dtype)).reshape(shape)


def _split(name: str, raw: bytes, count: int) -> list[bytes]:
    """BYTES as they are sent: each with its length, 4 bytes, little-endian, before it."""
    found: list[bytes] = []
    at = 0
    while at < len(raw) and len(found) <= count:
        size = int.from_bytes(raw[at : at + 4], "little")
        if at + 4 > len(raw) or at + 4 + size > len(raw):
            raise InputError(f"{name}: an element ends behind the tensor's bytes")
        found.append(raw[at + 4 : at + 4 + size])
        at += 4 + size
    if len(found) != count:
        raise InputError(f"{name}: expected {count} elements for the shape, got {len(found)}")
    return found


def finite(name: str, values: Tensor) -> Tensor:
    """Values, InputError unless all are finite."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"{name}: data: a value is not finite, or too large for FP32")
    return values


def described(value: Tensor | Texts) -> tuple[str, list[int]]:
    """An output's datatype and shape."""
    if isinstance(value, list):
        return BYTES, [len(value), len(value[0]) if value else 0]
    return "FP32", list(value.shape)


def to_bytes(value: Tensor | Texts) -> bytes:
    """An output as it is sent in bytes."""
    if not isinstance(value, list):
        return np.ascontiguousarray(value, "<f4").tobytes()
    encoded = [text.encode() for row in value for text in row]
    return b"".join(len(one).to_bytes(4, "little") + one for one in encoded)
