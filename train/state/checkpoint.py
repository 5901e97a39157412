"""Checkpoints in Paddle's own files, written atomically and read without running what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...runtimes.core.errors import InputError
from ...runtimes.core.soundness import require_finite
from .safe_pickle import Refused, load_plain
from .savepoint import path_of, prefix_of
from .torch_file import is_torch_file, read_torch

NAME_TABLE = "StructuredToParameterName@@"
# What a training's checkpoint holds beside the network, under the reference's names: of the losses (their place in the
# list follows), and of the class head.
LOSS, HEAD = "loss_func.", "head."
BACKBONE, STUDENT = "backbone.", "Student."
WEIGHTS = (".pdparams", ".pth", ".pt", ".bin")  # endings of files that are weights by themselves
NEW = "new here"  # of arrays that a file of weights does not have
FEWEST = 0.5  # of a network's arrays, below which a file is of another one


def read_plain(path: Path) -> Any:
    """What a checkpoint's file holds. InputError when it is missing, damaged or more than plain data."""
    try:
        with path.open("rb") as stream:
            state = load_plain(stream)
    except OSError as error:
        raise InputError(f"checkpoint {path}: {error.strerror}") from error
    except Refused as error:
        raise InputError(f"checkpoint {path}: refused: {error}") from error
    except Exception as error:  # a damaged pickle fails in as many ways as it has opcodes
        raise InputError(f"checkpoint {path}: damaged or no Paddle checkpoint ({type(error).__name__})") from error
    return state


def read_state(path: Path) -> dict[str, Any]:
    """The mapping in a `.pdparams` or `.pdstates` file. InputError when it is missing, damaged or something else."""
    state = read_plain(path)
    if not isinstance(state, dict):
        raise InputError(f"checkpoint {path}: expected a state dict, got {type(state).__name__}")
    return state


def read_optimizers(path: Path) -> list[dict[str, Any]]:
    """The optimizers' states in a `.pdopt` file: a mapping, or a list of them as PaddleClas writes it."""
    state = read_plain(path)
    states = state if isinstance(state, list) else [state]
    if not states or not all(isinstance(one, dict) for one in states):
        raise InputError(f"checkpoint {path}: expected the state of an optimizer, got {type(state).__name__}")
    return [{str(name): untupled(value) for name, value in one.items()} for one in states]


def untupled(value: Any) -> Any:
    """Tensors, which Paddle pickles as (internal name, array), as arrays; mappings likewise."""
    if isinstance(value, dict):
        return {name: untupled(entry) for name, entry in value.items()}
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[1], np.ndarray):
        return value[1]
    return value


def internal_names(path: Path) -> dict[str, str]:
    """Parameter name -> the name that Paddle knew it by when the `.pdparams` file was written."""
    state = read_state(path)
    table = state.get(NAME_TABLE)
    if isinstance(table, dict):
        return {str(name): str(internal) for name, internal in table.items()}
    return {name: value[0] for name, value in state.items() if isinstance(value, tuple)}


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The named arrays of a `.pdparams` file, Paddle's table of internal names left out, or of a PyTorch file."""
    if is_torch_file(path):
        return read_torch(path)
    arrays = {}
    for name, value in read_state(path).items():
        if name == NAME_TABLE:
            continue
        value = untupled(value)
        if not isinstance(value, np.ndarray):
            raise InputError(f"checkpoint {path}: expected arrays, '{name}' is {type(value).__name__}")
        arrays[str(name)] = value
    return arrays


def params_path(prefix: Path) -> Path:
    """`prefix.pdparams`, also for the name of any file of the checkpoint."""
    return path_of(prefix_of(prefix), ".pdparams")


def mismatch(expected: dict[str, tuple[int, ...]], found: dict[str, tuple[int, ...]]) -> str | None:
    """Missing, unexpected and wrongly shaped names as one line; None when all agree."""
    parts = []
    missing = sorted(expected.keys() - found.keys())
    unexpected = sorted(found.keys() - expected.keys())
    shapes = [
        f"{name} {list(found[name])} instead of {list(expected[name])}"
        for name in sorted(expected.keys() & found.keys())
        if expected[name] != found[name]
    ]
    for title, names in (("missing", missing), ("unexpected", unexpected), ("wrong shape", shapes)):
        if names:
            rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
            parts.append(f"{len(names)} {title}: {', '.join(names[:3])}{rest}")
    return "; ".join(parts) or None


