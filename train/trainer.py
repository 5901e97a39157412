"""The training loop."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ..bench.retrieval import RetrievalScores
from ..runtimes.errors import InputError
from ..runtimes.image_list import ImageList
from .augment import Augmentation
from .checkpoint import load_network, load_params, save_state
from .config import LossEntry, TrainConfig
from .evaluate import evaluate, exif_rule, read_list
from .loader import Batch, TrainLoader
from .losses import ContrastiveLoss, XbmContrastiveLoss
from .network import EmbeddingNetwork
from .sampler import IdentitySampler
from .schedule import Schedule, build_optimizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepReport:
    """One iteration, for progress and log. step counts from 1 over all epochs."""

    epoch: int
    step: int
    total: int
    loss: float
    lr: float
    images_per_s: float
    eta_s: float
    memory_fill: int | None
    memory_size: int | None

    def line(self) -> str:
        """The console line."""
        minutes, seconds = divmod(round(self.eta_s), 60)
        eta = f"{minutes // 60:02d}:{minutes % 60:02d}:{seconds:02d}"
        memory = f", memory: {self.memory_fill}/{self.memory_size}" if self.memory_size else ""
        return (
            f"[Train][Epoch {self.epoch}][Iter {self.step}/{self.total}] loss: {self.loss:.5f}, lr: {self.lr:.2e}"
            f"{memory}, {self.images_per_s:.1f} images/s, eta: {eta}"
        )


def build_loss(entry: LossEntry) -> tuple[ContrastiveLoss, float]:
    """The training loss of the config, and its weight."""
    xbm, plain = entry.ContrastiveLoss_XBM, entry.ContrastiveLoss
    if xbm is not None:
        loss = XbmContrastiveLoss(
            xbm.xbm_size, xbm.embedding_size, xbm.margin, xbm.xbm_weight, xbm.start_iter, xbm.normalize_feature
        )
        return loss, xbm.weight
    assert plain is not None
    return ContrastiveLoss(plain.margin, plain.normalize_feature), plain.weight


def set_device(device: str) -> None:
    """Chooses the device; InputError when there is no GPU build or no GPU."""
    if device == "gpu" and (not paddle.is_compiled_with_cuda() or paddle.device.cuda.device_count() == 0):
        missing = "it sees no GPU" if paddle.is_compiled_with_cuda() else "this Paddle is a CPU build"
        raise InputError(
            f"Global.device: 'gpu' needs paddlepaddle-gpu and a GPU, but {missing}: use '-o Global.device=cpu' here"
        )
    paddle.set_device(device)


def build_network(config: TrainConfig, checkpoint: Path | None = None) -> EmbeddingNetwork:
    """The seeded network: with a checkpoint's weights, else with the pretrained ones when the config names some."""
    paddle.seed(config.Global.seed)
    np.random.seed(config.Global.seed)  # noqa: NPY002 - Paddle's initializers draw from it
    network = EmbeddingNetwork(config.Arch)
    checkpoint = checkpoint or config.Global.pretrained_model
    if checkpoint is not None:
        load_network(network, checkpoint)
        return network
    pretrained = config.Arch.Backbone.pretrained
    if pretrained is True:
        raise InputError("Arch.Backbone.pretrained: expected a .pdparams path or URL, or False")
    if pretrained:
        load_pretrained(network, pretrained)
    return network


def load_pretrained(network: EmbeddingNetwork, source: str) -> None:
    """Backbone weights from a path or URL; a classifier (`fc.*`) in the file is left out."""
    from .weights import weights_file

    load_params(network.backbone, weights_file(source), ignore=("fc.",))


def training_set(config: TrainConfig) -> tuple[ImageList, TrainLoader, IdentitySampler]:
    """The list, the loader over it, and the sampler."""
    data, seed = config.DataLoader.Train, config.Global.seed
    images = read_list(data.dataset)
    augment = Augmentation(
        data.dataset.transform_ops,
        "DataLoader.Train.dataset.transform_ops",
        data.dataset.backend,
        config.Global.image_shape,
    )
    loader = TrainLoader(images, augment, exif_rule(data.dataset), data.loader.num_workers, seed)
    sampler = IdentitySampler(images.labels, data.sampler.batch_size, data.sampler.num_instances, seed)
    return images, loader, sampler


