"""The XBM contrastive loss, forward and backward, beside the loop over the batch and beside its bare matrix products.

Contenders take turns in one process; figures are medians of the rounds. All contenders do a whole training loss: the
batch with itself, the enqueueing, and the batch against the memory. `loop` is the reference's formulation written out:
for every query, masked selections of positives and negatives and their sums, through autograd. `vectorised` is the
same with masks over all pairs at once. `products` is no loss: queries @ memory.T and weights @ memory, nothing else.
In `few`, almost no negative passes the margin (a trained network); in `many`, nearly half do (an untrained one).
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import paddle
from support.environment import print_machine

from edgerecall.train.losses.embedding_loss import EmbeddingLoss
from edgerecall.train.losses.memory import CrossBatchMemory
from edgerecall.train.losses.pair_losses import Contrastive

BATCH, INSTANCES, DIM, MEMORY, CLASSES, EPSILON = 64, 4, 128, 55_000, 11_318, 1e-5
TABLE = (10_000, 25_000, 50_000, 100_000, 250_000, 500_000)
MARGINS = {"few": 0.5, "many": 0.0}
Step = Callable[[paddle.Tensor, paddle.Tensor], paddle.Tensor]


def loop(queries, labels, keys, key_labels, margin):  # type: ignore[no-untyped-def]
    """One query at a time."""
    similarity = paddle.matmul(queries, keys.t())
    losses = []
    for i in range(queries.shape[0]):
        positive = paddle.masked_select(similarity[i], labels[i] == key_labels)
        positive = paddle.masked_select(positive, positive < 1 - EPSILON)
        negative = paddle.masked_select(similarity[i], labels[i] != key_labels)
        negative = paddle.masked_select(negative, negative > margin)
        loss = paddle.sum(1 - positive)
        losses.append(loss + paddle.sum(negative) if len(negative) > 0 else loss)
    return sum(losses) / queries.shape[0]


def vectorised(queries, labels, keys, key_labels, margin):  # type: ignore[no-untyped-def]
    """All pairs at once."""
    similarity = paddle.matmul(queries, keys, transpose_y=True)
    same = labels.unsqueeze(1) == key_labels.unsqueeze(0)
    positive = paddle.logical_and(same, similarity < 1 - EPSILON).astype("float32")
    negative = paddle.logical_and(paddle.logical_not(same), similarity > margin).astype("float32")
    return ((1 - similarity) * positive + similarity * negative).sum() / queries.shape[0]


def by_autograd(pairs, memory: CrossBatchMemory, margin: float) -> Step:  # type: ignore[no-untyped-def]
    """A whole loss from a function of pairs, left to autograd."""

    def step(feats: paddle.Tensor, labels: paddle.Tensor) -> paddle.Tensor:
        feats = paddle.nn.functional.normalize(feats, p=2, axis=1)
        loss = pairs(feats, labels, feats, labels, margin)
        memory.enqueue(feats, labels)
        return loss + pairs(feats, labels, *memory.get(), margin)

    return step


def filled(size: int, rng: np.random.Generator) -> CrossBatchMemory:
    """A full memory of unit embeddings."""
    memory = CrossBatchMemory(size, DIM)
    for begin in range(0, size, 5000):
        count = min(5000, size - begin)
        rows = rng.standard_normal((count, DIM), dtype=np.float32)
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        memory.enqueue(paddle.to_tensor(rows), paddle.to_tensor(rng.integers(0, CLASSES, count)))
    return memory


def contenders(size: int, margin: float, rng: np.random.Generator) -> dict[str, Callable[[], object]]:
    """Functions without arguments, by name."""
    memory = filled(size, rng)
    labels = paddle.to_tensor(np.repeat(rng.integers(0, CLASSES, BATCH // INSTANCES), INSTANCES))
    feats = paddle.to_tensor(rng.standard_normal((BATCH, DIM), dtype=np.float32), stop_gradient=False)
    weights = paddle.to_tensor(rng.standard_normal((BATCH, size), dtype=np.float32))
    ours = EmbeddingLoss(Contrastive(margin), True, memory)

    def both(step: Step) -> Callable[[], object]:
        def run() -> object:
            feats.clear_gradient()
            loss = step(feats, labels)
            loss.backward()
            return float(loss)

        return run

    def products() -> object:
        with paddle.no_grad():
            paddle.matmul(feats, memory.feats, transpose_y=True)
            return float(paddle.matmul(weights, memory.feats)[0, 0])

    return {
        "ours": both(ours),
        "vectorised": both(by_autograd(vectorised, memory, margin)),
        "loop": both(by_autograd(loop, memory, margin)),
        "products": products,
    }


def medians(functions: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Milliseconds of each, taking turns; one warm-up round."""
    samples: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(rounds + 1):
        for name, function in functions.items():
            began = time.perf_counter()
            function()
            samples[name].append(1000 * (time.perf_counter() - began))
    return {name: statistics.median(values[1:]) for name, values in samples.items()}


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    print_machine()
    rng = np.random.default_rng(0)
    print(f"batch {BATCH}, dim {DIM}, memory {MEMORY}, device {paddle.get_device()}, paddle {paddle.__version__}")
    for regime, margin in MARGINS.items():
        ms = medians(contenders(MEMORY, margin, rng), options.rounds)
        print(f"{regime:5}", ", ".join(f"{name} {value:.1f} ms" for name, value in ms.items()))
        print(
            f"      loop over ours {ms['loop'] / ms['ours']:.2f} (target: at least 3),"
            f" ours over products {ms['ours'] / ms['products']:.2f} (target: at most 2)"
        )
    print("memory      ours ms   us per 1,000 entries")
    for size in TABLE:
        functions = contenders(size, MARGINS["few"], rng)
        ms = medians({"ours": functions["ours"]}, options.rounds)
        print(f"{size:7} {ms['ours']:12.1f} {1e6 * ms['ours'] / size:12.0f}")


if __name__ == "__main__":
    main()
