"""A gallery on disk: what it finds, what it refuses, and what others see of its changes."""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import edgerecall
from edgerecall import DiskGallery, Gallery
from edgerecall.runtimes import _native
from edgerecall.runtimes._native import StoredRows
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.gallery import durable
from edgerecall.runtimes.gallery.check import problems
from edgerecall.runtimes.gallery.identity import difference, identity_of
from edgerecall.runtimes.gallery.manifest import Storage
from edgerecall.runtimes.preprocess.ops import Normalize

Make = Callable[..., Bundle]
DIM = 24
STORAGES = ("float32", "float16", "int8")
ROWS = np.random.default_rng(3).standard_normal((500, DIM)).astype(np.float32)
QUERIES = np.random.default_rng(4).standard_normal((20, DIM)).astype(np.float32)
IDS = [f"image {number} é.jpg" for number in range(len(ROWS))]
LABELS = [None if number % 10 == 9 else f"product {number % 7}" for number in range(len(ROWS))]


def filled(root: Path, storage: Storage = "float32") -> DiskGallery:
    """The rows above, the last first, in steps that leave several segments."""
    gallery = Gallery.create(root, DIM, storage)
    for start, end in ((150, 500), (50, 150), (10, 50), (0, 10)):
        chosen = list(range(start, end))
        gallery.add(
            [IDS[i] for i in chosen],
            ROWS[chosen],
            [LABELS[i] for i in chosen],
            [{"number": i, "name": "naïve 名"} if i % 3 else None for i in chosen],
        )
    return gallery


@pytest.mark.parametrize("storage", STORAGES)
def test_finds_what_a_gallery_in_memory_finds(tmp_path: Path, storage: Storage) -> None:
    with filled(tmp_path / "g", storage) as gallery:
        gone = list(range(0, 500, 11))
        gallery.remove([IDS[i] for i in gone])
        assert len(gallery.segments) > 2 and len(gallery) == 500 - len(gone)
        left = np.delete(np.arange(500), gone)
        exact = Gallery(DIM, "float16" if storage == "float16" else "float32")
        exact.add(ROWS[left])
        rows, similarities = exact.search(QUERIES, 10)
        found = gallery.search(QUERIES, 10, threads=2)
        for query in range(len(QUERIES)):
            assert [one.id for one in found[query]] == [IDS[left[row]] for row in rows[query]]
            near = similarities[query].tolist()
            assert [one.similarity for one in found[query]] == (
                pytest.approx(near, rel=3e-7) if storage == "int8" else near
            )
            for one, row in zip(found[query], left[rows[query]], strict=True):
                assert one.label == LABELS[row]
                assert one.metadata == ({"number": row, "name": "naïve 名"} if row % 3 else None)
        assert problems(gallery) == []
    with Gallery.open(tmp_path / "g") as again:
        assert [[one.id for one in query] for query in again.search(QUERIES, 10)] == [
            [one.id for one in query] for query in found
        ]


def test_filters(tmp_path: Path) -> None:
    with filled(tmp_path / "g") as gallery:
        order = (-(ROWS @ QUERIES[0])).argsort()
        wanted = [IDS[i] for i in order if LABELS[i] in ("product 1", "product 4")]
        found = gallery.search(QUERIES[:1], 6, labels=["product 1", "product 4", "none such"])[0]
        assert [one.id for one in found] == wanted[:6]
        assert gallery.search(QUERIES[:1], 6, labels=["none such"]) == [[]]
        least = float((ROWS @ QUERIES[0])[order[3]]) - 1e-4
        assert len(gallery.search(QUERIES[:1], 50, min_similarity=least)[0]) == 4
        assert len(gallery.search(QUERIES[:1], 10_000)[0]) == 500


