"""Reading PyTorch's files of weights without PyTorch and without running what is in them.

Both forms of `torch.save`: a ZIP archive with `data.pkl` and one file a storage (since 1.6), and the older one of
several pickles followed by the storages' bytes. Of the pickles' classes only those of tensors are known.
"""

from __future__ import annotations

import io
import pickle
import sys
import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ...runtimes.core.errors import InputError
from .safe_pickle import Refused, check_memo

LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the older form's first pickle: a number
ZIP = b"PK\x03\x04"
DTYPES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "BFloat16Storage": "<u2",  # the upper half of a float32
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "<i1",
    "ByteStorage": "<u1",
    "BoolStorage": "<b1",
}
INSIDE = ("state_dict", "model", "state_dict_ema", "model_state_dict")  # what trainings wrap weights in
MOST_STORAGES = 100_000
WIDEST = 2  # bytes of an array for one of the file: bfloat16 becomes float32
Storages = Callable[[str, str, int], NDArray[Any]]


def is_torch_file(path: Path) -> bool:
    """Whether a file begins as PyTorch's do. InputError when it cannot be read."""
    try:
        with path.open("rb") as stream:
            begin = stream.read(len(LEGACY))
    except OSError as error:
        raise InputError(f"weights {path}: {error.strerror}") from error
    return begin == LEGACY or begin.startswith(ZIP)


def read_torch(path: Path) -> dict[str, NDArray[Any]]:
    """The named arrays of a `.pth` file; bfloat16 as float32. InputError when it is damaged or more than tensors."""
    try:
        with path.open("rb") as stream:
            state = _read_legacy(stream) if stream.read(len(LEGACY)) == LEGACY else _read_zip(path)
        found = next((state[key] for key in INSIDE if isinstance(state.get(key), dict)), state)
        tensors = {str(name): value for name, value in found.items() if isinstance(value, _Tensor)}
        return _arrays(tensors, WIDEST * path.stat().st_size)
    except OSError as error:
        raise InputError(f"weights {path}: {error.strerror or error}") from error
    except Refused as error:
        raise InputError(f"weights {path}: refused: {error}") from error
    except Exception as error:  # a damaged pickle fails in as many ways as it has opcodes
        raise InputError(f"weights {path}: damaged or no PyTorch weights ({type(error).__name__})") from error


class _Mapping(dict[Any, Any]):
    """Stands for OrderedDict, whose attributes (PyTorch's `_metadata`) are left out."""

    def __setstate__(self, state: Any) -> None:
        pass


class _StandIn:
    """What a pickle makes by its arguments alone: one that sets attributes is refused."""

    def __setstate__(self, state: Any) -> None:
        raise Refused("it changes a tensor after it was made")


class _Tensor(_StandIn):
    """Stands for a tensor: a view of a storage, which may be read later."""

    def __init__(self, storage: Any, offset: Any, shape: Any, stride: Any, *rest: Any) -> None:
        self.storage, self.offset, self.shape, self.stride = storage, offset, shape, stride

    @property
    def key(self) -> tuple[Any, ...]:
        """What two names of one array have in common. Refused unless it is a plain view."""
        sizes = (self.shape, self.stride)
        plain = all(isinstance(one, tuple) and all(type(n) is int and n >= 0 for n in one) for one in sizes)
        fits = plain and len(self.shape) == len(self.stride) and type(self.offset) is int
        if not fits or not isinstance(self.storage, _Storage):
            raise Refused("it holds a tensor without a plain shape")
        return (self.storage.key, self.storage.kind, self.offset, *sizes)

    def array(self) -> NDArray[Any]:
        """Its values, a copy."""
        values, count = self.storage.values(), prod(self.shape)
        last = self.offset + sum((n - 1) * step for n, step in zip(self.shape, self.stride, strict=True))
        if self.offset < 0 or (count and last >= len(values)):
            raise Refused("it holds a tensor that is longer than its storage")
        if count > len(values):
            raise Refused("it holds a tensor that repeats its storage")
        steps = [step * values.itemsize for step in self.stride]
        view = np.lib.stride_tricks.as_strided(values[self.offset :], self.shape, steps)
        if self.storage.kind == "BFloat16Storage":
            return (view.astype(np.uint32) << 16).view(np.float32)
        return np.array(view, order="C")


class _Storage(_StandIn):
    """A storage by its kind, key and length."""

    def __init__(self, kind: str, key: str, count: int, read: Storages) -> None:
        self.kind, self.key, self.count, self.read = kind, key, count, read

    def values(self) -> NDArray[Any]:
        """All of it, `(count,)`."""
        return self.read(self.key, DTYPES[self.kind], self.count)


