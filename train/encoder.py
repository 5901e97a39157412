"""Encoding images for evaluation: on CPU through Paddle Inference, which is several times as fast as dygraph."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import paddle
from numpy.typing import NDArray

from ..runtimes.backends.paddle_predictor import PaddlePredictor
from ..runtimes.core.cpus import usable_cpus
from ..runtimes.core.files import write_error
from ..runtimes.predictor.interface import ModelIO, RunOptions
from .config.training import TrainConfig
from .network import EmbeddingNetwork

Tensors = NDArray[np.float32]
Encode = Callable[[Tensors], Tensors]
State = dict[str, Any]


def float32_copy(config: TrainConfig, state: State) -> EmbeddingNetwork:
    """A network of its own with this state, in float32 and for evaluation."""
    network = EmbeddingNetwork(config.Arch)
    network.set_state_dict({name: value.astype("float32") for name, value in state.items()})
    network.eval()
    network.join_branches()
    return network


def save_inference(network: EmbeddingNetwork, shape: tuple[int, int, int], prefix: str) -> None:
    """`prefix.json` (or `.pdmodel`) and `prefix.pdiparams`, with a free batch size; the input is called `x`."""
    spec: Any = paddle.static.InputSpec([None, *shape], "float32", name="x")
    paddle.jit.save(network, prefix, input_spec=[spec])


TRACED: dict[str, EmbeddingNetwork] = {}  # the last one: its program is the same whatever its parameters


def traced(config: TrainConfig, state: State) -> EmbeddingNetwork:
    """`float32_copy` as Paddle's program, which takes it seconds to write: once for all states of a training."""
    network = float32_copy(config, state)
    key = config.Arch.model_dump_json(exclude_unset=True) + str(config.Global.image_shape)
    if key in TRACED:
        TRACED[key].set_state_dict(network.state_dict())
    else:
        TRACED.clear()
        TRACED[key] = paddle.jit.to_static(network, full_graph=True)
    return TRACED[key]


@contextmanager
def encoder(config: TrainConfig, state: State) -> Iterator[Encode]:
    """A function from float32 `(N, 3, H, W)` to raw embeddings float32 `(N, D)`, of the network with this state."""
    if config.Global.device != "cpu":
        network = float32_copy(config, state)

        def by_dygraph(tensors: Tensors) -> Tensors:
            with paddle.no_grad():
                return np.asarray(network(paddle.to_tensor(tensors)).numpy())

        yield by_dygraph
        return
    network, shape = traced(config, state), config.Global.image_shape
    with tempfile.TemporaryDirectory(prefix="edgerecall-") as folder:
        prefix = Path(folder) / "inference"
        try:
            with paddle.pir_utils.OldIrGuard():  # oneDNN fuses more of the older format
                save_inference(network, shape, str(prefix))
        except (OSError, RuntimeError) as error:  # Paddle wraps what the file system says
            raise write_error(prefix, OSError(0, str(error).strip().splitlines()[-1])) from error
        files = {"model": str(prefix.with_suffix(".pdmodel")), "params": str(prefix.with_suffix(".pdiparams"))}
        io = ModelIO(input_name="x", input_shape=shape, embedding_dim=network.embedding_dim)
        predictor = PaddlePredictor(files, io, RunOptions(threads=len(usable_cpus())))
    try:
        yield predictor.embed
    finally:
        predictor.close()
        # Paddle Inference leaves the process with 1 thread: a training would go on slower, and round otherwise than
        # one that is resumed here. At its import Paddle has written the number in force where it is read from.
        paddle.base.core.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
