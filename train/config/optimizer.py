"""The config's `Optimizer`."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from ...runtimes.core.config import Frozen
from .base import NonNegative, Positive, Rate


class WarmRate(Frozen):
    """What schedules by iteration or epoch share: a linear warm-up from `warmup_start_lr`, in epochs.

    The epochs that a schedule names are counted from the end of its warm-up, as in PaddleClas. last_epoch and verbose
    are accepted and change nothing.
    """

    warmup_epoch: NonNegative = 0
    warmup_start_lr: Annotated[float, Field(ge=0)] = 0.0
    by_epoch: bool = False
    last_epoch: Literal[-1, 0] = -1
    verbose: bool = False

    @model_validator(mode="after")
    def rises(self) -> WarmRate:
        target = getattr(self, "learning_rate", None)
        if self.warmup_epoch and target is not None and self.warmup_start_lr >= target:
            raise ValueError(f"warmup_start_lr {self.warmup_start_lr} is not below the learning rate {target}")
        return self


class ConstantRate(WarmRate):
    """A constant learning rate, under either of PaddleClas's names."""

    name: Literal["Constant", "ConstLR"]
    learning_rate: Rate


class CosineRate(WarmRate):
    """Half a cosine from `learning_rate` to `eta_min`."""

    name: Literal["Cosine"]
    learning_rate: Rate
    eta_min: Annotated[float, Field(ge=0)] = 0.0


class LinearRate(WarmRate):
    """A polynomial of degree `power` from `learning_rate` to `end_lr`."""

    name: Literal["Linear"]
    learning_rate: Rate
    end_lr: Annotated[float, Field(ge=0)] = 0.0
    power: Rate = 1.0


class StepRate(WarmRate):
    """Times `gamma` every `step_size` epochs."""

    name: Literal["Step"]
    learning_rate: Rate
    step_size: Rate
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1


class MultiStepRate(WarmRate):
    """Times `gamma` at each of the `milestones`, in epochs."""

    name: Literal["MultiStepDecay"]
    learning_rate: Rate
    milestones: Annotated[tuple[Positive, ...], Field(min_length=1)]
    gamma: Annotated[float, Field(gt=0, lt=1)] = 0.1

    @model_validator(mode="after")
    def ascending(self) -> MultiStepRate:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise ValueError(f"milestones must rise, got {list(self.milestones)}")
        return self


class PiecewiseRate(WarmRate):
    """`values`, changed at `decay_epochs`. learning_rate is accepted where it is the first of them."""

    name: Literal["Piecewise"]
    learning_rate: Rate = 0.0
    decay_epochs: Annotated[tuple[Positive, ...], Field(min_length=1)]
    values: tuple[Rate, ...]

    @model_validator(mode="after")
    def one_more_value(self) -> PiecewiseRate:
        if len(self.values) != len(self.decay_epochs) + 1:
            raise ValueError("expected one more of values than of decay_epochs")
        if list(self.decay_epochs) != sorted(set(self.decay_epochs)):
            raise ValueError(f"decay_epochs must rise, got {list(self.decay_epochs)}")
        return self

    @model_validator(mode="before")
    @classmethod
    def first_value(cls, data: Any) -> Any:
        """The learning rate is the first value."""
        if isinstance(data, dict) and isinstance(data.get("values"), list | tuple) and data["values"]:
            return {"learning_rate": data["values"][0], **data}
        return data


class PlateauRate(Frozen):
    """Times `factor` when the metric has not improved for `patience` evaluations."""

    name: Literal["ReduceOnPlateau"]
    learning_rate: Rate
    mode: Literal["min", "max"] = "max"
    factor: Annotated[float, Field(gt=0, lt=1)] = 0.1
    patience: NonNegative = 10
    threshold: float = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: NonNegative = 0
    min_lr: Annotated[float, Field(ge=0)] = 0.0
    epsilon: Annotated[float, Field(ge=0)] = 1e-8
    by_epoch: Literal[True] = True


class Regularizer(Frozen):
    """L2 weight decay."""

    name: Literal["L2"]
    coeff: Annotated[float, Field(ge=0)]


def _entries(data: Any) -> Any:
    """PaddleClas's list of `{name: {scope: ..., ...}}` as the first optimizer's mapping with the `others` in it."""
    if not isinstance(data, list):
        return data
    entries = []
    for entry in data:
        if not isinstance(entry, dict) or len(entry) != 1 or not isinstance(next(iter(entry.values())), dict):
            raise ValueError("expected a list of optimizers, each its name with its options below it")
        ((name, options),) = entry.items()
        if "scope" not in options:
            raise ValueError(f"{name} of a list of optimizers needs a scope: RecModel, backbone, neck, head or a loss")
        entries.append({"name": name, **options})
    if not entries:
        raise ValueError("expected one optimizer or more")
    return {**entries[0], "others": entries[1:]}


class OneOptimizer(Frozen):
    """An optimizer. clip_norm: of each tensor's gradient, as in PaddleClas; clip_global_norm: of all together.

    scope: what it moves: `all`, `RecModel` (backbone, neck and head), a loss by its name, or layers by a regular
    expression of their whole names, such as `backbone`.
    """

    name: Literal["Adam", "AdamW", "Momentum", "SGD"]
    scope: str = "all"
    lr: Annotated[
        ConstantRate | CosineRate | LinearRate | StepRate | MultiStepRate | PiecewiseRate | PlateauRate,
        Field(discriminator="name"),
    ]
    regularizer: Regularizer | None = None
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    clip_norm: Rate | None = None
    clip_global_norm: Rate | None = None

    @model_validator(mode="after")
    def one_clip(self) -> OneOptimizer:
        if self.clip_norm and self.clip_global_norm:
            raise ValueError("expected one of clip_norm and clip_global_norm")
        return self

    @model_validator(mode="after")
    def momentum_is_used(self) -> OneOptimizer:
        if self.name != "Momentum" and "momentum" in self.model_fields_set:
            raise ValueError(f"momentum is for Momentum, {self.name} has none")
        return self


class OptimizerSection(OneOptimizer):
    """`Optimizer`: one, or a list of them for different parts, whose first is the one that log and report show."""

    others: tuple[OneOptimizer, ...] = ()

    @model_validator(mode="before")
    @classmethod
    def of_a_list(cls, data: Any) -> Any:
        """A list becomes the first of it with the others."""
        return _entries(data)
