"""A gallery's index for approximate search: what it finds, what it leaves, and what becomes of it."""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import CompletedProcess

import numpy as np
import pytest

from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.gallery.check import problems
from edgerecall.runtimes.gallery.disk_gallery import DiskGallery
from edgerecall.runtimes.gallery.manifest import Storage

DIM, ROWS = 32, 3000
KINDS = ("faiss:IVF64", "faiss:HNSW16", "faiss:IVF64,SQ8")


def drawn(seed: int, count: int) -> np.ndarray:
    """Unit rows around few centres."""
    centres = np.random.default_rng(7).standard_normal((100, DIM))
    rng = np.random.default_rng(seed)
    found = centres[rng.integers(0, 100, count)] + 0.5 * rng.standard_normal((count, DIM))
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def made(root: Path, storage: Storage = "float32", rows: int = ROWS) -> DiskGallery:
    """In three segments, a tenth of its rows removed."""
    gallery = DiskGallery.create(root / "g", DIM, storage)
    values, ids = drawn(0, rows), [f"row {at}" for at in range(rows)]
    for start, stop in ((0, rows * 2 // 3), (rows * 2 // 3, rows * 9 // 10), (rows * 9 // 10, rows)):
        gallery.add(ids[start:stop], values[start:stop])
    assert gallery.remove(ids[::10]) == len(ids[::10])
    return gallery


def shared(one: list[list[object]], other: list[list[object]]) -> float:
    """Which part of the ids two searches have in common."""
    pairs = [({m.id for m in a}, {m.id for m in b}) for a, b in zip(one, other, strict=True)]  # type: ignore[attr-defined]
    return float(np.mean([len(a & b) / len(b) for a, b in pairs]))


@pytest.mark.parametrize("storage", ["float32", "float16", "int8"])
@pytest.mark.parametrize("kind", KINDS)
def test_finds_nearly_what_exact_search_finds(tmp_path: Path, storage: Storage, kind: str) -> None:
    gallery, queries = made(tmp_path, storage), drawn(1, 50)
    recall = gallery.build_index(kind, threads=2)
    entry = gallery.manifest.index
    assert entry is not None and entry.recall == recall and recall >= 0.95
    exact, found = gallery.search(queries, 10, exact=True), gallery.search(queries, 10)
    assert shared(found, exact) >= 0.9
    for ours, theirs in zip(found, exact, strict=True):
        known = {one.id: one.similarity for one in theirs}
        near = [one.similarity for one in ours]
        assert near == sorted(near, reverse=True) and len({one.id for one in ours}) == 10
        assert all(abs(one.similarity - known[one.id]) < 1e-6 for one in ours if one.id in known)
    with DiskGallery(tmp_path / "g") as reader:  # another process
        assert reader.search(queries, 10) == found
        assert problems(reader) == []


@pytest.mark.parametrize("kind", KINDS)
def test_of_signs(tmp_path: Path, kind: str) -> None:
    """Many are equally near: which of them is told is open, how near they are is not; how long a query's numbers are
    does not matter.
    """
    gallery, rng = made(tmp_path, "binary"), np.random.default_rng(5)
    queries = np.asarray(drawn(1, 50) * np.exp(2 * rng.standard_normal((50, DIM))), np.float32)
    recall = gallery.build_index(kind, threads=2)
    near, exact = (
        [[one.similarity for one in found] for found in gallery.search(queries, 10, exact=exact)]
        for exact in (False, True)
    )
    kept = np.mean([np.mean(np.asarray(ours) >= theirs[-1]) for ours, theirs in zip(near, exact, strict=True)])
    assert recall >= 0.9 and kept >= recall - 0.05
    row = drawn(0, ROWS)[1:2]
    with pytest.raises(InputError, match="query 1 is not finite"):
        gallery.search(np.concatenate([row, row * np.inf]), 2)
    gallery.add(["the same"], row)
    for exactly in (False, True):
        best = gallery.search(row, 2, min_similarity=1, exact=exactly)[0]
        assert [(one.id, one.similarity) for one in best] == [("row 1", 1), ("the same", 1)]


def test_the_recall_is_of_how_far_it_looks(tmp_path: Path) -> None:
    """An index that looks at one list of 256 misses a lot: the measured recall decides how far it looks."""
    gallery, queries = made(tmp_path), drawn(1, 200)
    gallery.build_index("faiss:IVF256")
    assert gallery.manifest.index is not None and gallery.manifest.index.effort > 1
    exact = gallery.search(queries, 10, exact=True)
    assert shared(gallery.search(queries, 10), exact) > 0.95
    assert gallery._index is not None
    gallery._index[1].look(1)
    assert shared(gallery.search(queries, 10), exact) < 0.9


def test_what_changes_afterwards_is_found(tmp_path: Path) -> None:
    """Added rows are searched exactly, replaced ones by what they are now, removed ones not at all."""
    gallery, queries = made(tmp_path), drawn(1, 5)
    gallery.build_index("faiss:HNSW16")
    near = np.asarray([0.999 * query + 0.001 for query in queries], np.float32)
    gallery.add([f"new {at}" for at in range(5)], near)
    best = [matches[0] for matches in gallery.search(queries, 3)]
    assert [one.id for one in best] == [f"new {at}" for at in range(5)]
    gallery.add(
        ["row 1", "row 2501"], queries[:2] * 1.1, replace=True
    )  # of the first segment, and of one that is joined
    assert [gallery.search(queries[at : at + 1], 1)[0][0].id for at in (0, 1)] == ["row 1", "row 2501"]
    removed = gallery.search(queries, 10)[4]
    gallery.remove([one.id for one in removed])
    left = gallery.search(queries, 10)[4]
    assert len(left) == 10 and not {one.id for one in left} & {one.id for one in removed}
    assert shared(gallery.search(queries, 10), gallery.search(queries, 10, exact=True)) >= 0.9


def test_more_than_it_can_give_is_found_exactly(tmp_path: Path) -> None:
    """Of 300 rows all but 12, those far from the query, are removed."""
    gallery = made(tmp_path, rows=300)
    gallery.build_index("faiss:IVF8")
    query = drawn(3, 1)
    order = [one.id for one in gallery.search(query, 300, exact=True)[0]]
    gallery.remove(order[:-12])
    assert [one.id for one in gallery.search(query, 10)[0]] == order[-12:-2]
    assert len(gallery.search(query, 50)[0]) == 12
    gallery.remove(order)
    assert gallery.search(query, 10) == [[]]


def test_far_rows_beside_it_do_not_hide_near_ones(tmp_path: Path) -> None:
    """The nearest rows are removed, and there are far rows that the index does not have, as many as are asked for."""
    gallery, query = made(tmp_path), drawn(3, 1)
    gallery.build_index("faiss:HNSW16")
    gallery.remove([one.id for one in gallery.search(query, 60, exact=True)[0]])
    gallery.add([f"far {at}" for at in range(20)], np.repeat(-query, 20, axis=0))
    exact = gallery.search(query, 5, exact=True)
    assert exact[0][0].similarity > 0 and gallery.search(query, 5) == exact


def test_readers_go_on_while_it_is_replaced(tmp_path: Path) -> None:
    """One that had not opened the index yet searches its rows exactly; one that had goes on by it."""
    gallery, queries = made(tmp_path), drawn(1, 5)
    gallery.build_index("faiss:HNSW16")
    with DiskGallery(tmp_path / "g") as late, DiskGallery(tmp_path / "g") as early:
        before = early.search(queries, 5)
        gallery.build_index("faiss:IVF16")
        assert late.search(queries, 5) == late.search(queries, 5, exact=True)
        assert early.search(queries, 5) == before
        assert early.refresh() and early.manifest.index == gallery.manifest.index
        assert not early.refresh() and len(early.search(queries, 5)[0]) == 5


def test_it_is_opened_once_and_let_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By many threads, and again after changes that leave it as it is."""
    from edgerecall.runtimes.gallery import disk_gallery

    gallery, queries, opened = made(tmp_path), drawn(1, 8), []
    gallery.build_index("faiss:HNSW16")
    honest = disk_gallery.opened
    monkeypatch.setattr(disk_gallery, "opened", lambda *given: (opened.append(1), honest(*given))[1])
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda query: gallery.search(query[None], 5)[0], queries))
    assert found == gallery.search(queries, 5)
    gallery.add(["new"], queries[:1])
    gallery.refresh()
    assert gallery.search(queries[:1], 1)[0][0].id == "new" and len(opened) == 1
    with DiskGallery(tmp_path / "g") as following:  # as a server's next view of it
        following.prepare(gallery)
        assert following.search(queries[:1], 1)[0][0].id == "new" and len(opened) == 1
    gallery.compact()
    assert gallery._index is None and gallery._indexed is None


@pytest.mark.parametrize("k", [0, -1, 2.5])
def test_how_many(tmp_path: Path, k: int) -> None:
    gallery = made(tmp_path, rows=300)
    gallery.build_index("faiss:HNSW16")
    with pytest.raises(InputError, match="expected k of 1 or more"):
        gallery.search(drawn(1, 1), k)


def test_labels_and_compacting(tmp_path: Path) -> None:
    gallery, queries = made(tmp_path), drawn(1, 5)
    gallery.add(["labelled"], queries[:1], ["a"])
    gallery.build_index("faiss:IVF64")
    assert [one.id for one in gallery.search(queries[:1], labels=["a"])[0]] == ["labelled"]
    name = gallery.manifest.index.file.path  # type: ignore[union-attr]
    gallery.compact()
    assert gallery.manifest.index is None and not (tmp_path / "g" / name).exists()
    assert gallery.search(queries, 5) == gallery.search(queries, 5, exact=True)


def test_a_damaged_index(tmp_path: Path) -> None:
    """Exact search goes on; the index is refused with what to do, and `verify` names it."""
    gallery, query = made(tmp_path), drawn(1, 1)
    gallery.build_index("faiss:IVF64")
    gallery.close()
    path = tmp_path / "g" / gallery.manifest.index.file.path  # type: ignore[union-attr]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 255
    path.write_bytes(data)
    with DiskGallery(tmp_path / "g") as reader:
        with pytest.raises(InputError, match=r"sha256 differs: .*: make it again by 'gallery compact --index'"):
            reader.search(query)
        assert len(reader.search(query, exact=True)[0]) == 10
        assert [path.name in one for one in problems(reader)] == [True]
    path.unlink()
    with DiskGallery(tmp_path / "g") as reader, pytest.raises(InputError, match="No such file"):
        reader.search(query)


def test_an_index_of_other_rows(tmp_path: Path) -> None:
    """Its file and hash put into another gallery."""
    few, gallery = made(tmp_path / "few", rows=600), made(tmp_path)
    for one in (few, gallery):
        one.build_index("faiss:IVF8")
        one.close()
    ours, theirs = gallery.manifest.index, few.manifest.index
    assert ours is not None and theirs is not None
    data = (tmp_path / "few" / "g" / theirs.file.path).read_bytes()
    (tmp_path / "g" / ours.file.path).write_bytes(data)
    manifest = json.loads((tmp_path / "g" / "gallery.json").read_text())
    manifest["index"]["file"] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (tmp_path / "g" / "gallery.json").write_text(json.dumps(manifest))
    with DiskGallery(tmp_path / "g") as reader, pytest.raises(InputError, match=f"expected {ROWS} rows of {DIM}.*600"):
        reader.search(drawn(1, 1))


@pytest.mark.parametrize(
    "change", [{"kind": "faiss:IVF16"}, {"effort": 1 << 30}, {"rows": [1999, 601, 400]}, {"rows": [2000, 600, 400, 0]}]
)
def test_a_manifest_that_tells_otherwise(tmp_path: Path, change: dict[str, object]) -> None:
    gallery = made(tmp_path)
    gallery.build_index("faiss:HNSW16")
    gallery.close()
    manifest = json.loads((tmp_path / "g" / "gallery.json").read_text())
    manifest["index"] |= change
    (tmp_path / "g" / "gallery.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError) as caught, DiskGallery(tmp_path / "g") as reader:
        reader.search(drawn(1, 1))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("IVF64", "expected faiss:IVF<lists> or faiss:HNSW<links>"),
        ("faiss:Flat", "expected faiss:IVF"),
        ("faiss:IVF0", "expected faiss:IVF"),
        ("faiss:HNSW1", "HNSW: expected 2 to 512, got 1"),
        ("faiss:HNSW100000", "HNSW: expected 2 to 512"),
        ("faiss:IVF2000000", "IVF: expected 1 to 1048576"),
        ("faiss:IVF4096", "needs 4096 rows or more, got 3000: take fewer lists"),
        ("faiss:IVF16,Nonsense", "could not parse code description Nonsense"),
        ("faiss:IVF16,PQ7", "faiss:IVF16,PQ7: "),
    ],
)
def test_what_cannot_be(tmp_path: Path, kind: str, message: str) -> None:
    gallery = made(tmp_path)
    before = gallery.manifest, sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as caught:
        gallery.build_index(kind)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert (gallery.manifest, sorted(tmp_path.rglob("*"))) == before
    with DiskGallery.create(tmp_path / "empty", DIM) as empty, pytest.raises(InputError, match="has no rows"):
        empty.build_index("faiss:HNSW16")


def test_by_command(
    tmp_path: Path, edgerecall: Callable[..., CompletedProcess[str]], fake_bundle: object, data: Path
) -> None:
    fake_bundle()  # type: ignore[operator]

    def told(*command: object, code: int = 0) -> str:
        result = edgerecall("gallery", *command, cwd=tmp_path)
        assert result.returncode == code, result.stderr
        return result.stdout + result.stderr

    build = ("build", "g", "bundle", "--images", data, "--runtime", "fake")
    assert "--index: expected faiss:IVF<lists>" in told(*build, "--index", "hnsw", code=2)
    assert not (tmp_path / "g").exists()
    assert "index faiss:HNSW8, recall@10" in told(*build, "--index", "faiss:HNSW8")
    facts = json.loads(told("info", "g", "--json"))
    assert facts["index"] == "faiss:HNSW8" and 0.9 <= facts["recall@10 of the index"] <= 1
    first = json.loads(told("list", "g").splitlines()[0])["id"]
    search = ("search", "g", "bundle", data / first, "--runtime", "fake")
    assert told(*search).splitlines()[:2] == told(*search, "--exact").splitlines()[:2]
    told("remove", "g", first)
    assert "recall@10" not in told("compact", "g") and json.loads(told("info", "g", "--json"))["index"] is None
    assert "index faiss:IVF2, recall@10" in told("compact", "g", "--index", "faiss:IVF2")
    told("verify", "g", "bundle")


def test_without_faiss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gallery = made(tmp_path, rows=300)
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError):
        gallery.build_index("faiss:HNSW16")
    assert gallery.manifest.index is None
    monkeypatch.undo()
    gallery.build_index("faiss:HNSW16")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with DiskGallery(tmp_path / "g") as reader:
        assert problems(reader) == [] and len(reader.search(drawn(1, 1), exact=True)[0]) == 10
        with pytest.raises(ImportError):
            reader.search(drawn(1, 1))
