"""Two processes over gloo train as one does on the joined batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from edgerecall.train.recorder import read_records

LAUNCH = [sys.executable, "-m", "paddle.distributed.launch", "--nproc_per_node", "2", "--backend", "gloo"]


def run(command: list[object], cwd: Path) -> str:
    result = subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, timeout=240, cwd=cwd, check=False
    )
    logs = "\n".join(path.read_text() for path in cwd.glob("log/workerlog.*"))
    assert result.returncode == 0, result.stdout + result.stderr + logs
    return logs


def test_loss_weights_and_memory_of_the_joined_batch(tmp_path: Path, root: Path) -> None:
    script = root / "tests" / "support" / "joined_batch.py"
    run([sys.executable, script, tmp_path / "one.npz"], tmp_path)
    run([*LAUNCH, "--log_dir", tmp_path / "log", script, tmp_path / "twoRANK.npz"], tmp_path)
    one = np.load(tmp_path / "one.npz")
    assert one["state"].tolist() == [4, 20] and (one["losses"][3:] > 0).all()
    for rank in (0, 1):
        two = np.load(tmp_path / f"two{rank}.npz")
        assert set(two) == set(one)
        for name in one:
            np.testing.assert_allclose(two[name], one[name], rtol=1e-6, atol=1e-6, err_msg=f"{name} of rank {rank}")


@pytest.fixture
def command() -> Path:
    """The console script, which the launcher starts as it is."""
    path = Path(sys.executable).with_name("edgerecall")
    assert os.access(path, os.X_OK)
    return path


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
