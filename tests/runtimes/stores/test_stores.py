"""Galleries in databases: a real PostgreSQL with pgvector, Qdrant in a folder and Milvus in a file, by one contract."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import numpy as np
import psycopg
import pytest
from postgres_server import NoServer, postgres
from served import image_input, serving

import edgerecall as package
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.core.errors import EdgeRecallError, InputError
from edgerecall.runtimes.gallery.disk_gallery import DiskGallery
from edgerecall.runtimes.gallery.identity import identity_of
from edgerecall.runtimes.stores.interface import Store, copy_gallery
from edgerecall.runtimes.stores.opening import open_gallery, store_at

Make = Callable[..., Bundle]
Run = Callable[..., subprocess.CompletedProcess[str]]
OneLine = Callable[..., None]
NUMBERS = count()


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """A PostgreSQL for the module."""
    try:
        with postgres() as url:
            yield url
    except NoServer as error:
        pytest.fail(str(error))


@pytest.fixture(params=["postgres", "qdrant", "milvus"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where no gallery is yet."""
    if request.param == "qdrant":
        return f"qdrant://{tmp_path}/qdrant?collection=c"
    if request.param == "milvus":
        return f"milvus://{tmp_path}/milvus.db?collection=c"
    return f"{request.getfixturevalue('database')}&table=t{next(NUMBERS)}"


def rows(seed: int, number: int, dim: int = 16) -> np.ndarray:
    found = np.random.default_rng(seed).standard_normal((number, dim)).astype(np.float32)
    return np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), np.float32)


def names(number: int) -> list[str]:
    return [f"a/{at:04d}.jpg" for at in range(number)]


def test_rows_come_back(url: str) -> None:
    given = rows(0, 50)
    with store_at(url, 16) as store:
        told = [{"price": at} if at % 2 else None for at in range(50)]
        labels = [None if at % 5 == 0 else f"class {at % 3}" for at in range(50)]
        assert store.add(names(50), given, labels, told) == 0 and len(store) == 50
        assert store.known(["a/0003.jpg", "none"]) == {"a/0003.jpg"}
        assert store.labels() == {"class 0", "class 1", "class 2"}
        (found,) = store.search(given[3:4], 5)
        scores = given @ given[3]
        assert [one.id for one in found] == [names(50)[at] for at in np.argsort(-scores)[:5]]
        np.testing.assert_allclose([one.similarity for one in found], np.sort(scores)[::-1][:5], atol=1e-6)
        assert found[0].label == "class 0" and found[0].metadata == {"price": 3}
        (of_one,) = store.search(given[3:4], 50, labels=["class 1"])
        assert {one.label for one in of_one} == {"class 1"} and len(of_one) == labels.count("class 1")
        assert [one.id for one in store.search(given[3:4], 50, min_similarity=0.99)[0]] == ["a/0003.jpg"]
    with store_at(url) as store:  # opened again
        assert len(store) == 50 and store.dim == 16 and store.model is None
        with pytest.raises(InputError, match="is there already"):
            store.add(["a/0003.jpg"], given[:1])
        assert store.add(["a/0003.jpg", "new"], given[:2], ["x", "y"], replace=True) == 1 and len(store) == 51
        assert store.search(given[:1], 2)[0][0].label in ("x", None)
        assert store.remove(["a/0000.jpg", "none"], ["class 2"]) == 1 + labels.count("class 2")
        assert len(store) == 50 - labels.count("class 2")


def test_labels_of_more_rows_than_one_answer_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgerecall.runtimes.stores.milvus.PART", 5)
    with store_at(f"milvus://{tmp_path}/m.db", 16) as store:
        store.add(names(60), rows(0, 60), [str(at) for at in range(60)])
        assert store.labels() == {str(at) for at in range(60)}


def test_milvus_sizes_and_names_of_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds embeddings of 2 to 32768 numbers, expected 40000"):
        store_at(f"milvus://{tmp_path}/m.db", 40_000)
    with store_at(f"milvus://{tmp_path}/m.db", 16) as store:
        store.add(["a"], rows(0, 1))
        with store_at(f"milvus://{tmp_path}/none/../m.db") as same:
            assert len(same) == 1
        assert len(store) == 1, "one that was closed is not the other's"
    (tmp_path / "photos.db").mkdir()
    with pytest.raises(InputError, match="there is none"):
        store_at(f"milvus://{tmp_path}/photos.db")
    assert not list((tmp_path / "photos.db").iterdir())


