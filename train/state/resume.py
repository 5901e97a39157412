"""What a training must remember to go on as if it had never stopped."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import paddle
from numpy.typing import NDArray
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from ...runtimes.core.errors import InputError
from ..config.base import NonNegative
from ..data.sampler import START
from .checkpoint import internal_names, read_arrays, read_state
from .savepoint import path_of

logger = logging.getLogger(__name__)
# What Paddle's optimizers keep for each parameter, and whether it has the parameter's shape.
MOMENTS = {"moment1_0": True, "moment2_0": True, "beta1_pow_acc_0": False, "beta2_pow_acc_0": False}
KEPT = {"Adam": MOMENTS, "AdamW": MOMENTS, "Momentum": {"velocity_0": True}, "SGD": {}}
SCHEDULE = "LR_Scheduler"
MASTERS = "master_weights"


@dataclass
class RunPosition:
    """Where a training stands. step: iterations done; epochs: evaluated and saved; position: of the sampler.

    fixed: what the order of the images and the updates hangs on; it must not change over a resume.
    settings: of optimizer and loss, as text by their place in the config; a change of them is told.
    probe: the drift probe's last embeddings, float32 `(n, D)`.
    """

    __pydantic_config__ = ConfigDict(arbitrary_types_allowed=True)

    fixed: dict[str, int | str]
    settings: dict[str, str] = field(default_factory=dict)
    step: NonNegative = 0
    epochs: NonNegative = 0
    best: float = -1.0
    metric: float = -1.0
    position: tuple[NonNegative, NonNegative] = START
    loss_iteration: NonNegative = 0
    scaler: dict[str, Any] = field(default_factory=dict)
    probe: Annotated[NDArray[np.float32] | None, Field(default=None)] = None

    def saved(self) -> dict[str, Any]:
        """For `.pdstates`: PaddleClas's two entries, and ours."""
        return {
            "metric": self.metric,
            "epoch": self.epochs,
            "edgerecall": {**asdict(self), "position": [*self.position]},
        }


def read_position(prefix: Path, fresh: RunPosition) -> RunPosition:
    """The progress in `.pdstates`. InputError when it is damaged or belongs to another training.

    PaddleClas writes metric and epoch alone: then the epoch is known and the sampler starts a pass.
    """
    path = path_of(prefix, ".pdstates")
    state = read_state(path)
    ours = state.get("edgerecall")
    if ours is None:
        return _paddleclas_position(path, state, fresh)
    try:
        progress = TypeAdapter(RunPosition).validate_python(ours)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InputError(
            f"checkpoint {path}: damaged, or of another version: {where or 'edgerecall'}: {first['msg']}"
        ) from error
    for name, now in fresh.fixed.items():
        if progress.fixed.get(name) != now:
            raise InputError(
                f"checkpoint {path}: was trained with {name} {progress.fixed.get(name)}, now it is {now}: it cannot go"
                " on as it was; start anew from its weights by Global.pretrained_model"
            )
    for name in sorted(progress.settings.keys() & fresh.settings.keys()):
        was, now = progress.settings[name], fresh.settings[name]
        if was != now:
            saved = (
                "; what the schedule had made of it stays as saved"
                if name.startswith("Optimizer.") and ".lr." in name
                else ""
            )
            logger.warning("checkpoint %s: %s was %s and is %s now%s", path, name, was, now, saved)
    progress.settings = fresh.settings
    if progress.probe is not None and progress.probe.ndim != 2:
        raise InputError(f"checkpoint {path}: probe: expected rows of embeddings, got {progress.probe.ndim} dimensions")
    return progress


def _paddleclas_position(path: Path, state: dict[str, Any], fresh: RunPosition) -> RunPosition:
    epoch, metric = state.get("epoch"), state.get("metric")
    if not isinstance(epoch, int) or epoch < 0:
        raise InputError(f"checkpoint {path}: expected the epoch it was saved at, got {epoch!r}")
    logger.warning("%s is PaddleClas's: going on after epoch %d, with a new pass over the images", path, epoch)
    fresh.step = fresh.loss_iteration = epoch * int(fresh.fixed["iter_per_epoch"])
    fresh.epochs = epoch
    if isinstance(metric, int | float | np.ndarray) and np.size(metric) == 1 and math.isfinite(float(metric)):
        fresh.best = fresh.metric = float(metric)
    return fresh