class _Kind(_StandIn):
    """Stands for a storage's class."""

    def __init__(self, name: str) -> None:
        self.name = name


def _arrays(tensors: dict[str, _Tensor], limit: int) -> dict[str, NDArray[Any]]:
    """Their arrays, one for all names that share it. limit: of all bytes, beyond which nothing honest is."""
    made: dict[tuple[Any, ...], NDArray[Any]] = {}
    for tensor in tensors.values():
        if tensor.key not in made:
            made[tensor.key] = tensor.array()
            limit -= made[tensor.key].nbytes
        if limit < 0:
            raise Refused("its tensors overlap: they have more values than the file")
    return {name: made[tensor.key] for name, tensor in tensors.items()}


def _parameter(data: Any, *rest: Any) -> Any:
    return data


PLAIN = {
    ("collections", "OrderedDict"): _Mapping,
    ("torch._utils", "_rebuild_tensor_v2"): _Tensor,
    ("torch._utils", "_rebuild_parameter"): _parameter,
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, stream: BinaryIO, read: Storages) -> None:
        super().__init__(stream, encoding="utf-8")
        self.read_storage = read
        self.kinds: dict[str, str] = {}  # of the storages that its tensors have
        self.state: Any = None

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in PLAIN:
            return PLAIN[(module, name)]
        if module == "torch" and name in DTYPES:
            return _Kind(name)
        raise Refused(f"it wants to load {module}.{name}, which no weights need")

    def persistent_load(self, pid: Any) -> Any:
        if not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage" or not isinstance(pid[1], _Kind):
            raise Refused("it holds a storage of unknown layout")
        _, kind, key, _, count = pid[:5]
        if type(count) is not int or count < 0 or (len(pid) > 5 and pid[5] is not None):
            raise Refused("it holds a storage of unknown layout")
        self.kinds[str(key)] = kind.name
        return _Storage(kind.name, str(key), count, self.read_storage)


def _load(stream: BinaryIO, read: Storages) -> _Unpickler:
    """Unpickles what comes next, into `state`."""
    check_memo(stream)
    unpickler = _Unpickler(stream, read)
    unpickler.state = unpickler.load()
    return unpickler


def _mapping(state: Any) -> dict[Any, Any]:
    if not isinstance(state, dict):
        raise Refused(f"expected a state dict, got {type(state).__name__}")
    return state


def _read_zip(path: Path) -> dict[Any, Any]:
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl"]
        if len(pickles) != 1:
            raise Refused("it is a ZIP archive without PyTorch's data.pkl")
        folder = pickles[0][: -len("data.pkl")]
        if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
            raise Refused("its archive is compressed, which PyTorch does not do")
        if sum(entry.file_size for entry in archive.infolist()) > path.stat().st_size:
            raise Refused("its archive's files overlap")
        if f"{folder}byteorder" in archive.namelist() and archive.read(f"{folder}byteorder") != b"little":
            raise Refused("it was written on a big-endian machine")
        stored: dict[str, bytes] = {}
        for entry in archive.infolist():
            if entry.filename.startswith(f"{folder}data/"):
                stored[entry.filename[len(folder) + 5 :]] = archive.read(entry)
        return _mapping(_load(io.BytesIO(archive.read(pickles[0])), _from(stored)).state)


def _from(stored: dict[str, bytes]) -> Storages:
    def read(key: str, dtype: str, count: int) -> NDArray[Any]:
        if key not in stored or len(stored[key]) < count * np.dtype(dtype).itemsize:
            raise Refused(f"the storage '{key}' is missing or too short")
        return np.frombuffer(stored[key], dtype=dtype, count=count)

    return read


def _read_legacy(stream: BinaryIO) -> dict[Any, Any]:
    """After the first number: a version, what the machine was, the state, the storages' keys, the storages."""
    stored: dict[str, bytes] = {}

    def plain() -> Any:
        return _load(stream, _from(stored)).state

    plain()
    machine = _mapping(plain())
    if machine.get("little_endian") is not True or sys.byteorder != "little":
        raise Refused("it was written on a big-endian machine")
    unpickler = _load(stream, _from(stored))
    state = _mapping(unpickler.state)
    keys = plain()
    if not isinstance(keys, list) or len(keys) > MOST_STORAGES:
        raise Refused("it holds no list of storages")
    for key in map(str, keys):
        begin = stream.read(8)
        count = int.from_bytes(begin, "little")
        if key not in unpickler.kinds:
            raise Refused(f"the storage '{key}' belongs to no tensor")
        size = count * np.dtype(DTYPES[unpickler.kinds[key]]).itemsize
        stored[key] = stream.read(size)
        if len(begin) < 8 or len(stored[key]) < size:
            raise Refused("it ends before its storages do")
    return state
