"""ONNX models as exporters write them become bundles that give what the file gives; others are refused in one line."""

from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_onnx import DIM, SIDE, constant, network, write

from edgerecall.export.sources.normal_onnx import find_ends, normalised, prepare, proven, reference
from edgerecall.export.sources.read_onnx import read_onnx
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError, ParityError
from edgerecall.runtimes.graphs.onnx_inner import described

Run = Callable[..., subprocess.CompletedProcess[str]]
SHAPE = (3, SIDE, SIDE)
PREPROCESS = f"""Compose(
    Resize(size={SIDE}, interpolation=bilinear, max_size=None, antialias=True)
    CenterCrop(size=({SIDE}, {SIDE}))
    ToTensor()
    Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225])
)"""
FORMS: dict[str, dict[str, Any]] = {
    "free batch": {},
    "fixed batch of 1": {"batch": 1},
    "fixed batch of 4": {"batch": 4},
    "free sides": {"sides": (None, None)},
    "channels last": {"channels_last": True},
    "channels last, fixed": {"channels_last": True, "batch": 1},
    "opset 9": {"opset": 9},
    "opset 11": {"opset": 11},
    "opset 24": {"opset": 24},
    "odd name": {"name": "input.1:0"},
    "a token joined": {"token": True, "opset": 13, "batch": 1},
    "a batch of -1": {"batch": -1},
    "a batch of 0": {"batch": 0},
}


