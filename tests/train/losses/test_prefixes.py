"""Embeddings whose first numbers serve as smaller ones: trained by a loss's `prefixes`, exported by `Arch.prefix`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper
from pydantic import ValidationError

from edgerecall.export.quantize.onnx_int8 import quantize_onnx
from edgerecall.export.quantize.recipes import Int8Recipe
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError
from edgerecall.train.config.loss import ContrastiveMemoryOptions
from edgerecall.train.config.training import load_config
from edgerecall.train.evaluate import encode_sets
from edgerecall.train.setup import build_network
from edgerecall.train.trainer import Trainer

PREFIXES = "Loss.Train.0.ContrastiveLoss_XBM.prefixes"


def test_trained_and_refused(config_file: Path) -> None:
    trainer = Trainer(load_config(config_file, [f"{PREFIXES}=[8,16]"]))
    values: list[float] = []
    trainer.run(lambda report: values.append(report.loss), lambda epoch, scores: None)
    assert len(values) == 3 and np.isfinite(values).all()
    assert (config_file.parent / "run" / "latest.pdparams").is_file()
    with pytest.raises(InputError, match="fewer than the 32 dimensions, got 32"):
        Trainer(load_config(config_file, [f"{PREFIXES}=[8,32]"]))
    with pytest.raises(InputError, match=r"Arch\.prefix is for eval and export"):
        Trainer(load_config(config_file, ["Arch.prefix=8"]))
    with pytest.raises(InputError, match="embedding has 32 dimensions, got 64"):
        build_network(load_config(config_file, ["Arch.prefix=64"]))
    with pytest.raises(ValidationError, match="expected different numbers, got 8, 8"):
        ContrastiveMemoryOptions(xbm_size=8, prefixes=(8, 8))
    with pytest.raises(InputError, match="head takes whole embeddings"):
        head = {"name": "FC", "embedding_size": 32, "class_num": 12}
        load_config(config_file, [f"Arch.Head={head}", "Arch.prefix=8", "Global.eval_mode=classification"])


def test_a_resumed_training_is_told_of_others(config_file: Path) -> None:
    told = []
    for given in ([], [f"{PREFIXES}=[8]"]):
        told.append(Trainer(load_config(config_file, given)).progress.settings)
    changed = {name: told[1][name] for name in told[0] if told[0][name] != told[1][name]}
    assert changed == {"Loss.Train.ContrastiveLoss_XBM.prefixes": "(8,)"} and told[0].keys() == told[1].keys()


def test_the_cut_embedding_is_not_rounded(tmp_path: Path) -> None:
    """In int8 the embedding is left in float, whatever passes it on."""
    draw = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(draw.standard_normal((8, 3, 3, 3)).astype(np.float32), "w"),
        numpy_helper.from_array(draw.standard_normal((8, 32)).astype(np.float32), "dense"),
        *(numpy_helper.from_array(np.array([value]), name) for name, value in (("from", 0), ("to", 8), ("axis", 1))),
    ]
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["c"], name="conv"),
        helper.make_node("Relu", ["c"], ["r"], name="relu"),
        helper.make_node("GlobalAveragePool", ["r"], ["p"], name="pool"),
        helper.make_node("Flatten", ["p"], ["f"], name="flatten"),
        helper.make_node("MatMul", ["f", "dense"], ["e"], name="embed"),
        helper.make_node("Slice", ["e", "from", "to", "axis"], ["y"], name="cut"),
    ]
    ends = [helper.make_tensor_value_info(name, 1, ["n", *sizes]) for name, sizes in (("x", (3, 16, 16)), ("y", (8,)))]
    graph = helper.make_graph(nodes, "cut", ends[:1], ends[1:], weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), tmp_path / "m.onnx")
    images = draw.standard_normal((8, 3, 16, 16)).astype(np.float32)
    quantize_onnx(tmp_path / "m.onnx", images, Int8Recipe(), tmp_path / "int8.onnx")
    found = onnx.load(str(tmp_path / "int8.onnx")).graph
    makers = {name: node for node in found.node for name in node.output}
    cut = makers["y"]
    assert cut.op_type == "Slice" and makers[cut.input[0]].op_type in ("MatMul", "Gemm")
    used = {name for node in found.node for name in node.input} | {"y"}
    assert all(set(node.output) & used for node in found.node) and {one.name for one in found.initializer} <= used


def test_the_first_numbers_are_evaluated_and_exported(
    trained: Path, tmp_path: Path, edgerecall: Callable[..., Any]
) -> None:
    found = {}
    for prefix in (None, 8):
        config = load_config(trained / "train.yaml", [f"Arch.prefix={prefix}"] if prefix else [])
        state = build_network(config, trained / "run" / "latest").state_dict()
        found[prefix] = encode_sets(config, state)[0].embeddings
    cut = found[None][:, :8]
    np.testing.assert_allclose(found[8], cut / np.linalg.norm(cut, axis=1, keepdims=True), atol=1e-5)
    options = ("-c", trained / "train.yaml", "--checkpoint", trained / "run" / "latest", "-o", "Arch.prefix=8")
    result = edgerecall("export", tmp_path / "bundle", *options, "--formats", "paddle,onnx")
    assert result.returncode == 0, result.stderr
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.spec.embedding_dim == 8
    assert [artifact.name for artifact in bundle.manifest.artifacts] == ["paddle", "onnx"]
