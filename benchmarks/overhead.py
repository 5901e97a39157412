"""What our predictors add to a runtime's own API, and how the bench agrees with OpenVINO's `benchmark_app`.

The same loaded model is called both ways with the same input and one thread: `predictor.embed(batch)`, and as the
runtime's documentation says. The calls take turns; each runtime has a process pinned to one CPU; figures are medians.
`benchmark_app` and our worker take turns too, process by process.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
from support.benchmark_app import median_ms
from support.environment import print_machine
from support.models import bundle_of

from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.embed.replicas import open_predictor, other_interpreter
from edgerecall.runtimes.predictor.registry import backend
from edgerecall.runtimes.worker.client import SCRUBBED_VARIABLES, own_command, sidecar_command

CPU = max(os.sched_getaffinity(0))
RUNTIMES = ("paddle", "onnxruntime", "openvino", "lite")  # whose own calls are written down in overhead_child
HERE = Path(__file__).resolve().parent
ENVIRONMENT = {key: value for key, value in os.environ.items() if key not in SCRUBBED_VARIABLES}


def ours_and_raw(bundle: Bundle, runtime: str, batch: Path, pairs: int) -> tuple[float, float]:
    """Medians in ms, measured in a process of the runtime's own."""
    io = bundle.spec.io
    request = {
        "runtime": runtime,
        "predictor": backend(runtime).predictor,
        "files": bundle.files(bundle.artifact(runtime)),
        "input_name": io.input_name,
        "input_shape": io.input_shape,
        "embedding_dim": io.embedding_dim,
        "batch": str(batch),
        "pairs": pairs,
    }
    python = other_interpreter(backend(runtime))
    start = own_command if python is None else partial(sidecar_command, python)
    command = start("overhead_child", json.dumps(request), cpus=(CPU,))
    environment = {**ENVIRONMENT, "PYTHONPATH": str(HERE / "support")}
    found = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    ours, raw = json.loads(found.stdout.strip().splitlines()[-1])
    return ours, raw


def benchmark_app_ms(model: str, seconds: int) -> float:
    """The median that OpenVINO's own tool reports, run with the settings that we use."""
    command = ["taskset", "-c", str(CPU), str(Path(sys.executable).parent / "benchmark_app"), "-m", model]
    options = ["-d", "CPU", "-api", "sync", "-hint", "none", "-nthreads", "1", "-nstreams", "1", "-infer_precision"]
    command += [*options, "f32", "-shape", "[1,3,224,224]", "-t", str(seconds)]
    text = subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT).stdout
    return median_ms(text)


def beside_benchmark_app(bundle: Bundle, turns: int, seconds: int) -> tuple[float, float]:
    """Medians in ms over the turns: our worker's, as the bench takes it, and benchmark_app's."""
    batch = np.ascontiguousarray(bundle.golden()[1][:1])
    ours, theirs = [], []
    for _ in range(turns):
        with open_predictor(bundle, "openvino", worker=True, cpus=(CPU,)) as worker:
            timing = worker.time(batch, 10**6, 20, seconds)  # type: ignore[attr-defined]
        ours.append(float(np.median(timing.samples_ns)) / 1e6)
        theirs.append(benchmark_app_ms(bundle.files(bundle.artifact("openvino"))["model"], seconds))
    return statistics.median(ours), statistics.median(theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=300)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each turn beside benchmark_app")
    options = parser.parse_args()
    print_machine()
    for backbone in ("MobileNetV3_small_x1_0", "MobileNetV3_large_x1_0", "ResNet50"):
        bundle = Bundle.open(bundle_of(backbone))
        with tempfile.TemporaryDirectory() as folder:
            batch = Path(folder) / "batch.npy"
            np.save(batch, bundle.golden()[1][:1])
            for runtime in RUNTIMES:
                ours, raw = ours_and_raw(bundle, runtime, batch, options.pairs)
                print(
                    f"{backbone}, {runtime}: ours {ours:.3f} ms, raw {raw:.3f} ms: {ours / raw:.4f} times"
                    " (target: at most 1.02)",
                    flush=True,
                )
        ours, theirs = beside_benchmark_app(bundle, options.turns, options.seconds)
        print(
            f"{backbone}, openvino: bench {ours:.3f} ms, benchmark_app {theirs:.3f} ms: {ours / theirs:.4f} times"
            " (target: within 5 %)",
            flush=True,
        )


if __name__ == "__main__":
    main()
