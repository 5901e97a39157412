"""A training that is killed and resumed goes on exactly as one that never stopped."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import paddle
import pytest
import yaml

from edgerecall.runtimes.core.errors import InputError
from edgerecall.train.config.training import TrainConfig, load_config
from edgerecall.train.report.recorder import Recorder, read_records
from edgerecall.train.state.checkpoint import read_arrays, read_optimizers, read_state
from edgerecall.train.trainer import Trainer

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
ITERATIONS = 24


@pytest.fixture
def full_config(config_file: Path) -> Path:
    """All that has a state: a memory that wraps, dropout, Adam, a plateau with cooldown, EMA, sums of gradients.

    Recall and mAP lie between 0 and 1: none falls by more than the threshold of 1 below the first, so every evaluation
    after it counts as one without improvement, whatever the CPU's rounding made of the weights.
    """
    config = yaml.safe_load(config_file.read_text())
    config["Global"].update(epochs=3, iter_per_epoch=8, update_freq=2, save_steps=3, keep_epochs=1, drift_interval=5)
    config["Optimizer"]["lr"] = {
        "name": "ReduceOnPlateau", "learning_rate": 0.003, "mode": "min", "patience": 0, "cooldown": 1,
        "threshold": 1.0, "threshold_mode": "abs", "factor": 0.1,
    }  # fmt: skip
    config["Optimizer"]["clip_global_norm"] = 5.0
    config["EMA"] = {"decay": 0.9}
    config["DataLoader"]["Train"]["sampler"]["batch_size"] = 8
    config["DataLoader"]["Train"]["sampler"]["num_instances"] = 2
    config_file.write_text(yaml.safe_dump(config))
    return config_file


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `one_epoch` keeps its training."""
    return tmp_path_factory.mktemp("kept") / "run"


@pytest.fixture
def one_epoch(full_config: Path, tmp_path: Path, kept: Path) -> list[str]:
    """The changes of a training of one epoch, whose folder is there; the first test that asks has trained it."""
    change = ["Global.epochs=1", "Global.iter_per_epoch=4", f"Global.output_dir={tmp_path / 'run'}"]
    if kept.is_dir():
        shutil.copytree(kept, tmp_path / "run")
    else:
        run(load_config(full_config, change))
        shutil.copytree(tmp_path / "run", kept)
    return change


