"""`edgerecall gallery` as a user meets it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageOps

from edgerecall.runtimes.bundle.bundle import Bundle

Run = Callable[..., subprocess.CompletedProcess[str]]
OneLine = Callable[..., None]
Make = Callable[..., Bundle]
FAKE = ("--runtime", "fake")
LINES = ("--format", "jsonl", *FAKE)


@pytest.fixture
def built(tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run) -> Path:
    """A gallery of the test list."""
    fake_bundle()
    command = ("gallery", "build", "g", "bundle", "--images", data, "--list", data / "test_list.txt", *FAKE)
    result = edgerecall(*command, cwd=tmp_path)
    assert result.returncode == 0 and "g: 36 images added, 0 skipped, 36 rows" in result.stdout, result.stderr
    return tmp_path


def listed(data: Path) -> list[tuple[str, str]]:
    return [tuple(line.rsplit(" ", 1)) for line in (data / "test_list.txt").read_text().splitlines()]  # type: ignore[misc]


def test_the_journey(built: Path, data: Path, edgerecall: Run) -> None:
    name, label = listed(data)[3]
    found = edgerecall(
        "gallery", "search", "g", "bundle", data / name, "-k", "2", "--format", "jsonl", *FAKE, cwd=built
    )
    (line,) = map(json.loads, found.stdout.splitlines())
    assert line["image"] == str(data / name) and len(line["matches"]) == 2
    assert line["matches"][0]["id"] == name and line["matches"][0]["label"] == label
    assert line["matches"][0]["similarity"] == pytest.approx(1, abs=1e-5)
    text = edgerecall("gallery", "search", "g", "bundle", data / name, "-k", "1", *FAKE, cwd=built).stdout
    assert text == f"{data / name}\n    1  1.0000  {label}  {name}\n"

    facts = json.loads(edgerecall("gallery", "info", "g", "--json", cwd=built).stdout)
    assert (facts["rows"], facts["labels"], facts["storage"]) == (36, 6, "float32")
    assert "rows:                     36\n" in edgerecall("gallery", "info", "g", cwd=built).stdout

    removed = edgerecall("gallery", "remove", "g", name, "--label", listed(data)[-1][1], cwd=built)
    assert removed.stdout == "g: 7 rows removed, 29 left\n"
    again = edgerecall("gallery", "search", "g", "bundle", data / name, *LINES, cwd=built)
    assert name not in [one["id"] for one in json.loads(again.stdout)["matches"]]
    none = edgerecall("gallery", "search", "g", "bundle", data / name, "--label", "none", *FAKE, cwd=built)
    assert "nothing that near" in none.stdout

    add = ("gallery", "add", "g", "bundle", "--images", data, "--list", data / "test_list.txt", *FAKE)
    assert "7 images added, 0 skipped, 36 rows" in edgerecall(*add, "--skip", cwd=built).stdout
    assert "nothing to add, 36 rows" in edgerecall(*add, "--skip", cwd=built).stdout
    assert "36 images added, 0 skipped, 36 rows" in edgerecall(*add, "--replace", cwd=built).stdout
    assert "36 rows" in edgerecall("gallery", "compact", "g", cwd=built).stdout
    assert edgerecall("gallery", "verify", "g", "bundle", cwd=built).stdout == "g: ok, 36 rows in 1 files\n"


def test_metadata_of_a_file(built: Path, data: Path, edgerecall: Run, one_line: OneLine) -> None:
    names = [name for name, _ in listed(data)]
    rows = [
        {"id": name, "label": "passed over", "metadata": {"price": at, "名": [at, None]}}
        for at, name in enumerate(names)
    ]
    rows[1]["metadata"] = None
    file = built / "m.jsonl"
    file.write_text(
        "\n".join(json.dumps(row, ensure_ascii=False) for row in [*rows[:9], {**rows[9], "id": "?"}]), "utf-8"
    )
    build = ("gallery", "build", "h", "bundle", "--images", data, "--list", data / "test_list.txt", *FAKE)
    assert edgerecall(*build, "--metadata", "m.jsonl", cwd=built).returncode == 0
    told = edgerecall("gallery", "list", "h", cwd=built).stdout
    kept = {row["id"]: row["metadata"] for row in map(json.loads, told.splitlines())}
    assert kept == {name: rows[at]["metadata"] if at < 9 else None for at, name in enumerate(names)}
    file.write_text(told, "utf-8")  # what 'list' tells comes back
    add = ("gallery", "add", "g", "bundle", *build[4:], "--metadata", "m.jsonl")
    assert edgerecall(*add, "--replace", cwd=built).returncode == 0
    again = map(json.loads, edgerecall("gallery", "list", "g", cwd=built).stdout.splitlines())
    assert {row["id"]: row["metadata"] for row in again} == kept
    # What nothing is said of stays; null takes it away; a name is a path.
    new = [{"id": "./" + names[2], "metadata": {"new": 1}}, {"id": names[3], "metadata": None}]
    file.write_text("\n".join(map(json.dumps, new)), "utf-8")
    told = edgerecall(*add, "--replace", cwd=built).stderr
    assert "m.jsonl: has no line for 34 of 36 images" in told
    assert edgerecall(*add[:-2], "--replace", cwd=built).returncode == 0
    again = map(json.loads, edgerecall("gallery", "list", "g", cwd=built).stdout.splitlines())
    assert {row["id"]: row["metadata"] for row in again} == {**kept, names[2]: {"new": 1}, names[3]: None}
    for text, message in (
        ('{"id": 1, "metadata": {}}', "m.jsonl:1: expected"),
        ('\n{"id": "x"}', "m.jsonl:2: expected"),
        ("[" * 100, "m.jsonl:1: expected"),
        ('{"id": "x", "metadata": {"a": NaN}}', "NaN is no number of JSON"),
        ('{"id": "x", "metadata": null}', "has none of the 36 images"),
        (json.dumps(rows[0]) + "\n" + json.dumps(rows[0]), "has had a line before"),
        (json.dumps({**rows[0], "metadata": {"a": "x" * 70000}}), "m.jsonl:1: gallery: metadata: at most 65536 bytes"),
        ("", "has none of the 36 images"),
    ):
        file.write_text(text)
        one_line(edgerecall(*add, "--replace", cwd=built), 2, message)
    one_line(edgerecall(*add[:-1], "none.jsonl", "--replace", cwd=built), 2, "none.jsonl")


def test_metadata_of_what_is_added_alone(built: Path, data: Path, edgerecall: Run) -> None:
    """Of images that are there already nothing is said; two ways to write a path are two ids where they have been."""
    names = [name for name, _ in listed(data)]
    edgerecall("gallery", "remove", "g", *names[:2], cwd=built)
    rows = [{"id": names[0], "metadata": {"at": 0}}, {"id": names[5], "metadata": {"at": 5}}, {"id": "a//b"}]
    rows[2]["metadata"] = None
    text = [json.dumps(row) for row in [*rows, {"id": "a/b", "metadata": None}]]
    (built / "m.jsonl").write_text("\n".join(text))
    add = ("gallery", "add", "g", "bundle", "--images", data, "--list", data / "test_list.txt", *FAKE)
    told = edgerecall(*add, "--skip", "--metadata", "m.jsonl", cwd=built)
    assert told.returncode == 0 and "m.jsonl: has no line for 1 of 2 images" in told.stderr
    kept = map(json.loads, edgerecall("gallery", "list", "g", cwd=built).stdout.splitlines())
    assert {row["id"]: row["metadata"] for row in kept if row["metadata"]} == {names[0]: {"at": 0}}


def test_damage_is_told(built: Path, edgerecall: Run) -> None:
    (segment,) = (built / "g").glob("*.safetensors")
    data = bytearray(segment.read_bytes())
    data[-1] ^= 1
    segment.write_bytes(data)
    result = edgerecall("gallery", "verify", "g", cwd=built)
    assert result.returncode == 1 and "its sha256 differs" in result.stdout


def test_another_model_is_refused(
    built: Path, data: Path, fake_bundle: Make, edgerecall: Run, one_line: OneLine
) -> None:
    other = fake_bundle("other")
    manifest = other.root / "bundle.json"
    text = manifest.read_text().replace('"size": 72', '"size": 80')
    manifest.write_text(text)
    image = data / listed(data)[0][0]
    for command in (
        ("search", "g", "other", image),
        ("add", "g", "other", "--images", data, "--list", data / "train_list.txt"),
    ):
        refused = edgerecall("gallery", *command, *FAKE, cwd=built)
        one_line(refused, 2, "g: its images were preprocessed otherwise (resize_short: size 72 against 80)")
    one_line(edgerecall("gallery", "verify", "g", "other", cwd=built), 2, "preprocessed otherwise")


def test_folders_texts_and_bad_images(
    tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run, one_line: OneLine
) -> None:
    fake_bundle()
    photos = tmp_path / "photos"
    for number, (name, _) in enumerate(listed(data)[:4]):
        folder = photos / ["Äpfel", "green tea"][number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.open(data / name).save(folder / f"{number}.png")
    ImageOps.mirror(Image.open(data / listed(data)[0][0])).save(photos / "alone.png")
    (photos / "broken.jpg").write_bytes(b"no image")
    command = ("gallery", "build", "g", "bundle", "--images", "photos", "--label-by-folder", *FAKE)
    one_line(edgerecall(*command, "--strict", cwd=tmp_path), 2, "broken.jpg")
    assert not (tmp_path / "g").exists()
    resumed = edgerecall(*command, "--resume", cwd=tmp_path)
    assert "5 images added, 1 skipped, 5 rows" in resumed.stdout and "skipped: photos/broken.jpg" in resumed.stderr
    found = edgerecall(
        "gallery", "search", "g", "bundle", "photos/Äpfel", "-k", "1", "--format", "jsonl", *FAKE, cwd=tmp_path
    )
    best = [json.loads(line)["matches"][0] for line in found.stdout.splitlines()]
    assert [one["label"] for one in best] == ["Äpfel", "Äpfel"] and best[0]["id"] == "Äpfel/0.png"

    (tmp_path / "shitu.txt").write_text("Äpfel/0.png\tred apple 5 kg\ngreen tea/1.png\tgreen tea\textra\n", "utf-8")
    built = edgerecall(
        "gallery", "build", "h", "bundle", "--images", "photos", "--list", "shitu.txt", *FAKE, cwd=tmp_path
    )
    assert "2 images added" in built.stdout, built.stderr
    text = edgerecall(
        "gallery", "search", "h", "bundle", "photos/green tea/1.png", "-k", "1", *FAKE, cwd=tmp_path
    ).stdout
    assert "1.0000  green tea  green tea/1.png" in text


def test_labels_are_texts(tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run) -> None:
    fake_bundle()
    names = [name for name, _ in listed(data)[:4]]
    for lines, labels in (
        ([f"{names[0]} 0012345678905", f"{names[1]} 007"], ["0012345678905", "007"]),
        ([f"./{names[0]} 05 1", f"{names[1]} 06 2"], ["05", "06"]),  # a camera behind
        ([f"{names[0]} red", f"{names[1]} 4"], ["red", "4"]),
    ):
        (tmp_path / "list.txt").write_text("\n".join(lines))
        command = ("gallery", "build", "g", "bundle", "--images", data, "--list", "list.txt", *FAKE)
        assert "2 images added" in edgerecall(*command, cwd=tmp_path).stdout
        rows = map(json.loads, edgerecall("gallery", "list", "g", cwd=tmp_path).stdout.splitlines())
        assert [(one["id"], one["label"]) for one in rows] == list(zip(names, labels, strict=False))
        one = edgerecall("gallery", "list", "g", "--label", labels[1], cwd=tmp_path).stdout
        assert json.loads(one)["id"] == names[1]
        shutil.rmtree(tmp_path / "g")


def test_what_is_not_there_is_named(built: Path, data: Path, edgerecall: Run, one_line: OneLine) -> None:
    result = edgerecall("gallery", "remove", "g", "no/such.jpg", "--label", "typo", cwd=built)
    assert result.stdout == "g: 0 rows removed, 36 left\n"
    assert "2 of these are not there: no/such.jpg, typo" in result.stderr
    image = data / listed(data)[0][0]
    result = edgerecall("gallery", "search", "g", "bundle", image, "--label", "typo", *FAKE, cwd=built)
    assert "no row has the label typo" in result.stderr
    add = ("gallery", "add", "g", "bundle", "--images", data, "--list", data / "test_list.txt", *FAKE)
    one_line(edgerecall(*add, cwd=built), 2, "36 of 36 images are there already", "replace them, or leave them out")
    build = ("gallery", "build", *add[2:], "--resume", "--storage", "int8")
    one_line(edgerecall(*build, cwd=built), 2, "--storage: g was begun with float32")
    assert "nothing to add" in edgerecall("gallery", "build", *add[2:], "--resume", cwd=built).stdout


def test_names_that_no_gallery_holds_are_bad_images(
    tmp_path: Path, data: Path, fake_bundle: Make, edgerecall: Run
) -> None:
    fake_bundle()
    (tmp_path / "photos").mkdir()
    source = (data / listed(data)[0][0]).read_bytes()
    (tmp_path / "photos" / "good.jpg").write_bytes(source)
    (tmp_path / "photos" / os.fsdecode(b"\xe9.jpg")).write_bytes(source)
    result = edgerecall("gallery", "build", "g", "bundle", "--images", "photos", *FAKE, cwd=tmp_path)
    assert "1 images added, 1 skipped, 1 rows" in result.stdout and "is no text in UTF-8" in result.stderr


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a.jpg\tx\nb.jpg\n", "list.txt:2: expected a path and a label, got 'b.jpg'"),
        ("a.jpg 5\nb.jpg\tred\n", "list.txt:1: expected a path and a label, got 'a.jpg 5'"),
        ("a.jpg\tx\n./a.jpg\ty\n", "'a.jpg' is listed 2 times"),
        ("a.jpg\tx\na.jpg\ty\n", "'a.jpg' is listed 2 times"),
        ("\n\n", "expected 'path label' lines, found none"),
        ("a.jpg 1\nb.jpg 2\n", "none of the 2 images could be read"),
    ],
)
def test_bad_lists(tmp_path: Path, fake_bundle: Make, edgerecall: Run, one_line: OneLine, text: str, told: str) -> None:
    fake_bundle()
    (tmp_path / "list.txt").write_text(text)
    command = ("gallery", "build", "g", "bundle", "--images", tmp_path, "--list", "list.txt", *FAKE)
    one_line(edgerecall(*command, cwd=tmp_path), 2, told)


def test_no_gallery_and_no_request(tmp_path: Path, built: Path, edgerecall: Run, one_line: OneLine) -> None:
    one_line(edgerecall("gallery", "info", "bundle", cwd=built), 2, "found no gallery.json in it")
    result = edgerecall("gallery", "remove", "g", cwd=built)
    assert result.returncode == 2 and "what is to be removed?" in result.stderr
    one_line(
        edgerecall("gallery", "build", "g", "bundle", "--images", "bundle", *FAKE, cwd=built), 2, "g exists already"
    )
    refused = edgerecall("gallery", "build", "n", "bundle", "--images", "bundle", "--runtime", "ncnn", cwd=built)
    assert refused.returncode == 2 and not (built / "n").exists()
