"""Recall against bytes for compressed galleries of embeddings like those of the product photographs, and the time of a
search beside exact float32, on one core; medians of interleaved rounds.

Without --embeddings they are drawn: class means and images about them whose variances fall as those of
EfficientNet-Lite0 fine-tuned on the photographs do (standard deviations as i^-0.75, two fifths of the variance inside
classes, a common mean of length 0.6). Product quantisation needs faiss-cpu, and is left out without it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from support.environment import print_machine

import edgerecall
from edgerecall.runtimes.approximate.compressed import CompressedGallery

DIM, K, INSIDE, MEAN, IMAGES, QUERIES = 512, 10, 0.4, 0.6, 20, 256
BITS = (1, 2, 3, 4)
Found = Any


def drawn(rows: int, dim: int, seed: int = 0) -> tuple[Any, Any, Any, Any]:
    """Gallery and queries, L2-normalised float32, and their classes."""
    rng = np.random.default_rng(seed)
    spread = np.arange(1, dim + 1) ** -0.75
    spread /= np.linalg.norm(spread)
    middle = rng.standard_normal(dim)
    middle *= MEAN / np.linalg.norm(middle) / np.sqrt(1 - MEAN**2)
    means = rng.standard_normal((max(rows // IMAGES, 1), dim), dtype=np.float32) * np.float32(1 - INSIDE) ** 0.5

    def images(classes: Any) -> Any:
        made = np.empty((len(classes), dim), np.float32)
        for start in range(0, len(classes), 65536):
            own = classes[start : start + 65536]
            noise = rng.standard_normal((len(own), dim), dtype=np.float32) * np.float32(INSIDE) ** 0.5
            block = ((means[own] + noise) * spread + middle).astype(np.float32)
            made[start : start + 65536] = block / np.linalg.norm(block, axis=1, keepdims=True)
        return made

    labels, wanted = rng.integers(0, len(means), rows), rng.integers(0, len(means), QUERIES)
    return images(labels), labels, images(wanted), wanted


def contenders(gallery: Any) -> dict[str, tuple[int, Callable[[Any], Found]]]:
    """Bytes of all rows and the search, by name."""
    dim = gallery.shape[1]
    made: dict[str, tuple[int, Callable[[Any], Found]]] = {}
    for storage in ("float32", "float16", "int8"):
        exact = edgerecall.Gallery(dim, storage)
        exact.add(gallery)
        made[storage] = exact.bytes, lambda wanted, own=exact: own.search(wanted, K)[0]
    sample = gallery[:: max(len(gallery) // 20_000, 1)]
    _, axes = np.linalg.eigh(np.cov(sample[:, :], rowvar=False))
    for kept in (dim // 4, dim // 8):
        first = np.ascontiguousarray(axes[:, ::-1][:, :kept].astype(np.float32))
        small = edgerecall.Gallery(kept, "int8")
        for start in range(0, len(gallery), 65536):
            small.add(np.ascontiguousarray(gallery[start : start + 65536] @ first))
        made[f"PCA {kept}, int8"] = small.bytes, lambda wanted, own=small, to=first: own.search(wanted @ to, K)[0]
    for bits in BITS:
        compressed = CompressedGallery.fit(sample, bits)
        compressed.add(gallery)
        made[f"signs, ranked by {bits} bit"] = compressed.bytes, lambda wanted, own=compressed: own.search(wanted, K)[0]
    try:
        import faiss
    except ImportError:
        return made
    faiss.omp_set_num_threads(1)
    for parts in (dim // 8, dim // 4):
        index = faiss.IndexPQ(dim, parts, 8, faiss.METRIC_INNER_PRODUCT)
        index.train(np.ascontiguousarray(sample))
        index.add(gallery)
        made[f"PQ {parts} (faiss)"] = parts * len(gallery), lambda wanted, own=index: own.search(wanted, K)[1]
    return made


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--embeddings", help=".npz with gallery, labels, queries, wanted, as drawn() gives them")
    options = parser.parse_args()
    print_machine()
    if options.embeddings:
        with np.load(options.embeddings) as given:
            gallery, labels, queries, wanted = (given[name] for name in ("gallery", "labels", "queries", "wanted"))
    else:
        gallery, labels, queries, wanted = drawn(options.rows, DIM)
    made = contenders(gallery)
    print(f"{len(gallery)} x {gallery.shape[1]}, top {K}, one thread")
    seconds: dict[tuple[str, int], list[float]] = {}
    found: dict[str, Any] = {}
    for round_number in range(options.rounds):
        for name, (_, search) in made.items():
            for count in (1, len(queries)):
                began = time.perf_counter()
                some = search(np.ascontiguousarray(queries[round_number : round_number + 1] if count == 1 else queries))
                seconds.setdefault((name, count), []).append((time.perf_counter() - began) / count)
                found[name] = some if count > 1 else found.get(name)
    truth, base = found["float32"], made["float32"][0]
    reached = [recall_at(truth, labels, wanted, k) for k in (1, K)]
    titles = (
        "",
        "bytes",
        "smaller",
        "recall@1",
        "recall@10",
        "of exact's",
        "shared",
        "one query, ms",
        "many, ms",
        "faster",
    )
    print("| " + " | ".join(titles) + " |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|")
    for name, (size, _) in made.items():
        one, many = (1000 * statistics.median(seconds[name, count]) for count in (1, len(queries)))
        ratios = [
            statistics.median(a / b for a, b in zip(seconds["float32", count], seconds[name, count], strict=True))
            for count in (1, len(queries))
        ]
        shared = np.mean([len(set(a) & set(b)) / K for a, b in zip(found[name].tolist(), truth.tolist(), strict=True)])
        at = [recall_at(found[name], labels, wanted, k) for k in (1, K)]
        print(
            f"| {name} | {size / len(gallery):.0f} | {base / size:.1f} | {at[0]:.4f} | {at[1]:.4f}"
            f" | {at[1] / reached[1]:.3f} | {shared:.3f} | {one:.2f} | {many:.2f} | {ratios[0]:.1f}, {ratios[1]:.1f} |"
        )


def recall_at(found: Any, labels: Any, wanted: Any, k: int) -> float:
    """Share of queries with a row of their class among the first k."""
    return float((labels[found[:, :k]] == wanted[:, None]).any(axis=1).mean())


if __name__ == "__main__":
    main()
