"""All optimizers of a training, each with its schedule and the parameters that it moves."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtimes.core.errors import InputError
from .config.optimizer import OneOptimizer, OptimizerSection
from .schedule import Schedule, build_optimizer
from .state.checkpoint import HEAD, LOSS, read_optimizers
from .state.resume import load_optimizer, saved_names
from .state.savepoint import path_of

logger = logging.getLogger(__name__)
Named = list[tuple[str, Any]]  # parameters by their names in a checkpoint


@dataclass
class Part:
    """One optimizer."""

    section: OneOptimizer
    schedule: Schedule
    parameters: Named
    optimizer: Any


def in_scope(scope: str, name: str, losses: Sequence[str]) -> bool:
    """Whether an optimizer of this scope moves the parameter. losses: names of the list.

    Any other scope is, as in PaddleClas, a regular expression of a layer's whole name: `backbone.blocks.*`.
    """
    if name.startswith(LOSS):
        place = int(name.removeprefix(LOSS).split(".")[0])
        return scope in ("all", losses[place])
    if scope in ("all", "RecModel"):
        return True
    parts = name.split(".")
    layers = (".".join(parts[:length]) for length in range(1, len(parts)))
    try:
        return any(re.fullmatch(scope, layer) for layer in layers)
    except re.error as error:
        raise InputError(f"Optimizer: scope '{scope}' is no regular expression: {error}") from error


def scopes(names: Sequence[str], losses: Sequence[str]) -> list[str]:
    """All that have parameters."""
    known = ("all", "RecModel", "backbone", "neck", HEAD.removesuffix("."), *losses)
    return [scope for scope in known if any(in_scope(scope, name, losses) for name in names)]


class Optimizers:
    """One or more. trained: every parameter; losses: names of the config's list.

    InputError where a scope has no parameter, or a parameter is of two. What is of none is fixed, which is told.
    """

    def __init__(
        self, section: OptimizerSection, epochs: int, updates: int, trained: Named, losses: Sequence[str]
    ) -> None:
        self.parts: list[Part] = []
        owner: dict[str, str] = {}
        for one in (section, *section.others):
            mine = [(name, value) for name, value in trained if in_scope(one.scope, name, losses)]
            if not mine:
                known = ", ".join(scopes([name for name, _ in trained], losses))
                raise InputError(
                    f"Optimizer: scope '{one.scope}' has nothing to train: expected one of {known}, or a regular"
                    " expression of layers' names"
                )
            for name, _ in mine:
                if name in owner:
                    raise InputError(
                        f"Optimizer: '{name}' is of two scopes, '{owner[name]}' and '{one.scope}': expected one"
                    )
                owner[name] = one.scope
            schedule = Schedule(one, epochs, updates)
            optimizer = build_optimizer(one, schedule, [value for _, value in mine])
            self.parts.append(Part(one, schedule, mine, optimizer))
        left = [(name, value) for name, value in trained if name not in owner and not value.stop_gradient]
        for _, value in left:
            value.stop_gradient = True
        if left:
            logger.warning(
                "%d parameters are of no optimizer's scope and stay as they are: %s ... (statistics of batch norms move"
                " but for Arch.Backbone.freeze_norm)",
                len(left),
                left[0][0],
            )

    @property
    def rate(self) -> float:
        """The first one's learning rate in force."""
        return self.parts[0].schedule.value

    def update(self, scaler: Any) -> None:
        """Moves the weights by their gradients, which are then gone."""
        for part in self.parts:
            scaler.step(part.optimizer)
        scaler.update()
        for part in self.parts:
            part.optimizer.clear_grad()
            part.schedule.after_update()

    def after_epoch(self) -> None:
        """Moves schedules that go by epochs."""
        for part in self.parts:
            part.schedule.after_epoch()

    def after_evaluation(self, metric: float) -> None:
        """Moves schedules that go by the metric."""
        for part in self.parts:
            part.schedule.after_evaluation(metric)

    def state(self) -> list[Any]:
        """For `.pdopt`, as PaddleClas has it."""
        return [part.optimizer.state_dict() for part in self.parts]

    def load(self, prefix: Path) -> None:
        """Takes the savepoint's. InputError when it is of others."""
        path = path_of(prefix, ".pdopt")
        states = read_optimizers(path)
        if len(states) != len(self.parts):
            raise InputError(
                f"checkpoint {path}: expected the state of {len(self.parts)} optimizers, got {len(states)}"
            )
        saved = saved_names(prefix)
        for part, state in zip(self.parts, states, strict=True):
            kind, schedule = part.section.name, part.schedule.scheduler
            load_optimizer(part.optimizer, kind, schedule, path, part.parameters, state, saved)
