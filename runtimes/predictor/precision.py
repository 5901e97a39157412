"""The two precisions of a running model: what its artifact is (quantisation), how the runtime computes (execution).

A weight is stored in one type and multiplied in another: the two are named, asked for and read back apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..core.contract import CONTRACT
from ..core.errors import InputError

QUANTISATIONS = ("fp32", "fp16", "int8")  # of an artifact's weights, and for int8 its activations
EXECUTIONS = ("fp32", "tf32", "fp16", "bf16")  # that can be asked of a runtime, for what is not quantised to integers
# Largest |difference| of raw embeddings, relative to the largest |value| of the reference. fp32: sound conversions
# measured 1e-7 to 1.2e-5 (fused batch norms round differently); one weight tensor off by 1e-3 shows as 1e-4 and more.
# fp16 and bf16: their rounding (2^-11, 2^-8), of the weights and activations of a hundred layers, adds up as the root
# of 200, and the largest of thousands of numbers is four standard deviations off: 4 sqrt(200 / 3) 2^-11 = 0.016, and
# 0.128. They, and int8, only tell noise from garbage: whether it is good enough, recall says.
TOLERANCE: Mapping[str, float] = CONTRACT["tolerance"]
# tf32: a GPU's float32 products of factors rounded to ten bits, as fp16's are (NVIDIA A100 whitepaper, 2020).
GPU_TOLERANCE: Mapping[str, float] = {**TOLERANCE, "tf32": TOLERANCE["fp16"]}
# Our names of the types that runtimes report.
NAMES = {
    "f32": "fp32",
    "float": "fp32",
    "f16": "fp16",
    "float16": "fp16",
    "float32": "fp32",
    "bfloat16": "bf16",
    "s8": "int8",
    "i8": "int8",
    "u8": "int8",
    "uint8": "int8",
}


def executed_name(types: Iterable[str]) -> str:
    """One text for what runs, such as "int8+fp32", from the runtime's own names of types; "unknown" for none."""
    return "+".join(sorted({NAMES.get(name, name) for name in types})) or "unknown"


def precision_problem(quantisation: str, requested: str, ran: str) -> str | None:
    """One line when a model does not run in the execution precision asked for, or not as its artifact is quantised.

    ran: as `executed_name` gives it. An int8 artifact runs its other layers in the precision asked for; the weights of
    an fp16 artifact may be widened first.
    """
    parts = set(ran.split("+"))
    wanted = {"int8", requested} if quantisation == "int8" else {requested}
    if quantisation == "int8" and "int8" not in parts:
        return f"the artifact is int8, the runtime computes {ran}"
    if parts <= wanted or (quantisation == "fp16" and parts <= {"fp16", requested}):
        return None
    return f"asked for {requested}, runs {ran}"


def tolerance(table: Mapping[str, float], quantisation: str, ran: str) -> float:
    """The largest of a table's values for what the artifact is and what runs.

    InputError for a quantisation that it does not have. What runs and is not known allows nothing more:
    `precision_problem` tells of it.
    """
    if quantisation not in table:
        raise InputError(f"quantisation: no tolerance is known for '{quantisation}', only for {', '.join(table)}")
    return max(table[quantisation], *(table.get(name, 0.0) for name in ran.split("+")))