def test_bad_rows_leave_nothing(url: str) -> None:
    with store_at(url, 16) as store:
        wrong = rows(0, 2)
        wrong[1, 3] = np.nan
        for change, told in (
            (lambda: store.add(["a", "b"], wrong), "is not finite"),
            (lambda: store.add(["a", "a"], rows(0, 2)), "is given twice"),
            (lambda: store.add(["a"], rows(0, 1, 8)), r"expected float32 \(n, 16\)"),
            (lambda: store.add(["a\0b"], rows(0, 1)), "no text with a NUL in it"),
            (lambda: store.add(["a"], rows(0, 1), None, [{"x": "\0"}]), "no text with a NUL in it"),
            (lambda: store.search(wrong, 1), "not finite"),
            (lambda: store.search(rows(0, 1), 0), "k: expected 1 to"),
            (lambda: store.search(rows(0, 1), 1, duplicate=0.9), "in galleries on disk alone"),
            (lambda: store_at(url, 8) if not url.startswith("qdrant") else store.add(["a"], rows(0, 1, 8)), "16"),
        ):
            with pytest.raises(InputError, match=told):
                change()
        assert len(store) == 0 and store.search(rows(0, 1), 3) == [[]]


def test_sql_and_odd_texts(url: str) -> None:
    odd = ["'; DROP TABLE products; --", '%s {} \\ "', "ünï/☃ 名.jpg", "a\nb", "x" * 2000]
    with store_at(url, 16) as store:
        store.add(odd, rows(1, 5), odd, [{"told": one, "n": None, "deep": [1, {"a": one}]} for one in odd])
        for at, one in enumerate(odd):
            assert store.known([one]) == {one}
            (found,) = store.search(rows(1, 5)[at : at + 1], 1, labels=[one])
            assert found[0].id == found[0].label == one and found[0].metadata["deep"][1] == {"a": one}
        assert store.remove([odd[0]]) == 1 and len(store) == 4


def test_index_and_its_recall(url: str) -> None:
    given = rows(2, 2000, 32)
    with store_at(url, 32) as store:
        for start in range(0, 2000, 500):
            store.add(names(2000)[start : start + 500], given[start : start + 500])
        recall = store.build_index()
        assert 0.8 < recall <= 1 and store.recall == recall
        queries = rows(3, 20, 32)
        exact = store.search(queries, 10, exact=True)
        best = np.argsort(-(queries @ given.T), axis=1)[:, :10]
        for found, row in zip(exact, best, strict=True):
            assert [one.id for one in found] == [names(2000)[at] for at in row]
        approximate = store.search(queries, 10)
        shared = [
            len({a.id for a in one} & {b.id for b in other}) / 10 for one, other in zip(exact, approximate, strict=True)
        ]
        assert np.mean(shared) > 0.7
    with store_at(url) as store:
        assert store.recall == recall and store.index == ("hnsw" if url.startswith("postgres") else None)


