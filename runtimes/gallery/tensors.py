"""Named arrays in one file that can be mapped: the safetensors format, which other tools read too.

Eight bytes with the length of a JSON header, the header (each array's type, shape and place), then the arrays, without
a gap (github.com/huggingface/safetensors). Arrays of wider types come first, so that each begins at a multiple of its
items' size.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InputError
from ..core.json_text import parse_json

DTYPES = {"U64": "<u8", "F32": "<f4", "I32": "<i4", "F16": "<f2", "I16": "<i2", "I8": "|i1", "U8": "|u1"}
NAMES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
HEADER_BYTES = 1 << 16  # of a header, at most
ALIGNED = 64  # where the arrays begin

Array = NDArray[Any]


def write_tensors(stream: IO[bytes], arrays: Mapping[str, Sequence[Array]], notes: Mapping[str, str]) -> None:
    """Arrays, each given in parts that are joined along their first axis, and texts about them."""
    order = sorted(arrays, key=lambda name: (-arrays[name][0].dtype.itemsize, name))
    header: dict[str, Any] = {"__metadata__": dict(notes)}
    end = 0
    for name in order:
        parts = arrays[name]
        begin, end = end, end + sum(part.nbytes for part in parts)
        shape = [sum(map(len, parts)), *parts[0].shape[1:]]
        header[name] = {"dtype": NAMES[parts[0].dtype], "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(len(text) + 8) % ALIGNED)
    stream.write(len(text).to_bytes(8, "little") + text)
    for name in order:
        for part in arrays[name]:
            stream.write(np.ascontiguousarray(part).data)


def map_tensors(path: Path) -> tuple[dict[str, Array], dict[str, str], NDArray[np.uint8]]:
    """The arrays of a file, mapped and read-only, the texts about them, and all its bytes. InputError for damage.

    What the header promises is held against the file; the arrays themselves are not read.
    """
    try:
        mapped = np.memmap(path, np.uint8, "r")
        length = int.from_bytes(mapped[:8].tobytes(), "little")
        if not 2 <= length <= min(HEADER_BYTES, len(mapped) - 8):
            raise ValueError(f"its header would take {length} bytes")
        header = parse_json(mapped[8 : 8 + length].tobytes())
        notes = header.pop("__metadata__", {})
        if not all(isinstance(text, str) for text in notes.values()):
            raise ValueError("its metadata are not texts")
        data = np.asarray(mapped)[8 + length :]
        arrays = {name: _array(data, 8 + length, one) for name, one in header.items()}
        if sum(array.nbytes for array in arrays.values()) != len(data):
            raise ValueError("its arrays do not fill it")
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path}: expected a segment of a gallery: {error}") from error
    return arrays, notes, np.asarray(mapped)


def _array(data: NDArray[np.uint8], place: int, described: dict[str, Any]) -> Array:
    """place: of the data in the file."""
    dtype, shape = np.dtype(DTYPES[described["dtype"]]), described["shape"]
    begin, end = described["data_offsets"]
    if any(type(number) is not int or number < 0 for number in (begin, end, *shape)) or len(shape) not in (1, 2):
        raise ValueError(f"an array of shape {shape} at {begin}")
    count = shape[0] * (shape[1] if len(shape) == 2 else 1)
    if not begin <= end <= len(data) or count * dtype.itemsize != end - begin or (place + begin) % dtype.itemsize:
        raise ValueError(f"an array of shape {shape} in bytes {begin} to {end} of {len(data)}")
    return data[begin:end].view(dtype).reshape(shape)
