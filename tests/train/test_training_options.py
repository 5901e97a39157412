"""What a training can be asked for: sums of gradients, averages, clipping, drift, and what it leaves to read."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import types
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import paddle
import psutil
import pytest
import yaml

from edgerecall.runtimes.core.errors import EdgeRecallError, InputError, RuntimeUnavailable
from edgerecall.train.config.training import load_config
from edgerecall.train.drift import DriftProbe
from edgerecall.train.encoder import encoder
from edgerecall.train.evaluate import evaluate
from edgerecall.train.report.recorder import Recorder, StepReport, read_records
from edgerecall.train.report.train_report import write_report
from edgerecall.train.setup import build_network
from edgerecall.train.state.checkpoint import read_arrays, set_state
from edgerecall.train.state.ema import MovingAverage
from edgerecall.train.trainer import Trainer


def with_sections(config_file: Path, **sections: dict[str, Any]) -> Path:
    data = yaml.safe_load(config_file.read_text())
    for name, values in sections.items():
        data[name] = {**data.get(name, {}), **values}
    config_file.write_text(yaml.safe_dump(data))
    return config_file


def drive(trainer: Trainer) -> list[StepReport]:
    reports: list[StepReport] = []
    trainer.run(reports.append, lambda epoch, scores: None)
    return reports


def test_the_weights_move_once_per_update(config_file: Path) -> None:
    config = load_config(config_file, ["Global.iter_per_epoch=6", "Global.update_freq=3"])
    trainer = Trainer(config)
    moved = []
    draws = trainer._draws([])
    for batch in trainer.loader.batches(draws):
        before = trainer.network.neck.fc.weight.numpy().copy()
        trainer.step(batch)
        moved.append(bool((trainer.network.neck.fc.weight.numpy() != before).any()))
    assert moved == [False, False, True, False, False, True]


@pytest.mark.cpu_sensitive
def test_summed_gradients_are_the_mean_of_the_batches(config_file: Path) -> None:
    """Two batches in one update give what the mean of their two gradients gives."""
    config = load_config(config_file, ["Global.iter_per_epoch=2", "Global.update_freq=2"])
    trainer = Trainer(config)
    trainer.network.eval()  # no dropout, no running statistics
    gradients = []
    weight = trainer.network.neck.fc.weight
    trainer.optimizers.parts[0].optimizer.step = lambda: gradients.append(weight.grad.numpy().copy())
    batches = [batch.images.copy() for batch in trainer.loader.batches(trainer._draws([]))]
    labels = [batch.labels for batch in trainer.loader.batches(trainer._draws([]))]
    for images, label in zip(batches, labels, strict=True):
        trainer.step(types.SimpleNamespace(images=images, labels=label))  # type: ignore[arg-type]
    single = []
    alone = Trainer(load_config(config_file, ["Global.iter_per_epoch=2"]))
    alone.network.eval()
    alone.optimizers.parts[0].optimizer.step = lambda: single.append(alone.network.neck.fc.weight.grad.numpy().copy())
    for images, label in zip(batches, labels, strict=True):
        alone.step(types.SimpleNamespace(images=images, labels=label))  # type: ignore[arg-type]
    np.testing.assert_allclose(gradients[0], np.mean(single, axis=0), rtol=1e-4, atol=1e-6)


@pytest.mark.cpu_sensitive
@pytest.mark.parametrize("option", ["clip_norm", "clip_global_norm"])
def test_clipped_gradients_move_the_weights_less(config_file: Path, option: str) -> None:
    """With plain momentum the first step is the gradient times the learning rate."""
    with_sections(config_file, Optimizer={"name": "Momentum", option: 1e-3})
    trainer = Trainer(load_config(config_file, ["Global.iter_per_epoch=1"]))
    before = {name: p.numpy().copy() for name, p in trainer.network.named_parameters()}
    trainer.step(next(trainer.loader.batches(trainer._draws([]))))
    trained = [(name, p) for name, p in trainer.network.named_parameters() if not p.stop_gradient]
    moves = {name: np.linalg.norm(p.numpy() - before[name]) / 0.002 for name, p in trained}
    total = np.sqrt(sum(move**2 for move in moves.values()))
    if option == "clip_global_norm":
        assert total == pytest.approx(1e-3, rel=0.05)
    else:
        assert max(moves.values()) == pytest.approx(1e-3, rel=0.05) and total > 2e-3


def test_average_follows_its_formula() -> None:
    layer = paddle.nn.Linear(2, 2)
    average = MovingAverage(layer, 0.75)
    expected = layer.weight.numpy().astype(np.float64)
    for step in range(4):
        layer.weight.set_value(np.full((2, 2), step, np.float32))
        average.update(layer)
        expected = 0.75 * expected + 0.25 * step
    np.testing.assert_allclose(average.state["weight"].numpy(), expected, rtol=1e-6)


@pytest.mark.cpu_sensitive
def test_the_average_is_what_is_evaluated_and_saved(config_file: Path, tmp_path: Path) -> None:
    with_sections(config_file, EMA={"decay": 0.5})
    trainer = Trainer(load_config(config_file))
    scores = trainer.run(lambda report: None, lambda epoch, scores: None)
    run = tmp_path / "run"
    shipped, raw = read_arrays(run / "latest.pdparams"), read_arrays(run / "latest.pdema")
    name = "neck.fc.weight"
    assert (shipped[name] != raw[name]).any()
    assert (raw[name] == trainer.network.state_dict()[name].numpy()).all()
    assert trainer.average is not None and scores is not None
    assert evaluate(trainer.config, trainer.average.state).named == scores.named


def test_drift_is_the_mean_squared_distance() -> None:
    layer = paddle.nn.Linear(2, 2, bias_attr=False)
    layer.weight.set_value(np.eye(2, dtype=np.float32))
    probe = DriftProbe(np.array([[3.0, 0.0], [0.0, 2.0]], np.float32))
    assert probe.measure(layer) is None
    layer.weight.set_value(np.array([[0, 1], [1, 0]], np.float32))  # each is turned by 90 degrees
    assert probe.measure(layer) == pytest.approx(2.0)
    assert probe.measure(layer) == 0.0 and layer.training


def test_drift_is_reported_and_lands_in_the_log(config_file: Path, tmp_path: Path) -> None:
    config = load_config(config_file, ["Global.iter_per_epoch=6", "Global.drift_interval=2"])
    reports = drive(Trainer(config))
    assert [report.drift is not None for report in reports] == [False, False, False, True, False, True]
    assert f", drift: {reports[3].drift:.4f}, " in reports[3].line()
    assert [record["step"] for record in read_records(tmp_path / "run") if "drift" in record] == [4, 6]


@pytest.mark.cpu_sensitive
def test_paddle_inference_encodes_as_the_network_does(config_file: Path) -> None:
    config = load_config(config_file)
    network = build_network(config)
    network.eval()
    images = np.random.default_rng(0).standard_normal((5, *config.Global.image_shape)).astype(np.float32)
    with paddle.no_grad():
        expected = network(paddle.to_tensor(images)).numpy()
    with encoder(config, network.state_dict()) as encode:
        for count in (5, 1, 3):
            np.testing.assert_allclose(encode(images[:count]), expected[:count], rtol=1e-4, atol=1e-5)


THREADS = """
import ctypes, sys
from pathlib import Path
import numpy as np
import paddle
from edgerecall.train.config.training import load_config
from edgerecall.train.encoder import encoder
from edgerecall.train.setup import build_network
# The OpenMP that Paddle computes with: Intel's in its wheels for x86-64, else the compiler's.
found = sorted((Path(paddle.__file__).parent / "libs").glob("libiomp5*"))
openmp = ctypes.CDLL(str(found[0]) if found else "libgomp.so.1")
config = load_config(Path(sys.argv[1]))
before = openmp.omp_get_max_threads()
with encoder(config, build_network(config).state_dict()) as encode:
    encode(np.zeros((1, *config.Global.image_shape), np.float32))
