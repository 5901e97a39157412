"""A gallery of a few bits a number, against its definition in float64."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from edgerecall.runtimes._native import BitGallery, Gallery
from edgerecall.runtimes.approximate.compressed import CompressedGallery, rotation
from edgerecall.runtimes.core.errors import InputError

pytestmark = pytest.mark.cpu_sensitive
Rows = NDArray[np.float32]
LEVELS = {
    1: [0.7979],
    2: [0.4528, 1.510],
    3: [0.2451, 0.7560, 1.344, 2.152],
    4: [0.1284, 0.3881, 0.6568, 0.9424, 1.256, 1.618, 2.069, 2.733],
}


def stored(rows: Rows, centre: Rows, bits: int) -> NDArray[np.float64]:
    """What a gallery holds of its rows, centre left out."""
    levels = np.asarray(LEVELS[bits], np.float32)
    less = rows - centre
    spread = np.sqrt(((rows.astype(np.float64) - centre) ** 2).mean(axis=1, keepdims=True))
    sizes = np.divide(np.abs(less), spread, out=np.zeros(less.shape), where=spread > 0).astype(np.float32)
    held = levels[np.searchsorted((levels[1:] + levels[:-1]) / 2, sizes)].astype(np.float64)
    factor = (np.abs(less) * held).sum(axis=1, keepdims=True) / (held**2).sum(axis=1, keepdims=True)
    return np.where(less > 0, held, -held) * factor.astype(np.float32)


def similarities(rows: Rows, queries: Rows, centre: Rows, bits: int) -> NDArray[np.float64]:
    """`(queries, rows)`: (row - centre) of what is held with (query - centre), and the rest as it is."""
    less, of = (rows - centre).astype(np.float64), centre.astype(np.float64)
    return (queries - of) @ stored(rows, centre, bits).T + (less @ of)[None] + (queries @ of)[:, None]


def expected(rows: Rows, queries: Rows, centre: Rows, bits: int, k: int, candidates: int) -> list[list[int]]:
    distances = ((queries - centre > 0)[:, None] != (rows - centre > 0)[None]).sum(axis=2)
    similarity = similarities(rows, queries, centre, bits)
    found = []
    for query, own in enumerate(distances):
        near = np.lexsort((np.arange(len(rows)), own))[: max(k, candidates)]
        found.append(near[np.lexsort((near, -similarity[query, near]))][:k].tolist())
    return found


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_equals_its_definition(data: st.DataObject) -> None:
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    dim, count = data.draw(st.integers(1, 200)), data.draw(st.integers(0, 2500))
    bits, k = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 20))
    candidates = data.draw(st.integers(1, 300))
    rows = rng.standard_normal((count, dim)).astype(np.float32)
    queries = rng.standard_normal((3, dim)).astype(np.float32)
    centre = (0.3 * rng.standard_normal(dim)).astype(np.float32)
    gallery = BitGallery(centre, bits)
    cut = data.draw(st.integers(0, count))
    gallery.add(rows[:cut])
    gallery.add(rows[cut:])
    assert len(gallery) == count and gallery.dim == dim and gallery.bits == bits
    found, told = gallery.search(queries, k, candidates, threads=data.draw(st.integers(1, 4)))
    wanted = expected(rows, queries, centre, bits, k, candidates)
    of_all = similarities(rows, queries, centre, bits)
    for query in range(3):
        own = wanted[query]
        whole = of_all[query]
        # Rounding may exchange rows that are equally near.
        assert np.allclose(whole[found[query, : len(own)]], whole[own], atol=1e-5), (found[query], own)
        assert np.allclose(told[query, : len(own)], whole[found[query, : len(own)]], atol=1e-4)
        assert (found[query, len(own) :] == -1).all() and np.isneginf(told[query, len(own) :]).all()


@pytest.mark.parametrize(("bits", "size"), [(1, 64 + 8), (2, 128 + 8), (3, 192 + 8), (4, 256 + 8)])
def test_bytes(bits: int, size: int) -> None:
    gallery = CompressedGallery(np.zeros(512, np.float32), bits)
    gallery.add(np.random.default_rng(0).standard_normal((800, 512)).astype(np.float32))
    assert gallery.bytes == 800 * size and len(gallery) == 800 and gallery.dim == 512


def test_near_float32_on_embeddings() -> None:
    """Classes of a few images each, off centre as pooled activations are: what 1 bit loses, 3 bits have."""
    rng = np.random.default_rng(0)
    spread = 1 / np.sqrt(1 + np.arange(256))
    means = rng.standard_normal((600, 256)) * spread
    labels = np.repeat(np.arange(600), 5)
    rows = (means[labels] + 0.7 * rng.standard_normal((3000, 256)) * spread + 1).astype(np.float32)
    queries = (means[:200] + 0.7 * rng.standard_normal((200, 256)) * spread + 1).astype(np.float32)
    rows, queries = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (rows, queries))
    exact = Gallery(256)
    exact.add(rows)
    truth, _ = exact.search(queries, 10)
    shared = {}
    for bits in (1, 2, 3, 4):
        gallery = CompressedGallery.fit(rows[::3], bits)
        gallery.add(rows)
        found, told = gallery.search(queries, 10)
        shared[bits] = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found.tolist(), truth.tolist(), strict=True)])
        assert np.abs(told[:, 0] - (queries * rows[found[:, 0]]).sum(axis=1)).max() < 0.05
        hits = [(labels[one[:, 0]] == np.arange(200)).mean() for one in (found, truth)]
        assert hits[0] > 0.9 * hits[1]
    assert shared[1] < shared[2] < shared[3] < shared[4] and shared[1] > 0.6 and shared[4] > 0.9


def test_a_seed_gives_the_same_gallery() -> None:
    turn = rotation(32, 3)
    assert (turn == rotation(32, 3)).all() and np.abs(turn @ turn.T - np.eye(32)).max() < 1e-5
    assert np.abs(turn - rotation(32, 4)).max() > 0.1


def test_a_row_at_the_centre() -> None:
    gallery = CompressedGallery(np.ones(8, np.float32))
    gallery.add(np.ones((1, 8), np.float32))
    found, told = gallery.search(np.ones((1, 8), np.float32), 3)
    assert found.tolist() == [[0, -1, -1]] and told[0, 0] == pytest.approx(8, abs=1e-4)


def test_what_it_refuses() -> None:
    with pytest.raises(InputError, match="1 to 4 bits"):
        CompressedGallery(np.zeros(8, np.float32), bits=5)
    with pytest.raises(InputError, match=r"expected one row of numbers, got an array of shape \(2, 8\)"):
        CompressedGallery(np.zeros((2, 8), np.float32))
    with pytest.raises(InputError, match=r"expected embeddings \(n, dim\), got an array of shape \(0, 8\)"):
        CompressedGallery.fit(np.zeros((0, 8), np.float32))
    gallery = CompressedGallery(np.zeros(8, np.float32))
    bad = np.zeros((2, 8), np.float32)
    bad[1, 3] = np.nan
    with pytest.raises(InputError, match="row 1"):
        gallery.add(bad)
    many = np.zeros((20_000, 8), np.float32)
    many[18_000, 0] = np.inf
    with pytest.raises(InputError, match="row 18000"):
        gallery.add(many)
    assert len(gallery) == 0
    for wrong in (np.zeros((2, 7), np.float32), np.zeros((0, 3), np.float32), np.zeros(8, np.float32)):
        with pytest.raises(InputError, match=r"rows: expected an array of shape \(n, 8\), got"):
            gallery.add(wrong)
        with pytest.raises(InputError, match=r"queries: expected an array of shape \(n, 8\), got"):
            gallery.search(wrong, 1)
    with pytest.raises(InputError, match="candidates of 1 or more, got -1"):
        gallery.search(np.zeros((1, 8), np.float32), 1, candidates=-1)
    with pytest.raises(InputError, match="k of 1 or more"):
        gallery.search(np.zeros((1, 8), np.float32), 0)


def test_threads_search_at_the_same_time() -> None:
    rng = np.random.default_rng(0)
    gallery = CompressedGallery.fit(rng.standard_normal((5000, 64)).astype(np.float32))
    gallery.add(rng.standard_normal((5000, 64)).astype(np.float32))
    queries = rng.standard_normal((32, 64)).astype(np.float32)
    alone, _ = gallery.search(queries, 5)
    with ThreadPoolExecutor(8) as pool:
        for found, _ in pool.map(lambda _: gallery.search(queries, 5, threads=2), range(16)):
            assert (found == alone).all()
