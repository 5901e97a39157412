"""One model under many threads: every caller gets what it would get alone."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from types import SimpleNamespace

import numpy as np
import pytest
from many_threads import THREADS, assert_threads_change_nothing, encoded
from PIL import Image

import edgerecall
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import ImageError, InputError, RuntimeFailed
from edgerecall.runtimes.embed import requests
from edgerecall.runtimes.embed.replicas import open_predictor
from edgerecall.runtimes.predictor.interface import RunOptions
from edgerecall.runtimes.preprocess.images import load_rgb
from edgerecall.runtimes.worker.client import WorkerPredictor

Make = Callable[..., Bundle]


def test_the_fake_under_threads(fake_bundle: Make, data: Path) -> None:
    root, images = fake_bundle().root, encoded(data)
    for options in ({}, {"replicas": 3}, {"replicas": 2, "worker": True}):
        with edgerecall.load(root, "fake", batch_size=4, **options) as model:
            assert_threads_change_nothing(model, images)


RUNTIMES = ("paddle", "onnxruntime", "openvino", "lite", "mnn", "litert", "cpp-onnxruntime", "cpp-openvino")


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_real_runtimes_under_threads(real_bundle: Path, data: Path, runtime: str) -> None:
    with edgerecall.load(real_bundle, runtime, batch_size=4, replicas=2) as model:
        assert_threads_change_nothing(model, encoded(data))


def test_few_images_do_not_cost_a_whole_batch(real_bundle: Path, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO compiles for each batch size: in pieces of sizes that it keeps, never filled up to the largest."""
    images = (encoded(data) * 13)[:13]
    with edgerecall.load(real_bundle, "openvino", batch_size=8) as model:
        (predictor,) = model.pool.predictors
        honest, sizes = predictor.embed, list[int]()
        monkeypatch.setattr(predictor, "embed", lambda batch: (sizes.append(len(batch)), honest(batch))[1])
        rows = model.embed_bytes(images)
        assert sizes == [8, 4, 1]
        sizes.clear()
        alone = np.concatenate([model.embed_bytes([image]) for image in images])
        assert sizes == [1] * 13
    np.testing.assert_allclose(rows, alone, rtol=0, atol=5e-5)


@pytest.mark.runtime
def test_ncnn_under_threads(device_bundle: Path, data: Path) -> None:
    with edgerecall.load(device_bundle, "ncnn", batch_size=4, replicas=2) as model:
        assert_threads_change_nothing(model, encoded(data))


def test_a_worker_under_threads(fake_bundle: Make) -> None:
    """Without a pool: what goes over one pipe does not get mixed up."""
    bundle = fake_bundle(sleep_ms=1)
    _, tensors, _ = bundle.golden()
    with open_predictor(bundle, "fake", RunOptions(), worker=True) as predictor:
        expected = [predictor.embed(tensor[None]) for tensor in tensors]

        def work(thread: int) -> None:
            for index in range(25):
                one = (thread + index) % len(tensors)
                assert (predictor.embed(tensors[one][None]) == expected[one]).all()

        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(work, range(THREADS)))


def test_a_worker_that_dies_fails_every_caller(fake_bundle: Make, data: Path) -> None:
    image = encoded(data)[0]
    with edgerecall.load(fake_bundle(crash_after=5).root, "fake", batch_size=1, worker=True) as model:
        with ThreadPoolExecutor(THREADS) as pool:
            futures = [pool.submit(model.embed_bytes, [image]) for _ in range(40)]
        failed = [future for future in futures if isinstance(future.exception(), RuntimeFailed)]
        assert len(failed) == 35
        with pytest.raises(RuntimeFailed):
            model.submit(image).result(10)