def run(path: Path, tensors: np.ndarray) -> np.ndarray:
    """A prepared model, by ONNX Runtime as it is."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (given,) = session.get_inputs()
    (found,) = session.run(None, {given.name: tensors})
    return np.asarray(found)


def noise(count: int) -> np.ndarray:
    return np.random.default_rng(1).standard_normal((count, *SHAPE)).astype(np.float32)


def by_hand(tensors: np.ndarray) -> np.ndarray:
    """What `small_onnx.network` is, in double precision."""
    arrays = {one.name: numpy_helper.to_array(one).astype(np.float64) for one in network().graph.initializer}
    padded = np.pad(tensors.astype(np.float64), [(0, 0), (0, 0), (1, 1), (1, 1)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))[:, :, ::2, ::2]
    x = np.einsum("nchwij,ocij->nohw", windows, arrays["w"])
    channels = {name: arrays[name].reshape(-1, 1, 1) for name in ("gamma", "beta", "mean", "var")}
    x = (x - channels["mean"]) / np.sqrt(channels["var"] + 1e-5) * channels["gamma"] + channels["beta"]
    return np.maximum(x, 0).mean(axis=(2, 3)) @ arrays["dense"]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_is_made_plain_and_gives_the_same(form: str, tmp_path: Path) -> None:
    path = write(network(**FORMS[form]), tmp_path / "model.onnx")
    ends, changes = prepare(path, tmp_path / "plain.onnx", SHAPE, None)
    plain = onnx.load(str(tmp_path / "plain.onnx"))
    (given,), (output,) = plain.graph.input, plain.graph.output
    sizes = [one.dim_value or one.dim_param for one in given.type.tensor_type.shape.dim]
    assert given.name == ends.input_name == FORMS[form].get("name", "images") and sizes == ["batch", *SHAPE]
    assert output.name == "features"
    kinds = [node.op_type for node in plain.graph.node]
    assert not {"Identity", "Dropout", "Constant"} & set(kinds)
    assert "Transpose" not in kinds or FORMS[form].get("token")  # the model's own one and ours are both left out
    assert changes["operators"] == [len(network(**FORMS[form]).graph.node), len(kinds)]
    old = FORMS[form].get("opset", 17) < 13
    assert changes.get("opset") == (f"was {FORMS[form]['opset']}" if old else None)
    assert plain.opset_import[0].version == (13 if old else FORMS[form].get("opset", 17))
    assert ("batch" in changes) == (FORMS[form].get("batch", 0) > 0) and ("size" in changes) == (form == "free sides")
    tensors = noise(5)
    expected = reference(path, tensors, None)
    np.testing.assert_allclose(run(tmp_path / "plain.onnx", tensors), expected, rtol=1e-5, atol=1e-6)
    if not FORMS[form].get("token"):
        np.testing.assert_allclose(expected, by_hand(tensors), rtol=1e-4, atol=1e-5)


def test_a_layer_inside_is_the_embedding_and_the_head_is_left_out(tmp_path: Path) -> None:
    model = network()
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5]))
    path = write(model, tmp_path / "model.onnx")
    ends, _ = prepare(path, tmp_path / "plain.onnx", SHAPE, "features")
    plain = onnx.load(str(tmp_path / "plain.onnx"))
    assert ends.output_name == "features" and "classify" not in [node.name for node in plain.graph.node]
    assert "classes" not in [one.name for one in plain.graph.initializer]
    np.testing.assert_allclose(run(tmp_path / "plain.onnx", noise(2)), by_hand(noise(2)), rtol=1e-4, atol=1e-5)
    # `(N, C, 1, 1)`, as global pooling leaves it
    prepare(path, tmp_path / "pooled.onnx", SHAPE, "g")
    assert run(tmp_path / "pooled.onnx", noise(2)).shape == (2, 8)


def test_weights_beside_the_model_are_brought_inside(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(network(), str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    assert (tmp_path / "weights.bin").stat().st_size > 500
    prepare(path, tmp_path / "plain.onnx", SHAPE, None)
    (tmp_path / "weights.bin").unlink()
    np.testing.assert_allclose(run(tmp_path / "plain.onnx", noise(2)), by_hand(noise(2)), rtol=1e-4, atol=1e-5)


def test_functions_are_put_in_place(tmp_path: Path) -> None:
    """As the newer exporters write modules."""
    model = network()
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type, relu.domain = "Rectify", "own"
    body = [helper.make_node("Relu", ["x"], ["y"])]
    model.functions.append(helper.make_function("own", "Rectify", ["x"], ["y"], body, [helper.make_opsetid("", 17)]))
    model.opset_import.append(helper.make_opsetid("own", 1))
    prepare(write(model, tmp_path / "model.onnx"), tmp_path / "plain.onnx", SHAPE, None)
    np.testing.assert_allclose(run(tmp_path / "plain.onnx", noise(2)), by_hand(noise(2)), rtol=1e-4, atol=1e-5)


def test_a_plain_form_that_differs_is_not_taken(tmp_path: Path) -> None:
    """Mildly and strongly wrong, and mixed up within the batch."""
    model = read_onnx(write(network(), tmp_path / "model.onnx"))
    ends, expected = find_ends(model, SHAPE, None), by_hand(noise(3)).astype(np.float32)
    plain = normalised(model, SHAPE, ends, [DIM])
    assert proven(expected, plain, noise(3), ends) is plain
    for factor in (1.0005, 1.5, np.nan):
        wrong = normalised(model, SHAPE, ends, [DIM])
        tensor = next(one for one in wrong.graph.initializer if one.name == "dense")
        tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor) * np.float32(factor), "dense"))
        with pytest.raises(ParityError, match="differs from"):
            proven(expected, wrong, noise(3), ends)
    mixed = network()
    last = mixed.graph.node[-2]
    last.output[0] = "own"
    mixed.graph.node.insert(len(mixed.graph.node) - 1, helper.make_node("Sub", ["own", "m"], ["features"]))
    average = helper.make_node("ReduceMean", ["own"], ["m"], axes=[0], keepdims=1)
    mixed.graph.node.insert(len(mixed.graph.node) - 2, average)
    with pytest.raises(ParityError, match="a batch of 3 differs from its images one by one"):
        prepare(write(mixed, tmp_path / "mixed.onnx"), tmp_path / "plain.onnx", SHAPE, None)


def branched(rank: int = 3) -> Any:
    """An If whose branches take a constant from outside. rank: of its output, behind the batch."""
    model = network()
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    branches = {
        f"{name}_branch": helper.make_graph(
            [helper.make_node("Identity", ["b"], ["x"]), helper.make_node(kind, ["x", "two"], ["y"])],
            name,
            [],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", *"abc"[:rank]])],
        )
        for name, kind in (("then", "Mul"), ("else", "Add"))
    }
    relu.CopyFrom(helper.make_node("If", ["yes"], ["r"], name="if", **branches))
    model.graph.initializer.extend([constant("yes", True, bool), constant("two", 2.0)])
    return model


def test_graphs_inside_of_operators(tmp_path: Path) -> None:
    """They keep the constants that they take, and where --output cuts them off the rest is made plain."""
    path = write(branched(), tmp_path / "model.onnx")
    assert {"r", "g", "features"} <= {one.name for one in described(branched().graph)}  # none of it is constant
    prepare(path, tmp_path / "plain.onnx", SHAPE, None)
    expected = reference(path, noise(2), None)
    np.testing.assert_allclose(run(tmp_path / "plain.onnx", noise(2)), expected, rtol=1e-5, atol=1e-6)
    below = network()
    del below.graph.output[:]
    below.graph.output.append(helper.make_tensor_value_info("last", TensorProto.FLOAT, ["n", DIM]))
    for node in branched(1).graph.node:
        if node.op_type == "If":
            for one in node.attribute:
                for inner in one.g.node:
                    inner.input[:] = ["features" if name == "b" else name for name in inner.input]
            node.output[0] = "last"
            below.graph.node.append(node)
    below.graph.initializer.extend([constant("yes", True, bool), constant("two", 2.0)])
    prepare(write(below, tmp_path / "below.onnx"), tmp_path / "cut.onnx", SHAPE, "features")
    kinds = {node.op_type for node in onnx.load(str(tmp_path / "cut.onnx")).graph.node}
    assert not kinds & {"If", "Identity", "Dropout"}


def test_what_older_and_sloppier_exporters_write(tmp_path: Path) -> None:
    """Constants among the inputs, as IR 3 asks for; operators out of order; names that we would choose ourselves; a
    long chain that does nothing.
    """
    model = network(opset=11)
    model.ir_version = 3
    for one in model.graph.initializer:
        model.graph.input.append(helper.make_tensor_value_info(one.name, one.data_type, one.dims))
    nodes = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend(nodes[::-1])
    prepare(write(model, tmp_path / "old.onnx"), tmp_path / "plain.onnx", SHAPE, None)
    np.testing.assert_allclose(run(tmp_path / "plain.onnx", noise(2)), by_hand(noise(2)), rtol=1e-4, atol=1e-5)
    model = network(channels_last=True)
    model.graph.node[0].input[0] = "images_channels_last"
    model.graph.node.insert(0, helper.make_node("Relu", ["images"], ["images_channels_last"], name="first"))
    for at in range(3000):
        model.graph.node.append(helper.make_node("Identity", [f"g{at}" if at else "g"], [f"g{at + 1}"]))
    model.graph.node.append(helper.make_node("Identity", ["g3000"], ["g_flat"]))
    model.graph.output.append(helper.make_tensor_value_info("g_flat", TensorProto.FLOAT, None))
    path = write(model, tmp_path / "names.onnx")
    for output in ("features", "g", "g_flat"):
        prepare(path, tmp_path / "named.onnx", SHAPE, output)
        expected = reference(path, noise(2), output)
        np.testing.assert_allclose(run(tmp_path / "named.onnx", noise(2)), expected, rtol=1e-5, atol=1e-6)
        assert len(onnx.load(str(tmp_path / "named.onnx")).graph.node) < 16


def two_inputs() -> Any:
    model = network()
    model.graph.input.append(helper.make_tensor_value_info("mask", TensorProto.FLOAT, ["n", 1]))
    return model


def two_outputs() -> Any:
    model = network()
    model.graph.output.append(helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 5]))
    return model


def with_node(*node: Any, **attributes: Any) -> Any:
    """The network with its ReLU replaced."""
    model = network()
    relu = next(one for one in model.graph.node if one.op_type == "Relu")
    relu.CopyFrom(helper.make_node(*node, name="odd", **attributes))
    if attributes.get("domain"):
        model.opset_import.append(helper.make_opsetid(attributes["domain"], 1))
    return model


def with_opset(version: int) -> Any:
    model = network()
    model.opset_import[0].version = version
    return model


def held_batch(size: int) -> Any:
    """A fixed batch in an operator that cannot be opened."""
    model = network(batch=size)
    model.graph.initializer.append(constant("held", np.ones((size, DIM))))
    model.graph.node[-2].output[0] = "own"
    model.graph.node.insert(len(model.graph.node) - 1, helper.make_node("Mul", ["own", "held"], ["features"]))
    return model


def dropping(training: bool) -> Any:
    """Dropout with its mode as an input."""
    model = network()
    dropout = next(node for node in model.graph.node if node.op_type == "Dropout")
    dropout.input.extend(["ratio", "training"])
    model.graph.initializer.extend([constant("ratio", 0.5), constant("training", training, bool)])
    return model


def half_inside() -> Any:
    """Activations in float16."""
    model = with_node("Cast", ["b"], ["h"], to=TensorProto.FLOAT16)
    place = next(index for index, node in enumerate(model.graph.node) if node.op_type == "Cast")
    model.graph.node.insert(place + 1, helper.make_node("Cast", ["h"], ["r"], name="back", to=TensorProto.FLOAT))
    return model


def nested(depth: int) -> Any:
    """Functions that each call the next twice; 0: one that calls itself."""
    model = with_node("F0", ["b"], ["r"], domain="own")
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    for level in range(depth + 1):
        inner = (f"F{level + 1}", "own") if level < depth else ("F0", "own") if depth == 0 else ("Relu", "")
        body = [
            helper.make_node(inner[0], ["x"], ["y"], domain=inner[1]),
            helper.make_node(inner[0], ["y"], ["z"], domain=inner[1]),
        ]
        model.functions.append(helper.make_function("own", f"F{level}", ["x"], ["z"], body, opsets))
    return model


def test_dropout_that_does_not_drop(tmp_path: Path) -> None:
    prepare(write(dropping(False), tmp_path / "model.onnx"), tmp_path / "plain.onnx", SHAPE, None)
    np.testing.assert_allclose(run(tmp_path / "plain.onnx", noise(2)), by_hand(noise(2)), rtol=1e-4, atol=1e-5)


def test_weights_stored_in_half_are_taken(tmp_path: Path) -> None:
    model = network()
    tensor = next(one for one in model.graph.initializer if one.name == "w")
    half = numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), "w16")
    tensor.CopyFrom(half)
    model.graph.node.insert(0, helper.make_node("Cast", ["w16"], ["w"], name="widen", to=TensorProto.FLOAT))
    prepare(write(model, tmp_path / "model.onnx"), tmp_path / "plain.onnx", SHAPE, None)
    np.testing.assert_allclose(run(tmp_path / "plain.onnx", noise(2)), by_hand(noise(2)), rtol=1e-2, atol=1e-2)


REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "two inputs": (
        two_inputs,
        "expected one input, the image, got 2: 'images' (float32 any x 3 x 32 x 32), 'm",
    ),
    "two outputs": (
        two_outputs,
        "expected one output, got 2: choose the embedding by --output NAME: 'features'",
    ),
    "float16": (lambda: network(input_type=TensorProto.FLOAT16), "'images': expected float32, got float16"),
    "uint8": (lambda: network(input_type=TensorProto.UINT8), "'images': expected float32, got uint8"),
    "another size": (
        lambda: network(sides=(48, 48)),
        "takes any x 3 x 48 x 48, the preprocessing gives",
    ),
    "old opset": (lambda: with_opset(8), "expected opset 9 to 24, got opset 8: export it again with opset 17"),
    "opset to come": (lambda: with_opset(99), "expected opset 9 to 24, got opset 99"),
    "another domain": (
        lambda: with_node("Gelu", ["b"], ["r"], domain="com.microsoft"),
        "operator Gelu ('odd') is of domain 'com.microsoft', not a standard one",
    ),
    "unknown operator": (lambda: with_node("Relux", ["b"], ["r"]), "not a valid ONNX model: "),
    "random": (lambda: with_node("RandomNormalLike", ["b"], ["r"]), "RandomNormalLike ('odd') draws random numbers"),
    "training": (
        lambda: with_node(
            "BatchNormalization", ["b", "gamma", "beta", "mean", "var"], ["r", "x", "y"], training_mode=1
        ),
        "BatchNormalization ('odd') is in training mode: call model.eval()",
    ),
    "a picture out": (network, "got float32 1 x 8 x 16 x 16: choose another by --output NAME, or pool in the model"),
    "a batch that is held": (lambda: held_batch(2), "the model holds a fixed batch of 2: export it with a free batch"),
    "a batch as large as ours": (lambda: held_batch(3), "the model holds a fixed batch of 3: export it"),
    "a batch without end": (lambda: network(batch=10**8), "expected a free batch, or one of up to 1024, got 10"),
    "dropping out": (lambda: dropping(True), "Dropout ('dropout') is in training mode: call model.eval()"),
    "half inside": (lambda: half_inside(), "'h' is computed in half precision: export the model in float32"),
    "NaN": (lambda: network(scale=float("nan")), "the model gives NaN or infinity for an image of noise"),
    "functions in functions": (lambda: nested(30), "expected up to 100,000 operators"),
    "a function that calls itself": (lambda: nested(0), "functions that do not call themselves"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_taken_says_why(case: str, tmp_path: Path) -> None:
    make, message = REFUSED[case]
    output = "d" if case == "a picture out" else None
    with pytest.raises(InputError) as caught:
        prepare(write(make(), tmp_path / "model.onnx"), tmp_path / "plain.onnx", SHAPE, output)
    assert message in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600
    assert not (tmp_path / "plain.onnx").exists()


def test_an_output_that_is_not_there(tmp_path: Path) -> None:
    path = write(network(), tmp_path / "model.onnx")
    with pytest.raises(InputError, match="no operator makes 'feature'; did you mean 'features'"):
        prepare(path, tmp_path / "plain.onnx", SHAPE, "feature")
    with pytest.raises(InputError, match="the model's outputs: features"):
        prepare(path, tmp_path / "plain.onnx", SHAPE, "zzz")


def save_outside(folder: Path, location: str, **fields: int) -> Path:
    """The network with its convolution's weights said to lie elsewhere."""
    model = network()
    tensor = next(one for one in model.graph.initializer if one.name == "w")
    data = numpy_helper.to_array(tensor).tobytes()
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": 0, "length": len(data), **fields}.items():
        tensor.external_data.add(key=key, value=str(value))
    (folder / "inside.bin").write_bytes(data)
    (folder.parent / "outside.bin").write_bytes(data)
    return write(model, folder / "model.onnx")