def test_near_duplicates_are_told_once(tmp_path: Path) -> None:
    with Gallery.create(tmp_path / "g", DIM) as gallery:
        near = np.concatenate([ROWS[:30] + 1e-4 * number for number in range(20)])
        gallery.add([f"{number}" for number in range(600)], near)
        found = gallery.search(ROWS[:4], 12, duplicate=0.999)
        for number, query in enumerate(found):
            families = [int(one.id) % 30 for one in query]
            assert len(families) == len(set(families)) == 12 and families[0] == number
        assert len(gallery.search(ROWS[:1], 50, duplicate=0.999)[0]) == 30  # there are no more


def test_replaced_removed_and_compacted(tmp_path: Path) -> None:
    with filled(tmp_path / "g") as gallery:
        with pytest.raises(InputError, match=r"image 7 é\.jpg' is there already"):
            gallery.add(["new", IDS[7]], ROWS[:2])
        assert gallery.known(["new", IDS[7]]) == {IDS[7]}
        assert gallery.add(["new", IDS[7]], QUERIES[:2], ["fresh", "fresh"], replace=True) == 1
        assert len(gallery) == 501
        assert [one.id for one in gallery.search(QUERIES[:2], 1, labels=["fresh"])[1]] == [IDS[7]]
        assert gallery.remove(labels=["fresh", "product 2"], ids=[IDS[0], "none such"]) == 2 + 1 + sum(
            label == "product 2" and i != 7 for i, label in enumerate(LABELS)
        )
        before, size = gallery.search(QUERIES, 10), gallery.bytes
        gallery.compact()
        assert gallery.search(QUERIES, 10) == before and len(gallery.segments) == 1 and gallery.bytes < size
        assert problems(gallery) == []
        gallery.remove(IDS)
        gallery.compact()
        assert len(gallery) == 0 and gallery.segments == () and gallery.search(QUERIES[:1]) == [[]]


def test_small_changes_leave_few_files(tmp_path: Path) -> None:
    rows = ROWS[:200] / np.linalg.norm(ROWS[:200], axis=1, keepdims=True)
    with Gallery.create(tmp_path / "g", DIM, "int8") as gallery:
        for number in range(200):
            gallery.add([IDS[number]], rows[number : number + 1])
        assert len(gallery.segments) <= 8 and len(list((tmp_path / "g").iterdir())) <= 10
        assert [one[0].id for one in gallery.search(rows, 1)] == IDS[:200]


@pytest.mark.parametrize(
    ("ids", "rows", "options", "told"),
    [
        (["a", "a"], ROWS[:2], {}, "id 'a' is given twice"),
        (["a"], ROWS[:2], {}, "2 embeddings and 1 ids"),
        (["a"], ROWS[:1, :5], {}, "expected float32 (n, 24), got float32 of shape (1, 5)"),
        (["a"], ROWS[:1].astype(np.float64), {}, "got float64"),
        (["a"], np.full((1, DIM), np.nan, np.float32), {}, "the embedding of 'a' is not finite"),
        (["a"], np.full((1, DIM), 7e4, np.float32), {}, "beyond float16's 65504"),
        ([""], ROWS[:1], {}, "1 to 4096 bytes, got 0"),
        (["x" * 5000], ROWS[:1], {}, "1 to 4096 bytes, got 5000"),
        (["\ud800"], ROWS[:1], {}, "no text in UTF-8"),
        ([1], ROWS[:1], {}, "an id or a label is a text, got int"),
        ("a", ROWS[:1], {}, "expected several texts, got one"),
        (["a"], ROWS[:1].tolist(), {}, "expected a float32 array (n, 24), got list"),
        (["a"], ROWS[:1], {"metadata": [{1: 1, "1": 2}]}, "metadata: a key is given twice"),
        (["a"], ROWS[:1], {"labels": ["l"] * 2}, "1 embeddings and 2 labels"),
        (["a"], ROWS[:1], {"metadata": [{"x": object()}]}, "metadata: Object of type object"),
        (["a"], ROWS[:1], {"metadata": [{"x": float("nan")}]}, "metadata: "),
        (["a"], ROWS[:1], {"metadata": [{"x": "y" * 70_000}]}, "at most 65536 bytes of JSON"),
    ],
)
def test_what_cannot_be_added(tmp_path: Path, ids: list[str], rows: Any, options: dict[str, Any], told: str) -> None:
    with filled(tmp_path / "g", "float16") as gallery:
        generation = gallery.manifest.generation
        with pytest.raises(InputError) as refused:
            gallery.add(ids, rows, **options)
        assert told in str(refused.value) and gallery.manifest.generation == generation and len(gallery) == 500