def test_pixels_bytes_and_paths_are_the_same(fake_bundle: Make, data: Path, tmp_path: Path) -> None:
    paths = sorted(data.glob("*_final/*.JPG"))[:3]
    Image.open(paths[2]).save(tmp_path / "other.bmp")  # by Pillow, as the core reads none
    paths.append(tmp_path / "other.bmp")
    pixels = [load_rgb(path) for path in paths]
    with edgerecall.load(fake_bundle().root, "fake") as model:
        expected = model.embed_images(paths)
        for given in (
            paths,
            pixels,
            [path.read_bytes() for path in paths],
            [paths[0], pixels[1], bytearray(paths[2].read_bytes()), memoryview(paths[3].read_bytes())],
            [np.asfortranarray(image) for image in pixels],
            [image[:, ::-1].copy()[:, ::-1] for image in pixels],
        ):
            assert (model.embed_bytes(given) == expected).all()
        assert model.embed_bytes([]).shape == (0, 16)


def test_what_is_no_image(fake_bundle: Make, data: Path) -> None:
    image = encoded(data)[0]
    with edgerecall.load(fake_bundle().root, "fake", batch_size=2) as model:
        with pytest.raises(ImageError, match="image 2: expected a JPEG, PNG"):
            model.embed_bytes([image, image, b"no image"])
        bad: list[int] = []
        rows = model.embed_bytes([b"x", image, image, b"", image], lambda index, error: bad.append(index))
        assert bad == [0, 3] and rows.shape == (3, 16) and (rows == rows[0]).all()
        for wrong, said in (
            (np.zeros((4, 4, 3)), "uint8 .*got float64"),
            (np.zeros((4, 4, 4), np.uint8), r"got uint8 \(4, 4, 4\)"),
            (np.zeros((0, 4, 3), np.uint8), "got uint8"),
            ("a.jpg", "expected a path, bytes or an array of pixels, got str"),
            (7, "got int"),
        ):
            with pytest.raises(InputError, match=said):
                model.embed_bytes([image, wrong])  # type: ignore[list-item]


def test_a_bad_image_fails_alone_in_a_micro_batch(fake_bundle: Make, data: Path) -> None:
    image = encoded(data)[0]
    with edgerecall.load(fake_bundle(sleep_ms=20).root, "fake", batch_size=8) as model:
        expected = model.embed_bytes([image])[0]
        futures = [model.submit(one) for one in (image, b"no image", image, "no path", image)]  # type: ignore[arg-type]
        for index in (0, 2, 4):
            assert np.abs(futures[index].result(10) - expected).max() < 1e-6
        assert isinstance(futures[1].exception(10), ImageError)
        assert "got str" in str(futures[3].exception(10))


def test_what_waits_shares_an_inference_and_can_be_cancelled(fake_bundle: Make, data: Path) -> None:
    image = encoded(data)[0]
    with edgerecall.load(fake_bundle(sleep_ms=100).root, "fake", batch_size=8) as model:
        start = time.monotonic()
        futures = [model.submit(image) for _ in range(17)]
        assert futures[-1].cancel()
        for future in futures[:-1]:
            future.result(10)
        # One at first, perhaps, then eight at a time: three or four inferences of 0.1 s, not 16.
        assert time.monotonic() - start < 1.0
        with pytest.raises(CancelledError):
            futures[-1].result(1)


def test_who_asks_is_told_once_and_what_is_dropped_never_begins(fake_bundle: Make, data: Path) -> None:
    image, told = encoded(data)[0], list[tuple[int, object, BaseException | None]]()
    computed = list[int]()
    with edgerecall.load(fake_bundle(sleep_ms=200).root, "fake", batch_size=1) as model:
        expected = model.embed_bytes([image])[0]
        model.observe = lambda stage, seconds, images: computed.append(images) if stage == "queue" else None
        given = (image, image, b"no image", "no path", image)
        drops = [
            model.ask(one, lambda found, error, at=at: told.append((at, found, error)))  # type: ignore[arg-type,misc]
            for at, one in enumerate(given)
        ]
        time.sleep(0.05)
        drops[0]()  # at work
        for _ in range(2):
            drops[1]()
        assert [(at, type(error)) for at, _, error in told] == [(1, CancelledError)]
    for drop in drops:
        drop()
    by_request = {at: (found, error) for at, found, error in told}
    assert len(told) == len(by_request) == 5 and len(computed) == 4
    for at in (0, 4):
        assert (by_request[at][0] == expected).all() and by_request[at][1] is None  # type: ignore[attr-defined]
    for at, kind in ((1, CancelledError), (2, ImageError), (3, InputError)):
        assert by_request[at][0] is None and isinstance(by_request[at][1], kind)
    with pytest.raises(InputError, match="the model is closed"):
        model.ask(image, lambda found, error: None)


