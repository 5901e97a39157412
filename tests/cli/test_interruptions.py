"""Ctrl-C, a killed worker and a full disk: one line, the right exit code, nothing half-written, no orphan."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import yaml

from edgerecall.runtimes.bundle.bundle import Bundle

Run = Callable[..., subprocess.CompletedProcess[str]]
Make = Callable[..., Bundle]


def listen_to_interrupts() -> None:
    """A background job of a shell starts with SIGINT ignored, and hands that down."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def interrupt(
    arguments: list[object], ready: Callable[[psutil.Process], bool], cwd: Path, number: int = signal.SIGINT
) -> tuple[int, str]:
    """Starts a command, sends a signal to it and its children once it is busy, as a terminal does."""
    command = [sys.executable, "-m", "edgerecall", *map(str, arguments)]
    process = subprocess.Popen(
        command,
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=listen_to_interrupts,
    )
    handle = psutil.Process(process.pid)
    deadline = time.monotonic() + 60
    while not ready(handle):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    time.sleep(0.2)
    children = handle.children(recursive=True)
    os.killpg(process.pid, number)
    _, stderr = process.communicate(timeout=60)
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, f"orphans: {alive}"
    return process.returncode, stderr


def hidden(folder: Path) -> list[str]:
    """Temporary files and folders, which are named with a dot in front."""
    return [path.name for path in folder.rglob(".*")]


def check(result: tuple[int, str], folder: Path) -> None:
    code, stderr = result
    assert code == 130 and stderr.strip().splitlines()[-1] == "edgerecall: interrupted"
    assert "Traceback" not in stderr
    assert hidden(folder) == []


