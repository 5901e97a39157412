"""The protocol over REST: tensors as JSON or as bytes behind it.

https://github.com/kserve/open-inference-protocol (rest/predict_rest.yaml) and Triton's binary tensor data extension:
the header `Inference-Header-Content-Length` tells where the JSON ends and the tensors begin.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ...runtimes.core.errors import InputError
from ...runtimes.core.json_text import parse_json
from ...runtimes.core.text import readable
from .tensors import (
    BYTES,
    DTYPES,
    MOST_AXES,
    MOST_TENSORS,
    Given,
    InferRequest,
    Outputs,
    Tensor,
    checked_id,
    checked_shape,
    described,
    finite,
    from_bytes,
    to_bytes,
)

MOST_VALUES = 1_000_000  # that JSON may hold: it is slow, and takes many times its bytes
HEADER_LENGTH = b"inference-header-content-length"
ENCODER = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
JSON_HEADER, BYTES_HEADER = (b"content-type", b"application/json"), (b"content-type", b"application/octet-stream")


def read_request(body: bytes, header_length: bytes | None, most_images: int) -> InferRequest:
    """A request from outside. InputError, a line, for what the protocol does not allow, and for more images than
    `most_images`.
    """
    length = len(body)
    if header_length is not None:
        digits = header_length.isdigit() and len(header_length) < 12
        if not digits or int(header_length) > len(body):
            name, got = HEADER_LENGTH.decode(), header_length.decode("latin-1")
            raise InputError(f"{name}: expected 0 to {len(body)}, the body's bytes, got {got!r:.40}")
        length = int(header_length)
    values = body.count(b",", 0, length) + body.count(b"[", 0, length)
    if values > MOST_VALUES:
        raise InputError(f"tensors in JSON have at most {MOST_VALUES} values: send them as bytes behind it")
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
    return InferRequest(checked_id(data.get("id")), tuple(inputs), outputs, binary, parameters)


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
    return readable(value)  # none of ours has what this changes, and messages tell of it


def _given(data: Mapping[str, Any], tail: bytes, at: int, most_images: int) -> tuple[Given, int]:
    """An input, and where the next one's bytes begin."""
    name, datatype = _text(data, "name"), _text(data, "datatype")
    shape = checked_shape(name, datatype, data.get("shape"), most_images)
    size = _object(data, "parameters").get("binary_data_size")
    if size is not None:
        if type(size) is not int or not 0 <= size <= len(tail) - at:
            raise InputError(f"{name}: binary_data_size: expected 0 to {len(tail) - at}, got {size!r:.40}")
        value = from_bytes(name, tail[at : at + size], datatype, shape)
        return Given(name, datatype, shape, value), at + size
    listed = data.get("data")
    if not isinstance(listed, list):
        raise InputError(f"{name}: expected data, or its bytes behind the JSON with binary_data_size")
    flat = _flat(name, listed, math.prod(shape))
    if datatype == BYTES:
        return Given(name, datatype, shape, [_decoded(name, one) for one in flat]), at
    return Given(name, datatype, shape, _numbers(name, flat, datatype).reshape(shape)), at


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


def _decoded(name: str, text: Any) -> bytes:
    if isinstance(text, str):
        try:
            return base64.b64decode(text, validate=True)
        except (binascii.Error, ValueError):
            pass
    raise InputError(f"{name}: data: expected images in base64; send their bytes behind the JSON to save a third")


def write_response(request: InferRequest, model: str, outputs: Outputs) -> tuple[bytes, list[tuple[bytes, bytes]]]:
    """The answer's body and headers. outputs: float32 arrays, or texts by row; those asked for are sent.

    InputError where one is asked for that there is not.
    """
    told, tail = [], []
    for name, binary in request.wanted(outputs).items():
        value = outputs[name]
        datatype, shape = described(value)
        one: dict[str, Any] = {"name": name, "datatype": datatype, "shape": shape}
        if binary:
            tail.append(to_bytes(value))
            one["parameters"] = {"binary_data_size": len(tail[-1])}
        else:
            one["data"] = [text for row in value for text in row] if isinstance(value, list) else value.ravel().tolist()
        told.append(one)
    answer: dict[str, Any] = {"model_name": model, "model_version": "1", "outputs": told}
    if request.id is not None:
        answer["id"] = request.id
    text = ENCODER.encode(answer).encode()
    if not tail:
        return text, [JSON_HEADER]
    return b"".join([text, *tail]), [BYTES_HEADER, (HEADER_LENGTH, b"%d" % len(text))]
