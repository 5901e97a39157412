"""Trains a linear layer by the XBM loss for a few steps, alone or as one of several processes; saves what came out.

python joined_batch.py OUTPUT.npz: the rows of each step are shared out by rank.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext

import numpy as np
import paddle

from edgerecall.train import distributed
from edgerecall.train.losses.embedding_loss import EmbeddingLoss
from edgerecall.train.losses.memory import CrossBatchMemory
from edgerecall.train.losses.pair_losses import Contrastive

JOINED, DIM, STEPS, UPDATE = 8, 6, 10, 2


def main() -> None:
    """Runs."""
    paddle.set_device("cpu")
    distributed.start("cpu")
    rank, world = distributed.rank(), distributed.world_size()
    rng = np.random.default_rng(0)
    network = paddle.nn.Linear(5, DIM)
    network.weight.set_value(rng.standard_normal((5, DIM)).astype(np.float32))
    network.bias.set_value(rng.standard_normal(DIM).astype(np.float32))
    model = paddle.DataParallel(network) if world > 1 else network
    optimizer = paddle.optimizer.Momentum(0.05, parameters=network.parameters())
    loss = EmbeddingLoss(Contrastive(0.2), True, CrossBatchMemory(20, DIM), start_iter=2)
    own = slice(rank * JOINED // world, (rank + 1) * JOINED // world)
    losses = []
    for step in range(STEPS):
        images = rng.standard_normal((JOINED, 5)).astype(np.float32)
        labels = rng.integers(0, 3, JOINED)
        last = step % UPDATE == UPDATE - 1
        with nullcontext() if last or world == 1 else model.no_sync():
            value = loss(model(paddle.to_tensor(images[own])), paddle.to_tensor(labels[own]))
            value.backward()
        losses.append(float(value))
        if last:
            optimizer.step()
            optimizer.clear_grad()
    assert loss.xbm is not None
    state = {name: tensor.numpy() for name, tensor in loss.xbm.state_dict().items()}
    name = sys.argv[1].replace("RANK", str(rank))
    np.savez(name, losses=losses, weight=network.weight.numpy(), bias=network.bias.numpy(), **state)


if __name__ == "__main__":
    main()
