"""A gallery that is stopped at every step of its writing, by kill -9 and by power cuts, has all that it promised."""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.gallery import durable
from edgerecall.runtimes.gallery.check import problems
from edgerecall.runtimes.gallery.disk_gallery import DiskGallery

DIM = 8
# More by EDGERECALL_KILLS=1000.
KILLS = int(os.environ.get("EDGERECALL_KILLS", "150"))
State = dict[str, float]  # id -> the first number of its embedding


def changes(seed: int) -> Iterator[tuple[str, list[str], list[float]]]:
    """Additions, replacements, removals, compactions and indexes: verb, ids, first numbers."""
    drawn = random.Random(seed)
    there: list[str] = []
    for number in range(12):
        verb = drawn.choice(["add", "add", "add", "replace", "remove", "compact", "index"]) if there else "add"
        if verb == "add":
            ids = [f"{number}-{index}é" for index in range(drawn.choice([1, 1, 2, 5, 40]))]
            there += ids
        else:
            ids = [] if verb in ("compact", "index") else drawn.sample(there, drawn.randint(1, min(4, len(there))))
        if verb == "remove":
            there = [one for one in there if one not in ids]
        yield verb, ids, [float(drawn.randint(1, 1000)) for _ in ids]


def apply(gallery: DiskGallery, verb: str, ids: list[str], values: list[float]) -> None:
    if verb == "compact":
        gallery.compact()
    elif verb == "index":
        if len(gallery):
            gallery.build_index("faiss:HNSW4")
    elif verb == "remove":
        gallery.remove(ids)
    else:
        rows = np.ones((len(ids), DIM), np.float32)
        rows[:, 0] = values
        gallery.add(ids, rows, [f"class {one[:2]}" for one in ids], replace=verb == "replace")


def after(state: State, verb: str, ids: list[str], values: list[float]) -> State:
    left = {one: value for one, value in state.items() if verb != "remove" or one not in ids}
    return left if verb in ("remove", "compact", "index") else {**left, **dict(zip(ids, values, strict=True))}


def states(seed: int) -> list[State]:
    """What is there after so many changes."""
    found: list[State] = [{}]
    for change in changes(seed):
        found.append(after(found[-1], *change))
    return found


def content(root: Path) -> State:
    """What a gallery holds, whole and searchable."""
    with DiskGallery(root, writable=True) as gallery:
        assert problems(gallery) == []
        assert {file.path for file in gallery.manifest.files} == {one.name for one in root.iterdir()} - {
            "gallery.json",
            "lock",
        }
        found = {}
        for segment in gallery.segments:
            for row in np.flatnonzero(~segment.gone).tolist():
                found[segment.content.ids[row]] = float(segment.floats(row)[0])
        if found:
            best = gallery.search(np.eye(1, DIM, dtype=np.float32), 1)[0][0]
            assert best.similarity == max(found.values())
        assert len(gallery) == len(found)
        return found


