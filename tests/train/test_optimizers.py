"""Lists of optimizers, each over its scope."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from headed_config import BOTH, headed, run

from edgerecall.runtimes.core.errors import InputError
from edgerecall.train.config.training import load_config
from edgerecall.train.state.checkpoint import read_arrays
from edgerecall.train.trainer import Trainer

MODEL = {"scope": "RecModel", "lr": {"name": "Step", "learning_rate": 0.002, "step_size": 1, "by_epoch": True}}
STATISTICS = ("._mean", "._variance")
CENTERS = {"scope": "CenterLoss", "lr": {"name": "ConstLR", "learning_rate": 50.0}}


def listed(config_file: Path, *optimizers: dict[str, Any], **changes: Any) -> Path:
    headed(config_file, BOTH, **changes)
    data = yaml.safe_load(config_file.read_text())
    data["Optimizer"] = list(optimizers)
    config_file.write_text(yaml.safe_dump(data))
    return config_file


def one_step(trainer: Trainer) -> dict[str, Any]:
    """What the step moved, by name: value before and after, and gradient."""
    before = {name: value.numpy().copy() for name, value in trainer.trained()}
    gradients: dict[str, Any] = {}
    update = trainer.optimizers.update

    def seen(scaler: Any) -> None:
        gradients.update({name: v.grad.numpy().copy() for name, v in trainer.trained() if v.grad is not None})
        update(scaler)

    trainer.optimizers.update = seen  # type: ignore[method-assign]
    trainer.step(next(trainer.loader.batches(trainer._draws([]))))
    return {name: (before[name], value.numpy(), gradients.get(name)) for name, value in trainer.trained()}


def test_each_moves_its_scope_at_its_own_rate(config_file: Path) -> None:
    """Plain descent moves the centers by rate times gradient; the network moves by Adam's rule, at most its rate."""
    trainer = Trainer(load_config(listed(config_file, {"Adam": MODEL}, {"SGD": CENTERS})))
    moved = one_step(trainer)
    before, after, gradient = moved["loss_func.2.centers"]
    assert gradient is not None and np.abs(gradient).max() > 0
    np.testing.assert_allclose(after - before, -50 * gradient, rtol=1e-4, atol=1e-6)
    for name in ("head.weight", "neck.fc.weight", "backbone.conv.conv.weight"):
        before, after, _ = moved[name]
        assert 0 < np.abs(after - before).max() <= 0.00201
    assert trainer.optimizers.rate == pytest.approx(0.002)


def test_what_is_of_no_scope_stays(config_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    head = {**MODEL, "scope": "head"}
    trainer = Trainer(load_config(listed(config_file, {"Momentum": head}, {"SGD": CENTERS})))
    assert "parameters are of no optimizer's scope and stay as they are: backbone." in caplog.text
    moved = one_step(trainer)
    assert (moved["head.weight"][0] != moved["head.weight"][1]).any()
    fixed = [name for name in moved if name.startswith(("backbone", "neck")) and not name.endswith(STATISTICS)]
    assert len(fixed) == 144 and all((moved[name][0] == moved[name][1]).all() for name in fixed)
    assert all(value.grad is None for name, value in trainer.trained() if name in fixed)


def test_a_scope_may_be_a_regular_expression(config_file: Path) -> None:
    rest = {**MODEL, "scope": r"backbone\.(?!blocks).*|neck|head"}
    blocks = {**MODEL, "scope": r"backbone\.blocks\.[0-9]+"}
    trainer = Trainer(load_config(listed(config_file, {"Adam": rest}, {"Momentum": blocks}, {"SGD": CENTERS})))
    owned = [{name for name, _ in part.parameters} for part in trainer.optimizers.parts]
    assert "backbone.blocks.0.expand_conv.conv.weight" in owned[1] and "backbone.last_conv.weight" in owned[0]
    assert owned[0] | owned[1] | owned[2] == {name for name, _ in trainer.trained()}


def test_float16_scales_for_one_optimizer(config_file: Path) -> None:
    path = listed(config_file, {"Adam": MODEL}, {"SGD": CENTERS})
    with pytest.raises(InputError, match="AMP float16 scales the loss for one optimizer"):
        load_config(path, ["AMP={dtype: float16}"])
    load_config(path, ["AMP={dtype: bfloat16}"])


def test_each_schedule_goes_its_own_way(config_file: Path) -> None:
    path = listed(config_file, {"Adam": MODEL}, {"SGD": CENTERS}, epochs=3, iter_per_epoch=1, eval_during_train=False)
    first, second = run(path).optimizers.parts
    assert first.schedule.value == pytest.approx(0.002 * 0.1**3) and second.schedule.value == 50.0


@pytest.mark.cpu_sensitive
def test_a_resumed_training_is_the_same_to_the_bit(config_file: Path, tmp_path: Path) -> None:
    path = listed(config_file, {"Adam": MODEL}, {"Momentum": CENTERS}, epochs=2, eval_during_train=False)
    run(path, f"Global.output_dir={tmp_path / 'whole'}")
    run(path, "Global.epochs=1")
    run(path, resume=True)
    whole, halves = (read_arrays(tmp_path / name / "latest.pdparams") for name in ("whole", "run"))
    assert whole.keys() == halves.keys() and all((whole[name] == halves[name]).all() for name in whole)


def test_the_state_of_another_number_of_optimizers(config_file: Path) -> None:
    run(listed(config_file, {"Adam": MODEL}, {"SGD": CENTERS}, eval_during_train=False))
    with pytest.raises(InputError, match="expected the state of 1 optimizers, got 2"):
        Trainer(load_config(listed(config_file, {"Adam": MODEL}, eval_during_train=False)), resume=True)


@pytest.mark.parametrize(
    ("optimizers", "message"),
    [
        ([{"Adam": MODEL}, {"SGD": {**CENTERS, "scope": "head"}}], "'head.weight' is of two scopes"),
        (
            [{"Adam": MODEL}, {"SGD": {**CENTERS, "scope": "TripletLoss"}}],
            "scope 'TripletLoss' has nothing to train: expected one of all, RecModel, backbone, neck, head, CenterLoss",
        ),
        ([{"Adam": {"lr": MODEL["lr"]}}], "Adam of a list of optimizers needs a scope"),
        ([{"Adam": MODEL, "SGD": CENTERS}], "expected a list of optimizers, each its name with its options"),
        ([], "expected one optimizer or more"),
        ([{"Adam": {**MODEL, "scope": "back(bone"}}], r"scope 'back\(bone' is no regular expression"),
        ([{"Adam": MODEL}, {"SGD": {**CENTERS, "lr": {"name": "ConstLR"}}}], r"Optimizer\.others\.0\.lr"),
        ([{"Adagrad": MODEL}], "Optimizer.name"),
    ],
)
def test_lists_that_are_refused(config_file: Path, optimizers: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Trainer(load_config(listed(config_file, *optimizers)))
