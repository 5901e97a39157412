"""Trains a linear layer for a few steps, alone or as one of several processes; saves what came out.

python joined_batch.py OUTPUT.npz [heads]: the rows of each step are shared out by rank. By the XBM loss, or with
`heads` by a class head, batch-hard triplets and centres, through the trainer's own layer.
"""

from __future__ import annotations

import sys
from contextlib import nullcontext

import numpy as np
import paddle

from edgerecall.train import distributed
from edgerecall.train.config.arch import ArcMarginHead
from edgerecall.train.config.loss import LossSection
from edgerecall.train.heads import build_head
from edgerecall.train.losses.embedding_loss import EmbeddingLoss
from edgerecall.train.losses.memory import CrossBatchMemory
from edgerecall.train.losses.pair_losses import Contrastive
from edgerecall.train.losses.train_loss import Outputs, TrainLoss
from edgerecall.train.trainer import Forward

JOINED, DIM, STEPS, UPDATE = 8, 6, 10, 2


class Network(paddle.nn.Layer):
    """What the trainer's layer needs of one."""

    def __init__(self, layer: paddle.nn.Layer) -> None:
        super().__init__()
        self.backbone = layer

    def embed(self, features: paddle.Tensor) -> paddle.Tensor:
        """No neck."""
        return features


def by_heads() -> None:
    """The same of a head and losses that are no pair losses."""
    rank, world = distributed.rank(), distributed.world_size()
    rng = np.random.default_rng(1)
    head = build_head(ArcMarginHead(name="ArcMargin", embedding_size=DIM, class_num=3, scale=8.0, margin=0.2))
    center = {"CenterLoss": {"num_classes": 3, "feat_dim": DIM, "weight": 0.1}}
    section = LossSection.model_validate({"Train": [{"CELoss": {}}, {"TripletLossV2": {}}, center]})
    loss, network = TrainLoss(section, DIM, DIM, 3, 100), Network(paddle.nn.Linear(5, DIM))
    moved = [*network.parameters(), *head.parameters(), *(value for _, value in loss.named_weights())]
    for value in moved:
        value.set_value(rng.standard_normal(value.shape).astype(np.float32))
    model = Forward(network, head)
    model = paddle.DataParallel(model) if world > 1 else model
    optimizer = paddle.optimizer.Momentum(0.05, parameters=moved)
    own = slice(rank * JOINED // world, (rank + 1) * JOINED // world)
    for _ in range(STEPS):
        images = rng.standard_normal((JOINED, 5)).astype(np.float32)
        labels = paddle.to_tensor(rng.integers(0, 3, JOINED)[own])
        loss(Outputs(*model(paddle.to_tensor(images[own]), labels)), labels).backward()
        optimizer.step()
        optimizer.clear_grad()
    np.savez(sys.argv[1].replace("RANK", str(rank)), **{str(n): value.numpy() for n, value in enumerate(moved)})


def main() -> None:
    """Runs."""
    paddle.set_device("cpu")
    distributed.start("cpu")
    if sys.argv[2:] == ["heads"]:
        by_heads()
        return
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
