"""Training end to end on a few images."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import yaml

from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.preprocess.image_list import read_image_list
from edgerecall.train.config.training import load_config
from edgerecall.train.data.augment import Augmentation
from edgerecall.train.data.loader import Batch, ImageMaker, TrainLoader
from edgerecall.train.evaluate import evaluate
from edgerecall.train.report.recorder import StepReport
from edgerecall.train.schedule import Schedule
from edgerecall.train.setup import build_network
from edgerecall.train.state.checkpoint import load_network, read_arrays
from edgerecall.train.trainer import Trainer


def test_files_and_log(trained: Path) -> None:
    run = trained / "run"
    names = {
        f"{stem}.{kind}" for stem in ("latest", "best_model", "epoch_1") for kind in ("pdparams", "pdopt", "pdstates")
    }
    assert names | {"train.log", "config.json", "metrics.jsonl", "train_report.html"} <= {
        path.name for path in run.iterdir()
    }
    log = (run / "train.log").read_text()
    assert "memory: 0/24" in log and "memory: 16/24" in log and "memory: 24/24" in log
    assert "images/s, eta: " in log and "[Eval][Epoch 1][Avg]recall1: " in log
    assert read_arrays(run / "latest.pdparams")["loss_func.0.xbm.feats"].shape == (24, 32)


@pytest.mark.cpu_sensitive
def test_same_seed_same_weights(config_file: Path, tmp_path: Path) -> None:
    weights = []
    for name in ("a", "b"):
        config = load_config(config_file, [f"Global.output_dir={tmp_path / name}", "Global.iter_per_epoch=2"])
        trainer = Trainer(config)
        losses: list[float] = []
        trainer.run(lambda report, losses=losses: losses.append(report.loss), lambda epoch, scores: None)  # type: ignore[misc]
        weights.append((losses, trainer.network.neck.fc.weight.numpy()))
    assert weights[0][0] == weights[1][0]
    assert (weights[0][1] == weights[1][1]).all()


@pytest.mark.cpu_sensitive
def test_loss_falls_when_overfitting(config_file: Path) -> None:
    config = load_config(config_file, ["Global.iter_per_epoch=12", "Optimizer.lr.learning_rate=0.003",
                                       "Loss.Train.0.ContrastiveLoss_XBM.start_iter=1000"])  # fmt: skip
    trainer = Trainer(config)
    indices, _ = next(trainer.sampler.batches())
    batch = next(trainer.loader.batches([(0, 0, indices)]))
    losses = [trainer.step(batch) for _ in range(12)]
    assert losses[-1] < 0.6 * losses[0]


@pytest.mark.cpu_sensitive
def test_evaluation_of_a_checkpoint_repeats(trained: Path) -> None:
    config = load_config(trained / "train.yaml")
    scores = []
    for _ in range(2):
        network = build_network(config)
        load_network(network, trained / "run" / "best_model")
        scores.append(evaluate(config, network.state_dict()))
    logged = (trained / "run" / "train.log").read_text()
    assert scores[0].line(1, config.Metric.topk) in logged
    assert scores[0].line(0) == scores[1].line(0)


def load(folder: Path, indices: list[np.ndarray], workers: int) -> list[Batch]:
    normalize = {"Normalize": {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}}
    ops = [{"RandomResizedCrop": {"size": 32}}, {"RandomHorizontalFlip": {}}, {"ToTensor": None}, normalize]
    images = read_image_list(folder / "train_list.txt", folder)
    maker = ImageMaker(images, Augmentation(ops, "ops", "pil", (3, 32, 32)), "ignore", 0)
    draws = [(step, 0, chosen) for step, chosen in enumerate(indices)]
    batches = TrainLoader(maker, len(indices[0]), workers).batches(draws)
    return [Batch(batch.images.copy(), batch.labels, batch.indices) for batch in batches]


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_image_is_replaced_by_its_class(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, workers: int
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    images = read_image_list(folder / "train_list.txt", folder)
    images.file(3).write_bytes(images.file(3).read_bytes()[:200])
    batches = load(folder, [np.array([3, 3, 0, 9])] * 5, workers)
    assert len(batches) == 5
    for batch in batches:
        assert (batch.labels == images.labels[[3, 3, 0, 9]]).all() and 3 not in batch.indices
    assert sum("bad image" in record.message for record in caplog.records) == 1


def test_batches_do_not_depend_on_workers(data: Path) -> None:
    indices = [np.arange(start, start + 8) for start in range(0, 56, 8)]
    inside, one, three = (load(data, indices, workers) for workers in (0, 1, 3))
    for a, b, c in zip(inside, one, three, strict=True):
        assert (a.images == b.images).all() and (a.images == c.images).all()
    assert not (inside[0].images == inside[1].images).all()


def test_a_class_without_a_readable_image_ends_the_training(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    images = read_image_list(folder / "train_list.txt", folder)
    for index in np.flatnonzero(images.labels == images.labels[0]):
        images.file(int(index)).write_bytes(b"")
    with pytest.raises(InputError, match="no readable image"):
        load(folder, [np.arange(4)], 1)


@pytest.mark.parametrize(
    ("lr", "expected"),
    [
        ({"name": "Constant", "learning_rate": 0.1}, [0.1] * 5),
        ({"name": "Cosine", "learning_rate": 0.1}, [0.1, 0.0853553, 0.05, 0.0146447, 0.0]),
        ({"name": "Cosine", "learning_rate": 0.1, "warmup_epoch": 1}, [0.0, 0.05, 0.1, 0.05, 0.0]),
        ({"name": "Linear", "learning_rate": 0.1, "end_lr": 0.02}, [0.1, 0.08, 0.06, 0.04, 0.02]),
        ({"name": "Step", "learning_rate": 0.1, "step_size": 1, "gamma": 0.5}, [0.1, 0.1, 0.05, 0.05, 0.025]),
        (
            {"name": "MultiStepDecay", "learning_rate": 0.1, "milestones": [1], "gamma": 0.1},
            [0.1, 0.1, 0.01, 0.01, 0.01],
        ),
        ({"name": "Piecewise", "decay_epochs": [1, 2], "values": [0.3, 0.2, 0.1]}, [0.3, 0.3, 0.2, 0.2, 0.1]),
        (
            {
                "name": "Step",
                "learning_rate": 0.1,
                "step_size": 1,
                "gamma": 0.5,
                "warmup_epoch": 1,
                "warmup_start_lr": 0.02,
            },
            [0.02, 0.06, 0.1, 0.1, 0.05],
        ),
    ],
)
def test_schedules(config_file: Path, lr: dict[str, Any], expected: list[float]) -> None:
    data = yaml.safe_load(config_file.read_text())
    data["Optimizer"]["lr"] = lr
    config_file.write_text(yaml.safe_dump(data))
    section = load_config(config_file).Optimizer
    schedule = Schedule(section, epochs=2, updates=2)
    values = []
    for _ in range(5):
        values.append(schedule.value)
        schedule.after_update()
    assert values == pytest.approx(expected, abs=1e-6)


def test_a_schedule_by_epoch(config_file: Path) -> None:
    data = yaml.safe_load(config_file.read_text())
    data["Optimizer"]["lr"] = {"name": "Step", "learning_rate": 0.1, "step_size": 2, "gamma": 0.5, "by_epoch": True}
    config_file.write_text(yaml.safe_dump(data))
    schedule = Schedule(load_config(config_file).Optimizer, epochs=4, updates=3)
    values = []
    for _ in range(4):
        values.append(schedule.value)
        for _ in range(3):
            schedule.after_update()
        schedule.after_epoch()
    assert values == pytest.approx([0.1, 0.1, 0.05, 0.05])


def test_plateau_goes_by_the_metric(config_file: Path) -> None:
    data = yaml.safe_load(config_file.read_text())
    data["Optimizer"]["lr"] = {"name": "ReduceOnPlateau", "learning_rate": 0.1, "patience": 1, "cooldown": 1}
    config_file.write_text(yaml.safe_dump(data))
    schedule = Schedule(load_config(config_file).Optimizer, 1, 1)
    values = []
    for metric in (0.5, 0.5, 0.5, 0.5, 0.5, 0.9):
        schedule.after_update()
        schedule.after_evaluation(metric)
        values.append(schedule.value)
    assert values == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.01, 0.01])
    assert paddle.get_device() == "cpu"


@pytest.mark.parametrize(
    ("op", "message"),
    [
        ({"Resize": {"size": 96, "sizez": 3}}, "unknown option 'sizez'"),
        ({"Resize": {"size": 0}}, "size: Input should be greater"),
        ({"RandomResizedCrop": {"size": 32, "interpolation": "area"}}, "backend pil has no filter 'area'"),
        ({"RandomResizedCrop": {"size": 32, "scales": [1, 1]}}, "did you mean 'scale'?"),
        ({"RandomRotate": None}, "unknown operation"),
    ],
)
def test_mistakes_in_training_transforms(op: dict[str, Any], message: str) -> None:
    normalize = {"Normalize": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    with pytest.raises(InputError) as caught:
        Augmentation([op, {"ToTensor": None}, normalize], "ops", "pil", (3, 32, 32))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_eta_of_days() -> None:
    assert "eta: 50:00:01" in StepReport(1, 1, 2, 0.5, 0.1, 10.0, 50 * 3600 + 1, None, None).line()


def test_a_failed_start_keeps_the_last_log(trained: Path, edgerecall: Any) -> None:
    before = (trained / "run" / "train.log").read_text()
    assert edgerecall("train", "-c", trained / "train.yaml", "-o", "Global.device=gpu").returncode == 2
    assert (trained / "run" / "train.log").read_text() == before