def start(config: Path, output: Path, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "edgerecall", "train", "-c", str(config), "-o", f"Global.output_dir={output}"]
    environment = {**os.environ, **ONE_THREAD}
    return subprocess.Popen(
        [*command, *more], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def finish(process: subprocess.Popen[str]) -> str:
    text, _ = process.communicate(timeout=240)
    assert process.returncode == 0, text
    return text


def steps(folder: Path) -> int:
    return max((record["step"] for record in read_records(folder)), default=0)


def comparable(folder: Path) -> list[dict[str, Any]]:
    """The records but for the speed."""
    return [{k: v for k, v in record.items() if k != "images_per_s"} for record in read_records(folder)]


@pytest.mark.cpu_sensitive
def test_killed_at_three_points(tmp_path: Path, full_config: Path) -> None:
    unbroken, broken = tmp_path / "unbroken", tmp_path / "broken"
    finish(start(full_config, unbroken))
    for point in (7, 12, 19):
        process = start(full_config, broken, "--resume")
        deadline = time.monotonic() + 120
        while steps(broken) < point:
            assert process.poll() is None and time.monotonic() < deadline, process.communicate()
            time.sleep(0.005)
        process.kill()
        process.communicate()
    finish(start(full_config, broken, "--resume"))
    resumed = [int(n) for n in re.findall(r"resumed after iteration (\d+)", (broken / "train.log").read_text())]
    assert len(resumed) == 3 and 0 < resumed[0] < resumed[1] < resumed[2] < ITERATIONS
    expected = comparable(unbroken)
    assert [record["step"] for record in expected if record["kind"] == "train"] == list(range(1, ITERATIONS + 1))
    rates = [record["lr"] for record in expected if record["kind"] == "train"]
    assert rates == pytest.approx([0.003] * 16 + [0.0003] * 8)  # lowered by the second of three evaluations
    assert comparable(broken) == expected
    for suffix in (".pdparams", ".pdema"):
        one, two = (read_arrays(folder / f"latest{suffix}") for folder in (unbroken, broken))
        assert one.keys() == two.keys()
        assert all((one[name] == two[name]).all() for name in one)
    assert (one["loss_func.0.xbm.state"] == two["loss_func.0.xbm.state"]).all() and one["loss_func.0.xbm.state"][
        1
    ] == 24
    optimizers = [read_optimizers(folder / "latest.pdopt")[0] for folder in (unbroken, broken)]
    assert optimizers[0].keys() == optimizers[1].keys()
    for name, value in optimizers[0].items():
        if name != "LR_Scheduler":
            assert (value == optimizers[1][name]).all(), name
    kept = {f"epoch_3{suffix}" for suffix in (".pdparams", ".pdopt", ".pdstates", ".pdema")}
    assert {path.name for path in broken.glob("epoch_*")} == kept
    assert list(broken.glob(".*")) == []


def test_ctrl_c_saves_the_iteration_it_stopped_at(tmp_path: Path, full_config: Path) -> None:
    process = start(full_config, tmp_path / "run", "-o", "Global.iter_per_epoch=2000", "-o", "Global.save_steps=1999")
    while steps(tmp_path / "run") < 5:
        assert process.poll() is None, process.communicate()
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130 and "Traceback" not in text
    saved = read_state(tmp_path / "run" / "latest.pdstates")
    assert saved["edgerecall"]["step"] == steps(tmp_path / "run") >= 5
    assert saved["epoch"] == 0  # what PaddleClas would go on from


def run(config: TrainConfig, resume: bool = False) -> tuple[Trainer, list[float]]:
    losses: list[float] = []
    trainer = Trainer(config, resume)
    trainer.run(lambda report: losses.append(report.loss), lambda epoch, scores: None)
    return trainer, losses


def test_in_one_process_where_paddle_counts_parameters_on(full_config: Path, tmp_path: Path) -> None:
    """Every network gets new internal names, after which Paddle names the optimizer's state."""
    change = ["Global.epochs=2", "Global.iter_per_epoch=4"]
    _, whole = run(load_config(full_config, [*change, f"Global.output_dir={tmp_path / 'a'}"]))
    half = [*change, f"Global.output_dir={tmp_path / 'b'}"]
    _, first = run(load_config(full_config, [*half, "Global.epochs=1"]))
    trainer, second = run(load_config(full_config, half), resume=True)
    assert trainer.progress.step == 8 and first + second == whole


def test_resume_by_the_references_key(full_config: Path, tmp_path: Path) -> None:
    config = load_config(full_config, ["Global.epochs=1", f"Global.output_dir={tmp_path / 'a'}"])
    run(config)
    prefix = tmp_path / "a" / "epoch_1"
    other = [f"Global.checkpoints={prefix}", f"Global.output_dir={tmp_path / 'b'}", "Global.epochs=2"]
    trainer, losses = run(load_config(full_config, other))
    assert len(losses) == 8 and trainer.progress.step == 16


def test_paddleclas_savepoint_without_our_state(full_config: Path, tmp_path: Path, caplog: Any) -> None:
    config = load_config(full_config, ["Global.epochs=1", f"Global.output_dir={tmp_path / 'run'}"])
    run(config)
    paddle.save({"metric": np.float64(0.3), "epoch": 1}, str(tmp_path / "run" / "latest.pdstates"))
    again, losses = run(load_config(full_config, ["Global.epochs=2", f"Global.output_dir={tmp_path / 'run'}"]), True)
    assert "PaddleClas's: going on after epoch 1" in caplog.text
    assert len(losses) == 8 and again.loss.iteration == 16 and again.progress.best >= 0.3
    assert again.loss.xbm is not None and again.loss.xbm.fill == 24


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("DataLoader.Train.sampler.batch_size=12", "was trained with batch 8, now it is 12"),
        ("DataLoader.Train.sampler.num_instances=4", "was trained with instances 2, now it is 4"),
        ("Global.iter_per_epoch=2", "was trained with iter_per_epoch 4, now it is 2"),
        ("Global.update_freq=1", "was trained with update_freq 2, now it is 1"),
        ("Global.seed=7", "was trained with seed 0, now it is 7"),
        ("Loss.Train.0.ContrastiveLoss_XBM.xbm_size=32", "memory feats: expected (32, 32), found (24, 32)"),
        ("Arch.Backbone.name=MobileNetV3_small_x0_5", "does not fit this network"),
        ("Optimizer.name=AdamW", ""),
        ("Optimizer.name=Momentum", "found nothing of Momentum"),
        ("Optimizer.lr={name: Constant, learning_rate: 0.1}", "is Optimizer.lr another?"),
        ("Optimizer.lr={name: Cosine, learning_rate: 0.1, warmup_epoch: 1}", "is Optimizer.lr another?"),
        ("Global.checkpoints=nowhere", "nothing to resume from: nowhere.pdparams does not exist"),
    ],
)
def test_what_cannot_be_resumed(full_config: Path, one_epoch: list[str], override: str, message: str) -> None:
    if not message:
        Trainer(load_config(full_config, [*one_epoch, override]), resume=True)  # the same moments
        return
    with pytest.raises(InputError) as caught:
        Trainer(load_config(full_config, [*one_epoch, override]), resume="checkpoints" not in override)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_changed_setting_is_told(full_config: Path, one_epoch: list[str], caplog: Any) -> None:
    Trainer(load_config(full_config, one_epoch), resume=True)
    assert "stays as saved" not in caplog.text
    for _ in range(2):  # what was told once is told again, until it is trained with
        caplog.clear()
        Trainer(load_config(full_config, [*one_epoch, "Optimizer.lr.learning_rate=0.03"]), resume=True)
        assert "latest.pdstates: Optimizer.lr.learning_rate was 0.003 and is 0.03 now" in caplog.text