@pytest.mark.parametrize(
    ("location", "fields", "message"),
    [
        ("gone.bin", {}, "its weights lie in 'gone.bin', which is not there: copy it with the model"),
        ("../outside.bin", {}, "the weight 'w' lies in '../outside.bin': expected a file in the model's folder"),
        ("/etc/passwd", {}, "the weight 'w' lies in '/etc/passwd': expected a file"),
        ("link.bin", {}, "the weight 'w' lies in 'link.bin': expected a file in the model's folder"),
        ("C:\\weights", {}, "the weight 'w' lies in 'C:\\weights': expected a file"),
        ("", {}, "the weight 'w' lies in ''"),
        ("inside.bin", {"offset": 4}, "'inside.bin' ends before the weight 'w': copy it again"),
        ("inside.bin", {"offset": -4}, "'inside.bin' ends before the weight 'w'"),
        ("inside.bin", {"length": 1 << 40}, "'inside.bin' ends before the weight 'w'"),
    ],
)
def test_weights_that_are_not_beside_the_model(
    tmp_path: Path, location: str, fields: dict[str, int], message: str
) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "link.bin").symlink_to(tmp_path / "outside.bin")
    path = save_outside(tmp_path / "model", location, **fields)
    with pytest.raises(InputError) as caught:
        read_onnx(path)
    assert message in str(caught.value)
    assert read_onnx(save_outside(tmp_path / "model", "inside.bin")).graph.node


