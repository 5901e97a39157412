"""Nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgerecall.runtimes.errors import InputError
from edgerecall.runtimes.files import atomic_file, atomic_folder, write_text


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    target.write_text("old")
    with pytest.raises(RuntimeError), atomic_file(target) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert target.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["a.txt"]


def test_folder_swap(tmp_path: Path) -> None:
    target = tmp_path / "f"
    for text in ("one", "two"):
        with atomic_folder(target, replace="x") as folder:
            (folder / "x").write_text(text)
    assert (target / "x").read_text() == "two" and [p.name for p in tmp_path.iterdir()] == ["f"]
    with pytest.raises(InputError, match="exists already"), atomic_folder(target):
        pass
    with pytest.raises(KeyboardInterrupt), atomic_folder(target, replace="x"):
        raise KeyboardInterrupt
    assert (target / "x").read_text() == "two" and [p.name for p in tmp_path.iterdir()] == ["f"]


def test_only_what_we_made_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years")
    with (
        pytest.raises(InputError, match="holds no x and is not replaced"),
        atomic_folder(tmp_path / "mine", replace="x"),
    ):
        pass
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years"
    (tmp_path / "void").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "void")
    with atomic_folder(tmp_path / "link") as folder:
        (folder / "x").write_text("1")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "void" / "x").read_text() == "1"


def test_a_pipe_stays_a_pipe(tmp_path: Path) -> None:
    import os
    import stat
    import threading

    os.mkfifo(tmp_path / "pipe")
    read: list[str] = []
    thread = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_text()))
    thread.start()
    write_text(tmp_path / "pipe", "hello")
    thread.join()
    assert read == ["hello"] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_unwritable_place_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(InputError, match=r"cannot write .*; free some space or choose another place"),
        atomic_file(tmp_path / "file" / "below"),
    ):
        pass
