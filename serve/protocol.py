"""The Open Inference Protocol, version 2, over REST: tensors as JSON or as bytes behind it.

https://github.com/kserve/open-inference-protocol (rest/predict_rest.yaml) and Triton's binary tensor data extension:
the header `Inference-Header-Content-Length` tells where the JSON ends and the tensors begin.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtimes.core.errors import InputError
from ..runtimes.core.json_text import parse_json

HEADER_LENGTH = "inference-header-content-length"
DTYPES: dict[str, np.dtype[Any]] = {"FP32": np.dtype("<f4"), "UINT8": np.dtype("|u1")}
BYTES = "BYTES"
MOST_AXES, MOST_TENSORS, ID_LENGTH = 4, 16, 256

Tensor = NDArray[Any]
Value = Tensor | list[bytes]  # BYTES as a list, in C order


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


def read_request(body: bytes, header_length: str | None, most_images: int) -> InferRequest:
    """A request from outside. InputError, a line, for what the protocol does not allow, and for more images than
    `most_images`.
    """
    length = len(body)
    if header_length is not None:
        digits = header_length.isascii() and header_length.isdigit() and len(header_length) < 12
        if not digits or int(header_length) > len(body):
            raise InputError(f"{HEADER_LENGTH}: expected 0 to {len(body)}, the body's bytes, got {header_length!r:.40}")
        length = int(header_length)
    try:
        data = parse_json(body[:length])
    except ValueError as error:
        raise InputError(f"the request is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise InputError("the request is no JSON object")
    parameters = _object(data, "parameters")
    binary = bool(parameters.get("binary_data_output", False))
    outputs = {}
    for one in _objects(data, "outputs", least=0):
        asked = _object(one, "parameters")
        if "classification" in asked:
            raise InputError("classification: this model gives no classes")
        outputs[_text(one, "name")] = bool(asked.get("binary_data", binary))
    tail, at = body[length:], 0
    inputs = []
    for one in _objects(data, "inputs", least=1):
        given, at = _given(one, tail, at, most_images)
        inputs.append(given)
    if at != len(tail):
        raise InputError(f"{len(tail) - at} bytes behind the last tensor belong to none")
    identity = data.get("id")
    if identity is not None and (not isinstance(identity, str) or len(identity) > ID_LENGTH):
        raise InputError(f"id: expected a text of at most {ID_LENGTH} characters")
    return InferRequest(identity, tuple(inputs), outputs, binary, parameters)


def _object(data: Mapping[str, Any], key: str) -> dict[str, Any]:
    value = data.get(key)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise InputError(f"{key}: expected an object")
    return value


def _objects(data: Mapping[str, Any], key: str, least: int) -> list[dict[str, Any]]:
    value = data.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
        raise InputError(f"{key}: expected a list of objects")
    if not least <= len(value) <= MOST_TENSORS:
        raise InputError(f"{key}: expected {least} to {MOST_TENSORS}, got {len(value)}")
    return value


def _text(data: Mapping[str, Any], key: str) -> str:
    value = data.get(key)
    if not isinstance(value, str) or not value:
        raise InputError(f"{key}: expected a text, got {value!r:.40}")
    return value


def _given(data: Mapping[str, Any], tail: bytes, at: int, most_images: int) -> tuple[Given, int]:
    """An input, and where the next one's bytes begin."""
    name, datatype, shape = _text(data, "name"), _text(data, "datatype"), data.get("shape")
    if (
        not isinstance(shape, list)
        or not 1 <= len(shape) <= MOST_AXES
        or not all(type(side) is int and 0 < side < 1 << 31 for side in shape)
    ):
        raise InputError(f"{name}: shape: expected 1 to {MOST_AXES} whole numbers above 0, got {shape!r:.60}")
    if datatype != BYTES and datatype not in DTYPES:
        raise InputError(f"{name}: datatype: expected {', '.join((*DTYPES, BYTES))}, got {datatype!r:.40}")
    count = 1
    for side in shape:
        count *= side
    images = count if datatype == BYTES else shape[0] if len(shape) == MOST_AXES else 1
    if images > most_images:
        raise InputError(f"a request has at most {most_images} images, got {images}")
    size = _object(data, "parameters").get("binary_data_size")
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(tail) - at:
            raise InputError(f"{name}: binary_data_size: expected 0 to {len(tail) - at}, got {size!r:.40}")
        raw = tail[at : at + size]
        value = _split(name, raw, count) if datatype == BYTES else _array(name, raw, datatype, shape, count)
        return Given(name, datatype, tuple(shape), value), at + size
    listed = data.get("data")
    if not isinstance(listed, list):
        raise InputError(f"{name}: expected data, or its bytes behind the JSON with binary_data_size")
    flat = _flat(name, listed, count)
    if datatype == BYTES:
        return Given(name, datatype, tuple(shape), [_decoded(name, one) for one in flat]), at
    return Given(name, datatype, tuple(shape), _numbers(name, flat, datatype).reshape(shape)), at