def test_one_writes_and_others_read(tmp_path: Path) -> None:
    with filled(tmp_path / "g") as writer:
        with pytest.raises(InputError, match="open for writing already, here or in another"):
            Gallery.open(tmp_path / "g", writable=True)
        code = f"import edgerecall; edgerecall.Gallery.open({str(tmp_path / 'g')!r}, writable=True)"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "this gallery is open for writing already" in other.stderr
        reader = Gallery.open(tmp_path / "g")
        with pytest.raises(InputError, match="opened to be read"):
            reader.remove([IDS[0]])
        before = reader.search(QUERIES, 5)
        writer.remove(IDS[::2])
        writer.compact()
        assert reader.search(QUERIES, 5) == before  # what it mapped is still there
        assert reader.refresh() and not reader.refresh()
        assert reader.search(QUERIES, 5) == writer.search(QUERIES, 5) != before
    Gallery.open(tmp_path / "g", writable=True).close()


def test_threads_search_while_one_writes(tmp_path: Path) -> None:
    with filled(tmp_path / "g") as gallery:
        done = threading.Event()
        failed: list[BaseException] = []

        def search() -> None:
            try:
                while not done.is_set():
                    for query in gallery.search(QUERIES[:3], 5, labels=["product 1"]):
                        assert len(query) == 5 and all(one.label == "product 1" for one in query)
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=search) for _ in range(3)]
        for thread in threads:
            thread.start()
        for number in range(25):
            gallery.add([f"more {number}"], ROWS[:1], ["product 1"])
            gallery.remove([IDS[number * 7 + 2]])
        gallery.compact()
        done.set()
        for thread in threads:
            thread.join()
        assert not failed


def test_other_tools_read_it(tmp_path: Path) -> None:
    with filled(tmp_path / "g") as gallery:
        gallery.compact()
        arrays = load_file(gallery.segments[0].path)
    names = bytes(arrays["ids"]).decode()
    assert names.count(".jpg") == 500 and arrays["embeddings"].shape == (500, DIM)
    assert {row.tobytes() for row in arrays["embeddings"]} == {row.tobytes() for row in ROWS}


def test_how_near_is_told_is_how_near_may_be_asked_for(tmp_path: Path) -> None:
    """A share that float32 rounds, and rows that are one although their cosine is rounded."""
    rows = np.ones((2, 20), np.float32)
    rows[1, 0] = -1
    with Gallery.create(tmp_path / "g", 20, "binary") as gallery:
        gallery.add(["a", "b"], rows)
        assert [one.id for one in gallery.search(rows[:1], 5, min_similarity=0.9)[0]] == ["a", "b"]
        assert [one.id for one in gallery.search(rows[:1], 5, min_similarity=0.91)[0]] == ["a"]
    for dim in range(1, 1000, 31):
        row = np.random.default_rng(dim).standard_normal((1, dim)).astype(np.float32)
        for storage in ("binary", "float32"):
            with Gallery.create(tmp_path / f"{dim} {storage}", dim, storage) as gallery:
                gallery.add(["a", "b", "c"], np.concatenate([row, row, -row]))
                assert [one.id for one in gallery.search(row, 5, duplicate=1)[0]] == ["a", "c"]


