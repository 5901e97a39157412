"""Many images to Parquet files: the same on Ray, killed and gone on with, as in one process at once."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet as parquet
import pytest

import edgerecall as package
from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.embed.on_ray import TEMPORARY

Make = Callable[..., Bundle]
Run = Callable[..., subprocess.CompletedProcess[str]]
OneLine = Callable[..., None]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray writes a token into the home folder."""
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def read(folder: Path) -> tuple[list[str], list[str | None], np.ndarray]:
    """Ids, labels and embeddings of all files, in order."""
    tables = [parquet.read_table(path) for path in sorted(folder.glob("part-*.parquet"))]
    ids = [one for table in tables for one in table["id"].to_pylist()]
    labels = [one for table in tables for one in table["label"].to_pylist()]
    rows = [np.asarray(table["embedding"].to_pylist(), np.float32).reshape(table.num_rows, -1) for table in tables]
    return ids, labels, np.concatenate(rows)


def equal(one: Path, other: Path) -> None:
    for a, b in zip(read(one), read(other), strict=True):
        np.testing.assert_array_equal(a, b)


def given(data: Path, *more: object) -> tuple[object, ...]:
    lists = ("--images", data, "--list", data / "test_list.txt", "--runtime", "fake")
    return (*lists, "--shard", "8", *more)


def test_files_and_what_they_tell(
    tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run, one_line: OneLine
) -> None:
    fake_bundle()
    run = edgerecall("embed", "bundle", "out", *given(data), cwd=tmp_path)
    assert run.returncode == 0 and "out: 5 files of 36 images, 0 skipped now" in run.stdout, run.stderr
    names = [line.rsplit(" ", 1) for line in (data / "test_list.txt").read_text().splitlines()]
    ids, labels, rows = read(tmp_path / "out")
    assert ids == [name for name, _ in names] and labels == [label for _, label in names]
    with package.load(tmp_path / "bundle", runtime="fake", batch_size=1) as model:
        np.testing.assert_array_equal(rows, model.embed_images([data / name for name in ids]))
    told = json.loads(parquet.read_schema(tmp_path / "out" / "part-00004.parquet").metadata[b"edgerecall"])
    assert told["part"] == 4 and told["images"] == 36 and told["runtime"] == "fake" and told["skipped"] == []
    assert len(told["bundle"]) == 64 and "embed bundle out" in told["command"] and told["tools"]["edgerecall"]

    whole = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (tmp_path / "out" / "part-00002.parquet").unlink()
    again = edgerecall("embed", "bundle", "out", *given(data, "--threads", "1"), cwd=tmp_path)
    assert "4 of 5 files are there already" in again.stderr and again.returncode == 0
    for name, content in whole.items():
        if name != "part-00002.parquet":
            assert (tmp_path / "out" / name).read_bytes() == content
    np.testing.assert_array_equal(read(tmp_path / "out")[2], rows)
    other = edgerecall("embed", "bundle", "out", *given(data)[:-1], "9", cwd=tmp_path)
    one_line(other, 2, "out: was begun with another shard: give another folder, or remove it")
    fake_bundle("second", sleep_ms=1)
    one_line(edgerecall("embed", "second", "out", *given(data), cwd=tmp_path), 2, "begun with another bundle:")
    one_line(edgerecall("embed", "bundle", "bundle", *given(data), cwd=tmp_path), 2, "bundle exists already")
    (tmp_path / "out" / "_embeddings.json").write_text("{")
    one_line(edgerecall("embed", "bundle", "out", *given(data), cwd=tmp_path), 2, "is no plan of embeddings")


def test_bad_images(tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run, one_line: OneLine) -> None:
    fake_bundle()
    images = tmp_path / "images"
    images.mkdir()
    for number, path in enumerate(sorted(data.glob("*_final/*.JPG"))[:4]):
        (images / f"{number}.jpg").write_bytes(path.read_bytes())
    (images / "2.jpg").write_bytes(b"no image")
    for name, more in (("out", ()), ("ray", ("--ray", "local", "--actors", "1"))):
        run = edgerecall(
            "embed", "bundle", name, "--images", images, "--runtime", "fake", "--shard", "3", *more, cwd=tmp_path
        )
        assert run.returncode == 0 and "1 skipped now" in run.stdout and "2.jpg: expected a JPEG" in run.stderr
        assert read(tmp_path / name)[0] == ["0.jpg", "1.jpg", "3.jpg"]
        told = json.loads(parquet.read_schema(tmp_path / name / "part-00000.parquet").metadata[b"edgerecall"])
        assert len(told["skipped"]) == 1 and "2.jpg" in told["skipped"][0]
    command = ("embed", "bundle", "strict", "--images", images, "--runtime", "fake", "--strict")
    one_line(edgerecall(*command, cwd=tmp_path), 2, "2.jpg: expected a JPEG")
    assert not list((tmp_path / "strict").glob("part-*"))


