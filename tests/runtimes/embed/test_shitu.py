"""Configs of PP-ShiTu: the gallery that its IndexProcess describes, and what its predict_system would answer."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from edgerecall.runtimes.bundle.bundle import Bundle
from edgerecall.runtimes.gallery.disk_gallery import DiskGallery

Run = Callable[..., subprocess.CompletedProcess[str]]
OneLine = Callable[..., None]
Make = Callable[..., Bundle]


def config(data: Path, **index: Any) -> dict[str, Any]:
    """All keys that the reference's files have."""
    return {
        "Global": {
            "infer_imgs": str(data / "query"),
            "det_inference_model_dir": "./models/picodet",
            "rec_inference_model_dir": "bundle",
            "runtime": "fake",
            "rec_nms_thresold": 0.05,
            "batch_size": 1,
            "image_shape": [3, 640, 640],
            "threshold": 0.2,
            "max_det_results": 5,
            "label_list": ["foreground"],
            "use_gpu": False,
            "enable_mkldnn": True,
            "cpu_num_threads": 10,
            "enable_benchmark": True,
            "use_fp16": False,
            "ir_optim": True,
            "use_tensorrt": False,
            "gpu_mem": 8000,
            "enable_profile": False,
        },
        "DetPreProcess": {"transform_ops": [{"DetResize": {"target_size": [640, 640]}}, {"DetPermute": {}}]},
        "DetPostProcess": {},
        "RecPreProcess": None,
        "RecPostProcess": None,
        "IndexProcess": {
            "index_method": "HNSW32",
            "image_root": str(data),
            "index_dir": "index",
            "data_file": "list.txt",
            "index_operation": "new",
            "delimiter": "\t",
            "dist_type": "IP",
            "embedding_size": 16,
            "batch_size": 32,
            "return_k": 5,
            "score_thres": 0.5,
            **index,
        },
    }


@pytest.fixture
def place(tmp_path: Path, data: Path, fake_bundle: Make) -> Path:
    """A bundle, a gallery list with texts as labels, and two queries: an image of it, and two side by side."""
    fake_bundle()
    names = [line.rsplit(" ", 1)[0] for line in (data / "test_list.txt").read_text().splitlines()][::4]
    (tmp_path / "list.txt").write_text("".join(f"{name}\tgreen tea {i}\n" for i, name in enumerate(names)), "utf-8")
    (tmp_path / "query").mkdir()
    first, second = (Image.open(data / name).convert("RGB") for name in names[:2])
    first.save(tmp_path / "query" / "a.png")
    both = Image.new("RGB", (first.width + second.width, max(first.height, second.height)))
    both.paste(first, (0, 0))
    both.paste(second, (first.width, 0))
    both.save(tmp_path / "query" / "b.png")
    boxes = [[0, 0, first.width, first.height], [first.width, 0, both.width + 9, second.height]]
    (tmp_path / "boxes.jsonl").write_text(json.dumps({"image": "b.png", "boxes": boxes}) + "\n")
    return tmp_path


def write(place: Path, data: Path, **index: Any) -> Path:
    settings = config(data, **index)
    settings["Global"]["infer_imgs"] = "query"
    if index.get("dist_type") == "hamming":
        settings["RecPostProcess"] = {"main_indicator": "Binarize", "Binarize": {"method": "sign"}}
    path = place / "shitu.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


