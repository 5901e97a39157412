"""A detector from its network to the boxes of pictures: ONNX and Paddle, sealed, spoilt and used by `predict`."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from detection_models import SIDE, always, red_squares
from PIL import Image

from edgerecall.runtimes.core.errors import BundleError, InputError
from edgerecall.runtimes.detect.detector import open_model
from edgerecall.runtimes.detect.sealed import difference, open_sealed, seal
from edgerecall.runtimes.detect.settings import DetectorSettings, parse_det_ops

Run = Callable[..., subprocess.CompletedProcess[str]]
OneLine = Callable[..., None]
OPS = [
    {"DetResize": {"target_size": [SIDE, SIDE], "keep_ratio": False, "interp": 1}},
    {"DetNormalizeImage": {"mean": [0, 0, 0], "std": [1, 1, 1], "is_scale": True}},
    {"DetPermute": {}},
]
SETTINGS = DetectorSettings(preprocess=parse_det_ops(OPS, "ops"), threshold=0.6)
# In a picture of 128 x 192, which shrinks to 2 and 3 times less.
BOX = (32, 96, 64, 144)


def picture(path: Path, *boxes: tuple[int, int, int, int]) -> Path:
    """Grey, with red boxes."""
    pixels = np.full((192, 128, 3), 90, np.uint8)
    for xmin, ymin, xmax, ymax in boxes:
        pixels[ymin:ymax, xmin:xmax] = (255, 0, 0)
    Image.fromarray(pixels).save(path)
    return path


def write(place: Path, **settings: Any) -> Path:
    keys = {"det_inference_model_dir": "net.onnx", "image_shape": [3, SIDE, SIDE], "threshold": 0.6, **settings}
    (place / "det.yaml").write_text(yaml.safe_dump({"Global": keys, "DetPreProcess": {"transform_ops": OPS}}))
    return place / "det.yaml"


def test_red_squares_are_found(tmp_path: Path) -> None:
    model = red_squares(tmp_path / "net.onnx")
    pixels = np.asarray(Image.open(picture(tmp_path / "a.png", BOX, (0, 0, 32, 48))))
    detector = open_model(model, SETTINGS)
    found = detector.detect(pixels)
    assert {one.box for one in found} == {BOX, (0, 0, 32, 48)} and {one.label for one in found} == {"foreground"}
    assert all(one.score > 0.99 for one in found)
    one = open_model(model, SETTINGS.model_copy(update={"max_results": 1})).detect(pixels)
    assert len(one) == 1
    # The finest grid's boxes, of half the score, lie in the larger ones.
    low = open_model(model, SETTINGS.model_copy(update={"threshold": 0.4, "max_results": 100})).detect(pixels)
    assert len(low) == 2 + 2 * 4
    small = SETTINGS.model_copy(update={"threshold": 0.4, "max_results": 100, "overlap": 0.2})
    assert len(open_model(model, small).detect(pixels)) == 2


@pytest.mark.train
def test_a_paddle_network_with_its_three_inputs(tmp_path: Path) -> None:
    import paddle

    class Network(paddle.nn.Layer):
        """One box of the input's pixels, as the picture has them; its score is how bright the picture is."""

        def __init__(self) -> None:
            super().__init__()
            self.one = self.create_parameter([1, 1], default_initializer=paddle.nn.initializer.Constant(1.0))

        def forward(self, image: Any, im_shape: Any, scale_factor: Any) -> Any:
            down, across = paddle.split(scale_factor, 2, axis=-1)
            box = paddle.to_tensor([[16.0, 32.0, 32.0, 48.0]]) / paddle.concat([across, down, across, down], axis=-1)
            return paddle.concat([im_shape[:, :1] * 0, image.mean() * self.one, box], axis=-1)

    inputs = [
        paddle.static.InputSpec([1, 3, SIDE, SIDE], "float32", "image"),
        paddle.static.InputSpec([1, 2], "float32", "im_shape"),
        paddle.static.InputSpec([1, 2], "float32", "scale_factor"),
    ]
    paddle.jit.save(Network(), str(tmp_path / "net" / "inference"), input_spec=inputs)
    pixels = np.full((192, 128, 3), 204, np.uint8)
    (found,) = open_model(tmp_path / "net", SETTINGS).detect(pixels)
    assert found.box == BOX and found.score == pytest.approx(0.8, abs=1e-3)
    assert open_model(tmp_path / "net", SETTINGS).detect(pixels // 2) == []


def test_sealed_verified_and_run(tmp_path: Path, edgerecall: Run, one_line: OneLine) -> None:
    red_squares(tmp_path / "my net.onnx")
    (tmp_path / "pictures").mkdir()
    (tmp_path / "pictures" / "00.png").write_bytes(b"none")
    for number, box in enumerate([BOX, (64, 0, 96, 48)]):
        picture(tmp_path / "pictures" / f"{number}.png", box)
    write(tmp_path, det_inference_model_dir="my net.onnx")
    sealed = edgerecall("detector", "seal", "det", "-c", "det.yaml", "--images", "pictures", cwd=tmp_path)
    assert sealed.stdout == "det: 2 boxes in 2 golden pictures\n", sealed.stderr
    assert "pictures/00.png" in sealed.stderr
    (tmp_path / "pictures" / "00.png").unlink()
    (tmp_path / "my net.onnx").unlink()
    checked = edgerecall("detector", "verify", "det", cwd=tmp_path)
    assert checked.returncode == 0 and checked.stdout == "golden/0.png: ok\ngolden/1.png: ok\n", checked.stderr
    (tmp_path / "pictures" / "bad.png").write_bytes(b"none")
    told = edgerecall("detector", "find", "det", "pictures", cwd=tmp_path)
    assert [json.loads(line)["boxes"] for line in told.stdout.splitlines()] == [[list(BOX)], [[64, 0, 96, 48]]]
    assert "skipped" in told.stderr and told.returncode == 0
    one_line(edgerecall("detector", "find", "det", "pictures", "--strict", cwd=tmp_path), 2, "bad.png")
    one_line(edgerecall("detector", "find", "det", "pictures/bad.png", cwd=tmp_path), 2, "none of the 1 images")

    manifest = json.loads((tmp_path / "det" / "detector.json").read_text())
    strong = json.loads(json.dumps(manifest))
    strong["golden"][0]["rows"][0][2] += 2
    (tmp_path / "det" / "detector.json").write_text(json.dumps(strong))
    wrong = edgerecall("detector", "verify", "det", cwd=tmp_path)
    assert wrong.returncode == 1 and "golden/0.png: the box 34.0, 96.0" in wrong.stdout and "1.png: ok" in wrong.stdout
    for change, about in (
        (lambda told: told.update(format_version=2), "format_version"),
        (lambda told: told["settings"].update(threshold=2), "threshold"),
        (lambda told: told["files"][0].update(path="../net.onnx"), "path"),
        (lambda told: told.update(golden=[]), "golden"),
        (lambda told: told.update(more=1), "unknown key 'more'"),
    ):
        spoilt = json.loads(json.dumps(manifest))
        change(spoilt)
        (tmp_path / "det" / "detector.json").write_text(json.dumps(spoilt))
        one_line(edgerecall("detector", "verify", "det", cwd=tmp_path), 2, about)
    (tmp_path / "det" / "detector.json").write_text("nonsense")
    one_line(edgerecall("detector", "verify", "det", cwd=tmp_path), 2, "not valid JSON")
    (tmp_path / "det" / "detector.json").write_text(json.dumps(manifest))
    with (tmp_path / "det" / "network.onnx").open("ab") as stream:
        stream.write(b"\0")
    with pytest.raises(BundleError, match="is not what was sealed"):
        open_sealed(tmp_path / "det")


def test_what_cannot_be_sealed(tmp_path: Path, edgerecall: Run, one_line: OneLine) -> None:
    red_squares(tmp_path / "net.onnx")
    grey = picture(tmp_path / "grey.png")
    with pytest.raises(InputError, match=r"finds nothing in 1 pictures with a score of 0\.6"):
        seal(tmp_path / "net.onnx", SETTINGS, [grey], tmp_path / "det", "", lambda path, error: None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["grey.png", "net.onnx"]
    (tmp_path / "broken.onnx").write_bytes(b"no network")
    for settings, told in (
        ({"det_inference_model_dir": "none"}, "expected an .onnx, or a folder with inference.json"),
        ({"det_inference_model_dir": "broken.onnx"}, "ONNX Runtime does not open it"),
        ({"det_inference_model_dir": None}, "expected Global.det_inference_model_dir"),
        ({"image_shape": [3, 320, 320]}, "Global.image_shape: DetPreProcess gives (3, 64, 64)"),
        ({"threshold": 7}, "threshold"),
    ):
        write(tmp_path, **settings)
        run = edgerecall("detector", "seal", "det", "-c", "det.yaml", "--images", grey, cwd=tmp_path)
        one_line(run, 2, told)
        assert not (tmp_path / "det").exists()


def test_rounding_is_no_difference_and_all_else_is() -> None:
    rows = np.asarray([[0, 0.9, 10, 10, 50, 50], [1, 0.7, 20, 20, 60, 60], [0, 0.6004, 0, 0, 9, 9]], np.float32)
    assert difference(rows, rows, SETTINGS) is None and difference(rows[:2], rows, SETTINGS) is None  # at the threshold
    assert difference(rows + np.asarray([0, *[4e-4] * 5], np.float32), rows, SETTINGS) is None
    for at, by in ((0, 1), (1, 0.01), (2, 0.7), (5, -1)):
        other = rows.copy()
        other[0, at] += by
        assert difference(other, rows, SETTINGS) is not None, at
    assert difference(rows[1:], rows, SETTINGS) == "the box 10.0, 10.0, 50.0, 50.0 (class 0, score 0.900) is not found"
    assert "was not there" in str(difference(rows, rows[1:], SETTINGS))
    assert "was not there" in str(difference(rows[[0, 0, 1, 2]], rows, SETTINGS)), "each belongs to one"


def test_the_last_place_may_be_anothers() -> None:
    two = SETTINGS.model_copy(update={"max_results": 2})
    first = np.asarray([[0, 0.9, 10, 10, 50, 50], [0, 0.8002, 0, 0, 9, 9]], np.float32)
    other = np.asarray([[0, 0.9, 10, 10, 50, 50], [0, 0.8001, 70, 70, 90, 90]], np.float32)
    assert difference(first, other, two) is None
    other[1, 1] = 0.75
    assert difference(first, other, two) is None, "less than the last of the full ones"
    assert difference(first[1:], first, two) is not None


def test_classes_without_a_label(tmp_path: Path) -> None:
    model = always(tmp_path / "net.onnx", [[3, 0.9, 1, 2, 9.7, 8]])
    (found,) = open_model(model, SETTINGS).detect(np.zeros((50, 40, 3), np.uint8))
    assert found.label == "class 3" and found.box == (0, 1, 6, 6), "it does not know the picture's size"
    assert (
        open_model(always(model, [[0, 0.9, 10.2, 2, 10.9, 8]]), SETTINGS).detect(np.zeros((64, 64, 3), np.uint8)) == []
    )


def test_a_network_of_two_files_is_not_sealed_as_one(tmp_path: Path, edgerecall: Run, one_line: OneLine) -> None:
    import onnx

    red_squares(tmp_path / "net.onnx")
    onnx.save(onnx.load(tmp_path / "net.onnx"), tmp_path / "two.onnx", save_as_external_data=True, size_threshold=0)
    grey = picture(tmp_path / "a.png", BOX)
    write(tmp_path, det_inference_model_dir="two.onnx")
    run = edgerecall("detector", "seal", "det", "-c", "det.yaml", "--images", grey, cwd=tmp_path)
    one_line(run, 2, "two.onnx: cannot be opened from its own file alone")
    assert not (tmp_path / "det").exists()
