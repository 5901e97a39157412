"""Older opsets, and what becomes of models that cannot be converted."""

from __future__ import annotations

from typing import Any

import onnx
import pytest
import small_onnx
from onnx import version_converter

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


def test_where_the_converter_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: Any, version: int) -> Any:
        raise RuntimeError("no adapter for Odd\nand more")

    monkeypatch.setattr(version_converter, "convert_version", fail)
    old, older = small_onnx.network(opset=11), small_onnx.network(opset=9)
    assert modernised(old) is old
    with pytest.raises(InputError, match=r"opset 9 cannot be brought to 13 \(no adapter for Odd\): export it again"):
        modernised(older)