print(before, openmp.omp_get_max_threads())
"""


@pytest.mark.parametrize("threads", ["1", "3"])
def test_an_evaluation_leaves_the_training_its_threads(config_file: Path, threads: str) -> None:
    """Else a training rounds otherwise, and is slower, after its first evaluation than when resumed there."""
    environment = {**os.environ, "OMP_NUM_THREADS": threads}
    command = [sys.executable, "-c", THREADS, str(config_file)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0 and result.stdout.split()[-2:] == [threads, threads], result.stdout + result.stderr


class FakeWriter:
    """Stands for VisualDL's, which is an extra."""

    scalars: ClassVar[list[tuple[str, int, float]]] = []

    def __init__(self, logdir: str) -> None:
        self.scalars.clear()

    def add_scalar(self, tag: str, step: int, value: float) -> None:
        self.scalars.append((tag, step, value))

    def close(self) -> None:
        self.scalars.append(("closed", 0, 0.0))


def test_visualdl_gets_paddleclas_tags(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "visualdl", types.SimpleNamespace(LogWriter=FakeWriter))
    reports = drive(Trainer(load_config(config_file, ["Global.use_visualdl=True"])))
    scalars = FakeWriter.scalars
    assert ("train_ContrastiveLoss_XBM", 2, reports[1].loss) in scalars
    assert ("lr(Constant)", 3, 0.002) in scalars and ("memory_fill", 3, 24.0) in scalars
    assert {tag for tag, _, _ in scalars} >= {"train_loss", "eval_acc", "eval_mAP", "closed"}


