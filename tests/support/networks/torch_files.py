"""Files as PyTorch's `torch.save` writes them, in both forms, without PyTorch."""

from __future__ import annotations

import io
import pickle
import sys
import types
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np

KINDS = {"f4": "FloatStorage", "f8": "DoubleStorage", "f2": "HalfStorage", "i8": "LongStorage"}


class Stored:
    """A tensor to be written: its storage's values, and the view of them."""

    def __init__(self, values: np.ndarray, shape: tuple[int, ...], stride: tuple[int, ...], offset: int = 0) -> None:
        self.values, self.view = values, (offset, shape, stride)
        self.kind = KINDS[values.dtype.str[1:]]


def stored(array: np.ndarray) -> Stored:
    """A contiguous one."""
    return Stored(array.reshape(-1), array.shape, tuple(step // array.itemsize for step in array.strides))


def torch_modules() -> dict[str, types.ModuleType]:
    """What a pickle of PyTorch's names."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind in {*KINDS.values(), "BFloat16Storage"}:
        setattr(torch, kind, type(kind, (), {"__module__": "torch"}))

    def rebuild(*arguments: Any) -> Any:
        raise AssertionError

    rebuild.__module__, rebuild.__name__, rebuild.__qualname__ = "torch._utils", *["_rebuild_tensor_v2"] * 2
    utils._rebuild_tensor_v2 = rebuild  # type: ignore[attr-defined]
    return {"torch": torch, "torch._utils": utils}


def dumps(
    state: Any, modules: dict[str, types.ModuleType], keys: dict[int, str], changes: dict[str, Any] | None = None
) -> bytes:
    """The state's pickle; keys: of the storages, by the identity of their tensors. changes: see `write_torch`."""

    class Storage:
        def __init__(self, tensor: Stored) -> None:
            self.tensor = tensor

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            if not isinstance(value, Storage):
                return None
            tensor = value.tensor
            kind = getattr(modules["torch"], tensor.kind)
            return ("storage", kind, keys[id(tensor)], "cpu", len(tensor.values))

        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, Stored):
                rebuild = modules["torch._utils"]._rebuild_tensor_v2
                made = rebuild, (Storage(value), *value.view, False, OrderedDict())
                return made if changes is None else (*made, changes)
            return NotImplemented

    stream = io.BytesIO()
    pickler = Pickler(stream, protocol=2)
    before = {name: sys.modules.get(name) for name in modules}
    sys.modules.update(modules)
    try:
        pickler.dump(state)
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module
    return stream.getvalue()


def tensors_of(state: Any) -> list[Stored]:
    """Those in a state dict, nested ones too."""
    if isinstance(state, Stored):
        return [state]
    return [one for value in state.values() for one in tensors_of(value)] if isinstance(state, dict) else []


def write_torch(
    path: Path, state: Any, legacy: bool, changes: dict[str, Any] | None = None, shared: bool = False
) -> None:
    """A file that holds this mapping, arrays as `Stored`. changes: attributes that the pickle sets of each after it was
    made, as no file of PyTorch does. shared: whether all are views of the first one's storage.
    """
    modules, tensors = torch_modules(), list({id(one): one for one in tensors_of(state)}.values())
    keys = {id(tensor): str(1000 + (0 if shared else index)) for index, tensor in enumerate(tensors)}
    data = dumps(state, modules, keys, changes)
    tensors = tensors[:1] if shared else tensors
    if not legacy:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/byteorder", "little")
            for tensor in tensors:
                archive.writestr(f"archive/data/{keys[id(tensor)]}", tensor.values.tobytes())
        return
    sizes = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"short": 2, "int": 4, "long": 4}}
    begin = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, sizes)]
    parts = [*begin, data, pickle.dumps([*keys.values()], 2)]
    for tensor in tensors:
        parts += [len(tensor.values).to_bytes(8, "little"), tensor.values.tobytes()]
    path.write_bytes(b"".join(parts))
