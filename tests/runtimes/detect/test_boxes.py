"""Boxes out of a network's outputs: PicoDet's heads beside its formula written out, and what is none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from edgerecall.runtimes.core.errors import InputError, RuntimeFailed
from edgerecall.runtimes.detect.boxes import decoded, suppressed
from edgerecall.runtimes.detect.settings import parse_det_ops

SIZE, PICTURE = (40, 72), (80, 216)  # neither is a multiple of every stride


def heads(seed: int, classes: int = 3, bins: int = 8) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    cells = [math.ceil(SIZE[0] / stride) * math.ceil(SIZE[1] / stride) for stride in (8, 16, 32)]
    scores = [rng.beta(0.3, 2, (1, count, classes)).astype(np.float32) for count in cells]
    return [*scores, *(rng.normal(0, 2, (1, count, 4 * bins)).astype(np.float32) for count in cells)]


def written_out(outputs: list[np.ndarray], threshold: float, limit: float) -> list[list[float]]:
    """The same by loops over cells and boxes."""
    found: list[list[float]] = []
    for grid, stride in enumerate((8, 16, 32)):
        wide = math.ceil(SIZE[1] / stride)
        for cell in range(outputs[grid].shape[1]):
            x, y = (cell % wide + 0.5) * stride, (cell // wide + 0.5) * stride
            sides = []
            for side in outputs[3 + grid][0, cell].reshape(4, 8).astype(np.float64):
                weights = [math.exp(value) for value in side]
                sides.append(stride * sum(at * one for at, one in enumerate(weights)) / sum(weights))
            box = [x - sides[0], y - sides[1], x + sides[2], y + sides[3]]
            found += [
                [kind, float(score), *box] for kind, score in enumerate(outputs[grid][0, cell]) if score >= threshold
            ]
    kept: list[list[float]] = []
    for row in sorted(found, key=lambda row: -row[1]):
        for other in kept:
            wide = max(min(row[4], other[4]) - max(row[2], other[2]), 0)
            high = max(min(row[5], other[5]) - max(row[3], other[3]), 0)
            areas = sum((one[4] - one[2]) * (one[5] - one[3]) for one in (row, other))
            if row[0] == other[0] and wide * high > limit * (areas - wide * high):
                break
        else:
            kept.append(row)
    inside = []
    for kind, score, *box in kept:
        x0, x1 = (min(max(side * PICTURE[1] / SIZE[1], 0), PICTURE[1]) for side in box[::2])
        y0, y1 = (min(max(side * PICTURE[0] / SIZE[0], 0), PICTURE[0]) for side in box[1::2])
        inside.append([kind, score, x0, y0, x1, y1])
    return [row for row in inside if row[2] < row[4] and row[3] < row[5]]


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("limit", [0.3, 0.7])
def test_heads_are_decoded_as_the_formula_says(seed: int, limit: float) -> None:
    outputs = heads(seed)
    found = decoded(outputs, SIZE, PICTURE, 0.2, limit)
    expected = written_out(outputs, 0.2, limit)
    assert len(found) == len(expected) > 10
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-3)
    assert (np.diff(found[:, 1]) <= 0).all()


def test_boxes_with_scores_and_rows() -> None:
    boxes = np.asarray([[[0, 0, 20, 20], [1, 0, 20, 20], [30, 10, 90, 50]]], np.float32)
    scores = np.asarray([[[0.9, 0.8, 0.1]], [[0.1, 0.7, 0.6]]], np.float32).transpose(1, 0, 2)
    found = decoded([boxes, scores], SIZE, PICTURE, 0.5, 0.5)
    np.testing.assert_allclose(found[:, :2], [[0, 0.9], [1, 0.7], [1, 0.6]])
    np.testing.assert_allclose(found[:, 2:], [[0, 0, 60, 40], [3, 0, 60, 40], [90, 20, 216, 80]])
    rows = np.asarray([[0, 0.3, 5, 5, 9, 9], [1, 0.9, -4, 2, 300, 8], [0, 0.1, 0, 0, 5, 5], [0, 0.8, 400, 0, 500, 9]])
    assert decoded([rows, np.asarray([4])], SIZE, PICTURE, 0.2, 0.5).tolist() == [
        [1, pytest.approx(0.9), 0, 2, 216, 8],
        [0, pytest.approx(0.3), 5, 5, 9, 9],
    ]
    assert decoded([rows], SIZE, PICTURE, 0.25, 0.5, told=False)[1].tolist() == [0, pytest.approx(0.3), 15, 10, 27, 18]
    assert len(decoded([boxes, scores[:, :0]], SIZE, PICTURE, 0.5, 0.5)) == 0
    for nothing in (np.empty((0, 6)), np.asarray([[-1.0]])):  # as networks say it
        assert len(decoded([nothing], SIZE, PICTURE, 0.2, 0.5)) == 0


def test_what_is_no_detectors_output() -> None:
    good = heads(0)
    spoilt = [one.copy() for one in good]
    spoilt[4][0, 0, 0] = np.nan
    spoilt[1][0, 0, 0] = 1
    for outputs, told in (
        (good[:5], "expected"),
        (good[3:] + good[:3], "expected"),
        ([good[0], good[0]], "expected distributions of 4 sides"),
        ([good[0][:, 1:], good[3][:, 1:]], "expected scores of 5 x 9 cells of 8 pixels"),
        ([good[0]], "expected boxes, or scores and distributions of grids, got 1 output"),
        ([np.zeros((3, 7))], "expected rows of 6 numbers"),
        ([np.full((2, 6), np.nan)], "not finite"),
        ([np.zeros((1, 5, 4)), np.zeros((1, 2, 6))], "5 boxes, and scores of 6"),
        ([np.zeros((0, 5, 4)), np.zeros((0, 2, 5))], "expected outputs of one picture"),
        ([one[..., :0] for one in good[:3]] + good[3:], "expected classes and bins"),
        ([["text"], good[0]], "expected arrays of numbers"),
        ([np.asarray([["text"]])], "expected arrays of numbers"),
        (spoilt, "not finite"),
    ):
        with pytest.raises(RuntimeFailed, match=told):
            decoded(outputs, SIZE, PICTURE, 0.2, 0.5)


def test_suppression() -> None:
    boxes = np.asarray([[0, 0, 9, 9], [0, 0, 9, 8], [20, 20, 29, 29], [5, 5, 14, 14]])
    scores = np.asarray([0.5, 0.9, 0.8, 0.85])
    assert suppressed(boxes, scores, 0.05) == [1, 2]
    assert suppressed(boxes, scores, 20 / 170) == [1, 3, 2]
    assert suppressed(boxes, scores, 0.95) == [1, 3, 2, 0]
    assert suppressed(boxes[:0], scores[:0], 0.5) == [] == suppressed(np.zeros(0), np.zeros(0), 0.5)
    inverted = np.asarray([[10, 0, 0, 10], [50, 50, 55, 55], [70, 70, 90, 90]])
    assert suppressed(inverted, np.asarray([0.9, 0.8, 0.7]), 0.5, pixel=0) == [0, 1, 2]
    touching = np.asarray([[0, 0, 10, 10], [0, 5, 10, 15]])
    assert suppressed(touching, scores[:2], 1 / 3, pixel=0) == [1, 0] and suppressed(touching, scores[:2], 0.33, 0) == [
        1
    ]


RESIZE = {"DetResize": {"target_size": [640, 320], "keep_ratio": False, "interp": 2}}
NORMALIZE = {"DetNormalizeImage": {"mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3], "is_scale": True}}


def test_the_references_operations() -> None:
    found = parse_det_ops([RESIZE, NORMALIZE, {"DetPermute": {}}, {"DetPadStride": {"stride": 32}}], "ops")
    resize, normalize = found.ops[1], found.ops[2]
    assert found.output_shape == (3, 640, 320) and resize.backend == "cv2" and resize.filter == "bicubic"  # type: ignore[union-attr]
    assert normalize.scale == 1 / 255 and normalize.mean == (0.4, 0.5, 0.6)  # type: ignore[union-attr]
    for entries, told in (
        (None, "expected a list of operations"),
        ([], "expected DetResize, DetNormalizeImage, DetPermute"),
        ([RESIZE], "expected DetResize, DetNormalizeImage, DetPermute"),
        ([NORMALIZE, RESIZE], "in this order"),
        ([{"DetResize": {"target_size": 640}}, NORMALIZE], "keep_ratio: expected false"),
        ([{"DetResize": {"target_size": [1, 2, 3]}}, NORMALIZE], "target_size: expected a size"),
        ([{"DetResize": {"target_size": 64, "keep_ratio": False, "interp": 7}}, NORMALIZE], "interp: expected 0 to 4"),
        ([{"DetResize": {"target_size": 0, "keep_ratio": False}}, NORMALIZE], "DetResize"),
        ([RESIZE, {"DetNormalizeImage": {"mean": [0, 0, 0]}}], "expected std"),
        ([RESIZE, {"DetNormalizeImage": {"mean": [0, 0, 0], "std": [0, 1, 1]}}], "std: expected numbers other than 0"),
        ([RESIZE, NORMALIZE], "expected DetResize, DetNormalizeImage, DetPermute"),
        ([{"DetPermute": {}}, RESIZE, NORMALIZE], "in this order"),
        ([RESIZE, NORMALIZE, {"DetPermute": {}}, {"DetPermute": {}}], "in this order"),
        ([RESIZE, NORMALIZE, {"DetPermute": {"x": 1}}], "x"),
        ([RESIZE, NORMALIZE, {"DetPermute": {}}, {"DetPadStride": {"stride": 48}}], "divides target_size"),
        ([{"DetResize": {"target_size": 64, "keep_ratio": 0}}, NORMALIZE], "keep_ratio: expected true or false"),
        ([RESIZE, {"DetNormalizeImage": {"is_scale": "false"}}], "is_scale: expected true or false"),
        ([RESIZE, NORMALIZE, {"Nonsense": {}}], "in this order"),
    ):
        with pytest.raises(InputError, match=told):
            parse_det_ops(entries, "ops")
