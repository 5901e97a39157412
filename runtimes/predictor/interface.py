"""What a predictor is: the interface, what it is asked and what it tells.

This module, its neighbours `backend` and `precision`, `worker` and `lite_predictor` also run in the Lite sidecar, an
older interpreter with nothing but numpy and paddlelite: standard library and numpy only, Python 3.8 syntax.
"""

from __future__ import annotations

import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..core.contract import CONTRACT
from ..core.errors import InputError, RuntimeFailed, RuntimeUnavailable
from ..core.text import one_line
from .backend import Backend
from .precision import EXECUTIONS

MOST_THREADS: int = CONTRACT["most_threads"]
MOST_BATCH: int = CONTRACT["most_batch"]
NOT_FINITE = "the output holds NaN or infinity"  # as the C++ core says it too
COMPILED_SIZES = 4  # batch sizes that a predictor which compiles for each keeps ready


@dataclass(frozen=True)
class ModelIO:
    """Tensors at the edge of the model: float32 `(N, *input_shape)` in, float32 `(N, embedding_dim)` out.

    embedding_dim 0: not known yet, whatever the model gives.
    """

    input_name: str
    input_shape: tuple[int, int, int]
    embedding_dim: int


@dataclass(frozen=True)
class RunOptions:
    """What is asked of a runtime; `RuntimeInfo` says what it then does.

    threads: CPU threads inside one inference. replicas: inferences at the same time, by replicas, each with as many.
    batch: the size to be ready for; others may take longer when they first come. precision: one of
    `precision.EXECUTIONS`: how the runtime computes.
    onednn: for Paddle Inference; graph_optimization: for it, ONNX Runtime, LiteRT and ncnn; the others always
    use theirs.
    device: "cpu" or "gpu", for Paddle Inference, which then takes gpu_memory_mb at first; other runtimes have one.
    """

    threads: int = 1
    precision: str = "fp32"
    onednn: bool = True
    graph_optimization: bool = True
    device: str = "cpu"
    gpu_memory_mb: int = 8000
    replicas: int = 1
    batch: int = 1

    def __post_init__(self) -> None:
        for name, most in (("threads", MOST_THREADS), ("replicas", MOST_THREADS), ("batch", MOST_BATCH)):
            if not 1 <= getattr(self, name) <= most:
                raise InputError(f"{name}: expected 1 to {most}, got {getattr(self, name)}")
        if self.precision not in EXECUTIONS:
            raise InputError(f"precision: expected one of {', '.join(EXECUTIONS)}, got '{self.precision}'")


@dataclass(frozen=True)
class RuntimeInfo:
    """What the runtime says it does, read back after loading. `threads` is None where it cannot be read."""

    runtime: str
    version: str
    precision: str
    threads: int | None
    device: str = "cpu"
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ExecutionRecord:
    """What an inference really ran, from the runtime's own records.

    precision: of its heavy layers, "bf16+fp32" where they are mixed. source: which record. operators: kind -> count.
    """

    precision: str
    source: str
    operators: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class InnerTensor:
    """An activation inside the graph, float32 `(N, ...)`, and the operator that made it.

    name: unique in the graph. kind, operator: the operator's type and its name in the artifact. inputs: the activations
    that it was made from. constants: its parameters, as pairs of their role and their name in the artifact.
    """

    name: str
    kind: str
    values: NDArray[Any]
    operator: str = ""
    inputs: tuple[str, ...] = ()
    constants: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Accelerator:
    """The GPU that a predictor computes on, just after an inference. None: the driver does not tell.

    name: with its compute capability. driver: its version. memory_mb: of the GPU's, what this process holds, MB (1e6
    bytes). clock_mhz: of its multiprocessors. compute_ms: median time of an inference on the GPU, without the copies to
    and from it.
    """

    name: str
    driver: str
    memory_mb: float | None = None
    clock_mhz: float | None = None
    compute_ms: float | None = None


