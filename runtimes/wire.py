"""Messages between a host and its worker: one JSON header, then raw arrays, over a pair of pipes.

Layout: 8 bytes little-endian header length, the header (`{"body": ..., "arrays": [[dtype, shape], ...]}`),
then each array's bytes in C order. Runs in the sidecar too (see `predictor`).
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

HEADER_LIMIT = 1 << 26


def send(stream: BinaryIO, body: dict[str, Any], arrays: Sequence[NDArray[Any]] = ()) -> None:
    """Writes one message and flushes it."""
    contiguous = [np.ascontiguousarray(array) for array in arrays]
    header = json.dumps({"body": body, "arrays": [[a.dtype.str, list(a.shape)] for a in contiguous]}).encode()
    stream.write(struct.pack("<Q", len(header)))
    stream.write(header)
    for array in contiguous:
        stream.write(array.data.cast("B") if array.size else b"")
    stream.flush()


def receive(read_exactly: Callable[[int], bytes | bytearray]) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Reads one message; `read_exactly` raises EOFError when the other side is gone."""
    (length,) = struct.unpack("<Q", read_exactly(8))
    if length > HEADER_LIMIT:
        raise EOFError(f"not a message: header of {length} bytes")
    header = json.loads(bytes(read_exactly(length)))
    arrays = []
    for dtype_text, shape in header["arrays"]:
        dtype = np.dtype(dtype_text)
        count = int(np.prod(shape, dtype=np.int64))
        data = read_exactly(count * dtype.itemsize)
        arrays.append(np.frombuffer(data, dtype=dtype).reshape(shape))
    return header["body"], arrays


def reader(stream: BinaryIO) -> Callable[[int], bytes]:
    """A blocking `read_exactly` over a buffered binary stream."""

    def read_exactly(count: int) -> bytes:
        data = stream.read(count)
        if len(data) != count:
            raise EOFError("the other side closed the pipe")
        return data

    return read_exactly