def test_who_fails_when_told_fails_alone(fake_bundle: Make, data: Path, caplog: pytest.LogCaptureFixture) -> None:
    image = encoded(data)[0]

    def fail(found: object, error: BaseException | None) -> None:
        raise ValueError("not mine")

    with edgerecall.load(fake_bundle(sleep_ms=50).root, "fake", batch_size=4) as model:
        futures = [model.submit(image)]
        for _ in range(3):
            model.ask(image, fail)
            futures.append(model.submit(image))
        model.ask(b"no image", fail)
        futures.append(model.submit(image))
        for future in futures:
            assert future.result(10).shape == (16,)
    assert sum("failed when told" in record.message for record in caplog.records) == 4


def test_nothing_is_kept_of_what_was_submitted(fake_bundle: Make, data: Path) -> None:
    """Not even until the garbage collector comes, once another has come."""
    image = load_rgb(next(iter(sorted(data.glob("*_final/*.JPG")))))
    with edgerecall.load(fake_bundle().root, "fake", batch_size=1) as model:
        gc.disable()
        try:
            told = threading.Event()
            for ask in (
                lambda one: model.submit(one).result(10),
                lambda one: (model.ask(one, lambda found, error: told.set()), told.wait(10)),
            ):
                given = image.copy()
                kept = weakref.ref(given)
                ask(given)
                del given
                model.submit(image).result(10)
                time.sleep(0.05)
                assert kept() is None
        finally:
            gc.enable()


@pytest.mark.parametrize(("replicas", "cores", "expected"), [(3, 1, 3), (1, 5, 5)])
def test_no_more_callers_work_than_have_cores(
    fake_bundle: Make, data: Path, monkeypatch: pytest.MonkeyPatch, replicas: int, cores: int, expected: int
) -> None:
    """Of 16 that call, as many as there are cores or replicas are at work, and none keeps another from it for good."""
    from edgerecall.runtimes.embed import model as module

    honest, lock, at_work, most = module.preprocess_batch, threading.Lock(), 0, 0

    def counted(*given: object, **named: object) -> object:
        nonlocal at_work, most
        with lock:
            at_work += 1
            most = max(most, at_work)
        time.sleep(0.02)
        try:
            return honest(*given, **named)  # type: ignore[arg-type]
        finally:
            with lock:
                at_work -= 1

    monkeypatch.setattr(module, "usable_cpus", lambda: tuple(range(cores)))
    monkeypatch.setattr(module, "preprocess_batch", counted)
    image = encoded(data)[0]
    with edgerecall.load(fake_bundle().root, "fake", batch_size=2, replicas=replicas) as model:
        row = model.embed_bytes([image])[0]

        class Again(list[int]):  # which is false as long as it is empty
            """A callback may call the model."""

            def __call__(self, index: int, error: ImageError) -> None:
                assert (model.embed_bytes([image])[0] == row).all()
                self.append(index)

        with ThreadPoolExecutor(THREADS) as pool:
            futures = [pool.submit(model.embed_bytes, [image, b"no image"], Again()) for _ in range(64)]
            assert all((future.result(60) == row).all() for future in futures)
    assert most == expected


