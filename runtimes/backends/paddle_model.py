"""What a Paddle inference model file says of itself, in either of its two formats."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from ..core.errors import InputError

GRAPHS, PARAMS = ("inference.json", "inference.pdmodel"), "inference.pdiparams"


def model_files(folder: Path) -> tuple[Path, Path] | None:
    """Graph and parameters of a Paddle inference model's folder; None where there is none."""
    graph = next((folder / name for name in GRAPHS if (folder / name).is_file()), None)
    params = folder / PARAMS
    return (graph, params) if graph is not None and params.is_file() else None


def read_program(path: Path) -> Any:
    """The protobuf program of a `.pdmodel` file. Needs PaddlePaddle. InputError when it is not one."""
    from paddle.base.proto import framework_pb2

    program = framework_pb2.ProgramDesc()
    try:
        program.ParseFromString(path.read_bytes())
    except Exception as error:  # protobuf's DecodeError lives in a private module in some versions
        raise InputError(f"{path}: not a .pdmodel program: {error}") from error
    if not program.blocks:
        raise InputError(f"{path}: not a .pdmodel program: no blocks in it")
    return program


def _program_input(path: Path) -> tuple[str, list[int]]:
    """Name and shape of the first variable that a `.pdmodel` feeds."""
    block = read_program(path).blocks[0]
    name = next(op.outputs[0].arguments[0] for op in block.ops if op.type == "feed")
    var = next(var for var in block.vars if var.name == name)
    return str(name), list(var.type.dense_tensor.tensor.dims)


def _pir_input(path: Path) -> tuple[str, list[int]]:
    """Name and shape of the first `data` operation of an `inference.json`."""
    try:
        program = json.loads(path.read_text(encoding="utf-8"))["program"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a Paddle program: {error}") from error
    operations = program["regions"][0]["blocks"][0]["ops"]
    data = next(op for op in operations if str(op["#"]).endswith(".data"))
    attributes = {attribute["N"]: attribute["AT"]["D"] for attribute in data["A"]}
    return str(attributes["name"]), [int(size) for size in attributes["shape"]]


def declared_input(path: Path) -> tuple[str, list[int]] | None:
    """Name and shape (-1 where free) of a model's input; None when the file is laid out in a way not known here."""
    try:
        return _pir_input(path) if path.suffix == ".json" else _program_input(path)
    except (StopIteration, KeyError, IndexError, TypeError, AttributeError):
        return None


def check_input_shape(path: Path, shape: tuple[int, int, int]) -> str:
    """The input's name. InputError when the model does not take `(N, *shape)`, which the preprocessing gives."""
    name, declared = declared_input(path) or ("x", [-1, -1, -1, -1])
    fits = len(declared) == 4 and all(have in (-1, want) for have, want in zip(declared[1:], shape, strict=True))
    if not fits:
        takes, gives = (" x ".join("any" if n < 0 else str(n) for n in sizes) for sizes in (declared[1:], shape))
        raise InputError(f"{path}: the model takes {takes}, the preprocessing gives {gives}: change its resize or crop")
    return name


def parameter_names(model: Path) -> list[str]:
    """The names of a model's parameters in the order of its `.pdiparams`, which is theirs."""
    if model.suffix == ".json":
        program = json.loads(model.read_text(encoding="utf-8"))["program"]
        operations = program["regions"][0]["blocks"][0]["ops"]
        return sorted(str(operation["A"][3]) for operation in operations if operation["#"] == "p")
    variables = read_program(model).blocks[0].vars
    return sorted(var.name for var in variables if var.persistable and var.name not in ("feed", "fetch"))


def read_parameters(model: Path, params: Path) -> dict[str, NDArray[Any]] | None:
    """A model's floating point parameters by name; None where the two files are laid out in a way not known here.

    The file holds one tensor after another as Paddle's `SerializeToStream` writes them: a version, levels of detail,
    a version, the size of a description, the description (protobuf), the values.
    """
    from paddle.base.proto import framework_pb2

    try:
        with params.open("rb") as stream:
            found = {name: _read_tensor(stream, framework_pb2.VarType) for name in parameter_names(model)}
            if stream.read(1):
                return None
    except Exception:  # a file of another layout fails in as many ways as it has fields
        return None
    return {name: values for name, values in found.items() if values.dtype.kind == "f"}


def _read_tensor(stream: BinaryIO, types: Any) -> NDArray[Any]:
    """The next tensor; bfloat16 as float32."""
    _, levels = struct.unpack("<IQ", stream.read(12))
    for _ in range(levels):
        stream.seek(struct.unpack("<Q", stream.read(8))[0], 1)
    _, size = struct.unpack("<Ii", stream.read(8))
    description = types.TensorDesc.FromString(stream.read(size))
    floats = {types.FP16: "<f2", types.FP32: "<f4", types.FP64: "<f8"}
    others = {types.BOOL: "?", types.UINT8: "u1", types.INT8: "i1", types.INT16: "<i2", types.INT32: "<i4"}
    halves = {types.BF16: "<u2"}
    dtype = np.dtype({**floats, **others, **halves, types.INT64: "<i8"}[description.data_type])
    count = int(np.prod(description.dims, dtype=np.int64))
    values = np.frombuffer(stream.read(count * dtype.itemsize), dtype, count).reshape(tuple(description.dims))
    if description.data_type in halves:
        return (values.astype(np.uint32) << 16).view(np.float32)
    return values
