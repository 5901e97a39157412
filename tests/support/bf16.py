"""bfloat16 as a runtime tells it, against what its numbers show.

Which CPUs run it is not for a test to guess: oneDNN simulates it on AVX-512 without bf16 instructions, newer ones have
it without AVX-512, and ONEDNN_MAX_CPU_ISA takes it away. What is told must fit what came out, everywhere; and where the
instructions are there and not taken away, it must be bf16.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import RuntimeFailed
from edgerecall.runtimes.embed.replicas import open_predictor
from edgerecall.runtimes.predictor.interface import ExecutionRecord, RunOptions
from edgerecall.runtimes.predictor.registry import backend

# A bf16 value keeps 8 bits: after some fifty layers, embeddings measured 4e-2 off their largest value, and fp32 7e-6.
LEAST_ERROR = 1e-3
FP32_COSINE = 1 - 1e-7  # of the two; bf16 measured 1 - 3e-4, fp32 1 - 1e-11


def has_bf16() -> bool:
    """Whether the CPU has instructions for bfloat16 that oneDNN may use."""
    capped = any(os.environ.get(f"{name}_MAX_CPU_ISA", "DEFAULT") != "DEFAULT" for name in ("ONEDNN", "DNNL"))
    flags = Path("/proc/cpuinfo").read_text().split()
    return not capped and ("avx512_bf16" in flags or "amx_bf16" in flags)


def assert_told_truly(
    executed: ExecutionRecord, asked: str, runtime: str, got: NDArray[np.float32], reference: NDArray[np.float32]
) -> None:
    """executed: the runtime's record; got: its embeddings; reference: the framework's in fp32."""
    told = executed.precision
    assert sum(executed.operators.values()) > 20
    error = float(np.abs(got - reference).max() / np.abs(reference).max())
    if "bf16" in told:
        assert asked == "bf16" and error > LEAST_ERROR, f"{runtime} tells {told}, but its error is {error:.1e}"
    else:
        assert told == "fp32" and error <= backend(runtime).tolerance["fp32"], (
            f"{runtime} tells {told}, but its error is {error:.1e}"
        )
        assert asked == "fp32" or not has_bf16(), f"{runtime} was asked for {asked} and runs {told}"


def run_in_bf16(bundle: Bundle, runtime: str) -> str | None:
    """The precision that a runtime's record tells when asked for bf16, checked against its embeddings.

    None: it refuses the model, which only a CPU without the instructions excuses.
    """
    _, tensors, reference = bundle.golden()
    try:
        with open_predictor(bundle, runtime, RunOptions(precision="bf16"), worker=True) as predictor:
            executed, got = predictor.execution_record(tensors[:1]), predictor.embed(tensors)
    except RuntimeFailed:
        assert not has_bf16()
        return None
    assert executed is not None
    assert_told_truly(executed, "bf16", runtime, got, reference)
    return executed.precision
