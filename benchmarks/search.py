"""Exact top-10 of a large gallery by storage, beside numpy; medians of interleaved rounds."""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from support.environment import print_machine

import edgerecall

DIM, K = 128, 10
PAUSE = 0.1  # seconds: numpy's threads wait for more work on a core of their own before they sleep


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print_machine()
    threads = len(os.sched_getaffinity(0))
    rng = np.random.default_rng(0)
    rows = np.empty((options.rows, DIM), np.float32)
    for begin in range(0, options.rows, 65536):
        block = rng.standard_normal((min(65536, options.rows - begin), DIM), dtype=np.float32)
        rows[begin : begin + 65536] = block / np.linalg.norm(block, axis=1, keepdims=True)
    queries = rows[:: options.rows // 64][:64] + np.float32(0.05) * rng.standard_normal((64, DIM), dtype=np.float32)

    def by_numpy(wanted: Any) -> Any:
        similarity = wanted @ rows.T
        best = np.argpartition(-similarity, K, axis=1)[:, :K]
        return np.take_along_axis(best, np.argsort(-np.take_along_axis(similarity, best, 1), axis=1), 1)

    searches: dict[str, Callable[[Any], Any]] = {"numpy float32": by_numpy}
    sizes = {"numpy float32": rows.nbytes}
    for storage in ("float32", "float16", "int8"):
        gallery = edgerecall.Gallery(DIM, storage)
        gallery.add(rows)
        sizes[storage] = gallery.bytes
        searches[storage] = lambda wanted, gallery=gallery: gallery.search(wanted, K, threads)[0]
    exact = by_numpy(queries)
    print(f"{options.rows} x {DIM}, top {K}, {threads} threads")
    for count in (1, 64):
        seconds: dict[str, list[float]] = {name: [] for name in searches}
        found: dict[str, Any] = {}
        for _ in range(options.rounds):
            for name, search in searches.items():
                time.sleep(PAUSE)
                began = time.perf_counter()
                found[name] = search(queries[:count])
                seconds[name].append(time.perf_counter() - began)
        for name, values in seconds.items():
            same = float((found[name] == exact[:count]).mean())
            print(
                f"{count:3} queries  {name:14} {sizes[name] / 1e6:6.0f} MB {1000 * statistics.median(values):9.1f} ms"
                f"   places as in float32 {same:.4f}"
            )


if __name__ == "__main__":
    main()