def set_tensors(own: dict[str, Any], arrays: dict[str, NDArray[Any]], path: Path) -> None:
    """Sets tensors from arrays of the same names, those of loss and head left aside. InputError listing every
    mismatch.
    """
    import paddle

    arrays = {name: array for name, array in arrays.items() if not name.startswith((LOSS, HEAD))}
    expected = {name: tuple(tensor.shape) for name, tensor in own.items()}
    problem = mismatch(expected, {name: array.shape for name, array in arrays.items()})
    if problem:
        raise InputError(f"checkpoint {path} does not fit this network: {problem}; is it of another architecture?")
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise InputError(f"checkpoint {path}: '{name}': expected floating point numbers, got {array.dtype}")
    require_finite({name: arrays[name] for name in own}, f"checkpoint {path}")
    for name, tensor in own.items():
        tensor.set_value(paddle.to_tensor(arrays[name].astype(np.float32)).astype(tensor.dtype))


def set_state(layer: Any, arrays: dict[str, NDArray[Any]], path: Path) -> None:
    """`set_tensors` of a layer's own state: with AMP O2 its `state_dict` would give cast copies."""
    set_tensors(layer.state_dict(use_hook=False), arrays, path)


def below(prefix: str, arrays: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """Those whose names begin so, without it; all as they are where none does."""
    inner = {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
    return inner or arrays


def load_network(network: Any, source: Path | str) -> None:
    """Loads a training checkpoint's weights, or a distilled student's, into the network, all of them."""
    path = weights_path(source)
    set_state(network, below(STUDENT, read_arrays(path)), path)


def weights_path(source: Path | str) -> Path:
    """The file of weights that a path, a checkpoint's prefix or a URL names. InputError when there is none."""
    text = str(source)
    if text.startswith(("http://", "https://")):
        from ..backbones.pretrained import download

        return download(text)
    path = Path(source)
    if path.is_file():
        return path if path.suffix in WEIGHTS else params_path(path)
    found = params_path(path)
    if not found.is_file():
        other = found.parent.parent / found.name
        hint = f"; is it {other}? There is no folder RecModel here" if found.parent.name == "RecModel" else ""
        raise InputError(f"checkpoint {found}: No such file or directory{hint if other.is_file() else ''}")
    return found


def start_from(own: dict[str, Any], arrays: dict[str, NDArray[Any]], path: Path, strict: bool) -> str:
    """Sets the tensors that a file has by name and shape; what was taken, left and is new, in a line.

    strict: InputError unless all fit, those of losses apart. InputError too when most of the tensors are not in the
    file.
    """
    import paddle

    arrays = {name: array for name, array in arrays.items() if not name.startswith(LOSS) and array.dtype.kind == "f"}
    shapes = {name: tuple(tensor.shape) for name, tensor in own.items()}
    if strict and (problem := mismatch(shapes, {name: array.shape for name, array in arrays.items()})):
        raise InputError(f"weights {path} do not fit this network: {problem}; Global.strict_load=False takes what fits")
    taken = [name for name in own if name in arrays and arrays[name].shape == shapes[name]]
    if len(taken) < FEWEST * len(own):
        problem = mismatch(shapes, {name: array.shape for name, array in arrays.items()})
        raise InputError(f"weights {path} fit {len(taken)} of the network's {len(own)} arrays: {problem}")
    require_finite({name: arrays[name] for name in taken}, f"weights {path}")
    for name in taken:
        own[name].set_value(paddle.to_tensor(arrays[name].astype(np.float32)).astype(own[name].dtype))
    parts = [f"weights {path}: {len(taken)} arrays taken"]
    for title, names in (("left there", arrays.keys() - set(taken)), (NEW, own.keys() - set(taken))):
        if names:
            first = ", ".join(sorted(names)[:4])
            parts.append(f"{len(names)} {title} ({first}{', ...' if len(names) > 4 else ''})")
    return ", ".join(parts)
