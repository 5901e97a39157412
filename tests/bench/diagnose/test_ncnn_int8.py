"""Int8 models for ncnn: the arithmetic that they stand for is what ncnn computes, and `why` names what is wrong."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from planted import seal_again

from edgerecall.bench.diagnose.ncnn_layers import NcnnLayers
from edgerecall.bench.diagnose.quantised_layers import ranked
from edgerecall.bench.diagnose.sides import SideRequest
from edgerecall.bench.diagnose.why import Answer, why
from edgerecall.export.quantize.ncnn_int8 import halve_ncnn, is_winograds, quantize_ncnn, rounding
from edgerecall.export.quantize.ranges import Ranges
from edgerecall.export.quantize.recipes import Int8Recipe, load_recipes
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.bundle.manifest import Artifact, Recipe, describe_file
from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.embed.replicas import open_predictor
from edgerecall.runtimes.embed.verify import cosines
from edgerecall.runtimes.graphs.ncnn_int8 import Int8Layer, part_int8
from edgerecall.runtimes.graphs.ncnn_model import INT8_KINDS, Layer, NcnnModel, Weights
from edgerecall.runtimes.graphs.ncnn_network import NcnnNetwork

pytestmark = pytest.mark.runtime
Networks = Callable[[str], Path]
PLAIN = Int8Recipe(scheme="ncnn")
Array = NDArray[np.float32]


def pictures(bundle: Path, count: int = 40) -> Array:
    """The bundle's own images, and paler and stronger ones."""
    _, tensors, _ = Bundle.open(bundle).golden()
    strength = np.random.default_rng(0).uniform(0.7, 1.1, count)
    strength[: len(tensors)] = 1
    return np.stack([tensors[place % len(tensors)] * by for place, by in enumerate(strength)]).astype(np.float32)


@pytest.fixture(scope="module")
def made(network_bundle: Networks, tmp_path_factory: pytest.TempPathFactory) -> Networks:
    """A network's bundle with an artifact `ncnn-int8`."""
    bundles: dict[str, Path] = {}

    def make(name: str) -> Path:
        if name not in bundles:
            bundle = tmp_path_factory.mktemp(name) / "bundle"
            shutil.copytree(network_bundle(name), bundle)
            (bundle / "ncnn-int8").mkdir()
            quantize_ncnn(bundle / "ncnn" / "model.param", pictures(bundle), PLAIN, int8(bundle))
            opened = Bundle.open(bundle)
            files = [(int8(bundle), "model"), (int8(bundle).with_suffix(".bin"), "weights")]
            artifact = Artifact(
                name="ncnn-int8",
                runtime="ncnn",
                targets=("any",),
                quantisation="int8",
                recipe=Recipe(scheme=PLAIN.text(), tool="ncnn", version="1", calibration=(), kept=()),
                files=tuple(describe_file(bundle, path, role) for path, role in files),
            )
            both = {"artifacts": (*opened.manifest.artifacts, artifact)}
            Bundle(bundle, opened.manifest.model_copy(update=both)).save()
            bundles[name] = bundle
        return bundles[name]

    return make


def int8(bundle: Path) -> Path:
    return bundle / "ncnn-int8" / "model.param"


def ask(bundle: Path) -> Answer:
    return why(Bundle.open(bundle), None, SideRequest("sealed"), SideRequest("ncnn:int8"))


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3", "resnet"])
def test_runs_in_int8_and_near_float(made: Networks, name: str) -> None:
    bundle = Bundle.open(made(name))
    tensors = pictures(made(name), 16)
    embeddings = []
    for quantisation in ("fp32", "int8"):
        artifact = bundle.artifact("ncnn", quantisation=quantisation).name
        with open_predictor(bundle, "ncnn", artifact=artifact) as predictor:
            embeddings.append(predictor.embed(tensors))
            ran = predictor.info.precision
    assert ran == "fp32+int8"
    near = cosines(*embeddings)
    assert 0.98 < near.min() < 0.999999
    sizes = {one.name: one.size_bytes for one in bundle.manifest.artifacts}
    assert sizes["ncnn-int8"] < 0.4 * sizes["ncnn"]


