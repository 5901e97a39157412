"""NaN and infinity in weights are refused wherever a model comes in, by the name of the first bad tensor."""

from __future__ import annotations

import json
import pickle
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from planted import seal_again

Run = Callable[..., subprocess.CompletedProcess[str]]


def with_value(trained: Path, folder: Path, name: str, value: float) -> Path:
    """The trained checkpoint with one number of a tensor changed; its prefix."""
    state = pickle.loads((trained / "run" / "latest.pdparams").read_bytes())
    entry = state[name]
    array = np.array(entry[1] if isinstance(entry, tuple) else entry)
    array.reshape(-1)[1] = value
    state[name] = (entry[0], array) if isinstance(entry, tuple) else array
    folder.mkdir()
    (folder / "bad.pdparams").write_bytes(pickle.dumps(state, protocol=2))
    return folder / "bad"


def names(trained: Path) -> list[str]:
    state: dict[str, Any] = pickle.loads((trained / "run" / "latest.pdparams").read_bytes())
    return list(state)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_checkpoint(
    trained: Path, tmp_path: Path, edgerecall: Run, one_line: Callable[..., None], value: float
) -> None:
    """A weight, and a running variance, which batch norm hides: export and eval alike."""
    config = trained / "train.yaml"
    for name in (
        next(n for n in names(trained) if n.endswith("weight")),
        next(n for n in names(trained) if "variance" in n),
    ):
        prefix = with_value(trained, tmp_path / name, name, value)
        sentence = f"'{name}' holds NaN or infinity: 1 of"
        one_line(edgerecall("eval", "-c", config, "--checkpoint", prefix), 1, sentence)
        target = tmp_path / "bundle"
        result = edgerecall("export", target, "-c", config, "--checkpoint", prefix, "--formats", "paddle")
        one_line(result, 1, sentence)
        assert not target.exists()
        shutil.rmtree(tmp_path / name)


def test_a_paddle_model(
    real_bundle: Path, tmp_path: Path, edgerecall: Run, data: Path, one_line: Callable[..., None]
) -> None:
    """In either form, also where a ReLU hides it; nothing is written."""
    from edgerecall.runtimes.bundle.bundle import Bundle
    from edgerecall.runtimes.embed.replicas import open_predictor

    (tmp_path / "preprocess.yaml").write_text(
        "RecPreProcess:\n  transform_ops:\n    - ResizeImage: {size: [64, 64], backend: pil}\n"
        "    - NormalizeImage: {scale: 0.00392157}\n    - ToCHWImage:\n"
    )
    for form in ("paddle", "paddle-pdmodel"):
        with open_predictor(Bundle.open(real_bundle), "paddle", worker=True, artifact=form) as predictor:
            weights = predictor.parameters()
        assert weights is not None
        model = tmp_path / form
        shutil.copytree(real_bundle / form, model)
        path = model / "inference.pdiparams"
        name = max(weights, key=lambda one: weights[one].size)
        old = weights[name].tobytes()
        data_before = path.read_bytes()
        assert data_before.count(old) == 1
        bad = weights[name].copy()
        bad.reshape(-1)[0] = np.nan
        path.write_bytes(data_before.replace(old, bad.tobytes()))
        result = edgerecall(
            *("export", tmp_path / "bundle", "--model", model, "--preprocess", tmp_path / "preprocess.yaml"),
            *("--images", data, "--formats", "paddle,paddle-pdmodel"),
        )
        one_line(result, 1, "holds NaN or infinity: 1 of")
        assert not (tmp_path / "bundle").exists()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_sealed_bundle(real_bundle: Path, tmp_path: Path, edgerecall: Run, data: Path, runtime: str) -> None:
    """One weight that is NaN, sealed anew: verify and bench name it."""
    from edgerecall.runtimes.bundle.bundle import Bundle
    from edgerecall.runtimes.embed.replicas import open_predictor

    shutil.copytree(real_bundle, tmp_path / "bundle")
    bundle = Bundle.open(tmp_path / "bundle")
    (artifact,) = bundle.artifacts_for(runtime)
    with open_predictor(bundle, runtime, worker=True) as predictor:
        weights = predictor.parameters()
    assert weights
    name = max(weights, key=lambda one: weights[one].size)
    bad = weights[name].copy()
    bad.reshape(-1)[-1] = np.nan
    file = max(artifact.files, key=lambda one: one.bytes)
    content = (bundle.root / file.path).read_bytes()
    assert content.count(weights[name].tobytes()) == 1
    (bundle.root / file.path).write_bytes(content.replace(weights[name].tobytes(), bad.tobytes()))
    seal_again(bundle.root)
    result = edgerecall("verify", bundle.root, "--runtime", runtime)
    sentence = f"'{name}' holds NaN or infinity: 1 of {bad.size} values"
    assert result.returncode == 1 and sentence in " ".join(result.stdout.split()), result.stdout
    options = ("--runtime", f"{runtime},paddle", "--samples", 4, "--rounds", 2, "--limit", 12)
    result = edgerecall("bench", bundle.root, "--images", data, *options, "--json", tmp_path / "r.json")
    rows = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert result.returncode == 1 and sentence in next(row["reason"] for row in rows if row["runtime"] == runtime)
    assert f"ship {runtime}" not in result.stdout and "Traceback" not in result.stderr


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_weights_of_openvino(tmp_path: Path, dtype: type) -> None:
    """Stored in half precision too."""
    import openvino
    from openvino import opset1

    from edgerecall.runtimes.core.errors import UnsoundModel
    from edgerecall.runtimes.core.soundness import require_finite
    from edgerecall.runtimes.graphs.openvino_inner import parameters

    given = opset1.parameter([1, 4], dtype)
    weight = opset1.constant(np.array([1, 2, np.nan, 4], dtype))
    weight.set_friendly_name("scale")
    model = openvino.Model([opset1.result(opset1.multiply(given, weight))], [given], "one")
    openvino.save_model(model, tmp_path / "model.xml", compress_to_fp16=False)
    shown = parameters(openvino.Core().read_model(tmp_path / "model.xml"))
    assert {array.dtype for array in shown.values()} == {np.dtype(dtype)}
    with pytest.raises(UnsoundModel, match="'scale' holds NaN or infinity: 1 of 4 values"):
        require_finite(shown, "x")