@pytest.mark.parametrize("kind", ["IP", "hamming", "binary"])
def test_built_appended_removed_and_searched(place: Path, data: Path, edgerecall: Run, kind: str) -> None:
    extra: dict[str, Any] = {}
    if kind != "IP":
        extra = {"dist_type": "hamming", "hamming_radius": 2, "index_method": "Flat"}
    if kind == "binary":  # not a key of the reference's
        extra["storage"] = kind
    path = write(place, data, **extra)
    index = ("gallery", "index", "-c", path)
    result = edgerecall(*index, cwd=place)
    assert result.stdout == "index: 9 rows added, 0 images skipped, 9 rows\n", result.stderr
    assert edgerecall(*index, cwd=place).stdout.endswith("9 rows\n")  # anew

    told = edgerecall("predict", "-c", path, "--boxes", "boxes.jsonl", cwd=place)
    alone, both = map(json.loads, told.stdout.splitlines())
    exact = 0.0 if kind != "IP" else pytest.approx(1, abs=1e-5)
    assert alone[0]["rec_docs"] == "green tea 0" and alone[0]["rec_scores"] == exact and alone[0]["bbox"][:2] == [0, 0]
    with Image.open(place / "query" / "b.png") as picture:
        assert {one["rec_docs"] for one in both} >= {"green tea 0", "green tea 1"}
        assert all(one["rec_scores"] == exact for one in both[:2]) and both[1]["bbox"][2] <= picture.width
    named = edgerecall("predict", "-c", path, "--format", "jsonl", cwd=place).stdout.splitlines()
    assert [json.loads(line)["image"] for line in named] == ["query/a.png", "query/b.png"]
    assert "there is no detector in models/picodet" in edgerecall("predict", "-c", path, cwd=place).stderr

    lines = (place / "list.txt").read_text().splitlines(keepends=True)
    (place / "list.txt").write_text(lines[0])
    remove = edgerecall(*index, "-o", "IndexProcess.index_operation=remove", cwd=place)
    assert remove.stdout == "index: 1 rows removed, 0 images skipped, 8 rows\n"
    alone = json.loads(edgerecall("predict", "-c", path, cwd=place).stdout.splitlines()[0])
    assert "green tea 0" not in [one["rec_docs"] for one in alone]
    append = edgerecall(*index, "-o", "IndexProcess.index_operation=append", cwd=place)
    assert append.stdout == "index: 1 rows added, 0 images skipped, 9 rows\n"
    with DiskGallery(place / "index") as gallery:
        assert gallery.manifest.storage == extra.get("storage", "float32") and (gallery.manifest.model is not None)


def test_signs_and_numbers_are_not_mixed(place: Path, data: Path, edgerecall: Run, one_line: OneLine) -> None:
    path = write(place, data, dist_type="hamming", hamming_radius=2)
    edgerecall("gallery", "index", "-c", path, cwd=place)
    query = place / "query" / "a.png"
    refused = edgerecall("gallery", "search", "index", "bundle", query, "--runtime", "fake", cwd=place)
    one_line(refused, 2, "index: its embeddings are signs by sign, the query's not signs")
    path = write(place, data)
    one_line(edgerecall("predict", "-c", path, cwd=place), 2, "its embeddings are signs by sign")
    append = ("gallery", "index", "-c", path, "-o", "IndexProcess.index_operation=append")
    one_line(edgerecall(*append, cwd=place), 2, "its embeddings are signs by sign")
    assert edgerecall("gallery", "index", "-c", path, cwd=place).returncode == 0  # anew, with numbers
    found = edgerecall("gallery", "search", "index", "bundle", query, "--runtime", "fake", cwd=place)
    assert found.returncode == 0 and "1.0000  green tea 0" in found.stdout


def test_a_gallery_that_cannot_be_made_anew_stays(place: Path, data: Path, edgerecall: Run, one_line: OneLine) -> None:
    path = write(place, data)
    edgerecall("gallery", "index", "-c", path, cwd=place)
    (place / "list.txt").write_text("none.jpg\tx\n")
    one_line(edgerecall("gallery", "index", "-c", path, cwd=place), 2, "none of the 1 images could be read")
    with DiskGallery(place / "index", writable=True) as gallery:
        assert len(gallery) == 9
        busy = edgerecall("gallery", "index", "-c", path, cwd=place)
        one_line(busy, 2, "this gallery is open for writing already")
    assert not [one for one in place.iterdir() if one.name.startswith(".index")]


def test_nothing_near_enough(place: Path, data: Path, edgerecall: Run) -> None:
    path = write(place, data, score_thres=1.0)
    edgerecall("gallery", "index", "-c", path, cwd=place)
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (90, 90, 3), np.uint8)).save(place / "query" / "a.png")
    (place / "query" / "b.png").write_bytes(b"none")
    told = edgerecall("predict", "-c", path, cwd=place)
    assert told.stdout == "[]\n" and "skipped: query/b.png" in told.stderr and told.returncode == 0


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"embedding_size": 512}, "IndexProcess.embedding_size: the model gives 16 numbers, got 512"),
        ({"index_method": "PQ"}, "index_method"),
        ({"dist_type": "L2"}, "dist_type"),
        ({"hamming": 1}, "hamming"),
        ({"delimiter": ";"}, "expected a path and a label"),
        ({"data_file": "none.txt"}, "list none.txt: No such file"),
        ({"index_operation": "append"}, "expected a gallery, found no gallery.json in it"),
        ({"index_dir": "query"}, "query exists already: remove it or give another name"),
        ({"return_k": 10**9}, "return_k"),
    ],
)
def test_what_cannot_be(
    place: Path, data: Path, edgerecall: Run, one_line: OneLine, change: dict[str, Any], told: str
) -> None:
    one_line(edgerecall("gallery", "index", "-c", write(place, data, **change), cwd=place), 2, told)
    assert not (place / "index").exists()


