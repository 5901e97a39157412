"""Several processes as one batch (`python -m paddle.distributed.launch`); with one process, nothing."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import paddle
import paddle.distributed as dist
from paddle.autograd import PyLayer
from paddle.distributed import collective

from ..runtimes.core.errors import EdgeRecallError

T = TypeVar("T")
DONE, FAILED = 1, 2
POLL_S = 0.1
_calls = 0


def world_size() -> int:
    """How many processes train together."""
    return int(dist.get_world_size())


def rank() -> int:
    """This process's number, from 0."""
    return int(dist.get_rank())


def launched() -> bool:
    """Whether a launcher started this process as one of several, before anything is initialised."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1


def start(device: str) -> None:
    """Joins the other processes, if a launcher started several: gloo on CPU, NCCL on GPU."""
    if launched() and not dist.is_initialized():
        if device == "cpu":
            os.environ.setdefault("PADDLE_DISTRI_BACKEND", "gloo")
        dist.init_parallel_env()


def any_of(flag: bool) -> bool:
    """Whether the flag is up in any process; all must ask together."""
    if world_size() == 1:
        return flag
    raised = paddle.to_tensor([int(flag)], dtype="int32")
    dist.all_reduce(raised, op=dist.ReduceOp.MAX)
    return bool(raised)


def from_main(work: Callable[[], T]) -> T:
    """What `work` gives in the first process, in all of them; all must call it together.

    The others wait in Python, where signals still reach them and no collective operation runs out of time.
    EdgeRecallError in them when the first process failed.
    """
    if world_size() == 1:
        return work()
    global _calls
    _calls += 1
    key = f"edgerecall/{_calls}"
    store = collective._default_store  # Paddle offers no public way to its key-value store
    told: list[Any] = [None]
    if rank() == 0:
        try:
            told[0] = work()
        except BaseException:
            store.add(key, FAILED)
            raise
        store.add(key, DONE)
    else:
        while not (state := store.add(key, 0)):
            time.sleep(POLL_S)
        if state != DONE:
            raise EdgeRecallError("the first training process stopped: its message says why")
    dist.broadcast_object_list(told, src=0)
    result: T = told[0]
    return result


class _Gather(PyLayer):
    """Rows of all processes, in rank order; the gradient of this process's own rows.

    Every process computes the same loss of all rows, and the parameters' gradients are averaged over the processes
    afterwards: multiplied by their number here, the average is the gradient of the joined batch.
    """

    @staticmethod
    def forward(ctx: Any, rows: paddle.Tensor) -> paddle.Tensor:
        ctx.rows = rows.shape[0]
        return _all_rows(rows)

    @staticmethod
    def backward(ctx: Any, upstream: paddle.Tensor) -> paddle.Tensor:
        first = rank() * ctx.rows
        return upstream[first : first + ctx.rows] * float(world_size())


def _all_rows(rows: paddle.Tensor) -> paddle.Tensor:
    parts: list[paddle.Tensor] = []
    dist.all_gather(parts, rows.contiguous())
    return paddle.concat(parts, axis=0)


def gather_with_gradient(rows: paddle.Tensor) -> paddle.Tensor:
    """float32 `(B, D)` of each process to `(B * world, D)` in all of them, differentiable by the own rows."""
    return _Gather.apply(rows) if world_size() > 1 else rows


def gather_labels(labels: paddle.Tensor) -> paddle.Tensor:
    """int64 `(B,)` of each process to `(B * world,)` in all of them."""
    return _all_rows(labels) if world_size() > 1 else labels