def _flat(name: str, listed: list[Any], count: int) -> list[Any]:
    """Values in C order, which JSON may give nested."""
    for _ in range(MOST_AXES):
        if not any(isinstance(one, list) for one in listed):
            break
        if not all(isinstance(one, list) for one in listed):
            raise InputError(f"{name}: data: some of its values are lists and some are not")
        listed = [value for one in listed for value in one]
    if len(listed) != count:
        raise InputError(f"{name}: data: expected {count} values for the shape, got {len(listed)}")
    return listed


def _numbers(name: str, flat: list[Any], datatype: str) -> Tensor:
    kinds = (int,) if datatype == "UINT8" else (int, float)
    if not all(type(one) in kinds for one in flat):
        raise InputError(f"{name}: data: expected {'whole ' if datatype == 'UINT8' else ''}numbers")
    if datatype == "UINT8" and not all(0 <= one <= 255 for one in flat):
        raise InputError(f"{name}: data: expected numbers from 0 to 255")
    with np.errstate(over="ignore"):
        return finite(name, np.asarray(flat, np.float64).astype(DTYPES[datatype]))


def finite(name: str, values: Tensor) -> Tensor:
    """Values, InputError unless all are finite."""
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise InputError(f"{name}: data: a value is not finite, or too large for FP32")
    return values


def _decoded(name: str, text: Any) -> bytes:
    if isinstance(text, str):
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise InputError(f"{name}: data: expected images in base64; send their bytes behind the JSON to save a third")


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


def _array(name: str, raw: bytes, datatype: str, shape: Sequence[int], count: int) -> Tensor:
    dtype = DTYPES[datatype]
    if len(raw) != count * dtype.itemsize:
        raise InputError(f"{name}: expected {count * dtype.itemsize} bytes for the shape, got {len(raw)}")
    return finite(name, np.frombuffer(raw, dtype)).reshape(shape)


def write_response(
    request: InferRequest, model: str, outputs: Mapping[str, Tensor | list[list[str]]]
) -> tuple[bytes, dict[str, str]]:
    """The answer's body and headers. outputs: float32 arrays, or texts by row; those asked for are sent.

    InputError where one is asked for that there is not.
    """
    wanted = request.outputs or dict.fromkeys(outputs, request.binary)
    if unknown := [name for name in wanted if name not in outputs]:
        raise InputError(f"outputs: there is {', '.join(outputs)}, and no {unknown[0]!r:.60}")
    told, tail = [], []
    for name, binary in wanted.items():
        value = outputs[name]
        is_text = isinstance(value, list)
        shape = [len(value), len(value[0]) if value else 0] if isinstance(value, list) else list(value.shape)
        one: dict[str, Any] = {"name": name, "datatype": BYTES if is_text else "FP32", "shape": shape}
        if binary:
            raw = _joined(value) if isinstance(value, list) else np.ascontiguousarray(value, "<f4").tobytes()
            one["parameters"] = {"binary_data_size": len(raw)}
            tail.append(raw)
        else:
            one["data"] = [text for row in value for text in row] if isinstance(value, list) else value.ravel().tolist()
        told.append(one)
    answer: dict[str, Any] = {"model_name": model, "model_version": "1", "outputs": told}
    if request.id is not None:
        answer["id"] = request.id
    text = json.dumps(answer, ensure_ascii=False, separators=(",", ":")).encode()
    if not tail:
        return text, {"content-type": "application/json"}
    headers = {"content-type": "application/octet-stream", HEADER_LENGTH: str(len(text))}
    return b"".join([text, *tail]), headers


def _joined(rows: list[list[str]]) -> bytes:
    encoded = [text.encode() for row in rows for text in row]
    return b"".join(len(one).to_bytes(4, "little") + one for one in encoded)
