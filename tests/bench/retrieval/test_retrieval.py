"""Retrieval metrics against the definitions in float64, written out one query at a time."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgerecall.bench.retrieval.metrics import RetrievalScores, retrieval_scores
from edgerecall.runtimes.core.errors import InputError

Array = NDArray[Any]


@dataclass
class Literal:
    """The definitions: every query's gallery sorted by (similarity downwards, index upwards)."""

    recall: dict[int, float]
    mean_ap: float
    r_precision: float
    map_at_r: float
    nearest: list[int]


def literal(
    q: Array, ql: Array, g: Array, gl: Array, own: bool, qc: Array | None = None, gc: Array | None = None
) -> Literal:
    first: dict[int, list[bool]] = {1: [], 5: [], 10: []}
    aps, rps, maprs, nearest = [], [], [], []
    wide_q, wide_g = q.astype(np.float64), g.astype(np.float64)
    for i in range(len(q)):
        similarity = (wide_g * wide_q[i]).sum(axis=1)
        keep = np.ones(len(g), dtype=bool)
        if own:
            keep[i] = False
        if qc is not None and gc is not None:
            keep &= ~((gl == ql[i]) & (gc == qc[i]))
        order = np.lexsort((np.arange(len(g)), -similarity))
        order = order[keep[order]]
        nearest.append(int(order[0]) if len(order) else -1)
        hits = gl[order] == ql[i]
        if not hits.any():
            continue
        for k, values in first.items():
            values.append(bool(hits[:k].any()))
        relevant = int(hits.sum())
        precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
        aps.append((precision * hits).sum() / relevant)
        rps.append(hits[:relevant].sum() / relevant)
        maprs.append((precision * hits)[:relevant].sum() / relevant)
    recall = {k: float(np.mean(values)) for k, values in first.items()}
    return Literal(recall, float(np.mean(aps)), float(np.mean(rps)), float(np.mean(maprs)), nearest)


def same(scores: RetrievalScores, expected: Literal) -> None:
    assert scores.recall == expected.recall
    assert scores.mean_ap == pytest.approx(expected.mean_ap, abs=1e-12)
    assert scores.r_precision == pytest.approx(expected.r_precision, abs=1e-12)
    assert scores.map_at_r == pytest.approx(expected.map_at_r, abs=1e-12)
    assert scores.nearest.tolist() == expected.nearest


def exact_grid(rng: np.random.Generator, count: int, dim: int) -> NDArray[np.float32]:
    """Small whole numbers over 8: every inner product is exact, and very many are equal."""
    return rng.integers(-3, 4, (count, dim)).astype(np.float32) / 8