def reference(layer: Layer, held: Int8Layer, given: Array) -> NDArray[np.float64]:
    """What a layer's integers say that it gives: `(outputs, ...)`."""
    rounded = np.clip(rounding(given.astype(np.float64) * held.fed), -127, 127) / held.fed
    if layer.kind == "InnerProduct":
        sums = held.values @ rounded.reshape(-1)
    else:
        side, pad, stride = layer.number(1), layer.number(4), layer.number(3, 1)
        rounded = np.pad(rounded, [(0, 0), (pad, pad), (pad, pad)])
        windows = np.lib.stride_tricks.sliding_window_view(rounded, (side, side), axis=(1, 2))
        windows = windows[:, ::stride, ::stride]
        weights = held.values.reshape(layer.number(0), -1, side, side)
        rule = "cyxkl,cikl->cyx" if layer.kind == "ConvolutionDepthWise" else "cyxkl,ockl->oyx"
        sums = np.einsum(rule, windows, weights)
    if held.bias is not None:
        sums = sums + held.bias.reshape(-1, *[1] * (sums.ndim - 1))
    activation = layer.number(9)
    assert activation in (0, 1, 3), layer
    if activation == 3:
        low, high = map(float, layer.params["-23310"].split(",")[1:])
        return np.clip(sums, low, high)
    return np.maximum(sums, 0) if activation else sums


@pytest.mark.parametrize("name", ["mobilenet_v2", "mobilenet_v3", "resnet"])
def test_each_layer_computes_what_its_integers_say(made: Networks, name: str) -> None:
    """Every int8 layer, depthwise and Winograd's too, beside sums of our own; and the network with joined layers."""
    model = NcnnModel.read(int8(made(name)))
    assert any(layer.number(8) > 100 for layer in model.layers) or name != "mobilenet_v2"
    tensors = pictures(made(name), 2)
    joined = NcnnNetwork(int8(made(name))).embed(tensors)
    part_int8(model)
    parted = made(name).with_name("parted.param")
    model.save(parted)
    network, seen = NcnnNetwork(parted), set()
    assert cosines(joined, network.embed(tensors)).min() > 0.9999
    for place, layer in enumerate(model.layers):
        if not layer.is_int8:
            continue
        held = Int8Layer.read(layer, model.weights[place])
        for blobs in network.blobs([layer.inputs[0], layer.outputs[0]], tensors):
            got, wanted = blobs[layer.outputs[0]], reference(layer, held, blobs[layer.inputs[0]])
            # A product in float32 may fall to the other side of a half: then one step of one input is off.
            step = np.abs(held.values).max() / held.fed
            apart = np.abs(got.reshape(wanted.shape) - wanted)
            assert apart.max() <= step + 1e-3 * np.abs(wanted).max(), layer
            assert apart.mean() <= 0.05 * step + 3e-4 * np.abs(wanted).max(), layer
        seen.add((layer.kind, layer.number(1)))
    assert len(seen) >= 3


