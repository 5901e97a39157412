"""Models of older ONNX opsets brought to one in which a weight may have a scale for each channel."""

from __future__ import annotations

from typing import Any

from ..core.errors import InputError
from ..core.text import one_line

STANDARD = ("", "ai.onnx")
LEAST, READ = 13, 11  # what models are brought to, and from which on they are read as they are too
OLD_RULE = ("coordinate_transformation_mode", "asymmetric")  # of resizing below opset 11


def opset_of(model: Any) -> int | None:
    """The version of ONNX's own operators that a model names."""
    return next((int(one.version) for one in model.opset_import if one.domain in STANDARD), None)


def modernised(model: Any) -> Any:
    """The model itself, or a copy in opset 13 where its own is older; where ONNX's converter cannot, the model itself,
    and InputError for one below 11.
    """
    from onnx import checker, helper, version_converter

    opset = opset_of(model)
    if opset is None or opset >= LEAST:
        return model
    try:
        found = version_converter.convert_version(model, LEAST)
        for node in found.graph.node if opset < READ else ():
            if node.op_type == "Resize" and not any(one.name == OLD_RULE[0] for one in node.attribute):
                node.attribute.append(helper.make_attribute(*OLD_RULE))  # which the converter leaves out
                node.attribute.append(helper.make_attribute("nearest_mode", "floor"))
        checker.check_model(found, full_check=True)
        return found
    except Exception as error:  # RuntimeError, and whatever else comes out of C++
        if opset >= READ:
            return model
        raise InputError(
            f"opset {opset} cannot be brought to {LEAST} ({one_line(error)}): export it again with opset 17"
        ) from error
