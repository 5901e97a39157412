"""The four real runtimes on a real bundle: none mocked, none skipped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import edgerecall
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError, RuntimeUnavailable
from edgerecall.runtimes.embed.model import l2_normalize
from edgerecall.runtimes.embed.replicas import open_predictor
from edgerecall.runtimes.embed.verify import verify_pixels, verify_runtime
from edgerecall.runtimes.predictor.interface import RunOptions
from edgerecall.runtimes.predictor.registry import backend

RUNTIMES = ("paddle", "onnxruntime", "openvino", "lite")


@pytest.mark.cpu_sensitive
@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("worker", [False, True])
def test_golden_images_from_file_to_embedding(real_bundle: Path, runtime: str, worker: bool) -> None:
    """Files in, normalised embeddings out, against the training framework: a changed pixel rule shows here."""
    paths, _, reference = Bundle.open(real_bundle).golden()
    with edgerecall.load(real_bundle, runtime=runtime, worker=worker) as model:
        got = model.embed_images(paths)
    expected = l2_normalize(reference)
    assert got.dtype == np.float32 and got.shape == expected.shape
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_executes_what_was_asked(real_bundle: Path, runtime: str) -> None:
    """fp32 unless told otherwise, even where the runtime would choose bf16 by itself; threads as asked."""
    bundle = Bundle.open(real_bundle)
    for threads in (1, 2):
        with open_predictor(bundle, runtime, RunOptions(threads=threads), worker=True) as predictor:
            info = predictor.info
        assert info.precision == "fp32"
        assert info.threads in ((None,) if runtime == "lite" else (threads,))


def test_paddle_has_no_bf16_without_onednn(real_bundle: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match="bf16 by oneDNN"):
        open_predictor(Bundle.open(real_bundle), "paddle", RunOptions(precision="bf16", onednn=False))


def test_paddle_switches_are_real(real_bundle: Path) -> None:
    bundle = Bundle.open(real_bundle)
    for onednn in (True, False):
        with open_predictor(bundle, "paddle", RunOptions(onednn=onednn)) as predictor:
            assert predictor.info.detail["onednn"] is onednn


@pytest.mark.cpu_sensitive
@pytest.mark.parametrize("runtime", RUNTIMES)
def test_batch_of_many_equals_many_of_one(real_bundle: Path, runtime: str) -> None:
    bundle = Bundle.open(real_bundle)
    _, tensors, reference = bundle.golden()
    with open_predictor(bundle, runtime) as predictor:
        many = predictor.embed(tensors)
        one = np.concatenate([predictor.embed(tensor[None]) for tensor in tensors])
    scale = np.abs(reference).max()
    np.testing.assert_allclose(many, one, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("runtime", (*RUNTIMES, "cpp-onnxruntime", "cpp-openvino"))
def test_an_output_survives_the_next_call(real_bundle: Path, runtime: str) -> None:
    bundle = Bundle.open(real_bundle)
    _, tensors, _ = bundle.golden()
    with open_predictor(bundle, runtime) as predictor:
        first = predictor.embed(tensors[:1])
        kept = first.copy()
        predictor.embed(tensors[1:2])
    assert (first == kept).all()


def test_lite_output_is_not_the_runtimes_buffer(real_bundle: Path, lite_ready: None) -> None:
    """In process, where the interpreter has paddlelite, as in the sidecar's own."""
    import subprocess

    from edgerecall.runtimes.sidecars.sidecar import LITE
    from edgerecall.runtimes.worker.client import sidecar_command

    bundle = Bundle.open(real_bundle)
    python = LITE.find_python()
    assert python is not None
    files, io = bundle.files(bundle.artifact("lite")), bundle.spec.io
    start = sidecar_command(python, "edgerecall.runtimes.worker.main")[-1].rsplit("importlib.import_module", 1)[0]
    code = start + (
        "import numpy as np\n"
        "from edgerecall.runtimes.predictor.backend import Backend\n"
        "from edgerecall.runtimes.predictor.interface import ModelIO, RunOptions, open_backend\n"
        f"lite = Backend('lite', {backend('lite').predictor!r})\n"
        f"io = ModelIO('x', {io.input_shape!r}, {io.embedding_dim})\n"
        f"p = open_backend(lite, {files!r}, io, RunOptions())\n"
        "a = p.embed(np.zeros((1, 3, 64, 64), np.float32)); b = a.copy()\n"
        "p.embed(np.ones((1, 3, 64, 64), np.float32)); assert (a == b).all()\n"
    )
    subprocess.run([python, "-s", "-c", code], check=True)


@pytest.mark.cpu_sensitive
def test_verify_all(real_bundle: Path, lite_ready: None) -> None:
    bundle = Bundle.open(real_bundle)
    assert verify_pixels(bundle) is None
    verdicts = [verify_runtime(bundle, runtime, RunOptions()) for runtime in RUNTIMES]
    assert [verdict.problem for verdict in verdicts] == [None] * 4
    assert all(verdict.check and verdict.check.min_cosine > 0.99999 for verdict in verdicts)


@pytest.mark.parametrize(("key", "value"), [("filter", "bicubic"), ("rounding", "round"), ("backend", "cv2")])
def test_another_resize_is_noticed(real_bundle: Path, tmp_path: Path, key: str, value: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(real_bundle, copy)
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["spec"]["preprocess"]["ops"][1][key] = value
    (copy / "bundle.json").write_text(json.dumps(manifest))
    problem = verify_pixels(Bundle.open(copy))
    assert problem is not None and "preprocessing differs from the sealed tensors" in problem


def test_a_closed_model_says_so(real_bundle: Path) -> None:
    with edgerecall.load(real_bundle) as model:
        pass
    model.close()
    with pytest.raises(InputError, match="the model is closed"):
        model.embed_images(Bundle.open(real_bundle).golden()[0])
