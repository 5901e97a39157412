"""Golden images through every runtime of a bundle: pixels first, then embeddings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..bundle.bundle import Bundle
from ..bundle.manifest import Check
from ..core.contract import CONTRACT
from ..core.errors import EdgeRecallError, RuntimeUnavailable
from ..core.soundness import require_finite
from ..predictor.interface import RunOptions, RuntimeInfo
from ..predictor.precision import precision_problem, tolerance
from ..predictor.registry import backend
from .model import golden_tensors
from .replicas import open_predictor

TENSOR_TOLERANCE: float = CONTRACT["tensor_tolerance"]


@dataclass(frozen=True)
class Verdict:
    """One artifact in one runtime, on the golden images. problem: None when it holds; else one line.
    unavailable: whether that is only that the runtime is not here.
    """

    runtime: str
    quantisation: str
    info: RuntimeInfo | None
    check: Check | None
    problem: str | None
    unavailable: bool = False


def cosines(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Row-wise cosine of two `(n, D)` arrays, in float64; 0 where a row is zero."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    return np.asarray(np.divide((x * y).sum(axis=1), lengths, out=np.zeros(len(x)), where=lengths > 0))


def compare(
    output: NDArray[np.float32],
    reference: NDArray[np.float32],
    runtime: str,
    precision: str = "fp32",
    quantisation: str = "fp32",
) -> Check:
    """Raw embeddings against the reference's; `tolerance` is absolute, scaled by the reference's largest value.

    precision: what ran. quantisation: what the artifact is.
    """
    relative = tolerance(backend(runtime).tolerance, quantisation, precision)
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


def verify_pixels(bundle: Bundle) -> str | None:
    """One line when this machine's preprocessing does not give the tensors that were sealed into the bundle."""
    _, sealed, _ = bundle.golden()
    difference = float(np.abs(golden_tensors(bundle) - sealed).max())
    if difference <= TENSOR_TOLERANCE:
        return None
    return f"preprocessing differs from the sealed tensors: max error {difference:.2e}; Pillow or OpenCV changed?"


def verify_runtime(
    bundle: Bundle, runtime: str, options: RunOptions, worker: bool = True, quantisation: str | None = None
) -> Verdict:
    """Loads one artifact and compares its embeddings of the golden tensors with the sealed ones.

    quantisation: of the artifact; None: the fp32 one, else the first.
    """
    _, tensors, reference = bundle.golden()
    try:
        artifact = bundle.artifact(runtime, quantisation=quantisation)
        with open_predictor(bundle, runtime, options, worker=worker, artifact=artifact.name) as predictor:
            require_finite(predictor.parameters() or {}, artifact.name)  # a ReLU may hide what is none
            output = np.concatenate([predictor.embed(tensors[i : i + 1]) for i in range(len(tensors))])
            info = predictor.executed_info(tensors[:1])
        check = compare(output, reference, runtime, info.precision, artifact.quantisation)
    except EdgeRecallError as error:
        unavailable = isinstance(error, RuntimeUnavailable)
        return Verdict(runtime, quantisation or "fp32", None, None, str(error), unavailable)
    problem = precision_problem(artifact.quantisation, options.precision, info.precision) or check_problem(check)
    return Verdict(runtime, artifact.quantisation, info, check, problem)


def verify_all(bundle: Bundle, runtimes: Sequence[str], options: RunOptions) -> Iterator[Verdict]:
    """Every artifact of these runtimes that this machine can run, each quantisation apart."""
    for runtime in runtimes:
        for quantisation in bundle.quantisations(runtime) or (None,):
            yield verify_runtime(bundle, runtime, options, quantisation=quantisation)
