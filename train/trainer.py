"""The training loop."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import paddle

from ..runtimes.core.errors import EdgeRecallError, InputError
from . import distributed
from .classify import classify
from .config.base import flat
from .config.training import TrainConfig
from .data.loader import Batch, Draw, TrainLoader
from .data.sampler import Position, build_sampler
from .drift import IMAGES, DriftProbe
from .evaluate import evaluate
from .losses.train_loss import Outputs, TrainLoss
from .optimizers import Optimizers
from .report.recorder import Recorder, Scores, StepReport
from .setup import build_trained, check_evaluation, check_labels, image_maker, set_device, with_epochs
from .state import savepoint
from .state.checkpoint import HEAD, LOSS, set_state, set_tensors
from .state.ema import MovingAverage
from .state.resume import RunPosition, read_position, read_weights, step_seed
from .state.savepoint import keep_newest, path_of

logger = logging.getLogger(__name__)
LATEST = "latest"
GRACE_S = 2.0  # a launcher sends a signal several times
PROBE_STEP = 2**62  # the drift probe's images are augmented as at no iteration


class Forward(paddle.nn.Layer):
    """What runs in each process: network and class head, as one layer for several processes."""

    def __init__(self, network: Any, head: Any) -> None:
        super().__init__()
        self.network, self.head = network, head

    def forward(self, images: paddle.Tensor, labels: paddle.Tensor) -> list[paddle.Tensor]:
        """The fields of `Outputs`; the head computes in float32, whatever the autocast."""
        features = self.network.backbone(images)
        embeddings = self.network.embed(features)
        if self.head is None:
            return [features, embeddings]
        with paddle.amp.auto_cast(enable=False):
            return [features, embeddings, self.head(embeddings.astype("float32"), labels)]


class Trainer:
    """Trains by a config. Savepoints in `output_dir`: `latest`, `best_model` and every `save_interval` `epoch_N`,
    each `.pdparams` (the memory included, under the reference's names), `.pdopt` and `.pdstates`; with EMA `.pdema`.

    resume: go on from `latest`, when there is one. `Global.checkpoints` is gone on from in any other case.
    """

    def __init__(self, config: TrainConfig, resume: bool = False) -> None:
        set_device(config.Global.device)
        self.images, self.maker = image_maker(config)
        self.rank, self.world = distributed.rank(), distributed.world_size()
        self.config = config = with_epochs(config, len(self.images), self.world)
        settings, data = config.Global, config.DataLoader.Train
        if settings.eval_during_train and self.is_main:
            check_evaluation(config)
        self.batch_size = data.sampler.batch_size
        self.loader = TrainLoader(self.maker, self.batch_size, data.loader.num_workers)
        self.sampler = build_sampler(data.sampler, self.images.labels, settings.seed, self.world)
        self.network: Any
        self.network, self.head, self.taken = build_trained(config)
        check_labels(config, self.images.labels)
        if config.Arch.use_sync_bn and self.world > 1:
            self.network = paddle.nn.SyncBatchNorm.convert_sync_batchnorm(self.network)
        classes = None if config.Arch.Head is None else config.Arch.Head.class_num
        widths = (self.network.backbone.features, self.network.embedding_dim)
        self.loss = TrainLoss(config.Loss, *widths, classes, len(self.images))
        updates = settings.epoch_length // settings.update_freq
        losses = [entry.name for entry in config.Loss.Train]
        self.optimizers = Optimizers(config.Optimizer, settings.epochs, updates, [*self.trained()], losses)
        self.average = MovingAverage(self.network, config.EMA.decay) if config.EMA else None
        self.progress = RunPosition(self._fixed(), self._settings())
        if self.loss.xbm is not None and self.loss.xbm.size < self.batch_size * self.world:
            raise InputError(
                f"the memory holds {self.loss.xbm.size} embeddings, the batch of all processes has"
                f" {self.batch_size * self.world}: raise xbm_size or xbm_ratio"
            )
        self.scaler = self._mixed_precision()
        self.probe = self._drift_probe()
        prefix = self._resume_prefix(resume)
        if prefix is not None:
            self.load(prefix)
        self.model = self._parallel()
        self._stop = False
        self._stop_time = 0.0

    def run(self, on_step: Callable[[StepReport], None], on_eval: Callable[[int, Scores], None]) -> Scores | None:
        """Trains to the last epoch; returns the last evaluation's scores.

        SIGINT and SIGTERM finish the update, save `latest` and raise KeyboardInterrupt.
        """
        settings, progress = self.config.Global, self.progress
        names = (self.config.Loss.name, self.config.Optimizer.lr.name)
        recorder = None
        if self.is_main:
            done = (progress.step, progress.epochs)
            recorder = Recorder(settings.output_dir, *done, settings.use_visualdl, *names)
        scores, seconds, due = None, 0.0, False
        positions: list[Position] = []
        batches = self.loader.batches(self._draws(positions))
        self.network.train()
        first = progress.step
        with self._graceful(), self._others():
            try:
                scores = self._finish_epochs(recorder, on_eval)
                while progress.step < settings.iterations:
                    begin = time.perf_counter()
                    batch = next(batches)
                    lr = self.optimizers.rate
                    loss = self.step(batch)
                    progress.position = positions.pop(0)
                    took = time.perf_counter() - begin
                    # The first iteration pays for warming up; after it, a moving average.
                    seconds = took if progress.step - first < 3 else 0.9 * seconds + 0.1 * took
                    report = self._report(loss, lr, seconds)
                    on_step(report)
                    if recorder is not None and self.shown(report):
                        recorder.step(report)
                    scores = self._finish_epochs(recorder, on_eval) or scores
                    due = due or bool(settings.save_steps and progress.step % settings.save_steps == 0)
                    # Never between the batches of one update: half a sum of gradients is in no file.
                    if progress.step % settings.update_freq:
                        continue
                    stop = distributed.any_of(self._stop)
                    if due or stop:
                        self.save(LATEST)
                        due = False
                    if stop:
                        raise KeyboardInterrupt
            finally:
                batches.close()
                if recorder is not None:
                    recorder.close()
        return scores

    @property
    def is_main(self) -> bool:
        """Whether this process evaluates, records and saves."""
        return self.rank == 0

    def summary(self) -> str:
        """What is being trained, in one line."""
        settings, labels = self.config.Global, self.images.labels
        pairs = self.loss.embedding_loss
        rule = None if pairs is None else pairs.pair_loss.epsilon
        told = " (self left out by sample)" if rule is None else f" (positives with s >= 1 - {rule:g} left out)"
        parts = [
            f"training on {len(labels)} images of {len(np.unique(labels))} classes, seed {settings.seed}",
            self.config.Loss.name + (told if pairs is not None else ""),
        ]
        if self.world > 1:
            parts.append(f"{self.world} processes of {self.batch_size} images")
        if self.progress.step:
            parts.append(f"resumed after iteration {self.progress.step}")
        return ", ".join(parts)

    def shown(self, report: StepReport) -> bool:
        """Whether an iteration is logged."""
        every = self.config.Global.print_batch_step
        return report.step in (1, report.total) or report.step % every == 0 or report.drift is not None

    def step(self, batch: Batch) -> float:
        """One iteration; its loss, before the weights move. InputError when the loss is not finite."""
        settings, progress = self.config.Global, self.progress
        paddle.seed(step_seed(settings.seed, progress.step, self.rank))
        last_of_update = (progress.step + 1) % settings.update_freq == 0
        # Gradients travel between the processes once per update.
        waiting = nullcontext() if last_of_update or self.world == 1 else self.model.no_sync()
        with waiting:
            labels = paddle.to_tensor(batch.labels)
            with self._autocast():
                outputs = Outputs(*self.model(paddle.to_tensor(batch.images), labels))
            loss = self.loss(outputs, labels)
            value = float(loss)
            if distributed.any_of(not np.isfinite(value)):  # losses of logits are of each process's own images
                raise InputError(f"the loss became {value}: lower Optimizer.lr.learning_rate")
            self.scaler.scale(loss / settings.update_freq).backward()
        if last_of_update:
            self.optimizers.update(self.scaler)
            if self.average is not None:
                self.average.update(self.network)
        progress.step += 1
        return value

    def save(self, name: str) -> None:
        """Writes the savepoint `name`, from the first process alone; the others wait."""
        progress = self.progress
        progress.loss_iteration = self.loss.iteration
        progress.scaler = self.scaler.state_dict()
        progress.probe = self.probe.last if self.probe is not None else None
        distributed.from_main(lambda: self._write(name))

    def _write(self, name: str) -> None:
        progress = self.progress
        state: dict[str, Any] = dict(self.network.state_dict())
        if self.head is not None:
            state |= {f"{HEAD}{name}": value for name, value in self.head.state_dict().items()}
        state |= {f"{LOSS}{name}": value for name, value in self.loss.state().items()}
        files: dict[str, Any] = {".pdopt": self.optimizers.state(), ".pdstates": progress.saved()}
        if self.average is None:
            files[".pdparams"] = state
        else:
            files |= {".pdparams": {**state, **self.average.state}, ".pdema": state}
        savepoint.save(self.config.Global.output_dir / name, files)

    def load(self, prefix: Path) -> None:
        """Takes up the savepoint `prefix`. InputError when it does not fit."""
        distributed.from_main(lambda: savepoint.recover(prefix))
        self.progress = read_position(prefix, self.progress)
        weights, averaged = read_weights(prefix)
        of_loss = {name.removeprefix(LOSS): value for name, value in weights.items() if name.startswith(LOSS)}
        self.loss.load(of_loss, f"checkpoint {prefix}")
        if self.head is not None:
            of_head = {name.removeprefix(HEAD): value for name, value in weights.items() if name.startswith(HEAD)}
            set_tensors(self.head.state_dict(), of_head, path_of(prefix, ".pdparams"))
        self.loss.iteration = self.progress.loss_iteration
        set_state(self.network, weights, path_of(prefix, ".pdparams"))
        if self.average is not None:
            self.average.load(weights if averaged is None else averaged, path_of(prefix, ".pdparams"))
        self.optimizers.load(prefix)
        if self.progress.scaler:
            self.scaler.load_state_dict(self.progress.scaler)
        if self.probe is not None:
            self.probe.last = self.progress.probe

    def _resume_prefix(self, resume: bool) -> Path | None:
        settings = self.config.Global
        latest = settings.output_dir / LATEST
        if resume and savepoint.exists(latest):
            return latest
        if settings.checkpoints is not None:
            return savepoint.existing(settings.checkpoints)
        if resume:
            logger.warning("nothing to resume in %s: starting from the beginning", settings.output_dir)
        return None

    def _draws(self, positions: list[Position]) -> Iterator[Draw]:
        """What to load, from the progress on; appends the sampler's position after each."""
        settings, start = self.config.Global, self.progress.step
        place = self.rank * self.batch_size
        drawn = self.sampler.batches(self.progress.position)
        for step, (indices, position) in enumerate(islice(drawn, settings.iterations - start), start):
            positions.append(position)
            yield step, place, indices[place : place + self.batch_size]

    def _finish_epochs(self, recorder: Recorder | None, on_eval: Callable[[int, Scores], None]) -> Scores | None:
        """Evaluates and saves as the config asks, when an epoch's iterations are done."""
        settings, progress = self.config.Global, self.progress
        epoch = progress.epochs + 1
        if progress.step < epoch * settings.epoch_length:
            return None
        due = epoch % settings.eval_interval == 0 and epoch >= settings.start_eval_epoch
        scores, improved = None, False
        if settings.eval_during_train and (due or epoch == settings.epochs):
            self.save(LATEST)  # an evaluation that is cut off costs no iterations
            scores = self._evaluate()
            progress.metric = next(iter(scores.named.values()))
            self.optimizers.after_evaluation(progress.metric)
            improved = progress.metric > progress.best
            if improved:
                progress.best = progress.metric
            if recorder is not None:
                recorder.evaluation(epoch, progress.step, scores)
                on_eval(epoch, scores)
        self.optimizers.after_epoch()
        progress.epochs = epoch
        if improved:
            self.save("best_model")
        if epoch % settings.save_interval == 0:
            self.save(f"epoch_{epoch}")
            if settings.keep_epochs and self.is_main:
                keep_newest(settings.output_dir, epoch, settings.keep_epochs)
        self.save(LATEST)
        return scores

    def _evaluate(self) -> Scores:
        """The scores, found by the first process and told to the others."""
        state = self.average.state if self.average is not None else self.network.state_dict()
        if self.config.Global.eval_mode == "classification":
            head = self.head.state_dict()
            return distributed.from_main(lambda: classify(self.config, state, head, self._raise_if_stopped))
        return distributed.from_main(lambda: evaluate(self.config, state, self._raise_if_stopped))

    def _report(self, loss: float, lr: float, seconds: float) -> StepReport:
        settings, progress, memory = self.config.Global, self.progress, self.loss.xbm
        drift = None
        if self.probe is not None and progress.step % settings.drift_interval == 0:
            drift = self.probe.measure(self.network)
        return StepReport(
            (progress.step - 1) // settings.epoch_length + 1,
            progress.step,
            settings.iterations,
            loss,
            lr,
            self.batch_size * self.world / seconds,
            (settings.iterations - progress.step) * seconds,
            memory.fill if memory else None,
            memory.size if memory else None,
            drift,
            self.loss.named_values(),
        )

    def _mixed_precision(self) -> Any:
        """The loss scaler; with AMP level O2 the weights are cast as well."""
        amp = self.config.AMP
        self.amp = amp if amp is not None and amp.use_amp else None
        if self.amp is not None and self.config.Global.device == "cpu":
            logger.warning("AMP: Paddle casts on a GPU only; this training runs in float32")
            self.amp = None
        if self.amp is None:
            return paddle.amp.GradScaler(enable=False)
        if self.amp.level == "O2":
            optimizers = [part.optimizer for part in self.optimizers.parts]
            self.network, optimizers = paddle.amp.decorate(
                self.network, optimizers, level="O2", dtype=self.amp.dtype, save_dtype="float32"
            )
            for part, optimizer in zip(self.optimizers.parts, optimizers, strict=True):
                part.optimizer = optimizer
        return paddle.amp.GradScaler(
            enable=self.amp.dtype == "float16",
            init_loss_scaling=self.amp.scale_loss,
            use_dynamic_loss_scaling=self.amp.use_dynamic_loss_scaling,
        )

    def _autocast(self) -> Any:
        if self.amp is None:
            return nullcontext()
        return paddle.amp.auto_cast(level=self.amp.level, dtype=self.amp.dtype)

    def _drift_probe(self) -> DriftProbe | None:
        if not self.config.Global.drift_interval or self.loss.xbm is None or not self.is_main:
            return None
        chosen = np.linspace(0, len(self.images) - 1, min(IMAGES, len(self.images))).astype(np.int64)
        images = np.empty((len(chosen), *self.config.Global.image_shape), np.float32)
        self.maker.fill(images, chosen, PROBE_STEP, 0)
        return DriftProbe(images)

    def _parallel(self) -> Any:
        model = Forward(self.network, self.head)
        return model if self.world == 1 else paddle.DataParallel(model)

    def trained(self) -> Iterator[tuple[str, Any]]:
        """Every parameter of network, head and losses, by its name in a checkpoint."""
        yield from self.network.named_parameters()
        if self.head is not None:
            yield from ((f"{HEAD}{name}", value) for name, value in self.head.named_parameters())
        yield from ((f"{LOSS}{name}", value) for name, value in self.loss.named_weights())

    def _raise_if_stopped(self, count: int) -> None:
        if self._stop:
            raise KeyboardInterrupt

    def _fixed(self) -> dict[str, int | str]:
        settings, sampler = self.config.Global, self.config.DataLoader.Train.sampler
        return {
            "images": len(self.images),
            "batch": self.batch_size * self.world,
            "sampler": sampler.name,
            "instances": sampler.instances,
            "seed": settings.seed,
            "iter_per_epoch": settings.epoch_length,
            "update_freq": settings.update_freq,
        }

    def _settings(self) -> dict[str, str]:
        found = flat("Optimizer", self.config.Optimizer)
        for index, entry in enumerate(self.config.Loss.Train):
            found |= flat("Loss.Train" if index == 0 else f"Loss.Train.{index}", entry)
        return found

    @contextmanager
    def _others(self) -> Iterator[None]:
        """One line when a collective operation fails, since that is for want of another process."""
        try:
            yield
        except RuntimeError as error:
            if self.world == 1 or isinstance(error, EdgeRecallError):
                raise
            reason = str(error).strip().splitlines()[-1][:200]
            raise EdgeRecallError(
                f"another training process ended, or this one could not reach it: {reason}"
            ) from error

    @contextmanager
    def _graceful(self) -> Iterator[None]:
        """Turns SIGINT and SIGTERM into a wish to stop; a later second one stops at once. Ignored ones stay so."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def stop(number: int, frame: object) -> None:
            if not self._stop:
                self._stop, self._stop_time = True, time.monotonic()
            elif time.monotonic() - self._stop_time > GRACE_S:
                raise KeyboardInterrupt

        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        heeded = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
        for number in heeded:
            signal.signal(number, stop)
        try:
            yield
        finally:
            for number in heeded:
                signal.signal(number, before[number])
