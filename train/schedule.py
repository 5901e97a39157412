"""Learning-rate schedules and optimizers from the config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import paddle

from .config.optimizer import (
    ConstantRate,
    CosineRate,
    LinearRate,
    MultiStepRate,
    OneOptimizer,
    PiecewiseRate,
    PlateauRate,
    StepRate,
)


class Schedule:
    """A learning rate that moves per update, per epoch, or per evaluation by its metric.

    updates: of the weights, in an epoch.
    """

    def __init__(self, section: OneOptimizer, epochs: int, updates: int) -> None:
        rate = section.lr
        self.by_metric = isinstance(rate, PlateauRate)
        self.by_epoch = rate.by_epoch and not self.by_metric
        self.scheduler: Any
        if isinstance(rate, PlateauRate):
            self.scheduler = plateau(rate)
            return
        unit = 1 if self.by_epoch else updates
        warm = rate.warmup_epoch * unit
        self.scheduler = decay(rate, max(epochs * unit - warm, 1), unit)
        if warm:
            self.scheduler = paddle.optimizer.lr.LinearWarmup(
                self.scheduler, warm, rate.warmup_start_lr, rate.learning_rate
            )

    @property
    def value(self) -> float:
        """The learning rate in force."""
        return float(self.scheduler())

    def after_update(self) -> None:
        """Moves a schedule that goes by updates."""
        if not self.by_metric and not self.by_epoch:
            self.scheduler.step()

    def after_epoch(self) -> None:
        """Moves a schedule that goes by epochs."""
        if self.by_epoch:
            self.scheduler.step()

    def after_evaluation(self, metric: float) -> None:
        """Moves a schedule that goes by the metric."""
        if self.by_metric:
            self.scheduler.step(paddle.to_tensor(metric, dtype="float32"))


def decay(
    rate: ConstantRate | CosineRate | LinearRate | StepRate | MultiStepRate | PiecewiseRate, steps: int, unit: int
) -> Any:
    """The schedule after its warm-up. steps: its length; unit: steps in an epoch."""
    lr = paddle.optimizer.lr
    if isinstance(rate, CosineRate):
        return lr.CosineAnnealingDecay(rate.learning_rate, T_max=steps, eta_min=rate.eta_min)
    if isinstance(rate, LinearRate):
        return lr.PolynomialDecay(rate.learning_rate, decay_steps=steps, end_lr=rate.end_lr, power=rate.power)
    if isinstance(rate, StepRate):
        return lr.StepDecay(rate.learning_rate, step_size=max(int(rate.step_size * unit), 1), gamma=rate.gamma)
    if isinstance(rate, MultiStepRate):
        return lr.MultiStepDecay(rate.learning_rate, [epoch * unit for epoch in rate.milestones], rate.gamma)
    if isinstance(rate, PiecewiseRate):
        return lr.PiecewiseDecay([epoch * unit for epoch in rate.decay_epochs], list(rate.values))
    return lr.LambdaDecay(rate.learning_rate, lambda step: 1.0)


def plateau(rate: PlateauRate) -> Any:
    """Paddle's schedule by a metric."""
    return paddle.optimizer.lr.ReduceOnPlateau(
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


def build_optimizer(section: OneOptimizer, schedule: Schedule, parameters: Sequence[Any]) -> Any:
    """A Paddle optimizer; AdamW takes the L2 coefficient as its decoupled weight decay."""
    coefficient = section.regularizer.coeff if section.regularizer else 0.0
    clip = None
    if section.clip_norm:
        clip = paddle.nn.ClipGradByNorm(section.clip_norm)
    elif section.clip_global_norm:
        clip = paddle.nn.ClipGradByGlobalNorm(section.clip_global_norm)
    common = {"learning_rate": schedule.scheduler, "parameters": parameters, "grad_clip": clip}
    if section.name == "AdamW":
        return paddle.optimizer.AdamW(weight_decay=coefficient, **common)
    regularizer = paddle.regularizer.L2Decay(coefficient) if coefficient else None
    if section.name == "Momentum":
        return paddle.optimizer.Momentum(momentum=section.momentum, weight_decay=regularizer, **common)
    if section.name == "SGD":
        return paddle.optimizer.SGD(weight_decay=regularizer, **common)
    return paddle.optimizer.Adam(weight_decay=regularizer, **common)