@pytest.mark.parametrize("storage", ["float16", "int8"])
def test_a_gallery_is_copied(
    url: str, tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run, one_line: OneLine, storage: str
) -> None:
    bundle = fake_bundle()
    lists = ("--images", data, "--list", data / "test_list.txt", "--runtime", "fake", "--storage", storage)
    edgerecall("gallery", "build", "g", "bundle", *lists, cwd=tmp_path)
    edgerecall(
        "gallery", "remove", "g", (data / "test_list.txt").read_text().splitlines()[0].rsplit(" ", 1)[0], cwd=tmp_path
    )
    pushed = edgerecall("gallery", "push", "g", url, cwd=tmp_path)
    assert pushed.returncode == 0 and "35 rows copied, 0 were there" in pushed.stdout, pushed.stderr
    again = edgerecall("gallery", "push", "g", url, "--index", cwd=tmp_path)
    assert "0 rows copied, 35 were there" in again.stdout and "recall@10" in again.stdout, again.stderr
    images = sorted(data.glob("*_final/*.JPG"))[:3]
    command = ("bundle", *images, "--runtime", "fake", "--format", "jsonl", "--top", "4")
    ours = edgerecall("gallery", "search", "g", *command, cwd=tmp_path)
    theirs = edgerecall("gallery", "search", url, *command, cwd=tmp_path)
    assert theirs.returncode == 0, theirs.stderr
    for one, other in zip(ours.stdout.splitlines(), theirs.stdout.splitlines(), strict=True):
        a, b = json.loads(one), json.loads(other)
        assert [(m["id"], m["label"]) for m in a["matches"]] == [(m["id"], m["label"]) for m in b["matches"]]
        np.testing.assert_allclose(*([m["similarity"] for m in x["matches"]] for x in (a, b)), atol=1e-5)
    told = edgerecall("gallery", "info", url, "--json", cwd=tmp_path)
    assert json.loads(told.stdout)["rows"] == 35
    other = identity_of(bundle)
    other = other.model_copy(update={"golden": tuple(tuple(-x for x in row) for row in other.golden)})
    with pytest.raises(InputError, match="query by the model that it was built with"):
        open_gallery(url, other)
    with (
        DiskGallery.create(tmp_path / "h", 16, model=other) as wrong,
        store_at(url) as store,
        pytest.raises(InputError, match="query by the model"),
    ):
        copy_gallery(wrong, store)


def test_signs_alone_are_not_copied(url: str, tmp_path: Path, edgerecall: Run, one_line: OneLine) -> None:
    with DiskGallery.create(tmp_path / "g", 16, "binary") as gallery:
        gallery.add(["a"], np.ones((1, 16), np.float32))
        one_line(edgerecall("gallery", "push", "g", url, cwd=tmp_path), 2, "keeps signs alone")
        with pytest.raises(InputError):  # nothing was begun there
            store_at(url)
        with (
            store_at(url, 16) as store,
            pytest.raises(InputError, match="keeps signs alone: build one of another storage"),
        ):
            copy_gallery(gallery, store)


def told_by(database: str, query: str, *values: object) -> list[tuple[object, ...]]:
    """What SQL says."""
    with psycopg.connect(database, autocommit=True) as connection:
        return connection.execute(query, values).fetchall()


def test_an_index_gives_all_rows_that_are_asked_for(database: str) -> None:
    name = f"t{next(NUMBERS)}"
    url, given = f"{database}&table={name}", rows(7, 3000, 32)
    with store_at(url, 32) as store, store_at(url) as before:  # one that was opened before there is an index
        store.add(names(3000), given)
        store.build_index()
        indexes = [one[0] for one in told_by(database, "SELECT indexname FROM pg_indexes WHERE tablename = %s", name)]
        assert f"{name}_hnsw" in indexes and f"{name}_hnsw_new" not in indexes
        assert len(before.search(given[:1], 1500)[0]) == len(store.search(given[:1], 1500)[0]) == 1500
        nearest = [one.id for one in store.search(given[:1], 1000, exact=True)[0]]
        assert store.remove(nearest) == 1000
        (found,), (exact,) = store.search(given[:1], 10), store.search(given[:1], 10, exact=True)
        assert [one.id for one in found] == [one.id for one in exact] and len(found) == 10
        store.build_index()  # again


def test_rows_that_are_equal_are_found(url: str) -> None:
    with store_at(url, 16) as store:
        store.add(names(600), np.repeat(rows(8, 30), 20, axis=0))
        assert store.build_index() > 0.95


def test_two_at_once(database: str, tmp_path: Path) -> None:
    url = f"{database}&table=t{next(NUMBERS)}"
    with DiskGallery.create(tmp_path / "g", 16) as gallery:
        gallery.add(names(3000), rows(9, 3000))

    def push(_: int) -> tuple[int, int]:
        with DiskGallery(tmp_path / "g") as source, store_at(url, 16) as target:
            return copy_gallery(source, target)

    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(push, range(4)))
    assert all(written + left == 3000 for written, left in told) and sum(written for written, _ in told) == 3000
    with store_at(url) as one, store_at(url) as other, ThreadPoolExecutor(2) as pool:
        added = [
            pool.submit(store.add, [f"new {at}" for at in range(500)], rows(at, 500))
            for at, store in enumerate((one, other))
        ]
        assert sorted(isinstance(each.exception(), InputError) for each in added) == [False, True]
        assert len(one) == 3500


