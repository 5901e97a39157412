"""A folder over several replicas gives what one replica gives, in order, whatever the runtime."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from rounding import apart, fake_embeddings, normalised

import edgerecall
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import ImageError, RuntimeFailed
from edgerecall.runtimes.embed import predict_config
from edgerecall.runtimes.embed.predict_config import RecConfig, run_options
from edgerecall.runtimes.predictor.interface import RunOptions
from edgerecall.runtimes.preprocess.pipeline import preprocess_file

Make = Callable[..., Bundle]


def images_with_bad_ones(data: Path, folder: Path) -> list[Path]:
    """23 files, of which three are no images."""
    folder.mkdir()
    sources = sorted(data.glob("*_final/*.JPG"))
    paths = []
    for index in range(23):
        paths.append(folder / f"{index:02d}.jpg")
        paths[-1].write_bytes(b"no image" if index in (0, 9, 22) else sources[index].read_bytes())
    return paths


@pytest.mark.cpu_sensitive
@pytest.mark.parametrize("batch", [1, 3, 50])
def test_replicas_keep_the_order_and_name_the_bad(fake_bundle: Make, data: Path, tmp_path: Path, batch: int) -> None:
    bundle, paths = fake_bundle(), images_with_bad_ones(data, tmp_path / "images")
    found = {}
    for replicas in (1, 2, 5):
        bad: list[str] = []
        with edgerecall.load(bundle.root, "fake", replicas=replicas, batch_size=batch) as model:
            parts = list(model.stream(paths, lambda path, error: bad.append(path.name)))  # noqa: B023
        assert bad == ["00.jpg", "09.jpg", "22.jpg"]
        assert [path for good, _ in parts for path in good] == [p for p in paths if p.name not in bad]
        found[replicas] = np.concatenate([rows for _, rows in parts])
    good = [path for path in paths if path.name not in bad]
    tensors = np.stack([preprocess_file(path, bundle.spec.preprocess) for path in good])
    expected, bound = normalised(*fake_embeddings(tensors, 16))
    assert bound.max() < apart(expected) / 100, "another image must show"
    for replicas in (1, 2, 5):
        assert found[replicas].shape == (20, 16) and (np.abs(found[replicas] - expected) <= bound).all()
    with (
        edgerecall.load(bundle.root, "fake", replicas=2, batch_size=batch) as model,
        pytest.raises(ImageError, match="00"),
    ):
        list(model.stream(paths))


@pytest.mark.cpu_sensitive
@pytest.mark.parametrize("runtime", ["paddle", "onnxruntime", "openvino", "lite"])
def test_replicas_of_the_real_runtimes(real_bundle: Path, data: Path, runtime: str) -> None:
    paths = sorted(data.glob("*_final/*.JPG"))[:19]
    with edgerecall.load(real_bundle, runtime, batch_size=4) as model:
        one = model.embed_images(paths)
    with edgerecall.load(real_bundle, runtime, batch_size=4, replicas=2) as model:
        assert model.replicas == 2
        two = model.embed_images(paths)
        again = model.embed_images(paths)
    assert np.abs(two - one).max() < 1e-5 and (again == two).all()


def test_a_replica_that_fails_ends_the_stream_and_leaves_nothing(fake_bundle: Make, data: Path) -> None:
    bundle, paths = fake_bundle(crash_after=2), sorted(data.glob("*_final/*.JPG"))
    before = {child.pid for child in psutil.Process().children()}
    model = edgerecall.load(bundle.root, "fake", replicas=2, batch_size=1, worker=True)
    with model, pytest.raises(RuntimeFailed, match="ended by signal 9"):
        model.embed_images(paths)
    assert {child.pid for child in psutil.Process().children()} <= before


def test_a_stream_that_is_left_early_stops(fake_bundle: Make, data: Path) -> None:
    paths = sorted(data.glob("*_final/*.JPG"))
    with edgerecall.load(fake_bundle(sleep_ms=1).root, "fake", replicas=2, batch_size=1) as model:
        stream = model.stream(paths * 20)
        next(stream)
        stream.close()
        assert len(model.embed_images(paths)) == len(paths)


@pytest.mark.parametrize(
    ("runtime", "threads", "batch", "images", "replicas", "each"),
    [
        ("onnxruntime", 4, 8, 1, 1, 4),
        ("onnxruntime", 4, 8, 20, 3, 1),
        ("onnxruntime", 4, 1, 100, 4, 1),
        ("onnxruntime", 5, 8, 10, 2, 2),
        ("onnxruntime", 1, 8, 500, 1, 1),
        ("onnxruntime", 64, 8, 5000, 6, 1),  # more than there are CPUs for
        ("paddle", 4, 1, 100, 1, 4),
        ("paddle", 4, 1, 5000, 4, 1),
        ("lite", 4, 1, 250, 2, 2),
    ],
)
def test_threads_of_predict_become_replicas(
    runtime: str, threads: int, batch: int, images: int, replicas: int, each: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict_config, "usable_cpus", lambda: tuple(range(6)))
    settings = {"cpu_num_threads": threads, "batch_size": batch, "infer_imgs": "x", "rec_inference_model_dir": "y"}
    options = run_options(RecConfig.model_validate({"Global": {**settings, "runtime": runtime}}).Global, images)
    assert (options.replicas, options.threads, options.batch) == (replicas, each, batch)


def test_a_chunk_is_whole_batches(fake_bundle: Make) -> None:
    root = fake_bundle().root
    for batch, count, size in ((1, 1000, 8), (3, 1000, 9), (8, 1000, 8), (16, 1000, 16), (1, 6, 3), (8, 9, 8)):
        with edgerecall.load(root, "fake", replicas=2, batch_size=batch) as model:
            assert model.chunk(count) == size
            parts = list(model._parts(count))
            assert [index for part in parts for index in part] == list(range(count))
            assert all(len(part) % batch == 0 and len(part) <= size for part in parts[:-1])
            assert len(parts[-1]) <= batch, "the last one is short"


@pytest.mark.cpu_sensitive
def test_batches_of_other_sizes_than_prepared(real_bundle: Path) -> None:
    """OpenVINO compiles for each size, and takes arrays that may not be written to."""
    bundle = Bundle.open(real_bundle)
    _, tensors, reference = bundle.golden()
    from edgerecall.runtimes.embed.replicas import open_predictor

    allowed = 5e-5 * np.abs(reference).max()
    with open_predictor(bundle, "openvino", RunOptions(batch=3)) as predictor:
        for count in (3, 2, 1, 8, 5, 6, 4, 7, 3):
            rows = np.ascontiguousarray(np.resize(tensors, (count, *tensors.shape[1:])))
            expected = np.resize(reference, (count, reference.shape[1]))
            assert np.abs(predictor.embed(rows) - expected).max() <= allowed, count
        rows.flags.writeable = False
        assert np.abs(predictor.embed(rows) - expected).max() <= allowed
        seen = np.array(tensors[:3])
        view = seen.view()
        view.flags.writeable = False
        occupied = []  # whatever memory is let go between the calls
        for shift in (0, 1):  # an array that may not be written to, whose values change all the same
            seen[:] = tensors[shift : shift + 3]
            assert np.abs(predictor.embed(view) - reference[shift : shift + 3]).max() <= allowed
            occupied.append(np.full_like(seen, 7.0))
        changing = np.array(tensors[:3])
        for shift in (0, 1):  # the same array with other values in it
            changing[:] = tensors[shift : shift + 3]
            assert np.abs(predictor.embed(changing) - reference[shift : shift + 3]).max() <= allowed
