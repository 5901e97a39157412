"""TensorRT: real parsing and building without a GPU (TensorRT for RTX), and the predictor over a GPU that is none."""

from __future__ import annotations

import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_cuda import FakeRuntime, fake_nvml, fake_tensorrt
from small_onnx import DIM, SIDE, network, write

from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import RuntimeFailed, RuntimeUnavailable
from edgerecall.runtimes.gpu.cuda import Stream
from edgerecall.runtimes.gpu.tensorrt_engine import EngineKey, build_engine, engine_folder
from edgerecall.runtimes.predictor.interface import ModelIO, RunOptions
from edgerecall.runtimes.predictor.registry import open_files

IO = ModelIO("images", (3, SIDE, SIDE), DIM)
ARCHITECTURES = ("8.6", "12.0")


def key(model: Path, side: int = SIDE) -> EngineKey:
    return EngineKey("tensorrt_rtx", "", "", "", "", "", (3, side, side), 8, False)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_bundle_is_parsed_and_built(real_bundle: Path, architecture: str) -> None:
    import tensorrt_rtx

    bundle = Bundle.open(real_bundle)
    model = Path(bundle.files(bundle.artifact("onnxruntime"))["model"])
    engine = build_engine(tensorrt_rtx, model, key(model, bundle.spec.input_shape[1]), (architecture,))
    assert len(engine) > model.stat().st_size / 2