def read_weights(prefix: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The arrays that were trained (with the memory's), and the averaged ones when there is a `.pdema`.

    As PaddleClas has it, `.pdparams` then holds the average, and `.pdema` the weights in training.
    """
    params = read_arrays(path_of(prefix, ".pdparams"))
    raw = path_of(prefix, ".pdema")
    return (read_arrays(raw), params) if raw.is_file() else (params, None)


def saved_names(prefix: Path) -> dict[str, str]:
    """Parameter name -> the internal one that it had when the savepoint was written."""
    raw = path_of(prefix, ".pdema")
    return internal_names(raw if raw.is_file() else path_of(prefix, ".pdparams"))


def load_optimizer(
    optimizer: Any,
    name: str,
    schedule: Any,
    path: Path,
    parameters: Iterable[tuple[str, Any]],
    state: dict[str, Any],
    saved: dict[str, str],
) -> None:
    """Takes the optimizer's and the schedule's state, read from `.pdopt` at `path`. InputError when it is of others.

    Paddle names entries after internal parameter names, which count every layer a process ever made. They are
    translated by `saved`, of `saved_names`.
    """
    trained = {structured: p for structured, p in parameters if not p.stop_gradient}
    translated: dict[str, Any] = {}
    for structured, parameter in trained.items():
        found = {one: state.pop(f"{saved.get(structured, structured)}_{one}", None) for one in KEPT[name]}
        if all(value is None for value in found.values()):  # it had no gradient so far, and Paddle keeps nothing of it
            continue
        for suffix, shaped in KEPT[name].items():
            key, value = f"{saved.get(structured, structured)}_{suffix}", found[suffix]
            shape = tuple(parameter.shape) if shaped else (1,)
            if not isinstance(value, np.ndarray) or value.shape != shape or value.dtype.kind != "f":
                raise InputError(
                    f"checkpoint {path}: expected {name}'s '{key}' of shape {shape}, found"
                    f" {getattr(value, 'shape', None)}: is Optimizer.name another?"
                )
            translated[f"{parameter.name}_{suffix}"] = paddle.to_tensor(value)
    if KEPT[name] and not translated:
        raise InputError(f"checkpoint {path}: found nothing of {name} for these parameters: is Optimizer.name another?")
    _check_schedule(state.get(SCHEDULE), schedule.state_dict(), path)
    translated[SCHEDULE] = state.pop(SCHEDULE)
    masters = state.pop(MASTERS, None)
    if isinstance(masters, dict):
        names = {saved[structured]: p.name for structured, p in trained.items() if structured in saved}
        translated[MASTERS] = {names[k]: paddle.to_tensor(v) for k, v in masters.items() if k in names}
    if state:
        raise InputError(f"checkpoint {path}: '{next(iter(state))}' belongs to no parameter of this network")
    optimizer.set_state_dict(translated)


def _check_schedule(found: Any, expected: dict[str, Any], path: Path) -> None:
    """InputError unless both name the same things, and the found ones are numbers."""
    if not isinstance(found, dict) or found.keys() != expected.keys():
        held = ", ".join(map(str, found)) if isinstance(found, dict) else type(found).__name__
        raise InputError(
            f"checkpoint {path}: expected a schedule with {', '.join(expected)}, found {held}: is Optimizer.lr another?"
        )
    for name, value in found.items():
        if isinstance(expected[name], dict):
            _check_schedule(value, expected[name], path)
        elif value is not None and not isinstance(value, int | float | np.ndarray):
            raise InputError(f"checkpoint {path}: schedule's '{name}': expected a number, got {type(value).__name__}")


def step_seed(seed: int, step: int, rank: int) -> int:
    """The framework's random state of one iteration (dropout), so that a resumed run draws the same."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])
