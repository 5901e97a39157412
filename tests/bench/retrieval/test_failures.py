"""The failure report: the right queries, the right neighbours, and a page that stands alone."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from edgerecall.bench.retrieval.failure_report import write_failures
from edgerecall.bench.retrieval.failures import class_scores, worst_queries
from edgerecall.bench.retrieval.metrics import retrieval_scores
from edgerecall.runtimes.core.errors import InputError
from edgerecall.runtimes.preprocess.image_list import ImageList


def angles(*degrees: float) -> np.ndarray:
    return np.array([[np.cos(a), np.sin(a)] for a in np.radians(degrees)], dtype=np.float32)


# Class 7 sits together; of class 8, row 3 has strayed in between; class 9 has one image and no right answer.
ROWS = angles(0, 4, 8, 6.5, 80, 85, 120)
LABELS = np.array([7, 7, 7, 8, 8, 8, 9])


def listing(root: Path, cameras: np.ndarray | None = None) -> ImageList:
    names = [f"cup_{label}/{index}.png" for index, label in enumerate(LABELS)]
    return ImageList(root=root, paths=tuple(names), labels=LABELS, cameras=cameras)


def test_finds_the_strayed_query_and_what_stood_before_it(tmp_path: Path) -> None:
    scores = retrieval_scores(ROWS, LABELS)
    images = listing(tmp_path)
    found = worst_queries(scores, ROWS, images, None, images, 10)
    assert found[0].query == 3 and found[0].rank == 4
    assert [n.index for n in found[0].nearest] == [2, 1, 0, 4, 5] and found[0].expected.index == 4
    assert [n.relevant for n in found[0].nearest] == [False, False, False, True, True]
    assert found[0].expected.similarity == pytest.approx(np.cos(np.radians(80 - 6.5)), abs=1e-6)
    assert {failure.query for failure in found} == {i for i in range(7) if scores.first_rank[i] > 1}
    assert len(worst_queries(scores, ROWS, images, None, images, 1)) == 1


def test_a_camera_never_finds_its_own(tmp_path: Path) -> None:
    cameras = np.array([0, 0, 1, 0, 0, 1, 0])
    scores = retrieval_scores(ROWS, LABELS, query_cameras=cameras)
    images = listing(tmp_path, cameras)
    failure = worst_queries(scores, ROWS, images, None, images, 1)[0]
    assert failure.query == 3 and failure.expected.index == 5 and 4 not in [n.index for n in failure.nearest]


def test_classes_with_the_worst_first(tmp_path: Path) -> None:
    classes = class_scores(listing(tmp_path), retrieval_scores(ROWS, LABELS))
    assert [c.label for c in classes] == [7, 8]  # class 9 has no query that counts
    assert classes[0].name == "cup_7" and classes[0].queries == 3
    assert [c.recall1 for c in classes] == pytest.approx([1 / 3, 2 / 3])  # row 3 stands nearest to rows 1 and 2
    assert [c.worst_rank for c in classes] == [2, 4]


def test_the_page_the_sheet_and_the_table(tmp_path: Path) -> None:
    images = listing(tmp_path)
    for index, path in enumerate(images.paths):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.new("RGB", (60, 40), (30 * index, 90, 200)).save(tmp_path / path)
    (tmp_path / images.paths[0]).write_bytes(b"gone")  # unreadable by now: an empty thumbnail
    scores = retrieval_scores(ROWS, LABELS)
    failures = worst_queries(scores, ROWS, images, None, images, 10)
    arguments = (scores, class_scores(images, scores), failures, images, images, "<made by>")
    page = write_failures(tmp_path / "report", *arguments).read_text()
    assert page.count("data:image/jpeg;base64,") == 7 * len(failures) and "http" not in page
    assert "&lt;made by&gt;" in page and "at rank <b>4</b>" in page
    sheet = Image.open(tmp_path / "report" / "worst_queries.png")
    assert sheet.size == (7 * 128, len(failures) * 144)
    assert sheet.getpixel((6, 6)) == (0x57, 0x60, 0x6A) and sheet.getpixel((128 + 6, 6)) == (0xCF, 0x22, 0x2E)
    with (tmp_path / "report" / "classes.csv").open() as stream:
        assert [row["label"] for row in csv.DictReader(stream)] == ["7", "8"]
    write_failures(tmp_path / "report", *arguments)  # its own report is replaced
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="not replaced"):
        write_failures(tmp_path / "mine", *arguments)


def test_nothing_failed(tmp_path: Path) -> None:
    rows, labels = angles(0, 1, 90, 91), np.array([0, 0, 1, 1])
    images = ImageList(root=tmp_path, paths=("a/1", "a/2", "b/1", "b/2"), labels=labels, cameras=None)
    scores = retrieval_scores(rows, labels)
    assert worst_queries(scores, rows, images, None, images, 5) == []
    page = write_failures(tmp_path / "r", scores, class_scores(images, scores), [], images, images, "x")
    assert "The 0 worst queries" in page.read_text()