@pytest.fixture
def stopped(full_config: Path, one_epoch: list[str], tmp_path: Path) -> tuple[TrainConfig, Path]:
    """The config of a training that is done, and its `latest`."""
    return load_config(full_config, one_epoch), tmp_path / "run" / "latest"


def refused(config: TrainConfig, message: str) -> None:
    with pytest.raises(InputError) as caught:
        Trainer(config, resume=True)
    assert message in str(caught.value) and "\n" not in str(caught.value), str(caught.value)


def test_damaged_optimizer_state(stopped: tuple[TrainConfig, Path]) -> None:
    config, prefix = stopped
    path = prefix.with_suffix(".pdopt")
    whole = read_optimizers(path)[0]
    moment = next(name for name in whole if name.endswith("moment1_0"))
    broken: list[tuple[dict[str, Any], str]] = [
        ({**whole, "nobody_moment1_0": np.zeros(1)}, "'nobody_moment1_0' belongs to no parameter"),
        ({name: value for name, value in whole.items() if name != moment}, f"expected Adam's '{moment}'"),
        ({**whole, moment: np.zeros(3, np.float32)}, "found (3,)"),
        ({name: value for name, value in whole.items() if name != "LR_Scheduler"}, "found NoneType"),
        ({**whole, "LR_Scheduler": [1]}, "found list"),
        ({**whole, "LR_Scheduler": dict.fromkeys(whole["LR_Scheduler"], "x")}, "expected a number, got str"),
    ]
    for state, message in broken:
        paddle.save([state], str(path))
        refused(config, message)
    path.write_bytes(path.read_bytes()[:50])
    refused(config, "damaged")


def test_damaged_progress(stopped: tuple[TrainConfig, Path]) -> None:
    config, prefix = stopped
    path = prefix.with_suffix(".pdstates")
    whole = read_state(path)
    wrong: dict[str, Any] = {
        "position": 3, "step": -4, "epochs": None, "best": "x", "loss_iteration": None, "probe": "x", "fixed": 1,
    }  # fmt: skip
    for name, value in wrong.items():
        paddle.save({**whole, "edgerecall": {**whole["edgerecall"], name: value}}, str(path))
        refused(config, f"of another version: {name}")
    for ours in (5, {1: 2}):
        paddle.save({**whole, "edgerecall": ours}, str(path))
        refused(config, "of another version")
    paddle.save({"epoch": "seven"}, str(path))
    refused(config, "expected the epoch it was saved at")


def test_a_damaged_average(stopped: tuple[TrainConfig, Path]) -> None:
    config, prefix = stopped
    path = prefix.with_suffix(".pdparams")
    state = read_arrays(path)
    paddle.save({name: value for name, value in state.items() if name != "neck.fc.bias"}, str(path))
    refused(config, "1 missing: neck.fc.bias")


def test_nothing_to_resume_starts_and_says_so(full_config: Path, tmp_path: Path, caplog: Any) -> None:
    trainer = Trainer(load_config(full_config, [f"Global.output_dir={tmp_path / 'none'}"]), resume=True)
    assert trainer.progress.step == 0 and "nothing to resume" in caplog.text


def test_records_after_the_savepoint_are_made_again(tmp_path: Path) -> None:
    """Killed after an epoch's evaluation was written down and before it was saved."""
    lines = [{"kind": "train", "step": n, "epoch": 1} for n in (1, 2, 3)] + [{"kind": "eval", "step": 2, "epoch": 1}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Recorder(tmp_path, 2, 0, False, "ContrastiveLoss", "Constant").close()
    assert [(r["kind"], r["step"]) for r in read_records(tmp_path)] == [("train", 1), ("train", 2)]
    Recorder(tmp_path, 0, 0, False, "ContrastiveLoss", "Constant").close()
    assert read_records(tmp_path) == []


def test_a_cut_off_record_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text('{"kind": "train", "step": 1, "epoch": 1}\n{"foreign": 1}\n7\n{"kind": "tr')
    assert [record["step"] for record in read_records(tmp_path)] == [1]