def test_what_is_not_built(tmp_path: Path) -> None:
    import tensorrt_rtx

    good, bad = write(network(), tmp_path / "good.onnx"), tmp_path / "bad.onnx"
    with pytest.raises(RuntimeFailed, match=r"builds for compute capability .*8\.6.*, not for 9\.0"):
        build_engine(tensorrt_rtx, good, key(good), ("9.0",))
    bad.write_bytes(b"garbage" * 50)
    with pytest.raises(RuntimeFailed, match=r"tensorrt_rtx cannot read bad\.onnx: \S+"):
        build_engine(tensorrt_rtx, bad, key(bad), ("8.6",))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The fake library; `gpu.cuda` is the runtime under it."""
    library, cuda, bindings = fake_tensorrt(), FakeRuntime(), types.ModuleType("cuda.bindings")
    bindings.runtime = cuda  # type: ignore[attr-defined]
    for name, module in {"tensorrt": library, "pynvml": fake_nvml(), "cuda.bindings": bindings}.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setitem(sys.modules, "cuda", types.ModuleType("cuda"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    library.cuda = cuda  # type: ignore[attr-defined]
    return library


@pytest.fixture
def model(tmp_path: Path) -> dict[str, str]:
    return {"model": str(write(network(), tmp_path / "model.onnx"))}


def batch(count: int) -> Any:
    return np.random.default_rng(1).standard_normal((count, 3, SIDE, SIDE)).astype(np.float32)


def test_it_embeds_as_onnx_runtime_does(gpu: Any, model: dict[str, str]) -> None:
    given = batch(5)
    with open_files("onnxruntime", model, IO, RunOptions()) as reference:
        expected = reference.embed(given)
    with open_files("tensorrt", model, IO, RunOptions(batch=2)) as predictor:
        assert predictor.info.device == "gpu" and predictor.info.detail["gpu"] == "A GPU (8.7)"
        assert predictor.info.detail["engine"].startswith("built in ")
        for count in (1, 2, 5, 3):  # more than it was built for, and then fewer
            np.testing.assert_allclose(predictor.embed(given[:count]), expected[:count], rtol=1e-5, atol=1e-5)
        told = predictor.accelerator(given)
        assert told is not None and told.compute_ms == 0.25 and told.name == "A GPU (8.7)"
        assert len(predictor._engines) == 2 and predictor.runtime_object() is predictor._engines[0].engine
    assert gpu.built == [[], []], "one for 2 images, one for 5; TF32 is on unless it is cleared"
    assert gpu.cuda.held == {}, "all its memory is freed"


def test_engines_are_kept_for_what_they_hold_for(gpu: Any, model: dict[str, str], tmp_path: Path) -> None:
    def load(**options: Any) -> str:
        with open_files("tensorrt", model, IO, RunOptions(**options)) as predictor:
            return str(predictor.info.detail["engine"]).split()[0]

    assert [load(), load(), load(precision="tf32"), load(batch=4)] == ["built", "from", "built", "built"]
    assert gpu.built == [[], ["TF32"], []]
    sys.modules["pynvml"] = fake_nvml(nvmlSystemGetDriverVersion="590.0")
    assert load() == "built", "another driver"
    gpu.__version__ = "10.4"
    assert load() == "built"
    write(network(scale=2.0), Path(model["model"]))
    assert load() == "built", "another model of that name"
    kept = sorted(engine_folder().iterdir())
    assert len(kept) == 6 and engine_folder().stat().st_mode & 0o777 == 0o700
    for path in kept:
        path.write_bytes(b"torn")
    assert load() == "built", "what cannot be loaded is built once more"


def test_rtx_builds_for_the_gpu_at_hand(gpu: Any, model: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    library = fake_tensorrt("tensorrt_rtx")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", library)
    with open_files("tensorrt-rtx", model, IO, RunOptions()) as predictor:
        assert predictor.embed(batch(1)).shape == (1, DIM) and predictor.info.runtime == "tensorrt-rtx"
    assert library.built == [["for this GPU"]]


def test_a_cache_that_cannot_be_written(gpu: Any, model: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    with open_files("tensorrt", model, IO, RunOptions()) as predictor:
        assert predictor.info.detail["engine"].endswith(", not kept") and predictor.embed(batch(1)).shape == (1, DIM)


def test_a_larger_batch_that_fails_leaves_the_first_engine(gpu: Any, model: dict[str, str]) -> None:
    with open_files("tensorrt", model, IO, RunOptions()) as predictor:
        gpu.refuse = "out of memory"
        with pytest.raises(RuntimeFailed, match=r"cannot load its engine on this A GPU .*: out of memory"):
            predictor.embed(batch(4))
        assert predictor.embed(batch(1)).shape == (1, DIM)


def test_what_cannot_be_loaded_or_run(gpu: Any, model: dict[str, str], tmp_path: Path) -> None:
    gpu.refuse = "Error Code 6: this GPU is not supported"
    with pytest.raises(RuntimeFailed, match=r"cannot load its engine on this A GPU \(8\.7\): Error Code 6: this GPU"):
        open_files("tensorrt", model, IO, RunOptions())
    assert not list(engine_folder().iterdir()) and gpu.cuda.held == {}
    gpu.refuse = ""
    for content, reason in ((b"garbage", "cannot read model.onnx: Failed to parse"), (b"no engine", "no kernel for")):
        Path(model["model"]).write_bytes(content)
        with pytest.raises(RuntimeFailed, match=reason):
            open_files("tensorrt", model, IO, RunOptions())
    with pytest.raises(RuntimeUnavailable, match="ask for fp32 or tf32"):
        open_files("tensorrt", model, IO, RunOptions(precision="fp16"))
    sys.modules["pynvml"] = fake_nvml(nvmlInit=sys.modules["pynvml"].NVMLError("Driver Not Loaded"))
    with pytest.raises(RuntimeUnavailable, match="no NVIDIA GPU here: Driver Not Loaded"):
        open_files("tensorrt", model, IO, RunOptions())


def test_a_full_gpu(gpu: Any, model: dict[str, str]) -> None:
    with open_files("tensorrt", model, IO, RunOptions()) as predictor:
        gpu.cuda.fail = "cudaMalloc"
        with pytest.raises(RuntimeFailed, match="CUDA: cudaErrorMemoryAllocation"):
            predictor.embed(batch(1))
    gpu.cuda.fail = "cudaStreamCreate"
    with pytest.raises(RuntimeUnavailable, match="no NVIDIA GPU can be used here: CUDA: cudaErrorMemoryAllocation"):
        Stream()


def test_what_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name, extra in (("tensorrt", "tensorrt", "tensorrt"), ("tensorrt_rtx", "tensorrt-rtx", "tensorrt-rtx")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(RuntimeUnavailable, match=rf"runtime '{name}' needs .*edgerecall\[{extra}\]"):
            open_files(name, {"model": "none"}, IO, RunOptions())