def test_what_is_kept_of_a_push(url: str, tmp_path: Path, database: str, edgerecall: Run, one_line: OneLine) -> None:
    secret = f"{url}&password=secret" if "postgres" in url else url
    with DiskGallery.create(tmp_path / "g", 16) as gallery:
        gallery.add(names(3), rows(0, 3), None, [{"told": "\\u0000"}] * 3)
    assert edgerecall("gallery", "push", "g", secret, cwd=tmp_path).returncode == 0
    if "postgres" in url:
        assert "secret" not in str(told_by(database, "SELECT command, name FROM edgerecall_galleries"))
    with DiskGallery.create(tmp_path / "h", 16) as gallery:
        gallery.add(["x"], rows(0, 1), None, [{"a": {"b": ["\0"]}}])
    one_line(edgerecall("gallery", "push", "h", url, cwd=tmp_path), 2, "no text with a NUL in it")


def test_texts_that_no_row_has(url: str) -> None:
    with store_at(url, 16) as store:
        store.add(["a"], rows(0, 1), ["x"])
        odd = ["a\0", "\udcff"]
        assert store.known([*odd, "a"]) == {"a"} and store.remove(odd, odd) == 0 and len(store) == 1
        assert store.search(rows(0, 1), 1, labels=odd) == [[]]


def test_with_a_model_and_without(url: str, tmp_path: Path, fake_bundle: Make) -> None:
    with DiskGallery.create(tmp_path / "g", 16) as gallery, store_at(url, 16, identity_of(fake_bundle())) as store:
        gallery.add(["a"], rows(0, 1))
        with pytest.raises(InputError, match="not one gallery"):
            copy_gallery(gallery, store)
        assert len(store) == 0


def test_many_threads(url: str) -> None:
    with store_at(url, 16) as store, ThreadPoolExecutor(6) as pool:
        store.add(names(200), rows(0, 200))
        adding = [pool.submit(store.add, [f"{turn} {at}" for at in range(20)], rows(turn, 20)) for turn in range(6)]
        searching = [pool.submit(store.search, rows(3, 2), 5) for _ in range(60)]
        assert all(len(one) == 5 for job in searching for one in job.result())
        assert [job.result() for job in adding] == [0] * 6 and len(store) == 320


