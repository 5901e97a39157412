"""How two preprocessings differ, in words."""

from __future__ import annotations

from .ops import Normalize, Op, Preprocess

WRITTEN = 1e-6  # relative, of a scale that is written with six digits: 0.00392157 for 1/255


def difference(a: Op, b: Op) -> str:
    """How two operations of one stage differ, in a few words."""
    if a.op != b.op:
        return f"{a.op} against {b.op}"
    left, right = a.model_dump(), b.model_dump()
    parts = [f"{key} {left[key]} against {right[key]}" for key in left if left[key] != right[key]]
    return ", ".join(parts) or "the same options"


def as_written(one: Op, other: Op) -> Op:
    """A normalisation with the other's scale where it is the same but for digits; anything else as it is."""
    if not (isinstance(one, Normalize) and isinstance(other, Normalize)):
        return one
    near = abs(one.scale - other.scale) <= WRITTEN * other.scale
    return one.model_copy(update={"scale": other.scale}) if near else one


def preprocess_difference(a: Preprocess, b: Preprocess) -> str | None:
    """The first operation in which two differ; None where they are the same, digits of 1/255 and the reader's rule of
    orientation (which no `transform_ops` list says) apart.
    """
    for one, other in zip(a.ops[1:], b.ops[1:], strict=False):
        one = as_written(one, other)
        if one != other:
            return f"{one.op}: {difference(one, other)}" if one.op == other.op else difference(one, other)
    if len(a.ops) != len(b.ops):
        return f"{len(a.ops)} operations against {len(b.ops)}"
    return None