def test_bad_boxes(place: Path, data: Path, edgerecall: Run, one_line: OneLine) -> None:
    path = write(place, data)
    edgerecall("gallery", "index", "-c", path, cwd=place)
    (place / "boxes.jsonl").write_text('{"image": "c.png", "boxes": []}')
    result = edgerecall("predict", "-c", path, "--boxes", "boxes.jsonl", cwd=place)
    one_line(result, 2, "boxes: 'c.png' is none of the images")
    for text in ("nonsense", "[" * 5000, '{"image": "b.png"}', '{"image": "b.png", "boxes": [[5, 5, 1, 9]]}'):
        (place / "boxes.jsonl").write_text(text)
        result = edgerecall("predict", "-c", path, "--boxes", "boxes.jsonl", cwd=place)
        one_line(result, 2, "boxes.jsonl:1: expected an image and its boxes")


@pytest.mark.runtime
def test_a_detector_finds_what_a_file_would_tell(place: Path, data: Path, edgerecall: Run, one_line: OneLine) -> None:
    from detection_models import SIDE, always

    boxes = json.loads((place / "boxes.jsonl").read_text())["boxes"]
    (place / "query" / "a.png").unlink()
    path = write(place, data)
    assert edgerecall("gallery", "index", "-c", path, cwd=place).returncode == 0
    expected = edgerecall("predict", "-c", path, "--boxes", "boxes.jsonl", cwd=place).stdout
    with Image.open(place / "query" / "b.png") as picture:
        scale = np.asarray([SIDE / picture.width, SIDE / picture.height] * 2)
    rows = [[0, score, *(np.asarray(box) * scale + 1e-4)] for score, box in zip((0.9, 0.8), boxes, strict=True)]
    always(place / "net.onnx", [*rows, [0, 0.1, 0, 0, 5, 5]])
    settings = yaml.safe_load(path.read_text())
    settings["Global"] |= {"det_inference_model_dir": "net.onnx", "image_shape": [3, SIDE, SIDE]}
    settings["DetPreProcess"]["transform_ops"] = [
        {"DetResize": {"target_size": [SIDE, SIDE], "keep_ratio": False}},
        {"DetNormalizeImage": {"mean": [0, 0, 0], "std": [1, 1, 1]}},
        {"DetPermute": {}},
    ]
    path.write_text(yaml.safe_dump(settings))
    found = edgerecall("predict", "-c", path, cwd=place)
    assert found.stdout == expected != "" and not found.stderr, found.stderr
    sealed = edgerecall("detector", "seal", "det", "-c", path, "--images", "query", cwd=place)
    assert sealed.stdout == "det: 2 boxes in 1 golden pictures\n", sealed.stderr
    (place / "net.onnx").unlink()
    run = ("predict", "-c", path, "-o", "Global.det_inference_model_dir=det")
    assert edgerecall(*run, cwd=place).stdout == expected
    assert edgerecall(*run, "-o", "Global.threshold=0.99", cwd=place).stdout == expected  # it brings its own settings
    assert "there is no detector" not in edgerecall(*run[:3], "-o", "Global.det_inference_model_dir=", cwd=place).stderr
    turned = Image.new("RGB", (90, 60), (200, 30, 30))
    turned.paste((0, 0, 0), (0, 0, 30, 30))
    exif = turned.getexif()
    exif[274] = 6
    turned.save(place / "query" / "turned.jpg", exif=exif)
    told = edgerecall(*run, cwd=place)
    assert told.stdout == expected and "turned.jpg: has an orientation (EXIF) that the detector applies" in told.stderr
    (place / "det" / "detector.json").write_text("{}")
    one_line(edgerecall(*run, cwd=place), 2, "detector.json: ")
