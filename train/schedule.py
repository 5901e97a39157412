"""Learning-rate schedules and optimizers from the config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import paddle

from .config import ConstantRate, CosineRate, OptimizerSection


class Schedule:
    """A learning rate that moves per iteration, or per evaluation by its metric."""

    def __init__(self, section: OptimizerSection, epochs: int, iterations: int) -> None:
        rate = section.lr
        lr = paddle.optimizer.lr
        self.by_metric = False
        self.scheduler: Any
        if isinstance(rate, ConstantRate):
            self.scheduler = lr.LambdaDecay(rate.learning_rate, lambda step: 1.0)
        elif isinstance(rate, CosineRate):
            warm = rate.warmup_epoch * iterations
            steps = max(epochs * iterations - warm, 1)
            self.scheduler = lr.CosineAnnealingDecay(rate.learning_rate, T_max=steps, eta_min=rate.eta_min)
            if warm:
                self.scheduler = lr.LinearWarmup(self.scheduler, warm, rate.warmup_start_lr, rate.learning_rate)
        else:
            self.by_metric = True
            self.scheduler = lr.ReduceOnPlateau(
                rate.learning_rate,
                mode=rate.mode,
                factor=rate.factor,
                patience=rate.patience,
                threshold=rate.threshold,
                threshold_mode=rate.threshold_mode,
                cooldown=rate.cooldown,
                min_lr=rate.min_lr,
                epsilon=rate.epsilon,
            )

    @property
    def value(self) -> float:
        """The learning rate in force."""
        return float(self.scheduler())

    def after_iteration(self) -> None:
        """Moves a schedule that goes by iterations."""
        if not self.by_metric:
            self.scheduler.step()

    def after_evaluation(self, metric: float) -> None:
        """Moves a schedule that goes by the metric."""
        if self.by_metric:
            self.scheduler.step(paddle.to_tensor(metric, dtype="float32"))


def build_optimizer(section: OptimizerSection, schedule: Schedule, parameters: Sequence[Any]) -> Any:
    """A Paddle optimizer; AdamW takes the L2 coefficient as its decoupled weight decay."""
    decay = section.regularizer.coeff if section.regularizer else 0.0
    common = {"learning_rate": schedule.scheduler, "parameters": parameters}
    if section.name == "AdamW":
        return paddle.optimizer.AdamW(weight_decay=decay, **common)
    regularizer = paddle.regularizer.L2Decay(decay) if decay else None
    if section.name == "Momentum":
        return paddle.optimizer.Momentum(momentum=section.momentum, weight_decay=regularizer, **common)
    return paddle.optimizer.Adam(weight_decay=regularizer, **common)