def test_limits_that_are_none(tmp_path: Path) -> None:
    with filled(tmp_path / "g") as gallery:
        for name in ("min_similarity", "duplicate"):
            for value in (float("nan"), "0.5", [1], 10**400):
                with pytest.raises(InputError, match=f"search: {name}: expected a number, got "):
                    gallery.search(QUERIES, 3, **{name: value})
        for value, count in ((-(10**39), 3), (1e39, 0), (np.float32(-5), 3), (-5, 3)):
            assert {len(found) for found in gallery.search(QUERIES, 3, min_similarity=value)} == {count}


def test_a_row_whose_metadata_are_damaged_can_be_removed(tmp_path: Path) -> None:
    def no_json(data: bytearray, header: int) -> None:
        data[data.index(b'{"number":4,')] = ord("[")

    with filled(tmp_path / "g") as gallery:
        gallery.compact()
        rewritten(gallery, no_json)
    with Gallery.open(tmp_path / "g", writable=True) as gallery:
        with pytest.raises(InputError, match="damaged at row"):
            gallery.rows_with([IDS[4]])
        assert gallery.known([IDS[4], "none"]) == {IDS[4]}
        assert gallery.remove([IDS[4]]) == 1
        assert gallery.rows_with([IDS[5], IDS[4]])[IDS[5]].metadata == {"number": 5, "name": "naïve 名"}


