"""Nothing half-written."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.core.files import atomic_file, atomic_folder, unpack_tar, write_text


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


@pytest.mark.parametrize("own_filter", [True, False])
@pytest.mark.parametrize("bad", ["", "../escaped", "link"])
def test_an_archive_stays_in_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own_filter: bool, bad: str
) -> None:
    """Also by the Pythons that have no filter of their own, Debian 12's 3.11.2 among them."""
    (tmp_path / "file").write_text("text")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.add(tmp_path / "file", "folder/file")
        if bad:
            member = tarfile.TarInfo(bad)
            if bad == "link":
                member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(member)
    if not own_filter:
        monkeypatch.delattr(tarfile, "data_filter", raising=False)
    into = tmp_path / "into"
    into.mkdir()
    with tarfile.open(tmp_path / "a.tar") as archive:
        if bad:
            with pytest.raises(tarfile.TarError):
                unpack_tar(archive, into)
        else:
            unpack_tar(archive, into)
            assert (into / "folder" / "file").read_text() == "text"
    assert not (tmp_path / "escaped").exists()
