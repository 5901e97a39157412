"""Checkpoints in Paddle's own files, written atomically and read without running what is in them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..runtimes.errors import InputError
from ..runtimes.files import atomic_file
from .safe_pickle import Refused, load_plain

NAME_TABLE = "StructuredToParameterName@@"
PREFIX_XBM = "loss_func.0.xbm."


def read_state(path: Path) -> dict[str, Any]:
    """The mapping in a `.pdparams` or `.pdopt` file. InputError when it is missing, damaged or something else."""
    try:
        with path.open("rb") as stream:
            state = load_plain(stream)
    except OSError as error:
        raise InputError(f"checkpoint {path}: {error.strerror}") from error
    except Refused as error:
        raise InputError(f"checkpoint {path}: refused: {error}") from error
    except Exception as error:  # a damaged pickle fails in as many ways as it has opcodes
        raise InputError(f"checkpoint {path}: damaged or no Paddle checkpoint ({type(error).__name__})") from error
    if not isinstance(state, dict):
        raise InputError(f"checkpoint {path}: expected a state dict, got {type(state).__name__}")
    return state


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The named arrays of a `.pdparams` file; Paddle's table of internal names is left out."""
    arrays = {}
    for name, value in read_state(path).items():
        if name == NAME_TABLE:
            continue
        if isinstance(value, tuple) and len(value) == 2:  # (internal name, array)
            value = value[1]
        if not isinstance(value, np.ndarray):
            raise InputError(f"checkpoint {path}: expected arrays, '{name}' is {type(value).__name__}")
        arrays[str(name)] = value
    return arrays


def params_path(prefix: Path) -> Path:
    """`prefix.pdparams`, also for the name of any file of the checkpoint."""
    if prefix.suffix in (".pdopt", ".pdstates"):
        prefix = prefix.with_suffix(".pdparams")
    return prefix if prefix.suffix == ".pdparams" else prefix.with_name(prefix.name + ".pdparams")


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


def load_params(layer: Any, path: Path, prefix: str = "", ignore: tuple[str, ...] = ()) -> dict[str, NDArray[Any]]:
    """Loads named arrays into a layer; names starting with one of `ignore` are returned instead.

    prefix: put before each name of the layer to find it in the file. InputError listing every kind of mismatch.
    """
    arrays = read_arrays(path)
    set_aside = {name: arrays.pop(name) for name in list(arrays) if name.startswith(ignore) and ignore}
    own = layer.state_dict()
    expected = {prefix + name: tuple(tensor.shape) for name, tensor in own.items()}
    problem = mismatch(expected, {name: array.shape for name, array in arrays.items()})
    if problem:
        raise InputError(f"checkpoint {path} does not fit this network: {problem}; is it of another architecture?")
    for name, array in arrays.items():
        if array.dtype.kind != "f":
            raise InputError(f"checkpoint {path}: '{name}': expected floating point numbers, got {array.dtype}")
    layer.set_state_dict({name: arrays[prefix + name].astype(np.float32) for name in own})
    return set_aside


def load_network(network: Any, prefix: Path) -> dict[str, NDArray[Any]]:
    """Loads a training checkpoint into the network and returns the memory's arrays, if any, by short name."""
    memory = load_params(network, params_path(prefix), ignore=("loss_func.",))
    return {name.removeprefix(PREFIX_XBM): array for name, array in memory.items()}


def save_state(state: dict[str, Any], path: Path) -> None:
    """`paddle.save` under a temporary name, then a rename."""
    import paddle

    with atomic_file(path) as temporary:
        paddle.save(state, str(temporary))