class Trainer:
    """Trains by a config. Files in `output_dir`: `latest`, `best_model` and every `save_interval` `epoch_N`,
    each `.pdparams` (the memory included, under the reference's names) and `.pdopt`.
    """

    def __init__(self, config: TrainConfig) -> None:
        set_device(config.Global.device)
        self.config = config
        self.images, self.loader, self.sampler = training_set(config)
        self.network = build_network(config)
        self.loss, self.loss_weight = build_loss(config.Loss.Train[0])
        settings = config.Global
        self.schedule = Schedule(config.Optimizer, settings.epochs, settings.iter_per_epoch)
        self.optimizer = build_optimizer(config.Optimizer, self.schedule, self.network.parameters())
        self.best = -1.0

    def run(
        self, on_step: Callable[[StepReport], None], on_eval: Callable[[int, RetrievalScores], None]
    ) -> RetrievalScores | None:
        """Trains all epochs; returns the last evaluation's scores."""
        settings = self.config.Global
        total = settings.epochs * settings.iter_per_epoch
        batches = self.loader.batches(islice(iter(self.sampler), total))
        scores, step, seconds = None, 0, 0.0
        self.network.train()
        try:
            for epoch in range(1, settings.epochs + 1):
                for _ in range(settings.iter_per_epoch):
                    start = time.perf_counter()
                    batch = next(batches)
                    lr = self.schedule.value
                    loss = self.step(batch)
                    took = time.perf_counter() - start
                    # The first iteration pays for warming up; after it, a moving average.
                    seconds = took if step < 2 else 0.9 * seconds + 0.1 * took
                    step += 1
                    memory = getattr(self.loss, "xbm", None)
                    on_step(
                        StepReport(
                            epoch,
                            step,
                            total,
                            loss,
                            lr,
                            len(batch.labels) / seconds,
                            (total - step) * seconds,
                            memory.fill if memory else None,
                            memory.size if memory else None,
                        )
                    )
                scores = self.finish_epoch(epoch, on_eval) or scores
        finally:
            batches.close()
        return scores

    def step(self, batch: Batch) -> float:
        """One optimisation step; the loss before it. InputError when the loss is not finite."""
        embeddings = self.network(paddle.to_tensor(batch.images))
        loss = self.loss_weight * self.loss(embeddings, paddle.to_tensor(batch.labels))
        value = float(loss)
        if not np.isfinite(value):
            raise InputError(f"the loss became {value}: lower Optimizer.lr.learning_rate")
        loss.backward()
        self.optimizer.step()
        self.optimizer.clear_grad()
        self.schedule.after_iteration()
        return value

    def finish_epoch(self, epoch: int, on_eval: Callable[[int, RetrievalScores], None]) -> RetrievalScores | None:
        """Evaluates and saves as the config asks."""
        settings = self.config.Global
        scores = None
        due = epoch % settings.eval_interval == 0 and epoch >= settings.start_eval_epoch
        if settings.eval_during_train and (due or epoch == settings.epochs):
            scores = evaluate(self.network, self.config)
            recall1 = next(iter(scores.recall.values()))
            self.schedule.after_evaluation(recall1)
            on_eval(epoch, scores)
            if recall1 > self.best:
                self.best = recall1
                self.save("best_model")
        if epoch % settings.save_interval == 0:
            self.save(f"epoch_{epoch}")
        self.save("latest")
        return scores

    def save(self, name: str) -> None:
        """Writes `name.pdparams` and `name.pdopt`."""
        folder = self.config.Global.output_dir
        state: dict[str, Any] = dict(self.network.state_dict())
        memory = getattr(self.loss, "xbm", None)
        if memory is not None:
            state.update({f"loss_func.0.xbm.{key}": value for key, value in memory.state_dict().items()})
        save_state(state, folder / f"{name}.pdparams")
        save_state(self.optimizer.state_dict(), folder / f"{name}.pdopt")