def test_weights_in_a_hub_s_cache(tmp_path: Path) -> None:
    """Links beside each other, to files of other names that lie together elsewhere."""
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshot"
    for folder in (blobs, snapshot):
        folder.mkdir()
    path = save_outside(blobs, "model.onnx_data")
    (snapshot / "model.onnx").symlink_to(path)
    (snapshot / "model.onnx_data").symlink_to(blobs / "inside.bin")
    assert read_onnx(snapshot / "model.onnx").graph.node


def test_weights_of_functions_and_sparse_ones_lie_inside_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else they would be looked for in the current folder."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here" / "secret.bin").write_bytes(np.full(8, 2, np.float32).tobytes())
    monkeypatch.chdir(tmp_path / "here")
    outside = TensorProto(data_type=TensorProto.FLOAT, dims=[8, 1, 1], name="s", data_location=TensorProto.EXTERNAL)
    outside.external_data.add(key="location", value="secret.bin")
    model = with_node("Scale", ["b"], ["r"], domain="own")
    body = [helper.make_node("Constant", [], ["s"], value=outside), helper.make_node("Mul", ["x", "s"], ["y"])]
    opsets = [helper.make_opsetid("", 17)]
    model.functions.append(helper.make_function("own", "Scale", ["x"], ["y"], body, opsets))
    (tmp_path / "model").mkdir()
    path = write(model, tmp_path / "model" / "model.onnx")
    with pytest.raises(InputError, match=r"its weights lie in 'secret.bin', which is not there"):
        read_onnx(path)
    shutil.copyfile("secret.bin", path.with_name("secret.bin"))
    prepare(path, tmp_path / "plain.onnx", SHAPE, None)
    path.with_name("secret.bin").unlink()
    assert run(tmp_path / "plain.onnx", noise(1)).shape == (1, DIM)


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x08\x08" * 2000, struct.pack("<Q", 1 << 60) * 9])
def test_a_file_that_is_none(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(content)
    with pytest.raises(InputError, match="not an ONNX model"):
        read_onnx(tmp_path / "model.onnx")


def test_damaged_files_never_crash(tmp_path: Path) -> None:
    """Bytes changed anywhere, cuts anywhere: an answer or an InputError."""
    sound = write(network(token=True, opset=13), tmp_path / "sound.onnx").read_bytes()
    draw = np.random.default_rng(int(os.environ.get("EDGERECALL_SEED", "0")))
    kinds = set()
    for _ in range(150):
        data = bytearray(sound)
        for place in draw.integers(0, len(data), draw.integers(1, 4)):
            data[place] = draw.integers(0, 256)
        cut = data[: draw.integers(1, len(data))] if draw.random() < 0.2 else data
        (tmp_path / "model.onnx").write_bytes(bytes(cut))
        try:
            prepare(tmp_path / "model.onnx", tmp_path / "plain.onnx", SHAPE, None)
            kinds.add("read")
        except (InputError, ParityError) as error:
            assert "\n" not in str(error) and len(str(error)) < 600
            kinds.add(str(error)[:12])
    assert len(kinds) >= 3


@pytest.fixture
def no_paddle(tmp_path: Path) -> dict[str, str]:
    """An environment in which importing paddle fails, and is noticed."""
    (tmp_path / "fakes" / "paddle").mkdir(parents=True)
    (tmp_path / "fakes" / "paddle" / "__init__.py").write_text(
        f"open({str(tmp_path / 'imported')!r}, 'w').close()\nraise ImportError('none here')\n"
    )
    return {"PYTHONPATH": str(tmp_path / "fakes")}


def test_all_the_way_without_paddle(edgerecall: Run, tmp_path: Path, data: Path, no_paddle: dict[str, str]) -> None:
    model = write(network(batch=1, scale=2.0, name="input.1"), tmp_path / "model.onnx")
    (tmp_path / "transform.txt").write_text(PREPROCESS)
    bundle = tmp_path / "bundle"

    def ask(*arguments: object) -> str:
        result = edgerecall(*arguments, env=no_paddle)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    (tmp_path / "images").mkdir()
    for index, line in enumerate((data / "test_list.txt").read_text().splitlines()[:8]):
        shutil.copyfile(data / line.split()[0], tmp_path / "images" / f"{index}.jpg")
    source = ("--model", model, "--preprocess", tmp_path / "transform.txt", "--images", tmp_path / "images")
    assert "16-d" in ask("export", bundle, *source, "--formats", "all,ncnn")
    manifest = Bundle.open(bundle).manifest
    assert [one.name for one in manifest.artifacts] == [
        "onnx",
        "openvino",
        "mnn",
        "litert",
        "ncnn",
    ] and manifest.skipped == ()
    assert manifest.source["form"] == "onnx" and manifest.source["onnx_passes"]["batch"] == "was 1"
    assert manifest.spec.input_name == "input.1" and "paddlepaddle" not in json.dumps(manifest.source)
    assert "ok" in ask("verify", bundle)
    assert "no difference" in ask("why", bundle, "--a", "onnxruntime", "--b", "ncnn")
    ask("quantize", bundle, "--calibrate", data, "--artifacts", "onnx-int8,openvino-int8,ncnn-int8,onnx-fp16")
    rows = ask("bench", bundle, "--images", data, "--samples", 4, "--rounds", 2, "--json", tmp_path / "bench.json")
    found = {row["name"]: row for row in json.loads((tmp_path / "bench.json").read_text())["rows"]}
    assert len(found) == 9 and all(row["status"] in ("ok", "undecided") for row in found.values()), rows
    assert all(found[name]["delta_recall1"] == 0 for name in ("onnxruntime", "openvino", "mnn", "litert", "ncnn")), (
        found
    )
    config = {"rec_inference_model_dir": str(bundle), "infer_imgs": str(data), "runtime": "openvino"}
    (tmp_path / "predict.yaml").write_text(json.dumps({"Global": config}))
    assert len(ask("predict", "-c", tmp_path / "predict.yaml").splitlines()) > 40
    assert not (tmp_path / "imported").exists()


def test_formats_of_paddle_say_what_they_need(
    edgerecall: Run, tmp_path: Path, data: Path, one_line: Callable[..., None]
) -> None:
    model = write(network(), tmp_path / "model.onnx")
    (tmp_path / "transform.txt").write_text(PREPROCESS)
    source = ("--model", model, "--preprocess", tmp_path / "transform.txt", "--images", data)
    result = edgerecall("export", tmp_path / "bundle", *source, "--formats", "onnx,lite-x86")
    assert result.returncode == 1 and "comes as ONNX, and this format is made from a Paddle model" in result.stderr
    write(two_outputs(), model)
    for more in ((), ("--force",)):
        one_line(edgerecall("export", tmp_path / "b", *source, *more), 2, f"{model}: expected one output, got 2")
    assert not (tmp_path / "b").exists()
    shutil.rmtree(tmp_path / "bundle")
    assert edgerecall("export", tmp_path / "bundle", *source, "--output", "features").returncode == 0
    one_line(
        edgerecall("export", tmp_path / "c", *source[:2], "--preprocess", "imagnet", *source[4:]),
        2,
        "did you mean 'imagenet'?",
    )
