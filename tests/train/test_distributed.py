"""Two processes over gloo train as one does on the joined batch."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from edgerecall.train.report.recorder import read_records
from edgerecall.train.state.checkpoint import read_state

LAUNCH = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--backend", "gloo"]


def run(command: list[object], cwd: Path) -> str:
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=240, cwd=cwd, check=False
    )
    logs = "\n".join(path.read_text() for path in cwd.glob("log/workerlog.*"))
    assert result.returncode == 0, result.stdout + result.stderr + logs
    return logs


@pytest.mark.cpu_sensitive
def test_loss_weights_and_memory_of_the_joined_batch(tmp_path: Path, root: Path) -> None:
    script = root / "tests" / "support" / "networks" / "joined_batch.py"
    run([sys.executable, script, tmp_path / "one.npz"], tmp_path)
    run([*LAUNCH, "--log_dir", tmp_path / "log", script, tmp_path / "twoRANK.npz"], tmp_path)
    one = np.load(tmp_path / "one.npz")
    assert one["state"].tolist() == [4, 20] and (one["losses"][3:] > 0).all()
    for rank in (0, 1):
        two = np.load(tmp_path / f"two{rank}.npz")
        assert set(two) == set(one)
        for name in one:
            np.testing.assert_allclose(two[name], one[name], rtol=1e-6, atol=1e-6, err_msg=f"{name} of rank {rank}")


@pytest.mark.cpu_sensitive
def test_head_and_centres_of_the_joined_batch(tmp_path: Path, root: Path) -> None:
    script = root / "tests" / "support" / "networks" / "joined_batch.py"
    run([sys.executable, script, tmp_path / "one.npz", "heads"], tmp_path)
    run([*LAUNCH, "--log_dir", tmp_path / "log", script, tmp_path / "twoRANK.npz", "heads"], tmp_path)
    one = np.load(tmp_path / "one.npz")
    assert len(one) == 4  # weight and bias, the head's vectors, the centres
    for rank in (0, 1):
        two = np.load(tmp_path / f"two{rank}.npz")
        for name in one:
            np.testing.assert_allclose(two[name], one[name], rtol=2e-5, atol=2e-6, err_msg=f"{name} of rank {rank}")


@pytest.fixture
def command() -> Path:
    """The console script, which the launcher starts as it is."""
    path = Path(sys.executable).with_name("edgerecall")
    assert os.access(path, os.X_OK)
    return path


def test_ctrl_c_of_the_launcher_saves(tmp_path: Path, config_file: Path, command: Path) -> None:
    """It signals each process several times within a second."""
    arguments = ["train", "-c", config_file, "-o", "DataLoader.Train.sampler.batch_size=8"]
    more = ["-o", "Global.iter_per_epoch=9999", "-o", "DataLoader.Train.loader.num_workers=1"]
    parts = [*LAUNCH, "--log_dir", tmp_path / "log", command, *arguments, *more]
    process = subprocess.Popen(
        [str(part) for part in parts],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 120
    while not any(record["step"] >= 4 for record in read_records(tmp_path / "run")):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    children = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive
    saved = read_state(tmp_path / "run" / "latest.pdstates")["edgerecall"]["step"]
    assert saved == max(record["step"] for record in read_records(tmp_path / "run")) >= 4


def test_the_command_trains_and_resumes_over_two_processes(tmp_path: Path, config_file: Path, command: Path) -> None:
    arguments = ["train", "-c", config_file, "-o", "DataLoader.Train.sampler.batch_size=8"]
    launch = [*LAUNCH, "--log_dir", tmp_path / "log", command]
    text = run([*launch, *arguments], tmp_path)
    assert "2 processes of 8 images" in text and text.count("[Eval][Epoch 1]") == 1
    text = run([*launch, *arguments, "-o", "Global.epochs=2", "--resume"], tmp_path)
    assert "resumed after iteration 3" in text
    records = [record for record in read_records(tmp_path / "run") if record["kind"] == "train"]
    assert [record["step"] for record in records] == [1, 2, 3, 4, 5, 6]
    # The memory holds the rows of both: 16 a step, 24 at most, started after the first.
    assert [record["memory_fill"] for record in records] == [0, 16, 24, 24, 24, 24]
