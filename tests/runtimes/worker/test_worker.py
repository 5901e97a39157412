"""Worker processes: answers, deaths and hangs."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
from rounding import apart, fake_embeddings

from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError, RuntimeFailed
from edgerecall.runtimes.embed.replicas import open_predictor
from edgerecall.runtimes.predictor.interface import RunOptions
from edgerecall.runtimes.worker.client import WorkerPredictor

Make = Callable[..., Bundle]


def start(bundle: Bundle, **options: float) -> WorkerPredictor:
    predictor = open_predictor(bundle, "fake", worker=True, **options)  # type: ignore[arg-type]
    assert isinstance(predictor, WorkerPredictor)
    return predictor


@pytest.mark.cpu_sensitive
def test_same_answer_as_in_process(fake_bundle: Make) -> None:
    """To the bit for the same batch; a batch of another size is only as near as float32 sums are."""
    bundle = fake_bundle()
    _, tensors, _ = bundle.golden()
    expected, bound = fake_embeddings(tensors, bundle.spec.embedding_dim)
    assert bound.max() < apart(expected) / 100, "another image must show"
    with start(bundle) as worker, open_predictor(bundle, "fake") as local:
        many = worker.embed(tensors)
        assert (many == local.embed(tensors)).all()
        assert (np.abs(many - expected) <= bound).all()
        for index in range(len(tensors)):
            one = worker.embed(tensors[index : index + 1])
            assert (np.abs(one - expected[index]) <= bound[index]).all()
        assert worker.info == local.info


def test_batches_of_one_message_are_inferred_one_by_one(fake_bundle: Make) -> None:
    """A model that means nothing after two calls: with batches of 2 the third of five images is still right."""
    honest, forgets = fake_bundle("honest"), fake_bundle("forgets", forget_after=2)
    tensors = np.resize(honest.golden()[1], (5, *honest.spec.input_shape))
    with start(honest) as worker:
        whole = worker.embed_each(tensors, 2)
        parts = [worker.embed(tensors[at : at + 2]) for at in (0, 2, 4)]
        assert (whole == np.concatenate(parts)).all() and (worker.embed_each(tensors[:2], 8) == parts[0]).all()
    for size, right in ((1, 2), (2, 4), (5, 5)):
        with start(forgets) as worker:
            same = np.isclose(worker.embed_each(tensors, size), whole, atol=1e-5).all(axis=1)
        assert same.tolist() == [True] * right + [False] * (5 - right)


def test_each_batch_of_a_message_has_its_time(fake_bundle: Make) -> None:
    bundle = fake_bundle(sleep_ms=2000)
    with start(bundle, timeout_s=5.0) as worker:
        assert len(worker.embed_each(bundle.golden()[1][:3], 1)) == 3


def test_a_batch_that_hangs_is_noticed_in_its_own_time(fake_bundle: Make) -> None:
    """And an error of one batch ends the message: what comes after it has its own answer."""
    bundle = fake_bundle(hang_after=2)
    tensors = np.resize(bundle.golden()[1], (12, *bundle.spec.input_shape))
    with start(bundle, timeout_s=4.0) as worker:
        began = time.monotonic()
        with pytest.raises(RuntimeFailed, match="no answer within 4 s"):
            worker.embed_each(tensors, 1)
        assert time.monotonic() - began < 15
    with start(fake_bundle("whole")) as worker:
        wrong = np.zeros((6, 3, 8, 9), np.float32)  # no 4 x 4 cells
        wrong[:] = np.nan
        with pytest.raises(RuntimeFailed):
            worker.embed_each(wrong, 1)
        assert (worker.embed_each(tensors[:3], 1) == worker.embed_each(tensors[:3], 1)).all()


def test_times_inside_itself(fake_bundle: Make) -> None:
    bundle = fake_bundle(sleep_ms=20)
    with start(bundle) as worker:
        timing = worker.time(bundle.golden()[1][:1], 5)
    assert timing.samples_ns.shape == (5,) and (timing.samples_ns >= 20e6).all()
    assert timing.cpu_ns < 0.5 * timing.wall_ns and timing.wall_ns >= timing.samples_ns.sum()


def test_killed(fake_bundle: Make) -> None:
    bundle = fake_bundle()
    with start(bundle) as worker:
        os.kill(worker.pid, signal.SIGKILL)
        with pytest.raises(RuntimeFailed, match="fake: the worker process was ended by signal 9"):
            worker.embed(bundle.golden()[1])


def test_hangs(fake_bundle: Make) -> None:
    bundle = fake_bundle(hang_after=0)
    with start(bundle, timeout_s=1.5) as worker:
        began = time.monotonic()
        with pytest.raises(RuntimeFailed, match=r"no answer within 1\.5 s"):
            worker.embed(bundle.golden()[1])
        assert time.monotonic() - began < 10
        pid = worker.pid
    assert not psutil.pid_exists(pid)


def test_dies_with_its_parent(fake_bundle: Make, tmp_path: object) -> None:
    import subprocess
    import sys

    code = (
        "import sys, os, time; from edgerecall.runtimes.bundle.bundle import Bundle;"
        "from edgerecall.runtimes.embed.replicas import open_predictor;"
        "w = open_predictor(Bundle.open(sys.argv[1]), 'fake', worker=True); print(w.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code, str(fake_bundle().root)], stdout=subprocess.PIPE)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    parent.stdout.close()
    for _ in range(100):
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return
        time.sleep(0.05)
    pytest.fail("the worker outlived its parent")


def test_outlives_the_thread_that_opened_it(fake_bundle: Make) -> None:
    bundle = fake_bundle()
    with ThreadPoolExecutor(1) as pool:
        worker = pool.submit(start, bundle).result()
    time.sleep(0.2)
    assert worker.embed(bundle.golden()[1]).shape == (4, 16)
    worker.close()


def test_takes_no_module_from_the_current_folder(
    fake_bundle: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numpy.py").write_text("raise SystemExit('hijacked')")
    bundle = fake_bundle()
    monkeypatch.chdir(tmp_path)
    with start(bundle) as worker:
        assert worker.info.runtime == "fake"


def test_nan_is_refused(fake_bundle: Make) -> None:
    bundle = fake_bundle()
    tensors = np.full((1, 3, 64, 64), np.nan, dtype=np.float32)
    with start(bundle) as worker, pytest.raises(RuntimeFailed, match="NaN"):
        worker.embed(tensors)


def test_options_are_checked() -> None:
    with pytest.raises(InputError, match="threads: expected 1 to 1024, got 0"):
        RunOptions(threads=0)
    with pytest.raises(InputError, match="precision: expected one of fp32"):
        RunOptions(precision="int8")
