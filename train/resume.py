"""What a training must remember to go on as if it had never stopped."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..runtimes.errors import InputError
from .checkpoint import internal_names, read_arrays, read_optimizer, read_state
from .sampler import START, Position
from .savepoint import path_of

logger = logging.getLogger(__name__)


@dataclass
class Progress:
    """Where a training stands. step: iterations done; epochs: evaluated and saved; position: of the sampler.

    images, batch, seed: what the order of the images hangs on; they must not change over a resume.
    """

    images: int
    batch: int
    seed: int
    step: int = 0
    epochs: int = 0
    best: float = -1.0
    best_epoch: int = 0
    metric: float = -1.0
    position: Position = START
    loss_iteration: int = 0
    scaler: dict[str, Any] = field(default_factory=dict)
    probe: Any = None

    def saved(self) -> dict[str, Any]:
        """For `.pdstates`: PaddleClas's two entries, and ours."""
        return {
            "metric": self.metric,
            "epoch": self.epochs,
            "edgerecall": {**asdict(self), "position": [*self.position]},
        }


def read_progress(prefix: Path, fresh: Progress, iter_per_epoch: int) -> Progress:
    """The progress in `.pdstates`. InputError when it belongs to another training.

    PaddleClas writes metric and epoch alone: then the epoch is known and the sampler starts a pass.
    """
    path = path_of(prefix, ".pdstates")
    state = read_state(path)
    ours = state.get("edgerecall")
    if not isinstance(ours, dict):
        epoch = state.get("epoch")
        if not isinstance(epoch, int) or epoch < 0:
            raise InputError(f"checkpoint {path}: expected the epoch it was saved at, got {epoch!r}")
        logger.warning("%s is PaddleClas's: going on after epoch %d, with a new pass over the images", path, epoch)
        fresh.step = fresh.loss_iteration = epoch * iter_per_epoch
        fresh.epochs = epoch
        return fresh
    unknown = ours.keys() ^ asdict(fresh).keys()
    if unknown:
        raise InputError(f"checkpoint {path}: written by another version ({', '.join(sorted(unknown))} differ)")
    for name in ("images", "batch", "seed"):
        if ours[name] != getattr(fresh, name):
            raise InputError(
                f"checkpoint {path}: was trained with {name} {ours[name]}, now it is {getattr(fresh, name)}: it cannot"
                " go on as it was; start anew from its weights by Global.pretrained_model"
            )
    return Progress(**{**ours, "position": tuple(ours["position"])})


def read_weights(prefix: Path) -> tuple[dict[str, Any], dict[str, Any] | None]:
    """The arrays that were trained (with the memory's), and the averaged ones when there is a `.pdema`.

    As PaddleClas has it, `.pdparams` then holds the average, and `.pdema` the weights in training.
    """
    params = read_arrays(path_of(prefix, ".pdparams"))
    raw = path_of(prefix, ".pdema")
    return (read_arrays(raw), params) if raw.is_file() else (params, None)


def load_optimizer(optimizer: Any, prefix: Path, parameters: Iterable[tuple[str, Any]]) -> None:
    """Takes the optimizer's state from `.pdopt`.

    Paddle names its entries after internal parameter names, which count every layer a process ever made. They are
    translated by the table in the weights' file; an entry that belongs to no parameter is an InputError.
    """
    path = path_of(prefix, ".pdopt")
    raw = path_of(prefix, ".pdema")
    saved = internal_names(raw if raw.is_file() else path_of(prefix, ".pdparams"))
    translation = {saved[name]: parameter.name for name, parameter in parameters if name in saved}
    state = read_optimizer(path)
    translated: dict[str, Any] = {}
    for key, value in state.items():
        if key == "LR_Scheduler":
            translated[key] = value
        elif key == "master_weights":
            translated[key] = {translation.get(name, name): array for name, array in value.items()}
        else:
            translated[_translate(key, translation, path)] = value
    optimizer.set_state_dict(translated)


def _translate(key: str, translation: dict[str, str], path: Path) -> str:
    for cut in range(len(key) - 1, 0, -1):
        if key[cut] == "_" and key[:cut] in translation:
            return translation[key[:cut]] + key[cut:]
    raise InputError(f"checkpoint {path}: '{key}' belongs to no parameter of this network; is it of another training?")


def step_seed(seed: int, step: int, rank: int) -> int:
    """The framework's random state of one iteration (dropout), so that a resumed run draws the same."""
    return int(np.random.SeedSequence((seed, step, rank)).generate_state(1)[0])
