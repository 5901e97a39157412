"""Passes over a `.pdmodel` program that make Paddle Lite 2.13 take it; the arithmetic stays the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..runtimes.backends.paddle_model import read_program
from ..runtimes.core.errors import InputError

FLOAT, INTS = 1, 3  # AttrType of framework.proto


def _attributes(op: Any) -> dict[str, Any]:
    return {attribute.name: attribute for attribute in op.attrs}


def _variable(block: Any, name: str) -> Any:
    for var in block.vars:
        if var.name == name:
            return var
    raise InputError(f"program has no variable '{name}'")


def _slot(slots: Any, parameter: str) -> str | None:
    """The first argument of an operator's input or output slot."""
    for slot in slots:
        if slot.parameter == parameter and slot.arguments:
            return str(slot.arguments[0])
    return None


def _add_shape_output(block: Any, op: Any, source: str) -> None:
    """`reshape2` has a second output `XShape` that Lite insists on; `flatten` may come without."""
    if _slot(op.outputs, "XShape") is not None:
        return
    for slot in [slot for slot in op.outputs if slot.parameter == "XShape"]:
        op.outputs.remove(slot)
    shape_of = block.vars.add()
    shape_of.CopyFrom(_variable(block, source))
    shape_of.name = f"{_slot(op.outputs, 'Out')}.xshape"
    dims = shape_of.type.dense_tensor.tensor.dims
    dims.insert(0, 0)
    slot = op.outputs.add()
    slot.parameter = "XShape"
    slot.arguments.append(shape_of.name)


def flatten_to_reshape(program: Any) -> int:
    """`flatten_contiguous_range` -> `reshape2`: Lite's x86 optimiser crashes on the first. Returns how many."""
    changed = 0
    for block in program.blocks:
        for op in block.ops:
            if op.type != "flatten_contiguous_range":
                continue
            source = str(_slot(op.inputs, "X"))
            dims = list(_variable(block, source).type.dense_tensor.tensor.dims)
            attributes = _attributes(op)
            start = attributes["start_axis"].i % len(dims)
            stop = attributes["stop_axis"].i % len(dims)
            merged = dims[start : stop + 1]
            size = -1 if -1 in merged else _product(merged)
            # 0 copies the input's own dimension, so that a free batch stays free.
            shape = [0] * start + [size] + dims[stop + 1 :]
            if shape.count(-1) > 1:
                raise InputError(f"cannot reshape {dims}: more than one free dimension behind the batch")
            op.type = "reshape2"
            for name in ("start_axis", "stop_axis"):
                op.attrs.remove(attributes[name])
            attribute = op.attrs.add()
            attribute.name, attribute.type = "shape", INTS
            attribute.ints.extend(shape)
            _add_shape_output(block, op, source)
            changed += 1
    return changed


def _product(values: list[int]) -> int:
    result = 1
    for value in values:
        result *= value
    return result


def relu6_threshold(program: Any) -> int:
    """Gives `relu6` the `threshold` attribute that today's Paddle leaves out and Lite aborts without."""
    changed = 0
    for block in program.blocks:
        for op in block.ops:
            if op.type == "relu6" and "threshold" not in _attributes(op):
                attribute = op.attrs.add()
                attribute.name, attribute.type, attribute.f = "threshold", FLOAT, 6.0
                changed += 1
    return changed


PASSES = (flatten_to_reshape, relu6_threshold)


def make_lite_ready(source: Path, target: Path) -> dict[str, int]:
    """Writes `source` with all passes applied to `target`; how often each changed something."""
    program = read_program(source)
    changes = {apply.__name__: apply(program) for apply in PASSES}
    target.write_bytes(program.SerializeToString())
    return changes
