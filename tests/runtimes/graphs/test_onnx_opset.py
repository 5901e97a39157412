"""Older opsets, and what becomes of models that cannot be converted."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
import small_onnx
from onnx import helper, numpy_helper, version_converter

from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.graphs.onnx_fold import folded
from edgerecall.runtimes.graphs.onnx_opset import modernised, opset_of


def test_older_ones_become_13_and_others_stay() -> None:
    for opset in (9, 11, 12):
        model = small_onnx.network(opset=opset)
        assert opset_of(modernised(model)) == 13 and opset_of(model) == opset
        assert opset_of(folded(model)) == 13
        onnx.checker.check_model(folded(model), full_check=True)
    model = small_onnx.network(opset=17)
    assert modernised(model) is model


@pytest.mark.parametrize("opset", [9, 10])
def test_resizing_keeps_its_rule(opset: int) -> None:
    """Below opset 11 it was asymmetric, with no word for it."""
    import onnxruntime

    scales = numpy_helper.from_array(np.array([1, 1, 1.5, 1.5], np.float32), "scales")
    node = helper.make_node("Upsample" if opset == 9 else "Resize", ["x", "scales"], ["y"], mode="linear")
    ends = [helper.make_tensor_value_info(name, 1, [1, 1, None, None]) for name in "xy"]
    graph = helper.make_graph([node], "resize", ends[:1], ends[1:], [scales])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    image = np.random.default_rng(0).standard_normal((1, 1, 6, 6)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(one.SerializeToString(), providers=["CPUExecutionProvider"]).run(
            None, {"x": image}
        )
        for one in (model, modernised(model))
    )
    np.testing.assert_allclose(after[0], before[0], atol=1e-6)


def test_where_the_converter_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: Any, version: int) -> Any:
        raise RuntimeError("no adapter for Odd\nand more")

    monkeypatch.setattr(version_converter, "convert_version", fail)
    old, older = small_onnx.network(opset=11), small_onnx.network(opset=9)
    assert modernised(old) is old
    with pytest.raises(InputError, match=r"opset 9 cannot be brought to 13 \(no adapter for Odd\): export it again"):
        modernised(older)
