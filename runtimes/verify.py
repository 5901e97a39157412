"""Golden images through every runtime of a bundle: pixels first, then embeddings."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle, Check
from .errors import EdgeRecallError
from .model import golden_tensors, open_predictor
from .predictor import RunOptions, RuntimeInfo, artifact_runtime

# Largest |difference| of raw embeddings, relative to the largest |value| of the reference. Sound float32 conversions
# measured 1e-7 to 1.2e-5 (fused batch norms round differently); one weight tensor off by 1e-3 shows as 1e-4 and more.
TOLERANCE = {"paddle": 5e-5, "onnxruntime": 5e-5, "openvino": 5e-5, "lite": 5e-5, "ncnn": 5e-5, "fake": 1e-5}
# bf16 keeps 8 bits of mantissa, fp16 11.
PRECISION_TOLERANCE = {"fp32": 0.0, "fp16": 5e-3, "bf16": 5e-2}
TENSOR_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Verdict:
    """One runtime on the golden images. problem: None when it holds; else one line."""

    runtime: str
    info: RuntimeInfo | None
    check: Check | None
    problem: str | None


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Row-wise cosine of two `(n, D)` arrays, in float64; 0 where a row is zero."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.asarray(np.divide((x * y).sum(axis=1), lengths, out=np.zeros(len(x)), where=lengths > 0))


def compare(
    output: NDArray[np.float32], reference: NDArray[np.float32], runtime: str, precision: str = "fp32"
) -> Check:
    """Raw embeddings against the reference's; `tolerance` is absolute, scaled by the reference's largest value."""
    relative = max(TOLERANCE[artifact_runtime(runtime)], PRECISION_TOLERANCE.get(precision, 0.0))
    return Check(
        min_cosine=float(cosines(output, reference).min()),
        max_abs_error=float(np.abs(output - reference).max()),
        tolerance=relative * max(float(np.abs(reference).max()), 1e-3),
    )


def check_problem(check: Check) -> str | None:
    """One line when the output lies outside the tolerance."""
    if check.max_abs_error <= check.tolerance:
        return None
    return (
        f"embeddings differ from the reference: max error {check.max_abs_error:.2e}, allowed {check.tolerance:.2e}"
        f" (min cosine {check.min_cosine:.6f})"
    )


def precision_problem(asked: str, info: RuntimeInfo) -> str | None:
    """One line when the runtime executes in another precision than was asked for."""
    return None if info.precision == asked else f"asked for {asked}, runs {info.precision}"


def verify_pixels(bundle: Bundle) -> str | None:
    """One line when this machine's preprocessing does not give the tensors that were sealed into the bundle."""
    _, sealed, _ = bundle.golden()
    difference = float(np.abs(golden_tensors(bundle) - sealed).max())
    if difference <= TENSOR_TOLERANCE:
        return None
    return f"preprocessing differs from the sealed tensors: max error {difference:.2e}; Pillow or OpenCV changed?"


def verify_runtime(bundle: Bundle, runtime: str, options: RunOptions, worker: bool = True) -> Verdict:
    """Loads one runtime and compares its embeddings of the golden tensors with the sealed ones."""
    _, tensors, reference = bundle.golden()
    try:
        with open_predictor(bundle, runtime, options, worker=worker) as predictor:
            info = predictor.info
            output = np.concatenate([predictor.embed(tensors[i : i + 1]) for i in range(len(tensors))])
    except EdgeRecallError as error:
        return Verdict(runtime, None, None, str(error))
    check = compare(output, reference, runtime, info.precision)
    problem = precision_problem(options.precision, info) or check_problem(check)
    return Verdict(runtime, info, check, problem)