def test_other_encodings(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as connection:
        for encoding in ("LATIN1", "SQL_ASCII"):
            connection.execute(f"CREATE DATABASE x{encoding} ENCODING '{encoding}' TEMPLATE template0 LOCALE 'C'")
    with pytest.raises(InputError, match="its encoding is SQL_ASCII"):
        store_at(database.replace("/postgres?", "/xsql_ascii?"), 16)
    with store_at(database.replace("/postgres?", "/xlatin1?"), 16) as store:
        store.add(["é"], rows(0, 1))
        assert store.known(["é"]) == {"é"} and store.search(rows(0, 1), 1)[0][0].id == "é"
        with pytest.raises(EdgeRecallError, match=r"has no equivalent in encoding"):
            store.add(["☃"], rows(0, 1))


def test_a_killed_copy_goes_on(database: str, tmp_path: Path, edgerecall: Run) -> None:
    url = f"{database}&table=t{next(NUMBERS)}"
    given = rows(5, 20_000, 64)
    with DiskGallery.create(tmp_path / "g", 64) as gallery:
        gallery.add(names(20_000), given)
    with subprocess.Popen(
        [sys.executable, "-m", "edgerecall", "gallery", "push", "g", url], cwd=tmp_path, stderr=subprocess.DEVNULL
    ) as pushing:
        end = time.monotonic() + 60
        while time.monotonic() < end:
            try:
                with store_at(url) as store:
                    if len(store) >= 1000:
                        break
            except InputError:
                time.sleep(0.01)
        pushing.kill()
    with store_at(url) as store:
        there = len(store)
    assert 0 < there < 20_000 and there % 1000 == 0  # whole steps
    again = edgerecall("gallery", "push", "g", url, cwd=tmp_path)
    assert f"{20_000 - there} rows copied, {there} were there, 20000 rows" in again.stdout
    with store_at(url) as store:
        queries = rows(6, 5, 64)
        best = np.argsort(-(queries @ given.T), axis=1)[:, :10]
        found = store.search(queries, 10)
        assert [[one.id for one in row] for row in found] == [[names(20_000)[at] for at in row] for row in best]
        with ThreadPoolExecutor(16) as pool:
            answers = list(pool.map(lambda at: store.search(queries[at % 5 : at % 5 + 1], 10)[0], range(64)))
        assert all(answer == found[at % 5] for at, answer in enumerate(answers))


def test_a_server_answers_from_a_database(
    url: str, tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run
) -> None:
    fake_bundle()
    lists = ("--images", data, "--list", data / "test_list.txt", "--runtime", "fake")
    edgerecall("gallery", "build", "g", "bundle", *lists, cwd=tmp_path)
    edgerecall("gallery", "push", "g", url, cwd=tmp_path)
    name, label = (data / "test_list.txt").read_text().splitlines()[5].rsplit(" ", 1)
    given, tail = image_input((data / name).read_bytes())
    with serving(tmp_path, "--gallery", url, "--pictures", data) as server:
        code, answer, _ = server.infer({"inputs": [given], "parameters": {"k": 3}}, tail)
        told = {one["name"]: one["data"] for one in answer["outputs"]}
        assert code == 200 and told["ids"][0] == name and told["labels"][0] == label and len(told["ids"]) == 3
        assert server.get(f"/pictures/{name}")[0] == 200
        assert server.metric("edgerecall_gallery_readable 1.0")


def test_what_is_no_gallery(
    tmp_path: Path, database: str, edgerecall: Run, one_line: OneLine, fake_bundle: Make
) -> None:
    fake_bundle()
    for url, told in (
        (f"{database}&table=nothing", "expected a gallery, and there is none"),
        ("postgresql://postgres:secret@127.0.0.1:1/x", "127.0.0.1"),
        (f"{database}&table=", "table: expected one name"),
        (f"qdrant://{tmp_path}/q", "expected a gallery, and there is none"),
        ("qdrant://", "expected qdrant://HOST"),
        (f"qdrant://{tmp_path}/q?collection=edgerecall_galleries", "choose another name"),
        ("qdrant://user:secret@/x?y=1", "expected qdrant://HOST"),
        ("qdrant://127.0.0.1:1?api_key=secret", "qdrant://127.0.0.1:1"),
        (f"milvus://{tmp_path}/q.db", "expected a gallery, and there is none"),
        (f"milvus://{tmp_path}/q.txt", "expected milvus://HOST"),
        (f"milvus://{tmp_path}/none/q.db?collection=a-b", "collection: expected letters, digits and _"),
        ("milvus://x?secret=1", "expected milvus://HOST"),
        ("milvus://root:secret@127.0.0.1:1", "a key stands in the option"),
        ("milvus://127.0.0.1:1?token=se#cret&collection=x", "a # is %23"),
        ("qdrant://[::1]:1?api_key=secret", "qdrant://[::1]:1"),
        ("milvus://127.0.0.1:1?token=secret", "milvus://127.0.0.1:1"),
        ("postgresql://[bad/x", "expected postgresql://"),
        ("postgresql://postgres:se#cret/x@127.0.0.1:1/x?sslpassword=secret", "expected postgresql://"),
        ("postgresql:///x?host=/nowhere&password=secret", "postgresql:///nowhere/x"),
        ("mysql://x/y", "a URL of postgresql, postgres, qdrant, qdrants, milvus, milvuss, got 'mysql"),
    ):
        run = edgerecall("gallery", "info", url, cwd=tmp_path)
        one_line(run, 2, told)
        assert "secret" not in run.stderr and "cret" not in run.stderr
    assert not (tmp_path / "q").exists()


def test_a_database_that_goes(tmp_path: Path) -> None:
    with pytest.raises((NoServer, EdgeRecallError)) as error, postgres() as url:
        store: Store = store_at(url, 16)
        store.add(names(3), rows(0, 3))
        package.open_gallery(url).close()
        raise_after = store
        with psycopg.connect(url, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'edgerecall'"
            )
        assert len(store) == 3  # it connects again
        with psycopg.connect(url, autocommit=True) as other:
            other.execute("DROP TABLE products")
        try:
            len(raise_after)
        finally:
            store.close()
    assert "does not exist" in str(error.value) and "\n" not in str(error.value)