def clustered(rng: np.random.Generator, labels: Array, dim: int, noise: float) -> NDArray[np.float32]:
    centres = rng.standard_normal((int(labels.max()) + 1, dim))
    x = centres[labels] + noise * rng.standard_normal((len(labels), dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.mark.cpu_sensitive
@pytest.mark.parametrize("kind", ["ties", "clusters", "near"])
@pytest.mark.parametrize("threads", [1, 3])
def test_two_thousand_rows_with_ties_cameras_singletons_and_a_separate_gallery(kind: str, threads: int) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 300, 2000)
    labels[:40] = np.arange(1000, 1040)  # classes with one member
    labels[40:180] = 2000  # and one with so many that it takes the other way of counting
    if kind == "ties":
        x = exact_grid(rng, 2000, 6)
        x[500:600] = x[400:500]
    else:
        x = clustered(rng, np.unique(labels, return_inverse=True)[1], 48, 1.2)
        if kind == "near":  # all but the same: float32 decides nothing
            x = (x[0] + 1e-4 * x).astype(np.float32)
    cameras = rng.integers(0, 3, 2000)
    ks = (1, 5, 10)
    same(retrieval_scores(x, labels, ks=ks, threads=threads), literal(x, labels, x, labels, True))
    same(
        retrieval_scores(x, labels, ks=ks, query_cameras=cameras, threads=threads),
        literal(x, labels, x, labels, True, cameras, cameras),
    )
    q, ql, qc = x[:700], labels[:700], cameras[:700]
    g, gl, gc = x[700:], labels[700:], cameras[700:]
    same(retrieval_scores(q, ql, g, gl, ks, threads=threads), literal(q, ql, g, gl, False))
    same(retrieval_scores(q, ql, g, gl, ks, qc, gc, threads=threads), literal(q, ql, g, gl, False, qc, gc))


@pytest.mark.cpu_sensitive
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_small_problem(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    count, others = data.draw(st.integers(2, 60)), data.draw(st.integers(1, 60))
    dim = data.draw(st.integers(1, 40))
    classes = data.draw(st.integers(1, 5))
    x, y = exact_grid(rng, count, dim), exact_grid(rng, others, dim)
    labels, other_labels = rng.integers(0, classes, count), rng.integers(0, classes, others)
    own = data.draw(st.booleans())
    g, gl = (x, labels) if own else (y, other_labels)
    cameras = None, None
    if data.draw(st.booleans()):
        cameras = rng.integers(0, 2, count), rng.integers(0, 2, others)
    cameras = (cameras[0], cameras[0] if own else cameras[1])
    try:
        scores = retrieval_scores(
            x, labels, None if own else y, None if own else other_labels, (1, 5, 10), cameras[0],
            None if own else cameras[1], threads=data.draw(st.integers(1, 4)),
        )  # fmt: skip
    except InputError:
        with np.errstate(all="ignore"), pytest.warns(RuntimeWarning):
            assert np.isnan(literal(x, labels, g, gl, own, *cameras).mean_ap)
        return
    same(scores, literal(x, labels, g, gl, own, *cameras))


def test_a_self_match_would_be_perfect_and_is_not_counted() -> None:
    labels = np.arange(40) // 2
    x = clustered(np.random.default_rng(5), labels, 8, 9.0)
    assert retrieval_scores(x, labels).recall[1] < 0.5
    assert retrieval_scores(x, labels, x, labels).recall[1] > 0.9


def test_hits_are_those_of_the_counted_queries() -> None:
    x = np.eye(4, dtype=np.float32)[[0, 0, 1, 2, 2]]
    assert retrieval_scores(x, np.array([0, 0, 9, 1, 2])).hits.tolist() == [True, True]


def test_summary_reads_as_the_references() -> None:
    x = np.eye(4, dtype=np.float32)[[0, 0, 1, 1]]
    line = retrieval_scores(x, np.array([0, 0, 1, 1])).line(0)
    assert line == "[Eval][Epoch 0][Avg]recall1: 1.00000, recall5: 1.00000, mAP: 1.00000"


def test_mistakes_are_one_line() -> None:
    x = np.random.default_rng(6).standard_normal((3, 8)).astype(np.float32)
    with pytest.raises(InputError, match="no query has a relevant image"):
        retrieval_scores(x, np.arange(3))
    one = np.zeros(3, np.int64)
    for arguments, message in (
        ((x, np.arange(2)), "one label"),
        ((x, one, x), "embeddings and labels, or neither"),
        ((x, one, x[:, :4], one), "gallery embeddings of 8 numbers"),
        ((x[0], one), "expected float32"),
        ((x, one.astype(float)), "as whole numbers, got float64"),
        ((x, one, x, one, (1,), one), "cameras of the queries and of the gallery, or neither"),
        ((x, one, None, None, (1,), None, one), "or neither"),
        ((x, one, None, None, (1,), one[:2]), "one camera"),
    ):
        with pytest.raises(InputError, match=message):
            retrieval_scores(*arguments)  # type: ignore[arg-type]
    for value in (np.nan, np.inf, 1e30):
        x[1, 2] = value
        with pytest.raises(InputError, match="embedding 1 is not finite"):
            retrieval_scores(x, np.zeros(3, np.int64))


def test_progress_reaches_the_end() -> None:
    x = np.random.default_rng(6).standard_normal((3000, 8)).astype(np.float32)
    seen: list[float] = []
    for threads in (1, 3):
        seen.clear()
        retrieval_scores(x, np.arange(3000) // 3, threads=threads, progress=seen.append)
        assert seen == sorted(seen) and seen[-1] == 1.0
        assert len(seen) > 2 or threads > 1  # of several threads only the caller's own steps are told

    def fail(share: float) -> None:
        raise LookupError("from the callback")

    with pytest.raises(LookupError, match="from the callback"):
        retrieval_scores(x, np.arange(3000) // 3, progress=fail)


LONG = """
import numpy as np, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
from edgerecall.bench.retrieval.metrics import retrieval_scores
x = np.random.default_rng(0).standard_normal((60000, 128)).astype(np.float32)
retrieval_scores(x, np.arange(60000) // 5, progress=lambda share: print(share, flush=True))
"""


def test_ctrl_c_stops_it() -> None:
    with subprocess.Popen([sys.executable, "-c", LONG], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline()
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        _, error = process.communicate(timeout=60)
        assert time.monotonic() - began < 5
    assert b"KeyboardInterrupt" in error