def one_layer(folder: Path, line: str, inputs: int, outputs: int, count: int, side: int = 16) -> Path:
    """A model of a layer with random weights, its last output dead, behind a ReLU and before a pooling."""
    rng = np.random.default_rng(0)
    lines = ["7767517", "4 4", f"Input in 0 1 a 0={side} 1={side} 2={inputs}", "ReLU relu 1 1 a b", line]
    (folder / "one.param").write_text("\n".join([*lines, "Pooling pool 1 1 c d 0=1 4=1"]) + "\n")
    weights = rng.standard_normal((outputs, count // outputs)).astype(np.float32)
    weights[-1] = 0
    bias = rng.standard_normal(outputs).astype(np.float32)
    (folder / "one.bin").write_bytes(bytes(4) + weights.tobytes() + bias.tobytes())
    return folder / "one.param"


@pytest.mark.parametrize(
    ("kind", "inputs", "outputs", "groups", "more", "int8"),
    [
        ("Convolution", 16, 24, 1, "", True),
        ("Convolution", 12, 20, 1, "13=2 3=2", True),
        ("Convolution", 16, 24, 1, "18=2.5", False),
        ("ConvolutionDepthWise", 12, 12, 12, "", True),
        ("ConvolutionDepthWise", 16, 16, 16, "13=2 3=2", True),
        ("ConvolutionDepthWise", 10, 20, 10, "", False),
        ("ConvolutionDepthWise", 64, 64, 8, "", False),
        ("ConvolutionDepthWise", 64, 64, 1, "", False),
    ],
)
def test_dead_outputs_and_what_ncnn_computes_wrongly(
    tmp_path: Path, kind: str, inputs: int, outputs: int, groups: int, more: str, int8: bool
) -> None:
    count = 9 * outputs * inputs // groups
    line = f"{kind} layer 1 1 b c 0={outputs} 1=3 4=1 5=1 6={count} 7={groups} {more}"
    source = one_layer(tmp_path, line, inputs, outputs, count)
    tensors = np.random.default_rng(1).standard_normal((4, inputs, 16, 16)).astype(np.float32)
    if not int8:
        with pytest.raises(InputError, match="every layer that ncnn computes in int8 is left in float"):
            quantize_ncnn(source, tensors, PLAIN, tmp_path / "int8.param")
        return
    assert quantize_ncnn(source, tensors, PLAIN, tmp_path / "int8.param") == []
    plain, rounded = (NcnnNetwork(path).embed(tensors) for path in (source, tmp_path / "int8.param"))
    assert np.isfinite(rounded).all() and cosines(rounded, plain).min() > 0.999
    np.testing.assert_allclose(rounded[:, -1], plain[:, -1], rtol=1e-5)


def test_winograds_sums_never_overflow(tmp_path: Path) -> None:
    """Weights and inputs of one sign, in 512 channels."""
    count = 9 * 512 * 8
    source = one_layer(tmp_path, f"Convolution layer 1 1 b c 0=8 1=3 4=1 5=1 6={count}", 512, 8, count)
    model = NcnnModel.read(source)
    model.weights[2][0] = Weights(np.abs(model.weights[2][0].values) + np.float32(1), True)
    model.save(source)
    tensors = np.random.default_rng(1).uniform(0.5, 1, (2, 512, 16, 16)).astype(np.float32)
    quantize_ncnn(source, tensors, PLAIN, tmp_path / "int8.param")
    assert NcnnModel.read(tmp_path / "int8.param").layers[2].number(31) == 64
    plain, rounded = (NcnnNetwork(path).embed(tensors) for path in (source, tmp_path / "int8.param"))
    np.testing.assert_allclose(rounded, plain, rtol=0.02)


def test_same_bytes_again_and_weights_of_six_bits(network_bundle: Networks, tmp_path: Path) -> None:
    source, tensors = network_bundle("resnet") / "ncnn" / "model.param", pictures(network_bundle("resnet"), 8)
    highest = {}
    for name, reduced in (("once", True), ("twice", True), ("full", False)):
        recipe = Int8Recipe(scheme="ncnn", reduce_range=reduced)
        quantize_ncnn(source, tensors, recipe, tmp_path / f"{name}.param")
        model = NcnnModel.read(tmp_path / f"{name}.param")
        square = [place for place, one in enumerate(model.layers) if is_winograds(one)]
        assert square
        highest[name] = max(int(np.abs(model.weights[place][0].values).max()) for place in square)
        assert all((model.layers[place].number(31) == 64) != reduced for place in square)
    assert highest == {"once": 31, "twice": 31, "full": 127}
    for suffix in (".param", ".bin"):
        assert (tmp_path / f"once{suffix}").read_bytes() == (tmp_path / f"twice{suffix}").read_bytes()


def test_biases_take_back_what_rounding_moves(network_bundle: Networks, tmp_path: Path) -> None:
    """Of one layer in int8, fed what the float model feeds it: a pointwise one, and the embedding."""
    bundle = network_bundle("mobilenet_v2")
    source, tensors = bundle / "ncnn" / "model.param", pictures(bundle)
    lines = [line for line in NcnnModel.read(source).layers if line.kind in INT8_KINDS]
    projections = [line for line in lines if line.kind == "Convolution" and "9" not in line.params]
    for line in (projections[2], lines[-1]):
        (blob,), others = line.outputs, tuple(one.name for one in lines if one is not line)
        truth = np.stack([found[blob] for found in NcnnNetwork(source).blobs([blob], tensors)])
        apart = []
        for corrected in (False, True):
            recipe = Int8Recipe(scheme="ncnn", calibration="minmax", bias_correction=corrected, keep=others)
            quantize_ncnn(source, tensors, recipe, tmp_path / "one.param")
            got = np.stack([found[blob] for found in NcnnNetwork(tmp_path / "one.param").blobs([blob], tensors)])
            axes = (0, *range(2, got.ndim))
            apart.append(float(np.abs((got.astype(np.float64) - truth).mean(axis=axes)).mean()))
        assert apart[1] < 0.4 * apart[0], line


def test_layers_left_in_float(network_bundle: Networks, tmp_path: Path) -> None:
    source, tensors = (
        network_bundle("mobilenet_v2") / "ncnn" / "model.param",
        pictures(network_bundle("mobilenet_v2"), 8),
    )
    kept = quantize_ncnn(source, tensors, Int8Recipe(scheme="ncnn", keep=("depthwise", "last")), tmp_path / "m.param")
    model, plain = NcnnModel.read(tmp_path / "m.param"), NcnnModel.read(source)
    for layer, own, before in zip(model.layers, model.weights, plain.weights, strict=True):
        assert layer.is_int8 == (layer.kind in ("Convolution", "InnerProduct") and layer.name not in kept)
        if not layer.is_int8:
            assert all((a.values == b.values).all() for a, b in zip(own, before, strict=True))
    assert model.layers[-1].name in kept and sum(one.kind == "ConvolutionDepthWise" for one in model.layers) + 1 == len(
        kept
    )
    with pytest.raises(InputError, match=r"recipe: keep: no layer is 'nowhere': expected first, last, depthwise"):
        quantize_ncnn(source, tensors, Int8Recipe(scheme="ncnn", keep=("nowhere",)), tmp_path / "n.param")
    assert not (tmp_path / "n.param").exists()


def test_halved_weights(network_bundle: Networks, tmp_path: Path) -> None:
    source, tensors = network_bundle("resnet") / "ncnn" / "model.param", pictures(network_bundle("resnet"), 4)
    model = NcnnModel.read(source)
    place = next(place for place, own in enumerate(model.weights) if own)
    large = model.weights[place][0].values.copy()
    large[0] = 1e6  # more than float16 holds
    model.weights[place][0] = Weights(large, True)
    model.save(tmp_path / "large.param")
    halve_ncnn(tmp_path / "large.param", tmp_path / "half.param")
    types = [own[0].values.dtype for own in NcnnModel.read(tmp_path / "half.param").weights if own]
    assert types[0] == np.float32 and set(types[1:]) == {np.dtype(np.float16)}
    halve_ncnn(source, tmp_path / "half.param")
    assert (tmp_path / "half.bin").stat().st_size < 0.55 * source.with_suffix(".bin").stat().st_size
    assert (
        cosines(NcnnNetwork(tmp_path / "half.param").embed(tensors), NcnnNetwork(source).embed(tensors)).min() > 0.9999
    )


def test_ranges() -> None:
    ranges = Ranges(["a", "none"])
    values = np.concatenate([np.linspace(-1, 1, 9999), [50.0]]).astype(np.float32)
    for see in (ranges.see_ends, ranges.see_sizes):
        see({"a": values, "none": np.zeros(5, np.float32)})
    assert ranges.end("a", "minmax", 100) == 50 and ranges.end("none", "percentile", 99.99) == 0
    assert ranges.end("a", "percentile", 99.9) == pytest.approx(1, abs=0.02)
    assert ranges.end("a", "percentile", 100) == 50
    rng = np.random.default_rng(0)
    odd = Ranges(["mask", "tiny"])
    values = {
        "mask": np.array([-np.inf, np.nan, 0, 1, 2], np.float32),
        "tiny": np.array([1e-38, -2e-38], np.float32),
    }
    for see in (odd.see_ends, odd.see_sizes):
        see(values)
    for method in ("minmax", "percentile", "entropy"):
        assert odd.range("mask", method, 100) == (0, 2) and np.isfinite(odd.range("tiny", method, 99)).all()
    normal = Ranges(["a"])
    values = np.append(rng.standard_normal(100_000), 40.0).astype(np.float32)
    for see in (normal.see_ends, normal.see_sizes):
        see({"a": values})
    assert 2.5 < normal.end("a", "entropy", 100) < 10


def test_recipes(tmp_path: Path) -> None:
    def read(text: str) -> Int8Recipe | None:
        (tmp_path / "r.yaml").write_text(text)
        return load_recipes(tmp_path / "r.yaml").of("ncnn-int8")

    assert read("ncnn-int8: {keep: [depthwise]}") == Int8Recipe(scheme="ncnn", keep=("depthwise",))
    assert read("onnx-int8: {}") == PLAIN
    for text, message in (
        ("ncnn-int8: {scheme: qdq}", "ncnn-int8: expected scheme ncnn, got 'qdq'"),
        ("openvino-int8: {scheme: ncnn}", "openvino-int8: expected scheme qdq or nncf, got 'ncnn'"),
        ("ncnn-int8: {activations: uint8}", "scheme ncnn has activations int8 alone"),
        ("ncnn-int8: 5", "recipe"),
    ):
        with pytest.raises(InputError, match=message):
            read(text)


def test_rounding_alone_is_no_fault(made: Networks) -> None:
    bundle = made("mobilenet_v3")
    layers = NcnnLayers.read(bundle / "ncnn" / "model.param", int8(bundle))
    _, tensors, _ = Bundle.open(bundle).golden()
    assert not layers.faults(tensors)
    cosine, losses = layers.losses(tensors[:3])
    assert [one.name for one in losses] == list(layers.kinds) and all(0 < one.sqnr_db < 100 for one in losses)
    assert ranked(losses)[0].cosine >= cosine
    assert layers.cosine_with(list(layers.kinds), tensors[:3]) > 0.999999
    answer = ask(bundle)
    assert answer.cause is not None and "rounding, of" in answer.cause and "with the first in float" in answer.cause


def planted(made: Networks, folder: Path, name: str, edit: Callable[[NcnnModel], str]) -> tuple[str, str]:
    """The layer at fault, and what is said."""
    bundle = folder / "bundle"
    shutil.copytree(made(name), bundle)
    model = NcnnModel.read(int8(bundle))
    layer = edit(model)
    model.save(int8(bundle))
    seal_again(bundle)
    answer = ask(bundle)
    assert answer.cosine < 1
    return layer, str(answer.cause)


def int8_places(model: NcnnModel) -> list[int]:
    return [place for place, layer in enumerate(model.layers) if layer.is_int8]


@pytest.mark.parametrize(("name", "number"), [("resnet", 0), ("mobilenet_v2", 5), ("mobilenet_v3", 11)])
def test_swapped_scale_of_two_channels(made: Networks, tmp_path: Path, name: str, number: int) -> None:
    def edit(model: NcnnModel) -> str:
        place = int8_places(model)[number]
        own = model.weights[place]
        at = 2 if model.layers[place].number(5) else 1
        scales = own[at].values.copy()
        order = np.argsort(scales)
        scales[[order[0], order[-1]]] = scales[[order[-1], order[0]]]
        own[at] = Weights(scales, False)
        return model.layers[place].name

    layer, cause = planted(made, tmp_path, name, edit)
    assert f"fault in '{layer}': its weight[" in cause, cause


@pytest.mark.parametrize(("factor", "told"), [(10.0, "of its values lie beyond"), (0.005, "reach no further than")])
@pytest.mark.parametrize(("name", "number"), [("resnet", 3), ("mobilenet_v3", 8)])
def test_range_of_what_a_layer_is_fed(
    made: Networks, tmp_path: Path, name: str, number: int, factor: float, told: str
) -> None:
    def edit(model: NcnnModel) -> str:
        part_int8(model)  # else the layer before has it too
        place = int8_places(model)[number]
        model.weights[place][-1] = Weights(model.weights[place][-1].values * np.float32(factor), False)
        return model.layers[place].name

    layer, cause = planted(made, tmp_path, name, edit)
    assert f"unfit range in '{layer}': the range of what it is fed" in cause and told in cause, cause


def test_one_wrong_bias(made: Networks, tmp_path: Path) -> None:
    def edit(model: NcnnModel) -> str:
        place = int8_places(model)[7]
        bias = model.weights[place][1].values.copy()
        bias[2] += 5
        model.weights[place][1] = Weights(bias, False)
        return model.layers[place].name

    layer, cause = planted(made, tmp_path, "mobilenet_v2", edit)
    assert f"fault in '{layer}': its bias[2] is" in cause and "more of" not in cause, cause


def test_an_output_in_another_scale_than_the_next_layer_takes(made: Networks, tmp_path: Path) -> None:
    def edit(model: NcnnModel) -> str:
        place = next(place for place in int8_places(model) if model.layers[place].number(8) > 100)
        model.weights[place][-1] = Weights(model.weights[place][-1].values * np.float32(0.5), False)
        return model.layers[place].name

    layer, cause = planted(made, tmp_path, "mobilenet_v2", edit)
    assert f"fault in '{layer}': its output's scale is" in cause, cause


def test_another_network(made: Networks) -> None:
    plain, other = (
        NcnnModel.read(path) for path in (made("resnet") / "ncnn" / "model.param", int8(made("mobilenet_v2")))
    )
    with pytest.raises(InputError, match="no quantised layer in common"):
        NcnnLayers(plain, other)
