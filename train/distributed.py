"""Several processes as one batch (`python -m paddle.distributed.launch`); with one process, nothing."""

from __future__ import annotations

import os
from typing import Any

import paddle
import paddle.distributed as dist
from paddle.autograd import PyLayer


def world_size() -> int:
    """How many processes train together."""
    return int(dist.get_world_size())


def rank() -> int:
    """This process's number, from 0."""
    return int(dist.get_rank())


def is_main() -> bool:
    """Whether this process prints, evaluates and saves."""
    return rank() == 0


def launched() -> bool:
    """Whether a launcher started this process as one of several, before anything is initialised."""
    return int(os.environ.get("PADDLE_TRAINERS_NUM", "1")) > 1


def start(device: str) -> None:
    """Joins the other processes, if a launcher started several: gloo on CPU, NCCL on GPU."""
    if launched() and not dist.is_initialized():
        if device == "cpu":
            os.environ.setdefault("PADDLE_DISTRI_BACKEND", "gloo")
        dist.init_parallel_env()


def barrier() -> None:
    """Waits for the others."""
    if world_size() > 1:
        dist.barrier()


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
