"""Reading Paddle's pickles without running what is in them.

Not even numpy's own reconstruction is used: a crafted dtype state makes it read bytes as object pointers. Stand-ins
take its place, and arrays are built from plain bytes and a dtype from a short list.
"""

from __future__ import annotations

import pickle
import pickletools
import re
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

MOST_REMEMBERED = 10_000_000
PLAIN_DTYPE = re.compile(r"^[<>|=]?(b1|[iu][1248]|f[248])$")
DTYPE_MODULES = {"numpy"}
ARRAY_MODULES = {"numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric", "numpy._core.numeric"}


class Refused(pickle.UnpicklingError):
    """The pickle holds something that no state dict needs."""


class _DType:
    """Stands for `numpy.dtype(text, align, copy)`; its state gives the byte order."""

    def __init__(self, text: Any, *flags: Any) -> None:
        self.text, self.order = str(text), ""
        self.plain()

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) < 2 or state[1] not in ("<", ">", "|", "="):
            raise Refused("it holds a dtype that is no plain number")
        self.order = state[1]

    def plain(self) -> np.dtype[Any]:
        """The dtype; Refused unless it is a plain number."""
        if not PLAIN_DTYPE.match(self.text):
            raise Refused(f"it holds the dtype '{self.text[:20]}', which is no plain number")
        text = self.text if self.text[0] in "<>|=" else (self.order + self.text if self.order != "|" else self.text)
        return np.dtype(text)


def _build(shape: Any, dtype: Any, data: Any, order: str) -> NDArray[Any]:
    """An array from its bytes; Refused or ValueError when they do not fit."""
    if not isinstance(dtype, _DType) or not isinstance(shape, tuple) or not all(type(n) is int for n in shape):
        raise Refused("it holds an array without a plain shape and dtype")
    raw = data.encode("latin1") if isinstance(data, str) else data
    if not isinstance(raw, bytes | bytearray | memoryview):
        raise Refused("it holds an array without bytes")
    flat: NDArray[Any] = np.frombuffer(raw, dtype=dtype.plain())
    return flat.reshape(shape, order="F" if order == "F" else "C").copy()


class _Array:
    """Stands for `_reconstruct(ndarray, ...)`; its state is the array."""

    value: NDArray[Any] | None = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, tuple) or len(state) not in (4, 5):
            raise Refused("it holds an array of unknown layout")
        shape, dtype, fortran, data = state[-4:]
        self.value = _build(shape, dtype, data, "F" if fortran else "C")


class _NdArray:
    """Stands for the type `numpy.ndarray`, which pickles name but need not have."""


def _reconstruct(*arguments: Any) -> _Array:
    return _Array()


def _scalar(dtype: Any, data: Any = b"") -> NDArray[Any]:
    return _build((), dtype, data, "C")


def _frombuffer(data: Any, dtype: Any, shape: Any, order: str) -> NDArray[Any]:
    return _build(shape, dtype, data, order)


def _encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Stands for `_codecs.encode`, with which protocol 2 writes bytes."""
    if not isinstance(text, str) or encoding != "latin1":
        raise Refused("it encodes something that is no text")
    return text.encode("latin1")


PLAIN = {
    ("collections", "OrderedDict"): dict,
    ("builtins", "tuple"): tuple,
    ("__builtin__", "tuple"): tuple,
    ("numpy", "ndarray"): _NdArray,
    ("numpy", "dtype"): _DType,
    ("_codecs", "encode"): _encode,
}
RECONSTRUCTION = {"_reconstruct": _reconstruct, "scalar": _scalar, "_frombuffer": _frombuffer}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in PLAIN:
            return PLAIN[(module, name)]
        if module in ARRAY_MODULES and name in RECONSTRUCTION:
            return RECONSTRUCTION[name]
        raise Refused(f"it wants to load {module}.{name}, which no state dict needs")


def _resolve(value: Any) -> Any:
    """The same containers with arrays in place of their stand-ins."""
    if isinstance(value, _Array):
        if value.value is None:
            raise Refused("it holds an array without content")
        return value.value
    if isinstance(value, dict):
        return {key: _resolve(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_resolve(item) for item in value)
    if value is None or isinstance(value, bool | int | float | str | bytes | np.ndarray):
        return value
    raise Refused(f"it holds a {type(value).__name__}, which no state dict needs")


def check_memo(stream: BinaryIO) -> None:
    """Refused where the pickle that begins here numbers what it remembers beyond any honest file, for which the
    unpickler would make room at once. The stream stays where it is.
    """
    begin = stream.tell()
    for operation, argument, _ in pickletools.genops(stream):
        if operation.name.endswith(("PUT", "GET")) and isinstance(argument, int) and argument > MOST_REMEMBERED:
            raise Refused(f"it remembers more than {MOST_REMEMBERED:,} values")
    stream.seek(begin)


def load_plain(stream: BinaryIO) -> Any:
    """Unpickles arrays, numbers, texts and containers of them. Refused, or any error that damaged data causes."""
    check_memo(stream)
    return _resolve(_Unpickler(stream, encoding="latin1").load())
