"""Exact recall@1/5/10 and mAP of the size of Stanford Online Products' test set, beside the bare matrix product.

Each measurement is a fresh process; contenders take turns, figures are medians of the rounds. The matrix product is
float32, in tiles of rows that fit memory, the best tile of each library: numpy's own BLAS, and any CBLAS given by
--blas (Intel's libmkl_rt.so.2, say). Memory is the peak above what the process held with the data loaded.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from support.environment import print_machine

Rows = NDArray[np.float32]
DIM, ROWS, CLASSES = 128, 60_502, 11_316
TILES = (512, 2048, 8192)
TABLE = (10_000, 30_000, 60_000, 120_000, 240_000)


def make_data(folder: Path, rows: int, noise: float) -> None:
    """Unit embeddings around class centres, in blocks; the share of classes is that of the test set."""
    rng = np.random.default_rng(0)
    labels = np.sort(rng.integers(0, rows * CLASSES // ROWS, rows))
    centres = rng.standard_normal((labels.max() + 1, DIM), dtype=np.float32)
    x = np.empty((rows, DIM), np.float32)
    for begin in range(0, rows, 8192):
        block = centres[labels[begin : begin + 8192]]
        block = block + np.float32(noise) * rng.standard_normal(block.shape, dtype=np.float32)
        x[begin : begin + 8192] = block / np.linalg.norm(block, axis=1, keepdims=True)
    order = rng.permutation(rows)
    np.save(folder / "x.npy", x[order])
    np.save(folder / "labels.npy", labels[order])


def status_mb(field: str) -> float:
    """A field of this process's memory status, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1000
    raise RuntimeError(f"no {field} in /proc/self/status")


def measured(work: Callable[[], Any]) -> dict[str, Any]:
    """Seconds and peak memory of one call."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    before = status_mb("VmRSS")
    began = time.perf_counter()
    result = work()
    return {"seconds": time.perf_counter() - began, "peak_mb": status_mb("VmHWM") - before, "result": result}


def evaluate(x: Rows, labels: NDArray[np.int64]) -> dict[str, Any]:
    """This package's."""
    from edgerecall.bench.retrieval.metrics import retrieval_scores

    retrieval_scores(x[:600], labels[:600] // 4)  # threads' buffers

    def run() -> dict[str, float]:
        scores = retrieval_scores(x, labels, ks=(1, 5, 10))
        return {**{f"recall@{k}": v for k, v in scores.recall.items()}, "mAP": scores.mean_ap}

    return measured(run)


def multiply_numpy(x: Rows) -> dict[str, Any]:
    """numpy's own BLAS, the best tile."""
    return best_tile(x, lambda part, out: np.matmul(part, x.T, out=out))


def multiply_cblas(x: Rows, library: str) -> dict[str, Any]:
    """A CBLAS by path, on every CPU, the best tile."""
    blas = ctypes.CDLL(library)
    sgemm = getattr(blas, "cblas_sgemm", None) or blas.scipy_cblas_sgemm
    for name in ("openblas_set_num_threads", "scipy_openblas_set_num_threads", "MKL_Set_Num_Threads"):
        if hasattr(blas, name):
            getattr(blas, name)(len(os.sched_getaffinity(0)))
    pointer, integer, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    sgemm.argtypes = [integer] * 6 + [real, pointer, integer, pointer, integer, real, pointer, integer]

    def multiply(part: Rows, out: Rows) -> None:
        sgemm(101, 111, 112, len(part), len(x), DIM, 1.0, part.ctypes.data, DIM, x.ctypes.data, DIM, 0.0,
              out.ctypes.data, len(x))  # fmt: skip

    return best_tile(x, multiply)


def best_tile(x: Rows, multiply: Callable[[Rows, Rows], Any]) -> dict[str, Any]:
    """The product of all pairs by row tiles; the fastest of the tile sizes."""
    results = []
    for tile in TILES:
        out = np.empty((tile, len(x)), np.float32)
        multiply(x[:tile], out)

        def run(tile: int = tile, out: Rows = out) -> None:
            for begin in range(0, len(x), tile):
                part = x[begin : begin + tile]
                multiply(part, out[: len(part)])

        results.append({**measured(run), "tile": tile})
        del out
    return min(results, key=lambda result: float(result["seconds"]))


def worker(kind: str, folder: Path) -> None:
    """One measurement, as JSON."""
    x, labels = np.load(folder / "x.npy"), np.load(folder / "labels.npy")
    if kind == "edgerecall":
        result = evaluate(x, labels)
    elif kind == "numpy":
        result = multiply_numpy(x)
    else:
        result = multiply_cblas(x, kind)
    print(json.dumps(result))


def run_worker(kind: str, folder: Path) -> dict[str, Any]:
    """A measurement in a fresh process."""
    command = [sys.executable, __file__, "--worker", kind, "--folder", str(folder)]
    result: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return result


def compare(folder: Path, rounds: int, libraries: list[str]) -> None:
    """The time of the evaluation over that of the fastest product."""
    kinds = ["edgerecall", "numpy", *libraries]
    results: dict[str, list[dict[str, Any]]] = {kind: [] for kind in kinds}
    for _ in range(rounds):
        for kind in kinds:
            results[kind].append(run_worker(kind, folder))
    seconds = {kind: statistics.median(r["seconds"] for r in runs) for kind, runs in results.items()}
    for kind in kinds:
        peak = max(r["peak_mb"] for r in results[kind])
        print(f"{Path(kind).name:28} {seconds[kind]:7.2f} s   peak +{peak:.0f} MB   {results[kind][0]['result'] or ''}")
    fastest = min(kinds[1:], key=lambda kind: seconds[kind])
    ratio = seconds["edgerecall"] / seconds[fastest]
    print(f"evaluation over the fastest product ({Path(fastest).name}): {ratio:.2f} (target: at most 1.25)")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--blas", action="append", default=[], help="path of a CBLAS library to compare with")
    parser.add_argument("--noise", type=float, default=1.2, help="0.5: nearly every rank is 1; 5: nearly chance")
    parser.add_argument("--no-table", action="store_true")
    parser.add_argument("--worker")
    parser.add_argument("--folder", type=Path)
    options = parser.parse_args()
    if options.worker:
        return worker(options.worker, options.folder)
    print_machine()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_data(folder, ROWS, options.noise)
        print(f"{ROWS} x {DIM}, {CLASSES} classes")
        compare(folder, options.rounds, options.blas)
        for rows in () if options.no_table else TABLE:
            make_data(folder, rows, options.noise)
            result = run_worker("edgerecall", folder)
            share = result["seconds"] / (rows / 10_000) ** 2
            print(
                f"{rows:7} rows {result['seconds']:7.2f} s  ({share:.3f} s per 10k x 10k)"
                f"  peak +{result['peak_mb']:.0f} MB"
            )
    return None


if __name__ == "__main__":
    main()