def rewritten(gallery: DiskGallery, change: Callable[[bytearray, int], None]) -> None:
    """Changes a segment's bytes, header and all (its length is given too), and its hash with them."""
    (segment,) = gallery.segments
    data = bytearray(segment.path.read_bytes())
    change(data, int.from_bytes(data[:8], "little"))
    segment.path.write_bytes(data)
    told = json.loads((gallery.root / "gallery.json").read_text())
    told["segments"][0]["file"] |= {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (gallery.root / "gallery.json").write_text(json.dumps(told))


def test_signs_that_another_tool_wrote(tmp_path: Path) -> None:
    def behind(data: bytearray, header: int) -> None:
        data[8 + header + 15] |= 0x80  # of the first row's second word, whose last 58 bits stand for nothing

    def elsewhere(data: bytearray, header: int) -> None:
        data[:8] = (header + 1).to_bytes(8, "little")
        data[8 + header : 8 + header] = b" "

    for name, change in (("behind", behind), ("elsewhere", elsewhere)):
        with Gallery.create(tmp_path / name, 70, "binary") as gallery:
            gallery.add(["a", "b"], np.random.default_rng(1).standard_normal((2, 70)).astype(np.float32))
            rewritten(gallery, change)
    with Gallery.open(tmp_path / "behind") as gallery:
        assert [one.split(": ", 1)[1] for one in problems(gallery)] == ["embeddings: a sign behind the last number"]
    with pytest.raises(InputError, match="expected a segment of a gallery: an array of shape"):
        Gallery.open(tmp_path / "elsewhere")
    signs = np.zeros((3, 1100), np.uint64)
    odd = np.zeros(8 * 6 + 1, np.uint8)[1:].view(np.uint64).reshape(3, 2)
    for values, dim in ((signs, 70400), (signs, 70000), (signs, 0), (signs[:, :2], 70), (odd, 70), (signs[:, :1], 65)):
        with pytest.raises(InputError, match="values: "):
            StoredRows("binary", values, longest=1.0, dim=dim)


def cosines_of_signs(rows: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """`(queries, rows)`."""
    return np.asarray(1 - 2 * ((queries > 0)[:, None] != (rows > 0)[None]).mean(axis=2), np.float32)


@pytest.mark.parametrize("dim", [5, 64, 70])
def test_signs_alone(tmp_path: Path, dim: int) -> None:
    rows = np.random.default_rng(1).standard_normal((500, dim)).astype(np.float32)
    queries = np.random.default_rng(2).standard_normal((9, dim)).astype(np.float32)
    for one in (rows, queries):
        one[np.abs(one) < 0.3] = 0  # has no sign, and counts as less
    with Gallery.create(tmp_path / "g", dim, "binary") as gallery:
        for start, end in ((200, 500), (0, 150), (150, 200)):
            gallery.add(IDS[start:end], rows[start:end], LABELS[start:end])
        assert len(gallery.segments) > 1
        gallery.remove(IDS[::7])
        left = np.arange(500) % 7 != 0
        near = cosines_of_signs(rows, queries)
        for at, found in enumerate(gallery.search(queries, 20, threads=2)):
            assert {one.id for one in found}.isdisjoint(IDS[::7]) and len({one.id for one in found}) == 20
            assert [one.similarity for one in found] == sorted(near[at][left], reverse=True)[:20]
            assert [one.similarity for one in found] == [near[at][IDS.index(one.id)] for one in found]
        for found in gallery.search(queries, 500, labels=["product 3"]):
            assert {one.id for one in found} == {IDS[at] for at in range(500) if LABELS[at] == "product 3" and left[at]}
        alike = gallery.search(rows[1:2], 5, duplicate=0.9999)[0]
        assert alike[0].similarity == 1 and all(one.similarity < 1 for one in alike[1:])
        gallery.compact()
        assert problems(gallery) == []
        kept = {one.id: row for one, row in gallery.stored_rows()}
        assert kept[IDS[1]] == pytest.approx(np.where(rows[1] > 0, 1, -1) / dim**0.5)
        whole = gallery.search(queries, 20)
    with Gallery.open(tmp_path / "g") as again:
        assert again.search(queries, 20) == whole
        assert load_file(again.segments[0].path)["embeddings"].nbytes == len(again) * -(-dim // 64) * 8


@pytest.mark.parametrize("storage", [*STORAGES, "binary"])
def test_a_damaged_one_is_told_or_works(tmp_path: Path, storage: Storage) -> None:
    """Bytes changed at random: opened, searched and checked without anything but an InputError; all are noticed."""
    with filled(tmp_path / "g", storage) as gallery:
        gallery.remove(IDS[:5])
    files = [one for one in (tmp_path / "g").iterdir() if one.name != "lock"]
    drawn, refused = random.Random(storage), 0
    for number in range(200):
        file = drawn.choice(files)
        whole = file.read_bytes()
        damaged = bytearray(whole)
        kind = number % 4
        if kind == 0:
            damaged = damaged[: drawn.randrange(len(whole))]
        else:
            at = drawn.randrange(min(len(whole), 1500) if kind == 1 else len(whole))
            damaged[at] ^= 1 << drawn.randrange(8)
        file.write_bytes(damaged)
        try:
            with Gallery.open(tmp_path / "g") as opened:
                try:
                    opened.search(QUERIES, 3, labels=["product 1", "product 2"])
                except InputError:
                    refused += 1
                assert problems(opened) or file.name == "gallery.json"
        except InputError as error:
            refused += 1
            assert "\n" not in str(error)
        file.write_bytes(whole)
    assert refused > 50
    with Gallery.open(tmp_path / "g") as opened:
        assert problems(opened) == []


def test_no_gallery(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"expected a gallery, found no gallery\.json"):
        Gallery.open(tmp_path)
    (tmp_path / "x").write_text("")
    with pytest.raises(InputError, match="exists already"):
        Gallery.create(tmp_path, DIM)
    with filled(tmp_path / "g") as gallery:
        path = gallery.root / "gallery.json"
        path.write_text(path.read_text().replace('"format_version":1', '"format_version":9'))
    with pytest.raises(InputError, match="reads gallery format 1, got 9: update EdgeRecall"):
        Gallery.open(tmp_path / "g")


def test_of_one_model_alone(tmp_path: Path, fake_bundle: Make) -> None:
    bundle = fake_bundle()
    own = identity_of(bundle)
    with Gallery.create(tmp_path / "g", bundle) as gallery:
        gallery.require_model(own)
        assert gallery.dim == bundle.spec.embedding_dim
        other = own.model_copy(update={"golden": tuple(tuple(-x for x in row) for row in own.golden)})
        with pytest.raises(
            InputError, match=r"another model: cosine of the golden embeddings down to -1\.0000; query by"
        ):
            gallery.require_model(other)
    ops = [
        op.model_copy(update={"mean": (0.5, 0.5, 0.5)}) if isinstance(op, Normalize) else op
        for op in own.spec.preprocess.ops
    ]
    blurred = own.spec.preprocess.model_copy(update={"ops": tuple(ops)})
    spec = own.spec.model_copy(update={"preprocess": blurred})
    assert "its images were preprocessed otherwise (normalize: mean" in str(
        difference(own, own.model_copy(update={"spec": spec}))
    )
    elsewhere = own.model_copy(update={"golden_images": ("0" * 64,), "source": ("1" * 64,)})
    assert "it has no golden images in common" in str(difference(own, elsewhere))
    made_again = own.model_copy(update={"source": ("2" * 64,)})
    assert difference(made_again, made_again.model_copy(update={"golden_images": ("0" * 64,)})) is None
    assert "its embeddings are signs" in str(difference(own.model_copy(update={"signs": "signs"}), own))
    nearly = own.model_copy(update={"golden": tuple(tuple(x * 1.0001 for x in row) for row in own.golden)})
    assert difference(own, nearly) is None


@pytest.mark.parametrize("noise", [0.0003, 0.003, 0.03, 0.3])
def test_int8_finds_what_float32_finds_among_near_duplicates(tmp_path: Path, noise: float) -> None:
    drawn = np.random.default_rng(1)
    products = drawn.standard_normal((20, 64))
    rows = products[np.arange(3000) % 20] + noise * drawn.standard_normal((3000, 64))
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    whole = Gallery(64)
    whole.add(rows)
    with Gallery.create(tmp_path / "g", 64, "int8") as gallery:
        gallery.add([str(number) for number in range(3000)], rows)
        found, near = gallery.search_rows(rows[:200], 10)
        expected, exact = whole.search(rows[:200], 10)
    # Each number is off by half a step of 2^-16 of a row's scale at most, and the scale by a rounding of float32.
    bound = np.sqrt(64) * np.abs(rows).max() / 127 * 2.0**-17 + 2.0**-23
    np.testing.assert_allclose(near, exact, rtol=0, atol=bound)
    true = np.take_along_axis(rows[:200].astype(np.float64) @ rows.T.astype(np.float64), found, axis=1)
    assert (true > exact - 2 * bound).all()
    assert noise < 0.01 or (found == expected).mean() > 0.99  # nearer ones float32 itself can hardly tell apart


def test_a_forked_process_does_not_write(tmp_path: Path) -> None:
    with filled(tmp_path / "g") as gallery:
        child = os.fork()
        if child == 0:
            try:
                gallery.add(["child"], ROWS[:1])
            except InputError as error:
                os._exit(0 if "that this one was forked from" in str(error) else 2)
            os._exit(1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        gallery.add(["parent"], ROWS[:1])
        assert gallery.known(["parent", "child"]) == {"parent"}
    Gallery.open(tmp_path / "g", writable=True).close()


def test_a_gallery_that_was_replaced_is_not_written(tmp_path: Path) -> None:
    with filled(tmp_path / "g") as old:
        shutil.rmtree(tmp_path / "g")
        with Gallery.create(tmp_path / "g", DIM) as new:
            new.add(["new"], ROWS[:1])
            with pytest.raises(InputError, match="was replaced since it was opened"):
                old.add(["old"], ROWS[:1])
            assert problems(new) == [] and len(new) == 1


def test_an_interrupted_change_is_seen_by_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with filled(tmp_path / "g") as gallery:
        before: list[int] = []
        for step in ("rename", "synchronise_folder", "synchronise"):
            original = getattr(durable, step)

            def interrupted(*arguments: Any, original: Any = original) -> None:
                original(*arguments)
                if (tmp_path / "g" / "gallery.json").stat().st_mtime_ns != before[-1]:
                    raise KeyboardInterrupt

            before.append((tmp_path / "g" / "gallery.json").stat().st_mtime_ns)
            monkeypatch.setattr(durable, step, interrupted)
            with pytest.raises(KeyboardInterrupt):
                gallery.add([f"{step} 1"], ROWS[:1])
                gallery.add([f"{step} 2"], ROWS[:1])
            monkeypatch.undo()
            gallery.add([f"{step} 3"], ROWS[:1])
            assert problems(gallery) == [] and gallery.known([f"{step} 1", f"{step} 3"]) == {f"{step} 1", f"{step} 3"}
    with Gallery.open(tmp_path / "g") as again:
        assert problems(again) == []


def test_what_is_wrong_gets_no_new_hash(tmp_path: Path) -> None:
    with filled(tmp_path / "g") as gallery:
        path = gallery.segments[0].path
    whole = bytearray(path.read_bytes())
    place = whole.index(ROWS[200].tobytes())
    whole[place + 3] ^= 0x80
    path.write_bytes(whole)
    with Gallery.open(tmp_path / "g", writable=True) as gallery:
        for change in (gallery.compact, lambda: gallery.add([f"more {n}" for n in range(400)], ROWS[:400])):
            with pytest.raises(InputError, match="its sha256 differs"):
                change()
        gallery.add(["apart"], ROWS[:1])  # beside it
        assert len(problems(gallery)) == 1


@pytest.mark.parametrize("damage", ["label name", "label number", "negative label"])
def test_damaged_labels_are_input_errors(tmp_path: Path, damage: str) -> None:
    with Gallery.create(tmp_path / "g", DIM) as gallery:
        gallery.add(["a", "b"], ROWS[:2], ["mug", "cup"])
        segment = gallery.segments[0]
    arrays = load_file(segment.path)
    if damage == "label name":
        arrays["label_names"][0] = 0xFF
    else:
        arrays["labels"][0] = 77 if damage == "label number" else -3
    whole, before = bytearray(segment.path.read_bytes()), segment.content
    name = "label_names" if damage == "label name" else "labels"
    old = (before.names.data if damage == "label name" else before.labels).tobytes()
    place = whole.rindex(old)
    whole[place : place + len(old)] = arrays[name].tobytes()
    segment.path.write_bytes(whole)
    with Gallery.open(tmp_path / "g", writable=True) as gallery:
        assert problems(gallery)
        for use in (
            lambda: gallery.search(ROWS[:2], 2),
            lambda: gallery.remove(labels=["mug"]),
            lambda: gallery.segments[0].used_labels,
            lambda: gallery.add(["c"], ROWS[:1]),
        ):
            try:
                use()
            except InputError as error:
                assert "damaged" in str(error) or "sha256" in str(error)


def test_folders_that_are_no_gallery_are_not_read(tmp_path: Path) -> None:
    with filled(tmp_path / "g") as gallery:
        gallery.remove(IDS[:1])
        (removed,) = (tmp_path / "g").glob("*.removed")
    removed.unlink()
    removed.symlink_to("/dev/zero")
    with pytest.raises(InputError, match="the gallery is damaged"):
        Gallery.open(tmp_path / "g")
    (tmp_path / "g" / "gallery.json").unlink()
    os.mkfifo(tmp_path / "g" / "gallery.json")
    with pytest.raises(InputError, match="it is no file"):
        Gallery.open(tmp_path / "g")


def test_files_of_others_are_left_alone(tmp_path: Path) -> None:
    filled(tmp_path / "g").close()
    others = [tmp_path / "g" / name for name in ("20240101-my.safetensors", "12345678 notes.tmp", "a.removed")]
    for path in others:
        path.write_text("mine")
    stray = tmp_path / "g" / "00000099-0.safetensors"
    stray.write_text("a change that was stopped")
    Gallery.open(tmp_path / "g", writable=True).close()
    assert all(path.exists() for path in others) and not stray.exists()


def test_public_names() -> None:
    assert edgerecall.Gallery is Gallery and issubclass(Gallery, _native.Gallery)