def test_data(tmp_path: Path) -> None:
    arguments = ["data", "synth", tmp_path / "d", "--train-classes", 5000]
    check(interrupt(arguments, lambda process: bool(list(tmp_path.glob(".d.*/*/*.JPG"))), tmp_path), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.train
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_train(tmp_path: Path, config_file: Path, number: int) -> None:
    arguments = ["train", "-c", config_file, "-o", "Global.iter_per_epoch=9999", "-o", "Global.epochs=2",
                 "-o", "DataLoader.Train.loader.num_workers=2"]  # fmt: skip
    log = tmp_path / "run" / "train.log"
    busy = lambda process: log.exists() and "Iter 2/" in log.read_text()  # noqa: E731
    check(interrupt(arguments, busy, tmp_path, number), tmp_path)
    saved = {f"latest.{kind}" for kind in ("pdparams", "pdopt", "pdstates")}
    assert {path.name for path in (tmp_path / "run").iterdir()} == {"config.json", "metrics.jsonl", "train.log"} | saved


@pytest.mark.train
def test_a_killed_training_leaves_no_worker(tmp_path: Path, config_file: Path) -> None:
    command = [sys.executable, "-m", "edgerecall", "train", "-c", str(config_file)]
    more = ["-o", "Global.iter_per_epoch=9999", "-o", "DataLoader.Train.loader.num_workers=2"]
    process = subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    log, deadline = tmp_path / "run" / "train.log", time.monotonic() + 60
    while not (log.exists() and "Iter 2/" in log.read_text()):
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.kill()
    process.wait()
    _, alive = psutil.wait_procs(children, timeout=10)
    assert not alive, f"orphans: {alive}"


def busy(process: psutil.Process) -> bool:
    """Past its imports, which take about 3 s of CPU time."""
    return sum(process.cpu_times()[:2]) > 5


@pytest.mark.train
def test_eval(tmp_path: Path, config_file: Path, data: Path) -> None:
    (tmp_path / "long.txt").write_text((data / "test_list.txt").read_text() * 2000)
    override = f"DataLoader.Eval.Gallery.dataset.cls_label_path={tmp_path / 'long.txt'}"
    check(interrupt(["eval", "-c", config_file, "-o", override], busy, tmp_path), tmp_path)


def test_export(tmp_path: Path, trained: Path) -> None:
    arguments = ["export", tmp_path / "b", "-c", trained / "train.yaml", "--checkpoint", trained / "run" / "latest"]
    check(interrupt(arguments, lambda process: bool(list(tmp_path.glob(".b.*/golden/*.npy"))), tmp_path), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["verify", "bench", "predict"])
def test_over_workers(tmp_path: Path, fake_bundle: Make, data: Path, verb: str) -> None:
    root = fake_bundle(sleep_ms=400).root
    config = {"Global": {"infer_imgs": str(data), "rec_inference_model_dir": str(root), "runtime": "fake"}}
    (tmp_path / "rec.yaml").write_text(yaml.safe_dump(config))
    more: dict[str, list[object]] = {
        "verify": ["verify", root],
        "bench": ["bench", root, "--images", data, "--runtime", "fake", "--markdown", tmp_path / "r.md"],
        "predict": ["predict", "-c", tmp_path / "rec.yaml", "--format", "npy", "--output", tmp_path / "g.npy"],
    }
    # predict runs the fake in process: its decoding thread is there when it works.
    ready = (lambda p: p.num_threads() > 1) if verb == "predict" else (lambda p: bool(p.children()))
    check(interrupt(more[verb], ready, tmp_path), tmp_path)
    assert not (tmp_path / "r.md").exists() and not (tmp_path / "g.npy").exists()


def test_a_worker_killed_in_mid_run_is_a_row(tmp_path: Path, fake_bundle: Make, data: Path) -> None:
    root = fake_bundle(sleep_ms=50).root
    arguments = ["bench", root, "--images", data, "--runtime", "fake", "--markdown", tmp_path / "r.md"]
    command = [sys.executable, "-m", "edgerecall", *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    handle, deadline = psutil.Process(process.pid), time.monotonic() + 60
    while not handle.children() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(1.0)
    handle.children()[0].kill()
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 1 and "Traceback" not in stderr
    assert "fake: failed: fake: the worker process was ended by signal 9" in stdout
    assert "| failed |" in (tmp_path / "r.md").read_text()


def limit_file_size() -> None:
    """Writing beyond 20 kB fails, as on a full disk; the signal that comes with it is left alone."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def full_disk(
    tmp_path: Path, config_file: Path, trained: Path, fake_bundle: Make, data: Path
) -> dict[str, list[object]]:
    root = fake_bundle().root
    (tmp_path / "many.txt").write_text("".join(f"{i}\n" for i in range(9000)))
    config = {"Global": {"infer_imgs": str(data), "rec_inference_model_dir": str(root), "runtime": "fake"}}
    (tmp_path / "rec.yaml").write_text(yaml.safe_dump(config))
    run = trained / "run" / "latest"
    return {
        "data": ["data", "synth", tmp_path / "out" / "d", "--size", 2000, "--train-classes", 2],
        "train": ["train", "-c", config_file, "-o", f"Global.output_dir={tmp_path / 'out'}"],
        "eval": ["eval", "-c", config_file],
        "export": ["export", tmp_path / "out" / "b", "-c", trained / "train.yaml", "--checkpoint", run],
        "predict": ["predict", "-c", tmp_path / "rec.yaml", "--format", "jsonl", "--output", tmp_path / "out" / "g"],
        "bench": ["bench", root, "--images", data, "--runtime=fake", "--samples", 9000, "--json", tmp_path / "out/j"],
    }  # fmt: skip


@pytest.mark.parametrize("verb", ["data", "train", "eval", "export", "predict", "bench"])
def test_no_space_left(
    tmp_path: Path, config_file: Path, trained: Path, fake_bundle: Make, data: Path, one_line: Callable[..., None],
    edgerecall: Run, verb: str,
) -> None:  # fmt: skip
    arguments = full_disk(tmp_path, config_file, trained, fake_bundle, data)[verb]
    (tmp_path / "out").mkdir()
    result = edgerecall(*arguments, preexec_fn=limit_file_size)
    one_line(result, 2, "cannot write", "free some space")
    left = {path.name for path in (tmp_path / "out").rglob("*")}
    resumable = {"train.log", "config.json", "metrics.jsonl", "j.partial", "request.json", "group-0.npz"}
    assert left <= resumable