def files(folder: Path) -> int:
    return len(list(folder.glob("part-*.parquet")))


def of_ray() -> set[str]:
    """The command lines of clusters on this machine that are ours."""
    found = set()
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                line = (folder / "cmdline").read_text().replace("\0", " ")
                if TEMPORARY in line:
                    found.add(line)
    return found


def test_ray_ended_twice_and_gone_on_with(tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run) -> None:
    fake_bundle(sleep_ms=30)
    arguments = [str(one) for one in given(data, "--ray", "local", "--actors", "2")]
    arguments[arguments.index("--shard") + 1] = "2"
    command = [sys.executable, "-m", "edgerecall", "embed", "bundle", "ray", *arguments]
    before, there = of_ray(), 0
    for number, code in ((signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130)):
        with subprocess.Popen(command, cwd=tmp_path, start_new_session=True, stderr=subprocess.DEVNULL) as run:
            end = time.monotonic() + 90
            while files(tmp_path / "ray") < there + 3:
                assert run.poll() is None and time.monotonic() < end
                time.sleep(0.01)
            if number == signal.SIGKILL:
                os.killpg(run.pid, number)
            else:
                os.kill(run.pid, number)
            assert run.wait(60) == code
        end = time.monotonic() + 60
        while of_ray() - before:  # no orphan is left
            assert time.monotonic() < end, of_ray() - before
            time.sleep(0.1)
        there = files(tmp_path / "ray")
    assert 6 <= there < 18
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and f"{there} of 18 files are there already" in again.stderr, again.stderr
    one = [*arguments[: arguments.index("--ray")]]
    assert edgerecall("embed", "bundle", "one", *one, cwd=tmp_path).returncode == 0
    equal(tmp_path / "ray", tmp_path / "one")
    assert not list((tmp_path / "ray").glob(".*"))


def test_what_is_there_is_looked_at(
    tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run, one_line: OneLine
) -> None:
    fake_bundle()
    wrong = list(given(tmp_path / "nowhere"))
    wrong[3] = data / "test_list.txt"
    one_line(edgerecall("embed", "bundle", "out", *wrong, cwd=tmp_path), 2, "none of the 36 images could be read")
    one_line(edgerecall("embed", "bundle", "out", *wrong, cwd=tmp_path), 2, "none of the 36 images could be read")
    one_line(edgerecall("embed", "bundle", "out", *given(data), cwd=tmp_path), 2, "begun with another entries:")
    images = tmp_path / "images"
    images.mkdir()
    for number, path in enumerate(sorted(data.glob("*_final/*.JPG"))[:4]):
        (images / f"{number}.jpg").write_bytes(path.read_bytes())
    (tmp_path / "list.txt").write_text(f"0.jpg a\n{images}/0.jpg b\n1.jpg c\n2.jpg d\n3.jpg e\n")
    command = ("embed", "bundle", "o", "--images", images, "--list", "list.txt", "--runtime", "fake", "--shard", "2")
    assert edgerecall(*command, cwd=tmp_path).returncode == 0
    ids, labels, rows = read(tmp_path / "o")
    assert ids == ["0.jpg", f"{images}/0.jpg", "1.jpg", "2.jpg", "3.jpg"] and labels == list("abcde")
    np.testing.assert_array_equal(rows[0], rows[1])
    (tmp_path / "o" / "part-00001.parquet").write_bytes(b"")  # as a power cut may leave it
    (tmp_path / "o" / ".part-00002.parquet.abc.parquet").write_bytes(b"x")
    again = edgerecall(*command, cwd=tmp_path)
    assert "2 of 3 files are there already" in again.stderr and again.returncode == 0, again.stderr
    np.testing.assert_array_equal(read(tmp_path / "o")[2], rows)
    assert not list((tmp_path / "o").glob(".*"))


def test_a_shard_that_kills_its_actor_ends(tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run) -> None:
    fake_bundle(crash_after=0)
    run = edgerecall("embed", "bundle", "out", *given(data, "--ray", "local", "--actors", "1"), cwd=tmp_path)
    assert run.returncode == 1 and "edgerecall: Ray: " in run.stderr.splitlines()[-1] and "\x1b" not in run.stderr


def test_no_cluster(tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run, one_line: OneLine) -> None:
    fake_bundle()
    run = edgerecall("embed", "bundle", "out", *given(data, "--ray", "127.0.0.1:1"), cwd=tmp_path)
    one_line(run, 1, "Ray at 127.0.0.1:1: ", "Connection refused")
