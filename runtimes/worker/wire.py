"""Messages between a host and its worker: one JSON header, then raw arrays, over a pair of pipes.

Layout: 8 bytes little-endian header length, the header (`{"body": ..., "arrays": [[dtype, shape], ...]}`),
then each array's bytes in C order. Where the system has memory files, the arrays that a worker is given lie in one
instead: the header's `offset` says where each begins. Runs in the sidecar too (see `predictor`).
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import struct
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

HEADER_LIMIT = 1 << 26
ALIGNMENT = 64


class SharedMemory:
    """A memory file that two processes map. Without a descriptor a new one is made; it goes with the last of them."""

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = os.memfd_create("edgerecall") if descriptor is None else descriptor
        self._map: mmap.mmap | None = None

    def view(self, end: int, grow: bool = False) -> memoryview:
        """The first `end` bytes, at least; grow: makes them."""
        if self._map is None or len(self._map) < end:
            if grow:
                os.ftruncate(self.descriptor, end)
            # An older map stays as long as arrays lie in it.
            self._map = mmap.mmap(self.descriptor, 0)
        return memoryview(self._map)

    def put(self, arrays: Sequence[NDArray[Any]]) -> list[int]:
        """Copies arrays in; where each begins."""
        offsets, end = [], 0
        for array in arrays:
            offsets.append(end)
            end += -(-array.nbytes // ALIGNMENT) * ALIGNMENT
        view = self.view(max(end, 1), grow=True)
        for array, offset in zip(arrays, offsets):  # noqa: B905 - Python 3.8 has no strict
            np.frombuffer(view, array.dtype, array.size, offset)[:] = array.ravel()
        return offsets

    def get(self, dtype: np.dtype[Any], shape: Sequence[int], offset: int) -> NDArray[Any]:
        """An array that lies in it, not copied: it is good until the next message."""
        count = int(np.prod(shape, dtype=np.int64))
        view = self.view(offset + count * dtype.itemsize)
        return np.frombuffer(view, dtype, count, offset).reshape(shape)

    def close(self) -> None:
        """Closes the descriptor; maps go with their arrays."""
        os.close(self.descriptor)


def shared_memory() -> SharedMemory | None:
    """A new one, where the system has such files."""
    return SharedMemory() if hasattr(os, "memfd_create") else None


def send(
    stream: BinaryIO, body: dict[str, Any], arrays: Sequence[NDArray[Any]] = (), shared: SharedMemory | None = None
) -> None:
    """Writes one message and flushes it. shared: where the arrays go, instead of the stream."""
    contiguous = [np.ascontiguousarray(array) for array in arrays]
    described: dict[str, Any] = {"body": body, "arrays": [[a.dtype.str, list(a.shape)] for a in contiguous]}
    if shared is not None and contiguous:
        with contextlib.suppress(OSError):  # a limit on file sizes holds for memory files too
            described["offset"] = shared.put(contiguous)
            contiguous = []
    header = json.dumps(described).encode()
    stream.write(struct.pack("<Q", len(header)))
    stream.write(header)
    for array in contiguous:
        stream.write(array.data.cast("B") if array.size else b"")
    stream.flush()


def receive(
    read_exactly: Callable[[int], bytes | bytearray], shared: SharedMemory | None = None
) -> tuple[dict[str, Any], list[NDArray[Any]]]:
    """Reads one message; `read_exactly` raises EOFError when the other side is gone."""
    (length,) = struct.unpack("<Q", read_exactly(8))
    if length > HEADER_LIMIT:
        raise EOFError(f"not a message: header of {length} bytes")
    header = json.loads(bytes(read_exactly(length)))
    arrays = []
    for index, (dtype_text, shape) in enumerate(header["arrays"]):
        dtype = np.dtype(dtype_text)
        if shared is not None and "offset" in header:
            arrays.append(shared.get(dtype, shape, header["offset"][index]))
            continue
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
