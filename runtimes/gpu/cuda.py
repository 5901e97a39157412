"""Memory, copies and time on a GPU, by NVIDIA's own bindings of the CUDA runtime (the package cuda-bindings)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.errors import RuntimeFailed, RuntimeUnavailable
from ..core.versions import Package, needs

PACKAGE = Package("cuda.bindings", "cuda-bindings", "gpu", shown=False)


class Stream:
    """A stream of the first GPU, and one buffer there for each name. One thread at a time uses it."""

    def __init__(self) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise RuntimeUnavailable(f"computing on a GPU {needs(PACKAGE, error=error)}") from error
        self._cuda = runtime
        self._buffers: dict[str, tuple[int, int]] = {}  # name -> address, bytes
        self.handle, self._events = 0, list[Any]()
        try:
            self.handle = int(self._checked(runtime.cudaStreamCreate()))
            self._events += [self._checked(runtime.cudaEventCreate()) for _ in range(2)]
        except RuntimeFailed as error:
            self.close()
            raise RuntimeUnavailable(f"no NVIDIA GPU can be used here: {error}; check 'nvidia-smi'") from error

    def _checked(self, answer: tuple[Any, ...]) -> Any:
        code, *values = answer
        if int(code):
            _, name = self._cuda.cudaGetErrorName(code)
            raise RuntimeFailed(f"CUDA: {name.decode()}")
        return values[0] if values else None

    def buffer(self, name: str, size: int) -> int:
        """The address of a buffer of at least so many bytes; what it held is lost when it grows."""
        address, there = self._buffers.get(name, (0, 0))
        if there < size:
            if address:
                del self._buffers[name]
                self._checked(self._cuda.cudaFree(address))
            address = int(self._checked(self._cuda.cudaMalloc(size)))
            self._buffers[name] = (address, size)
        return address

    def send(self, name: str, array: NDArray[Any]) -> int:
        """Copies a C-contiguous array there, and gives the address."""
        address = self.buffer(name, array.nbytes)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._checked(self._cuda.cudaMemcpyAsync(address, array.ctypes.data, array.nbytes, kind, self.handle))
        return address

    def receive(self, name: str, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """Waits for all that was asked, and copies a float32 array back."""
        array = np.empty(shape, np.float32)
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        address = self._buffers[name][0]
        self._checked(self._cuda.cudaMemcpyAsync(array.ctypes.data, address, array.nbytes, kind, self.handle))
        self._checked(self._cuda.cudaStreamSynchronize(self.handle))
        return array

    def mark(self, index: int) -> None:
        """Notes the time on the GPU, when it comes there: 0 begins, 1 ends."""
        self._checked(self._cuda.cudaEventRecord(self._events[index], self.handle))

    def marked_ms(self) -> float:
        """Milliseconds on the GPU between the two marks, which it waits for."""
        self._checked(self._cuda.cudaEventSynchronize(self._events[1]))
        return float(self._checked(self._cuda.cudaEventElapsedTime(*self._events)))

    def close(self) -> None:
        """Frees all of it. More than once is no harm."""
        for address, _ in self._buffers.values():
            self._cuda.cudaFree(address)
        self._buffers.clear()
        for event in self._events:
            self._cuda.cudaEventDestroy(event)
        if self.handle:
            self._cuda.cudaStreamDestroy(self.handle)
        self.handle, self._events = 0, []