def test_closing_waits_and_lets_nobody_in(fake_bundle: Make, data: Path) -> None:
    image = encoded(data)[0]
    model = edgerecall.load(fake_bundle(sleep_ms=400).root, "fake", worker=True, batch_size=1)
    done: list[str] = []

    def call() -> None:
        try:
            model.embed_bytes([image])
            done.append("ok")
        except InputError as error:
            assert "the model is closed" in str(error)
            done.append("closed")

    submitted = model.submit(image)
    threads = [threading.Thread(target=call) for _ in range(6)]
    for thread in threads:
        thread.start()
    time.sleep(0.15)
    model.close()
    assert submitted.result(0).shape == (16,)
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert len(done) == 6 and "closed" in done
    for action in (lambda: model.embed_bytes([image]), lambda: model.submit(image)):
        with pytest.raises(InputError, match="the model is closed"):
            action()
    model.close()


def test_a_dead_replica_is_not_lent_again(fake_bundle: Make, data: Path) -> None:
    image = encoded(data)[0]
    with edgerecall.load(fake_bundle().root, "fake", batch_size=1, replicas=3, worker=True) as model:
        expected = model.embed_bytes([image])
        os.kill(model.pool.predictors[1].pid, signal.SIGKILL)  # type: ignore[attr-defined]
        failures = 0
        for _ in range(30):
            try:
                assert (model.embed_bytes([image]) == expected).all()
            except RuntimeFailed:
                failures += 1
        assert failures == 1
        for predictor in model.pool.predictors[::2]:
            os.kill(predictor.pid, signal.SIGKILL)  # type: ignore[attr-defined]
        for _ in range(2):
            with pytest.raises(RuntimeFailed, match="ended by signal 9"):
                model.embed_bytes([image])
        with pytest.raises(RuntimeFailed, match="every replica of the model has died"):
            model.embed_bytes([image])


