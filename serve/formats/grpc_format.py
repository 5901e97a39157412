"""The protocol's gRPC messages as requests, and answers as messages: tensors as bytes (raw contents) or typed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import repeat
from typing import Any

import numpy as np

from ...runtimes.core.errors import InputError
from ...runtimes.core.text import readable
from .grpc_messages import messages
from .tensors import (
    BYTES,
    DTYPES,
    MOST_AXES,
    MOST_TENSORS,
    Given,
    InferRequest,
    Outputs,
    Value,
    checked_id,
    checked_shape,
    described,
    finite,
    from_bytes,
    to_bytes,
)

CONTENTS = {"FP32": "fp32_contents", "UINT8": "uint_contents", BYTES: "bytes_contents"}
MOST_PARAMETERS = 64


def parse(name: str, body: bytes) -> Any:
    """A message from outside. InputError for bytes that are none."""
    from google.protobuf.message import DecodeError

    try:
        return messages()[name].FromString(body)
    except DecodeError as error:
        raise InputError(f"the request is no {name}: {error}") from error


def read_request(message: Any, most_images: int) -> InferRequest:
    """A ModelInferRequest. InputError, a line, for what the protocol does not allow, and for more images than
    `most_images`.
    """
    raw = message.raw_input_contents
    if not 1 <= len(message.inputs) <= MOST_TENSORS:
        raise InputError(f"inputs: expected 1 to {MOST_TENSORS}, got {len(message.inputs)}")
    if len(message.outputs) > MOST_TENSORS:
        raise InputError(f"outputs: expected 0 to {MOST_TENSORS}, got {len(message.outputs)}")
    if raw and len(raw) != len(message.inputs):
        raise InputError(f"raw_input_contents: expected one for each of {len(message.inputs)} inputs, got {len(raw)}")
    if message.outputs and any("classification" in one.parameters for one in message.outputs):
        raise InputError("classification: this model gives no classes")
    contents = raw or [None] * len(message.inputs)
    inputs = tuple(map(_given, message.inputs, contents, repeat(most_images)))
    outputs = {_named("outputs", one.name): True for one in message.outputs}
    return InferRequest(checked_id(message.id or None), inputs, outputs, True, _parameters(message.parameters))


def _named(where: str, name: str) -> str:
    if not name:
        raise InputError(f"{where}: name: expected a text, got ''")
    return readable(name)  # none of ours has what this changes, and messages tell of it


def _parameters(given: Mapping[str, Any]) -> dict[str, Any]:
    if not given:
        return {}
    if len(given) > MOST_PARAMETERS:
        raise InputError(f"parameters: expected at most {MOST_PARAMETERS}, got {len(given)}")
    chosen = {name: one.WhichOneof("parameter_choice") for name, one in given.items()}
    return {name: getattr(given[name], choice) for name, choice in chosen.items() if choice is not None}


def _given(message: Any, raw: bytes | None, most_images: int) -> Given:
    name, datatype = _named("inputs", message.name), message.datatype
    shape = checked_shape(name, datatype, list(message.shape[: MOST_AXES + 1]), most_images)
    if raw is None:
        value = _typed(name, datatype, getattr(message.contents, CONTENTS[datatype]), shape)
    elif message.HasField("contents"):
        raise InputError(f"{name}: expected contents or raw_input_contents, got both")
    else:
        value = from_bytes(name, raw, datatype, shape)
    return Given(name, datatype, shape, value)


def _typed(name: str, datatype: str, contents: Sequence[Any], shape: tuple[int, ...]) -> Value:
    if len(contents) != math.prod(shape):
        raise InputError(
            f"{name}: {CONTENTS[datatype]}: expected {math.prod(shape)} values for the shape, got {len(contents)}"
        )
    if datatype == BYTES:
        return list(contents)
    values = np.asarray(contents, np.float32 if datatype == "FP32" else np.uint32)
    if datatype == "UINT8" and values.max() > 255:
        raise InputError(f"{name}: data: expected numbers from 0 to 255")
    return finite(name, values.astype(DTYPES[datatype])).reshape(shape)


def write_response(request: InferRequest, model: str, outputs: Outputs) -> bytes:
    """The answer, a ModelInferResponse whose tensors are all raw contents. InputError where an output is asked for that
    there is not.
    """
    answer = messages()["ModelInferResponse"](model_name=model, model_version="1", id=request.id or "")
    for name in request.wanted(outputs):
        datatype, shape = described(outputs[name])
        answer.outputs.add(name=name, datatype=datatype, shape=shape)
        answer.raw_output_contents.append(to_bytes(outputs[name]))
    return bytes(answer.SerializeToString())
