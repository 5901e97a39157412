"""The C++ core's predictors beside the Python ones, on a real bundle."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from edgerecall.bench.schema.options import BenchOptions
from edgerecall.runtimes import _native
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError, RuntimeFailed, RuntimeUnavailable
from edgerecall.runtimes.embed.replicas import open_predictor
from edgerecall.runtimes.embed.verify import verify_runtime
from edgerecall.runtimes.predictor.interface import RunOptions
from edgerecall.runtimes.predictor.registry import backend, core_backends, open_files

BUILT = ("cpp-onnxruntime", "cpp-openvino")


@pytest.mark.cpu_sensitive
@pytest.mark.parametrize("runtime", BUILT)
@pytest.mark.parametrize("count", [1, 3, 8])
def test_equals_the_python_row(real_bundle: Path, runtime: str, count: int) -> None:
    bundle = Bundle.open(real_bundle)
    tensors = np.resize(bundle.golden()[1], (count, *bundle.spec.input_shape))
    options = RunOptions(batch=count)
    with (
        open_predictor(bundle, backend(runtime).artifacts, options, worker=True) as python,
        open_predictor(bundle, runtime, options, worker=True) as native,
    ):
        expected, got = python.embed(tensors), native.embed(tensors)
        assert native.info.version == python.info.version
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


@pytest.mark.cpu_sensitive
@pytest.mark.parametrize("runtime", BUILT)
def test_holds_on_the_golden_images(real_bundle: Path, runtime: str) -> None:
    verdict = verify_runtime(Bundle.open(real_bundle), runtime, RunOptions())
    assert verdict.problem is None and verdict.check is not None and verdict.check.min_cosine > 0.99999


def test_openvino_takes_more_batch_sizes_than_it_keeps(real_bundle: Path) -> None:
    bundle = Bundle.open(real_bundle)
    _, tensors, reference = bundle.golden()
    with open_predictor(bundle, "cpp-openvino") as predictor:
        for count in (1, 2, 3, 4, 5, 6, 1, 5):
            got = predictor.embed(np.resize(tensors, (count, *tensors.shape[1:])))
            np.testing.assert_allclose(got, np.resize(reference, got.shape), rtol=0, atol=5e-5 * abs(reference).max())


def test_threads_are_as_asked(real_bundle: Path) -> None:
    for runtime in BUILT:
        with open_predictor(Bundle.open(real_bundle), runtime, RunOptions(threads=2), worker=True) as predictor:
            assert predictor.info.threads == 2 and predictor.info.precision == "fp32"


def test_a_runtime_that_was_not_built_says_how_to(real_bundle: Path) -> None:
    missing = {backend.name for backend in core_backends() if backend.artifacts not in built()}
    for name in missing:
        with pytest.raises(RuntimeUnavailable, match=f"'{name}'.*not in this build.*configure with -DEDGERECALL_"):
            open_files(name, {}, Bundle.open(real_bundle).spec.io, RunOptions())
    assert {"onnxruntime", "openvino"} <= set(built())


def built() -> list[str]:
    return _native.built_runtimes()


@pytest.mark.parametrize(
    ("variable", "runtime"), [("EDGERECALL_ONNXRUNTIME", BUILT[0]), ("EDGERECALL_OPENVINO", BUILT[1])]
)
def test_a_library_that_is_none(
    real_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, runtime: str
) -> None:
    """One line with what it is, and the variable that mends it."""
    monkeypatch.setenv(variable, str(tmp_path))
    with pytest.raises(RuntimeUnavailable, match=f"cannot load .*{variable}"):
        open_predictor(Bundle.open(real_bundle), runtime)
    monkeypatch.setenv(variable, _native.__file__)
    with pytest.raises(RuntimeUnavailable, match="it is another library"):
        open_predictor(Bundle.open(real_bundle), runtime)


@pytest.mark.parametrize("runtime", BUILT)
def test_a_file_that_is_no_model(real_bundle: Path, tmp_path: Path, runtime: str) -> None:
    bundle = Bundle.open(real_bundle)
    files = {}
    for role, path in bundle.files(bundle.artifact(runtime)).items():
        files[role] = str(tmp_path / Path(path).name)
        shutil.copyfile(real_bundle / "bundle.json", files[role])
    with pytest.raises(RuntimeFailed, match=f"{runtime} cannot load the model: [^\n]+$"):
        open_files(runtime, files, bundle.spec.io, RunOptions())
    with pytest.raises(InputError, match="no file of role 'model'"):
        open_files(runtime, {}, bundle.spec.io, RunOptions())


def test_asks_are_checked(real_bundle: Path) -> None:
    bundle = Bundle.open(real_bundle)
    with pytest.raises(RuntimeUnavailable, match="ask for fp32"):
        open_predictor(bundle, "cpp-onnxruntime", RunOptions(precision="bf16"))
    with open_predictor(bundle, "cpp-onnxruntime") as predictor:
        for wrong in (np.zeros((1, 3, 5, 5), np.float32), np.zeros((0, *bundle.spec.input_shape), np.float32)):
            with pytest.raises(ValueError, match=r"batch: expected float32 \(n, 3, "):
                predictor.embed(wrong)
        with pytest.raises(TypeError):
            predictor.embed(np.zeros((1, *bundle.spec.input_shape), np.float64))


def test_an_output_that_is_not_finite_fails(real_bundle: Path) -> None:
    bundle = Bundle.open(real_bundle)
    with open_predictor(bundle, "cpp-onnxruntime") as predictor, pytest.raises(RuntimeFailed, match="NaN"):
        predictor.embed(np.full((1, *bundle.spec.input_shape), np.nan, np.float32))


def test_bench_takes_them_by_name() -> None:
    options = BenchOptions(runtimes=("onnxruntime", *BUILT))
    assert [row.name for row in options.groups(lambda runtime: ("fp32",))[0]] == ["onnxruntime", *BUILT]