def test_an_interrupted_call_gives_nobody_its_answer(fake_bundle: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between request and answer: the next call must not read the answer of this one."""
    bundle = fake_bundle()
    _, tensors, _ = bundle.golden()
    with open_predictor(bundle, "fake", RunOptions(), worker=True) as predictor:
        assert isinstance(predictor, WorkerPredictor)
        honest, kill = predictor._read, predictor._process.kill

        def interrupted(*given: object, **named: object) -> bytearray:
            raise KeyboardInterrupt

        monkeypatch.setattr(predictor, "_read", interrupted)
        monkeypatch.setattr(predictor._process, "kill", lambda: threading.Timer(0.3, kill).start())  # dies late
        with pytest.raises(KeyboardInterrupt):
            predictor.embed(tensors[:1])
        assert not predictor.alive
        monkeypatch.setattr(predictor, "_read", honest)
        with pytest.raises(RuntimeFailed, match="ended by signal 9"):
            predictor.embed(tensors[1:2])


def test_closing_a_worker_in_mid_call(fake_bundle: Make) -> None:
    bundle = fake_bundle(hang_after=0)
    _, tensors, _ = bundle.golden()
    predictor = open_predictor(bundle, "fake", RunOptions(), worker=True)
    raised: list[BaseException] = []

    def call() -> None:
        try:
            predictor.embed(tensors[:1])
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    time.sleep(0.3)
    predictor.close()
    thread.join(5)
    assert [type(error) for error in raised] == [RuntimeFailed] and not thread.is_alive()


def test_closing_from_a_callback(fake_bundle: Make, data: Path) -> None:
    model = edgerecall.load(fake_bundle().root, "fake", worker=True)
    closed = threading.Event()

    def close(future: object) -> None:
        model.close()
        closed.set()

    model.submit(encoded(data)[0]).add_done_callback(close)
    assert closed.wait(10)
    assert not model.pool.predictors[0].alive


def test_several_are_told_at_once_while_enough_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four, or those there before the last one is late, or all once few wait; each once, also those that failed."""
    clock = [0.0]
    monkeypatch.setattr(requests, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    told = list[object]()
    failed = ValueError("bad")

    def asked(number: int) -> requests.Request:
        return requests.Request(b"", lambda found, error: told.append(number if error is None else error))

    def after(seconds: float, number: int, waiting: int, error: BaseException | None = None) -> list[object]:
        clock[0] += seconds
        telling.add([(asked(number), None, error)], waiting, seconds)
        now, told[:] = [*told], []
        return now

    telling = requests.Telling(replicas=2)
    assert [after(0.01, at, 9) for at in range(5)] == [[], [], [], [0, 1, 2, 3], []]
    assert after(0.01, 5, 4) == [4, 5]  # all that wait have a replica soon
    assert [after(0.02, at, 9) for at in (6, 7, 8)] == [[], [], [6, 7, 8]]  # 60 ms, had the first waited on
    assert after(0.2, 9, 100) == [9]  # a large network
    assert after(0.01, 10, 9) == [] and after(0.01, 11, 9, failed) == [] and after(0.01, 12, 0) == [10, failed, 12]
    assert after(0.01, 13, 9) == []
    telling.add([], 9, 0.0)  # what was taken next is not wanted any longer, but others wait
    assert not told
    telling.add([], 0, 0.0)
    assert told == [13]


def test_what_is_told_at_once_is_all_told(fake_bundle: Make, data: Path) -> None:
    """Many images, some of them dropped, none of them good, or the last ones."""
    image = encoded(data)[0]
    with edgerecall.load(fake_bundle(sleep_ms=2).root, "fake", batch_size=1, replicas=2) as model:
        for count in (1, 5, 40):
            told = SimpleQueue[tuple[int, bool]]()
            drops = [
                model.ask(
                    image if at % 3 else b"no image",
                    lambda found, error, at=at, told=told: told.put((at, found is not None)),
                )
                for at in range(count)
            ]
            for drop in drops[count // 2 :]:
                drop()
            found = sorted(told.get(timeout=10) for _ in range(count))
            assert told.empty() and [at for at, _ in found] == list(range(count))
            assert all(good == (at % 3 > 0) for at, good in found[: count // 2])


def test_what_is_held_is_told_when_nobody_wants_the_others(fake_bundle: Make, data: Path) -> None:
    image, told = encoded(data)[0], SimpleQueue[int]()
    with edgerecall.load(fake_bundle(sleep_ms=20).root, "fake", batch_size=1) as model:
        model.embed_bytes([image])  # the first time takes longer, too long to be held
        drops = [model.ask(image, lambda found, error, at=at: told.put(at)) for at in range(6)]  # type: ignore[misc]
        for drop in drops[1:]:
            drop()
        assert sorted(told.get(timeout=5) for _ in drops) == list(range(6))


def test_what_is_held_is_told_when_the_next_one_hangs(fake_bundle: Make, data: Path) -> None:
    """Also a second time: the watcher rests in between. Closing the model ends it."""
    told, before = SimpleQueue[int](), set(threading.enumerate())
    telling = requests.Telling(replicas=1)
    for at in (0, 1):
        began = time.perf_counter()
        telling.add([(requests.Request(b"", lambda found, error, at=at: told.put(at)), None, None)], 9, 0.001)  # type: ignore[misc]
        assert told.get(timeout=5) == at and time.perf_counter() - began >= requests.LATE_S
        time.sleep(0.1)
    telling.close()
    image = encoded(data)[0]
    with edgerecall.load(fake_bundle(sleep_ms=5).root, "fake", batch_size=1) as model:
        model.embed_bytes([image])
        for at in range(9):
            model.ask(image, lambda found, error, at=at: told.put(at))  # type: ignore[misc]
        assert [told.get(timeout=5) for _ in range(9)] == list(range(9))
    deadline = time.perf_counter() + 5
    while (left := set(threading.enumerate()) - before) and time.perf_counter() < deadline:
        time.sleep(0.01)
    assert not left