class Predictor(ABC):
    """One loaded model in one runtime. Not thread-safe: one thread at a time uses it, `replicate` gives others theirs.

    concurrent: whether several in one process compute at the same time, each from a thread of its own.
    compiles_per_batch: whether a batch of a new size costs a compilation.
    """

    concurrent = True
    compiles_per_batch = False
    feeds_inner = False  # whether `inner_tensors` takes `given`
    alive = True  # False once it will never answer again: the process that held it has ended
    io: ModelIO
    info: RuntimeInfo

    @abstractmethod
    def embed(self, batch: NDArray[Any]) -> NDArray[Any]:
        """Float32 `(N, 3, H, W)`, C-contiguous -> float32 `(N, D)`: the model's raw output, not normalised."""

    def replicate(self) -> Predictor | None:
        """Another predictor over the same loaded model, for another thread to use at the same time; by default None:
        load the model again.
        """
        return None

    def execution_record(self, batch: NDArray[Any]) -> ExecutionRecord | None:
        """Runs a batch, shaped as for `embed`, and says what ran; by default None: the runtime does not tell.

        It may load the model once more or switch the runtime's logging: not for a process that is being timed.
        """
        return None

    def accelerator(self, batch: NDArray[Any]) -> Accelerator | None:
        """Runs a batch a few times and tells of the GPU that it runs on; by default None: the CPU computes."""
        return None

    def executed_info(self, batch: NDArray[Any]) -> RuntimeInfo:
        """`info`, with the precision that `execution_record` tells where it tells one."""
        executed = self.execution_record(batch)
        return replace(self.info, precision=executed.precision) if executed else self.info

    def inner_tensors(
        self, batch: NDArray[Any], given: Mapping[str, NDArray[Any]] | None = None
    ) -> list[InnerTensor] | None:
        """The float32 activations for a batch, in the order they are computed, with as little of the graph fused as the
        runtime allows; by default None: the runtime does not show them. It loads the model once more.

        given: by name, what is fed to the operators that take these tensors instead of them (where `feeds_inner`); the
        values that come back are still what each operator itself made.
        """
        return None

    def parameters(self) -> dict[str, NDArray[Any]] | None:
        """The model's float32 and float16 weights by their names in the artifact; by default None: not shown."""
        return None

    def runtime_object(self) -> Any:
        """The runtime's own object that `embed` calls, for what this interface does not offer; by default None."""
        return None

    def close(self) -> None:  # noqa: B027 - optional: its default is to do nothing
        """Frees what the runtime holds; by default there is nothing to do."""

    def __enter__(self) -> Predictor:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def predictor_class(backend: Backend) -> Any:
    """The class of a runtime's predictor."""
    module, _, name = backend.predictor.partition(":")
    return getattr(importlib.import_module(module), name)


def open_backend(backend: Backend, files: dict[str, str], io: ModelIO, options: RunOptions) -> Predictor:
    """Loads artifact files (`role -> path`) into a runtime, in this process.

    Raises RuntimeUnavailable when its package is missing, RuntimeFailed when it does not take the model.
    """
    try:
        predictor: Predictor = predictor_class(backend)(files, io, options)
    except (InputError, RuntimeUnavailable, RuntimeFailed):
        raise
    except Exception as error:  # third-party runtimes raise their own, unrelated types
        raise RuntimeFailed(f"{backend.name} cannot load the model: {one_line(error)}") from error
    return predictor


def checked_output(runtime: str, output: NDArray[Any], count: int, io: ModelIO) -> NDArray[Any]:
    """The output as float32 `(count, D)`; RuntimeFailed when it has another shape or is not finite."""
    # The usual case with as few calls as can be: after an inference the caches are cold, and each costs microseconds.
    if (
        output.dtype == np.float32
        and output.shape == (count, io.embedding_dim)
        and isfinite(np.add.reduce(output, None))
    ):
        return output
    array = np.asarray(output, dtype=np.float32)
    if io.embedding_dim == 0 or array.size == count * io.embedding_dim:
        array = array.reshape(count, -1)
    if io.embedding_dim and array.shape != (count, io.embedding_dim):
        raise RuntimeFailed(f"{runtime}: expected output {(count, io.embedding_dim)}, got {array.shape}")
    if not np.isfinite(array).all():
        raise RuntimeFailed(f"{runtime}: {NOT_FINITE}")
    return array


def is_activation(values: Any) -> bool:
    """Whether a value is a float32 array `(N, ...)` with something in it."""
    return isinstance(values, np.ndarray) and values.size > 0 and values.ndim > 0 and values.dtype == np.float32


def activations(tensors: Sequence[InnerTensor], values: Sequence[Any]) -> list[InnerTensor]:
    """The tensors whose values are float32 activations, with them; a shape or an index among their inputs is told as
    the activations that it comes from.
    """
    described = {tensor.name: tensor for tensor in tensors}
    shown = {tensor.name for tensor, value in zip(tensors, values) if is_activation(value)}  # noqa: B905 - Python 3.8

    def sources(name: str) -> Iterator[str]:
        if name in shown or name not in described:
            yield name
        else:
            for one in described[name].inputs:
                yield from sources(one)

    return [
        replace(
            tensor, values=value, inputs=tuple(dict.fromkeys(one for name in tensor.inputs for one in sources(name)))
        )
        for tensor, value in zip(tensors, values)  # noqa: B905
        if tensor.name in shown
    ]