def test_visualdl_missing_names_the_extra(config_file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "visualdl", None)
    with pytest.raises(RuntimeUnavailable, match=r"edgerecall\[visualdl\]"):
        Recorder(tmp_path, 0, 0, True, "ContrastiveLoss", "Constant")


def test_amp_on_cpu_says_that_it_does_nothing(config_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    with_sections(config_file, AMP={"use_amp": True, "level": "O2", "scale_loss": 128.0})
    with caplog.at_level(logging.WARNING):
        Trainer(load_config(config_file))
    assert "AMP: Paddle casts on a GPU only" in caplog.text


def test_a_share_of_the_list_as_the_memory(config_file: Path) -> None:
    data = yaml.safe_load(config_file.read_text())
    data["Loss"]["Train"] = [{"MultiSimilarityLoss_XBM": {"embedding_size": 32, "xbm_ratio": 0.5}}]
    config_file.write_text(yaml.safe_dump(data))
    trainer = Trainer(load_config(config_file))
    assert trainer.loss.xbm is not None and trainer.loss.xbm.size == 36  # of 72 images
    assert np.isfinite([report.loss for report in drive(trainer)]).all()


def test_a_memory_smaller_than_the_batch_is_refused_at_the_start(config_file: Path) -> None:
    data = yaml.safe_load(config_file.read_text())
    data["Loss"]["Train"] = [{"ContrastiveLoss_XBM": {"embedding_size": 32, "xbm_ratio": 0.05, "start_iter": 1000}}]
    config_file.write_text(yaml.safe_dump(data))
    with pytest.raises(InputError, match="holds 4 embeddings, the batch of all processes has 16"):
        Trainer(load_config(config_file))


def loading_processes() -> list[psutil.Process]:
    """Not the one in which Python keeps count of shared memory."""
    return [child for child in psutil.Process().children() if "spawn_main" in " ".join(child.cmdline())]


def test_a_dead_loading_process_ends_the_training_with_its_reason(config_file: Path) -> None:
    config = load_config(config_file, ["Global.iter_per_epoch=2000", "DataLoader.Train.loader.num_workers=2"])
    trainer = Trainer(config)

    def kill(report: StepReport) -> None:
        if report.step == 2:
            loading_processes()[-1].kill()

    with pytest.raises(EdgeRecallError, match="a loading process died"):
        trainer.run(kill, lambda epoch, scores: None)
    assert not loading_processes()


def test_weights_under_a_state_hook_are_the_layers_own() -> None:
    """AMP O2 makes `state_dict()` give cast copies; loading must not end in those."""
    layer = paddle.nn.Linear(2, 2)
    layer.register_state_dict_hook(lambda state: state.update({k: v.astype("float32") + 0 for k, v in state.items()}))
    arrays = {"weight": np.full((2, 2), 3, np.float32), "bias": np.full(2, 4, np.float32)}
    set_state(layer, arrays, Path("x"))
    assert float(layer.weight.sum()) == 12 and float(layer.bias.sum()) == 8


def test_the_page_shows_the_run(trained: Path, tmp_path: Path) -> None:
    page = (trained / "run" / "train_report.html").read_text()
    for title in ("Loss", "Evaluation", "Learning rate", "Memory", "Images per second"):
        assert f"<h2>{title}</h2><svg" in page
    assert "60 of 60 iterations" in page and 'class="best"' in page and "edgerecall train -c" in page
    evaluation = next(record for record in read_records(trained / "run") if record["kind"] == "eval")
    assert f"<td>{evaluation['mAP']:.4f}</td>" in page
    assert "<script" not in page and "src=" not in page
    (tmp_path / "metrics.jsonl").write_text(json.dumps({"kind": "train", "step": 1, "loss": 0.0, "lr": 0.1}) + "\n")
    empty = write_report(tmp_path, load_config(trained / "train.yaml"), "<b>").read_text()
    assert "&lt;b&gt;" in empty and "Evaluations" not in empty