class Stop:
    """Kills this process at the n-th step, or counts the steps."""

    def __init__(self, at: int | None) -> None:
        self.at, self.done = at, 0

    def __call__(self) -> None:
        self.done += 1
        if self.done == self.at:
            os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def every_step(stop: Stop) -> Iterator[None]:
    """Stops before and after each write, synchronisation, renaming and removal."""
    original = (durable.synchronise, durable.rename, Path.unlink, Path.open)

    def around(function: Any) -> Any:
        def called(*arguments: Any, **options: Any) -> Any:
            stop()
            result = function(*arguments, **options)
            stop()
            return result

        return called

    class Halved:
        """A stream whose writes can be stopped in their middle."""

        def __init__(self, stream: Any) -> None:
            self.stream = stream

        def __enter__(self) -> Halved:
            return self

        def __exit__(self, *_: object) -> None:
            self.stream.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self.stream, name)

        def write(self, data: Any) -> None:
            data = bytes(data)
            for part in (data[: len(data) // 2], data[len(data) // 2 :]):
                self.stream.write(part)
                self.stream.flush()
                stop()

    def opened(self: Path, mode: str = "r", *rest: Any, **options: Any) -> Any:
        stream = original[3](self, mode, *rest, **options)
        return Halved(stream) if self.name.endswith(durable.TEMPORARY) and mode == "wb" else stream

    durable.synchronise, durable.rename = around(original[0]), around(original[1])
    Path.unlink, Path.open = around(original[2]), opened  # type: ignore[method-assign]
    try:
        yield
    finally:
        durable.synchronise, durable.rename, Path.unlink, Path.open = original  # type: ignore[method-assign]


def written(root: Path, seed: int, stop: Stop, told: int) -> None:
    """All changes; a byte to `told` when one is promised to be there."""
    with every_step(stop), DiskGallery(root, writable=True) as gallery:
        for change in changes(seed):
            apply(gallery, *change)
            os.write(told, b".")


def steps(root: Path, seed: int) -> int:
    counted = Stop(None)
    reader, writer = os.pipe()
    written(root, seed, counted, writer)
    os.close(reader)
    os.close(writer)
    return counted.done


@pytest.mark.timeout(600)
def test_killed_at_every_step(tmp_path: Path) -> None:
    done = seed = 0
    stopped_within = set()
    while done < KILLS:
        expected = states(seed)
        DiskGallery.create(tmp_path / "whole", DIM).close()
        shutil.copytree(tmp_path / "whole", tmp_path / "fresh")
        count = steps(tmp_path / "whole", seed)
        assert content(tmp_path / "whole") == expected[-1] and count > 100
        chosen = random.Random(seed).sample(range(1, count + 1), min(count, 250 if KILLS > 500 else 50))
        for at in chosen:
            root = tmp_path / "killed"
            shutil.copytree(tmp_path / "fresh", root)
            reader, writer = os.pipe()
            child = os.fork()
            if child == 0:  # pragma: no cover - killed
                try:
                    written(root, seed, Stop(at), writer)
                finally:
                    os._exit(3)
            os.close(writer)
            assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
            promised = len(os.read(reader, 1 << 16))
            os.close(reader)
            found = content(root)
            assert found in (expected[promised], expected[promised + 1]), f"seed {seed}, step {at}"
            stopped_within.add(found == expected[promised])
            shutil.rmtree(root)
            done += 1
        shutil.rmtree(tmp_path / "whole")
        shutil.rmtree(tmp_path / "fresh")
        seed += 1
    assert stopped_within == {True, False}  # before and after the step that counts


@dataclass
class Disk:
    """A disk that keeps what was synchronised, and perhaps some of the rest. names: those that are on it; pending: what
    was done to names since; bytes of a file that were not synchronised are lost in part or whole.
    """

    root: Path
    names: dict[str, list[bytes | None]] = field(default_factory=dict)  # a file: [its bytes, those on the disk]
    now: dict[str, list[bytes | None]] = field(default_factory=dict)
    pending: list[tuple[str, str, str]] = field(default_factory=list)

    def look(self) -> None:
        """Notes what was written since."""
        for path in self.root.iterdir():
            if path.name not in self.now:
                self.now[path.name] = [b"", None]
                self.pending.append(("new", path.name, ""))
            self.now[path.name][0] = path.read_bytes()

    def synchronise(self, name: str) -> None:
        self.look()
        if name:
            self.now[name][1] = self.now[name][0]
        else:
            self.names, self.pending = dict(self.now), []

    def rename(self, source: str, target: str) -> None:
        self.look()
        self.now[target] = self.now.pop(source)
        self.pending.append(("rename", source, target))

    def unlink(self, name: str) -> None:
        self.look()
        if name in self.now:
            del self.now[name]
            self.pending.append(("unlink", name, ""))

    def after_a_cut(self, drawn: random.Random) -> dict[str, bytes]:
        """One of the folders that may be found."""
        files = dict(self.names)
        inodes = {**self.names, **self.now}
        kept = self.pending[: drawn.randint(0, len(self.pending))]
        if drawn.random() < 0.5:  # in any order, too
            kept = [one for one in self.pending if drawn.random() < 0.5]
        for verb, name, target in kept:
            if verb == "new":
                files[name] = inodes.get(name, [b"", None])
            elif verb == "unlink":
                files.pop(name, None)
            elif name in files:
                files[target] = self.now.get(target, files.pop(name))
                files.pop(name, None)
        found = {}
        for name, (whole, safe) in files.items():
            whole = whole or b""
            lost = drawn.choice([b"", whole[: len(whole) // 2], bytes(len(whole)), whole])
            found[name] = lost if safe is None else safe
        return found


def test_the_power_is_cut_at_every_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = random.Random(0)
    root, cut = tmp_path / "gallery", tmp_path / "cut"
    DiskGallery.create(root, DIM).close()
    disk = Disk(root)
    disk.look()
    for file in disk.now.values():
        file[1] = file[0]
    disk.synchronise("")
    seen: list[tuple[int, dict[str, bytes]]] = []
    promised = 0

    def stop() -> None:
        seen.extend((promised, disk.after_a_cut(drawn)) for _ in range(3))

    original = (durable.synchronise, durable.rename, Path.unlink)

    def synchronise(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        disk.look()
        stop()
        original[0](descriptor)
        disk.synchronise("" if path == root else path.name)
        stop()

    def rename(source: Path, target: Path) -> None:
        original[1](source, target)
        disk.rename(source.name, target.name)
        stop()

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if self.exists():
            disk.unlink(self.name)
        original[2](self, missing_ok)
        stop()

    monkeypatch.setattr(durable, "synchronise", synchronise)
    monkeypatch.setattr(durable, "rename", rename)
    monkeypatch.setattr(Path, "unlink", unlink)
    with DiskGallery(root, writable=True) as gallery:
        for change in changes(5):
            apply(gallery, *change)
            promised += 1
    monkeypatch.undo()
    expected = states(5)
    assert len(seen) > 300
    for count, files in seen:
        cut.mkdir()
        for name, data in files.items():
            (cut / name).write_bytes(data)
        assert content(cut) in expected[count : count + 2]
        shutil.rmtree(cut)


def test_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "gallery"
    with DiskGallery.create(root, DIM) as gallery:
        apply(gallery, "add", ["a", "b"], [1.0, 2.0])

        def full(descriptor: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(durable, "synchronise", full)
        with pytest.raises(InputError, match="No space left on device; free some space"):
            apply(gallery, "add", ["c"], [3.0])
        monkeypatch.undo()
        assert len(gallery) == 2
        apply(gallery, "add", ["c"], [3.0])
    assert content(root) == {"a": 1.0, "b": 2.0, "c": 3.0}
