"""Exact search against sorting in float64."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

import edgerecall
from edgerecall.runtimes.core.errors import InputError

pytestmark = pytest.mark.cpu_sensitive


def similarities(rows: NDArray[np.float32], queries: NDArray[np.float32], storage: str) -> NDArray[np.float64]:
    """`(queries, rows)` by the definition of each storage."""
    if storage == "int8":
        (a, scale_a), (b, scale_b) = codes(rows), codes(queries)
        return (b @ a.T) * scale_a[None, :] * scale_b[:, None]
    if storage == "binary":
        differ = ((queries > 0)[:, None, :] != (rows > 0)[None]).sum(axis=2)
        return np.asarray(1 - 2.0 * differ / rows.shape[1])
    stored = rows.astype(np.float16) if storage == "float16" else rows
    products: NDArray[np.float64] = (queries.astype(np.float64)[:, None, :] * stored.astype(np.float64)[None]).sum(
        axis=2
    )
    return products


def codes(rows: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    largest = np.abs(rows).max(axis=1)
    factor = np.divide(127.0, largest.astype(np.float64), out=np.zeros(len(rows)), where=largest > 0)
    return np.rint(rows.astype(np.float64) * factor[:, None]), (largest / np.float32(127)).astype(np.float64)


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_equals_sorting(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dim, count = data.draw(st.integers(1, 70)), data.draw(st.integers(1, 3000))
    k, storage = data.draw(st.integers(1, 30)), data.draw(st.sampled_from(["float32", "float16", "int8", "binary"]))
    rows = rng.integers(-3, 4, (count, dim)).astype(np.float32) / 8  # exact products, many ties
    queries = rng.integers(-3, 4, (4, dim)).astype(np.float32) / 8
    gallery = edgerecall.Gallery(dim, storage)
    cut = data.draw(st.integers(0, count))
    gallery.add(rows[:cut])
    gallery.add(rows[cut:])
    assert len(gallery) == count and gallery.dim == dim
    found, scores = gallery.search(queries, k, threads=data.draw(st.integers(1, 4)))
    expected = similarities(rows, queries, storage)
    for query in range(4):
        order = np.lexsort((np.arange(count), -expected[query]))[:k]
        assert found[query, : len(order)].tolist() == order.tolist()
        assert (scores[query, : len(order)] == expected[query, order].astype(np.float32)).all()
        assert (found[query, len(order) :] == -1).all() and np.isneginf(scores[query, len(order) :]).all()


@pytest.mark.parametrize(
    ("storage", "size"), [("float32", 4 * 128), ("float16", 2 * 128), ("int8", 128 + 4), ("binary", 128 // 8)]
)
def test_bytes_a_row_and_agreement_with_float32(storage: str, size: int) -> None:
    rng = np.random.default_rng(0)
    rows = rng.standard_normal((20000, 128)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    gallery = edgerecall.Gallery(128, storage)
    gallery.add(rows)
    assert gallery.bytes == 20000 * size
    noisy = rows[:200] + 0.05 * rng.standard_normal((200, 128)).astype(np.float32)
    assert (gallery.search(noisy, 1, threads=2)[0][:, 0] == np.arange(200)).all()


def test_searching_in_threads_and_adding_meanwhile() -> None:
    rng = np.random.default_rng(1)
    rows = rng.standard_normal((60000, 32)).astype(np.float32)
    gallery = edgerecall.Gallery(32)
    gallery.add(rows)
    expected = gallery.search(rows[:50], 3)[0]
    refused = 0
    with ThreadPoolExecutor(3) as pool:
        searches = [pool.submit(gallery.search, rows[:50], 3, 2) for _ in range(12)]
        while not all(search.done() for search in searches):
            try:
                gallery.add(0 * rows[:1])
            except InputError as error:
                assert "while it is searched" in str(error)
                refused += 1
    assert refused > 0
    assert all((search.result()[0][:, 0] == expected[:, 0]).all() for search in searches)


def test_progress_ends_at_one() -> None:
    gallery = edgerecall.Gallery(8)
    gallery.add(np.ones((50000, 8), np.float32))
    for threads in (1, 3):
        seen: list[float] = []
        gallery.search(np.ones((200, 8), np.float32), 1, threads, seen.append)
        assert seen == sorted(seen) and seen[-1] == 1.0


def test_mistakes() -> None:
    gallery = edgerecall.Gallery(4)
    with pytest.raises(InputError, match="storage: expected float32, float16, int8 or binary, got 'int4'"):
        edgerecall.Gallery(4, "int4")
    with pytest.raises(InputError, match="row 1 is not finite"):
        gallery.add(np.array([[0, 0, 0, 0], [0, 0, 0, np.nan]], np.float32))
    assert len(gallery) == 0
    wrong: list[Any] = [np.zeros((2, 3), np.float32), np.zeros(4, np.float32), np.zeros((2, 4))]
    for rows in wrong:
        with pytest.raises((InputError, TypeError, ValueError)):
            gallery.add(rows)
        with pytest.raises((InputError, TypeError, ValueError)):
            gallery.search(rows, 1)
    with pytest.raises(InputError, match="k of 1 or more"):
        gallery.search(np.zeros((1, 4), np.float32), 0)
