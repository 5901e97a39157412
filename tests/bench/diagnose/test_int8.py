"""`why` of int8 artifacts: planted faults are named by their layer, and rounding by the layers that lose most."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from planted import seal_again

from edgerecall.bench.diagnose.qdq_layers import QdqLayers
from edgerecall.bench.diagnose.quantised_layers import ranked
from edgerecall.bench.diagnose.sides import SideRequest
from edgerecall.bench.diagnose.why import Answer, why
from edgerecall.bench.measure.image_set import ImageSet
from edgerecall.bench.retrieval.metrics import retrieval_scores
from edgerecall.export.quantize.onnx_int8 import quantize_onnx
from edgerecall.export.quantize.recipes import Int8Recipe
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.preprocess.pipeline import preprocess_bytes

pytestmark = pytest.mark.runtime
Run = Callable[..., subprocess.CompletedProcess[str]]
Model = Any


@pytest.fixture(scope="module")
def quantised(real_bundle: Path, data: Path, edgerecall: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    bundle = tmp_path_factory.mktemp("int8") / "bundle"
    shutil.copytree(real_bundle, bundle)
    made = edgerecall("quantize", bundle, "--calibrate", data)
    assert made.returncode == 0, made.stderr
    return bundle


def ask(bundle: Path, b: str = "onnxruntime:int8") -> Answer:
    return why(Bundle.open(bundle), None, SideRequest("sealed"), SideRequest(b))


def model_path(bundle: Path, name: str = "onnx-int8") -> Path:
    artifact = next(one for one in Bundle.open(bundle).manifest.artifacts if one.name == name)
    return bundle / artifact.files[0].path


def constants(model: Model) -> dict[str, Any]:
    return {one.name: one for one in model.graph.initializer}


def change(model: Model, name: str, edit: Callable[[Any], Any]) -> None:
    tensor = constants(model)[name]
    tensor.CopyFrom(numpy_helper.from_array(np.asarray(edit(numpy_helper.to_array(tensor).copy())), name))


def conv(model: Model, number: int) -> tuple[Any, list[Any]]:
    """A convolution of the QDQ graph, and the operators that make its inputs."""
    made = {name: node for node in model.graph.node for name in node.output}
    node = [one for one in model.graph.node if one.op_type == "Conv"][number]
    return node, [made[name] for name in node.input]


def swap_channels(array: Any) -> Any:
    order = np.argsort(array)
    array[order[0]], array[order[-1]] = array[order[-1]], array[order[0]]
    return array


def planted(quantised: Path, folder: Path, edit: Callable[[Model], str]) -> tuple[str, Answer]:
    """The layer at fault, and the answer."""
    bundle = folder / "bundle"
    shutil.copytree(quantised, bundle)
    path = model_path(bundle)
    model = onnx.load(str(path))
    layer = edit(model)
    onnx.save(model, str(path))
    seal_again(bundle)
    return layer, ask(bundle)


def test_rounding_alone_is_no_fault(quantised: Path) -> None:
    answer = ask(quantised)
    assert answer.differs and "int8 differs (onnxruntime:int8: rounding, of" in answer.cause, answer.cause
    assert " dB), " in answer.cause and "with the first in float" in answer.cause
    other = ask(quantised, "openvino:int8")
    assert "rounding, of" in other.cause and other.cosine < 0.99999


def test_recall_with_the_worst_layers_in_float(
    quantised: Path, data: Path, edgerecall: Run, one_line: Callable[..., None]
) -> None:
    given = ("why", quantised, "--b", "onnxruntime:int8")
    told = edgerecall(*given, "--images", data)
    assert told.returncode == 1
    found = re.search(
        r"recall@1 of 36 images ([\d.]+) in float32, ([\d.]+) in int8, ([\d.]+) with the first", told.stdout
    )
    assert found is not None, told.stdout
    bundle, images = Bundle.open(quantised), ImageSet.find(data)
    assert images.labels is not None
    layers = QdqLayers.read(model_path(quantised, "onnx"), model_path(quantised))
    tensors = np.stack([preprocess_bytes(path.read_bytes(), bundle.spec.preprocess, "x") for path in images.paths])
    for model, text in ((layers.plain, found[1]), (layers.quantised, found[2])):
        assert f"{retrieval_scores(layers.runner(model)(tensors), images.labels).recall[1]:.4f}" == text
    one_line(edgerecall(*given, "--list", data / "test_list.txt"), 2, "--list is of --images' folder")
    one_line(edgerecall(*given, "--images", quantised / "golden"), 2, "expected a test_list.txt in it")


@pytest.mark.parametrize("number", [0, 3, 9])
def test_swapped_scale_of_two_channels(quantised: Path, tmp_path: Path, number: int) -> None:
    def edit(model: Model) -> str:
        node, (_, weights, _) = conv(model, number)
        change(model, weights.input[1], swap_channels)
        return str(node.name)

    layer, answer = planted(quantised, tmp_path, edit)
    assert f"fault in '{layer}': its weight[" in answer.cause, answer.cause


@pytest.mark.parametrize("number", [1, 8])
@pytest.mark.parametrize(("factor", "told"), [(0.1, "of its values lie beyond"), (100.0, "reach no further than")])
def test_activation_range(quantised: Path, tmp_path: Path, number: int, factor: float, told: str) -> None:
    def edit(model: Model) -> str:
        node, (given, _, _) = conv(model, number)
        change(model, given.input[1], lambda scale: (scale * factor).astype(np.float32))
        made = {name: one for one in model.graph.node for name in one.output}
        into = made[given.input[0]]
        if into.input[1] != given.input[1]:
            change(model, into.input[1], lambda scale: (scale * factor).astype(np.float32))
        return str(node.name)

    layer, answer = planted(quantised, tmp_path, edit)
    assert f"unfit range in '{layer}': the range of what it is fed" in answer.cause and told in answer.cause, (
        answer.cause
    )


def test_one_wrong_bias(quantised: Path, tmp_path: Path) -> None:
    def edit(model: Model) -> str:
        node, (_, _, bias) = conv(model, 5)

        def moved(array: Any) -> Any:
            array[2] += 100_000
            return array

        change(model, bias.input[0], moved)
        return str(node.name)

    layer, answer = planted(quantised, tmp_path, edit)
    assert f"fault in '{layer}': its bias[2] is" in answer.cause and "more of" not in answer.cause, answer.cause


def test_calibrated_on_another_preprocessing(quantised: Path, tmp_path: Path) -> None:
    """Pixels of 0 to 255 where the network is fed some -2 to 2.6: the first range tells."""
    bundle = tmp_path / "bundle"
    shutil.copytree(quantised, bundle)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (32, *Bundle.open(bundle).spec.input_shape)).astype(np.float32)
    quantize_onnx(model_path(bundle, "onnx"), pixels, Int8Recipe(), model_path(bundle))
    seal_again(bundle)
    first = onnx.load(str(model_path(bundle))).graph.node
    layer = next(node.name for node in first if node.op_type == "Conv")
    assert f"unfit range in '{layer}': the range of what it is fed" in ask(bundle).cause


def test_another_network(quantised: Path, tmp_path: Path) -> None:
    layers = QdqLayers.read(model_path(quantised, "onnx"), model_path(quantised))
    other = onnx.ModelProto()
    other.CopyFrom(layers.quantised)
    for node in other.graph.node:
        node.name = f"other {node.name}"
    with pytest.raises(InputError, match="no quantised layer in common"):
        QdqLayers(layers.plain, other)


def test_losses_are_those_of_the_layers(quantised: Path) -> None:
    """A layer in float has float's output where its input is float's; all of them give nearly the float embedding."""
    layers = QdqLayers.read(model_path(quantised, "onnx"), model_path(quantised))
    _, tensors, sealed = Bundle.open(quantised).golden()
    assert not layers.faults(tensors)
    cosine, losses = layers.losses(tensors[:3])
    assert [one.name for one in losses] == list(layers.layers) and all(0 < one.sqnr_db < 80 for one in losses)
    best = ranked(losses)[0]
    assert (
        best.cosine == max(one.cosine for one in losses) == pytest.approx(layers.cosine_with([best.name], tensors[:3]))
    )
    whole = layers.cosine_with(list(layers.layers), tensors[:3])
    assert whole > cosine  # what is left are the ranges of the other operators
    unit = sealed[:3] / np.linalg.norm(sealed[:3], axis=1, keepdims=True)
    assert np.abs(layers.runner(layers.plain)(tensors[:3]) - unit).max() < 1e-4


def test_words_after_the_runtime(quantised: Path) -> None:
    assert ask(quantised, "onnxruntime:onnx-int8").cosine == ask(quantised).cosine
    with pytest.raises(
        InputError, match=r"expected after the runtime one of fp32, tf32, fp16, bf16, int8, .*onnx-int8, got 'int4'"
    ):
        ask(quantised, "onnxruntime:int4")
