"""Quantisation-aware training: what a layer rounds, what passes back, and what is saved."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import paddle
import pytest
import yaml
from paddle import nn

from edgerecall.train.config.arch import ArchSection
from edgerecall.train.network import EmbeddingNetwork
from edgerecall.train.quantise_aware import quantise_aware, rounded_input, rounded_weight

Run = Callable[..., subprocess.CompletedProcess[str]]


def tensor(*shape: int, seed: int = 0) -> paddle.Tensor:
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return paddle.to_tensor(values, stop_gradient=False)


def test_weights_have_127_levels_of_their_own_in_each_output() -> None:
    weight = tensor(4, 3, 3, 3)
    rounded = rounded_weight(weight, [1, 2, 3]).numpy()
    for plain, own in zip(weight.numpy(), rounded, strict=True):
        step = np.abs(plain).max() / 63
        np.testing.assert_allclose(own / step, np.rint(own / step), atol=1e-4)
        assert np.abs(own - plain).max() <= step * 0.5001
    # Folding a batch norm multiplies each output: before or after the rounding is the same.
    factors = paddle.to_tensor(np.array([0.5, 2.0, 8.0, 3.0], np.float32).reshape(4, 1, 1, 1))
    np.testing.assert_allclose(rounded_weight(weight * factors, [1, 2, 3]), rounded * factors.numpy(), rtol=1e-5)
    assert (rounded_weight(weight * 0, [1, 2, 3]).numpy() == 0).all()


@pytest.mark.parametrize("shift", [-5.0, 0.0, 5.0])
def test_inputs_have_256_levels_and_zero_among_them(shift: float) -> None:
    x = tensor(2, 3, 8, 8) + shift
    rounded = rounded_input(x).numpy()
    low, high = min(float(x.min()), 0.0), max(float(x.max()), 0.0)
    step = (high - low) / 255
    assert np.abs(rounded - x.numpy()).max() <= step * 0.501 and len(np.unique(rounded)) <= 256
    x = paddle.concat([x, paddle.zeros([2, 3, 1, 8])], axis=2)
    assert (rounded_input(x).numpy()[:, :, -1] == 0).all()
    assert (rounded_input(x * 0).numpy() == 0).all()


@pytest.mark.parametrize("kind", ["convolution", "depthwise", "linear"])
def test_gradients_pass_the_rounding(kind: str) -> None:
    layer = {
        "convolution": lambda: nn.Conv2D(3, 5, 3, stride=2, padding=1),
        "depthwise": lambda: nn.Conv2D(4, 4, 3, groups=4, dilation=2, bias_attr=False),
        "linear": lambda: nn.Linear(6, 5),
    }[kind]()
    x = tensor(2, 6) if kind == "linear" else tensor(2, layer.weight.shape[1] * layer._groups, 9, 9)
    axes = [0] if kind == "linear" else [1, 2, 3]
    network = nn.Sequential(layer)
    assert quantise_aware(network) == 1
    given = network(x)
    (given * tensor(*given.shape, seed=1)).sum().backward()
    gradients = x.grad.numpy(), layer.weight.grad.numpy()
    # The same layer without rounding, of rounded numbers: the same output, and the same gradients.
    del layer.forward
    weight, inputs = rounded_weight(layer.weight, axes).detach(), rounded_input(x).detach()
    layer.weight.set_value(weight)
    layer.weight.clear_gradient()
    inputs.stop_gradient = False
    plain = network(inputs)
    np.testing.assert_allclose(given, plain, rtol=1e-4, atol=1e-4)
    (plain * tensor(*given.shape, seed=1)).sum().backward()
    np.testing.assert_allclose(gradients[0], inputs.grad, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(gradients[1], layer.weight.grad, rtol=1e-4, atol=1e-4)


def test_all_layers_round_and_none_is_renamed() -> None:
    arch = {
        "name": "RecModel",
        "Backbone": {"name": "MobileNetV3_small_x0_35"},
        "Neck": {"name": "FC", "embedding_size": 1280, "class_num": 16},
    }
    network = EmbeddingNetwork(ArchSection.model_validate(arch))
    names = list(network.state_dict())
    heavy = [one for one in network.sublayers() if isinstance(one, nn.Conv2D | nn.Linear)]
    x = tensor(2, 3, 64, 64)
    network.eval()
    before = network(x).numpy()
    assert quantise_aware(network) == len(heavy) > 40
    assert list(network.state_dict()) == names
    after = network(x).numpy()
    assert 0.005 < np.abs(after - before).max() / np.abs(before).max() < 0.5


def test_the_command(trained: Path, data: Path, edgerecall: Run, one_line: Callable[..., None], tmp_path: Path) -> None:
    """From a trained checkpoint to a float one with the same names; going on without it is told."""
    config = yaml.safe_load((trained / "train.yaml").read_text())
    config["Global"] |= {"iter_per_epoch": 4, "save_steps": 2, "output_dir": str(tmp_path / "run")}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(config))
    options = ("train", "-c", tmp_path / "c.yaml", "--quantize-aware")
    one_line(edgerecall(*options), 2, "goes on from trained weights: give Global.pretrained_model")
    assert not (tmp_path / "run").exists()
    start = f"Global.pretrained_model={trained / 'run' / 'latest'}"
    done = edgerecall(*options, "-o", start)
    assert done.returncode == 0, done.stderr
    assert "each layer rounds as int8 does" in (tmp_path / "run" / "train.log").read_text()
    states = [paddle.load(str(path / "latest.pdparams")) for path in (trained / "run", tmp_path / "run")]
    assert {*states[0]} == {*states[1]}
    name = next(name for name in states[0] if name.endswith("fc.weight"))
    assert not np.array_equal(states[0][name], states[1][name])
    plain = edgerecall("train", "-c", tmp_path / "c.yaml", "-o", start, "-o", f"Global.output_dir={tmp_path / 'plain'}")
    assert plain.returncode == 0, plain.stderr
    assert not np.array_equal(paddle.load(str(tmp_path / "plain" / "latest.pdparams"))[name], states[1][name])
    longer = ("-o", "Global.epochs=2", "--resume")
    changed = edgerecall("train", "-c", tmp_path / "c.yaml", "-o", start, *longer)
    assert changed.returncode == 0 and "Global.quantize_aware was True and is False now" in changed.stdout
