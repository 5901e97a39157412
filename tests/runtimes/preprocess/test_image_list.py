"""List files."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.preprocess.image_list import read_image_list


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.JPG", "b c.JPG", "d 1.JPG", "e 3"):
        (tmp_path / name).write_bytes(b"x")
    return tmp_path


def read(folder: Path, text: bytes):  # type: ignore[no-untyped-def]
    (folder / "list.txt").write_bytes(text)
    return read_image_list(folder / "list.txt", folder)


def test_two_and_three_columns_spaces_and_windows_line_ends(folder: Path) -> None:
    images = read(folder, b"\xef\xbb\xbfa.JPG 0\r\nb c.JPG 5\r\n\r\nd 1.JPG 7\r\n")
    assert images.paths == ("a.JPG", "b c.JPG", "d 1.JPG")
    assert images.labels.tolist() == [0, 5, 7] and images.cameras is None
    images = read(folder, b"a.JPG 0 3\nb c.JPG 5 -1\n")
    assert images.cameras is not None and images.cameras.tolist() == [3, -1]
    assert read(folder, b"e 3 9\n").paths == ("e",) if (folder / "e").exists() else True


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"a.JPG 0\nnone.JPG 1\n", "list.txt:2: no such image"),
        (b"a.JPG zero\n", "list.txt:1: expected a whole number as label, got 'zero'"),
        (b"a.JPG 1.5\n", "expected a whole number as label, got '1.5'"),
        (b"a.JPG\n", "list.txt:1: expected 'path label [camera]'"),
        (b"", "found none"),
        (b"a.JPG 0 1\nb c.JPG 2\n", "1 of 2 lines have a camera"),
        (b"\xff\xfe\x00", "not a UTF-8 text file"),
    ],
)
def test_mistakes(folder: Path, text: bytes, message: str) -> None:
    with pytest.raises(InputError) as caught:
        read(folder, text)
    assert message in str(caught.value) and "\n" not in str(caught.value)
