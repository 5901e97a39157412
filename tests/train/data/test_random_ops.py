"""Random training operations: their bounds, shares and shapes; the same draw gives the same pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgerecall.runtimes.core.errors import InputError
from edgerecall.train.data.augment import Augmentation
from edgerecall.train.data.random_ops import RANDOM, RandCropImage, RandomErasing

NORMALIZE = {"NormalizeImage": {"scale": 1 / 255, "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0]}}


def picture(height: int = 40, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def applied(name: str, seed: int, image: np.ndarray | None = None, **options: Any) -> np.ndarray:
    step = RANDOM[name].model_validate(options).step("cv2")
    return step(picture() if image is None else image, np.random.default_rng(seed))


@pytest.mark.parametrize("code", [1, 0, -1])
def test_flips_by_opencvs_codes(code: int) -> None:
    import cv2

    found = [applied("RandFlipImage", seed, flip_code=code) for seed in range(40)]
    flipped = cv2.flip(picture(), code)
    same = sum((one == picture()).all() for one in found)
    assert same + sum((one == flipped).all() for one in found) == 40 and 8 < same < 32


def test_crops_stay_inside_and_have_the_shares_they_should() -> None:
    op = RandCropImage(size=(20, 24))
    rng = np.random.default_rng(1)
    for _ in range(300):
        top, left, height, width = op.box(40, 30, rng)
        assert 0 <= top <= 40 - height and 0 <= left <= 30 - width
        assert 0.06 < height * width / 1200 <= 1 and 0.6 < width / height < 1.5
    assert applied("RandCropImage", 0, size=(20, 24)).shape == (24, 20, 3)  # (width, height), as the reference has it
    assert RandCropImage(size=8).box(3, 200, rng)[2] >= 1  # a sliver


def test_pad_and_crop_of_a_size() -> None:
    padded = applied("Pad", 0, padding=5, fill=7)
    assert padded.shape == (50, 40, 3) and (padded[:5] == 7).all() and (padded[5:45, 5:35] == picture()).all()
    corners = set()
    for seed in range(60):
        crop = applied("RandCropImageV2", seed, size=[28, 39])
        (found,) = [
            (top, left)
            for top in (0, 1)
            for left in (0, 1, 2)
            if (crop == picture()[top : top + 39, left : left + 28]).all()
        ]
        corners.add(found)
    assert len(corners) == 6  # every place, the last ones too
    with pytest.raises(InputError, match="expected an image of 31 x 40 pixels at least, got 30 x 40"):
        applied("RandCropImageV2", 0, size=[31, 40])


def test_rotation_and_augmix() -> None:
    turned = [applied("RandomRotation", seed, degrees=90, prob=1.0) for seed in range(5)]
    assert all(one.shape == (40, 30, 3) for one in turned) and not (turned[0] == turned[1]).all()
    assert (applied("RandomRotation", 0, degrees=10, prob=0.0) == picture()).all()
    square = picture(32, 32)
    assert (applied("RandomRotation", 3, square, degrees=[90, 90], prob=1.0) == np.rot90(square)).all()
    mixed = [applied("AugMix", seed, prob=1.0, mixture_depth=3, aug_severity=5) for seed in range(30)]
    assert all(one.shape == (40, 30, 3) and one.dtype == np.uint8 for one in mixed)
    assert sum((one != picture()).any() for one in mixed) > 20
    assert (applied("AugMix", 1, prob=1.0) == applied("AugMix", 1, prob=1.0)).all()
    # At the least severity whatever is drawn but the two that stretch contrast leaves the picture nearly as it is.
    moved = [np.abs(applied("AugMix", seed, prob=1.0, aug_severity=0.1).astype(int) - picture()) for seed in range(40)]
    assert sum(one.mean() < 2 for one in moved) > 15


def test_erasing_sets_one_rectangle_of_the_share_asked_for() -> None:
    shares, erased = [], 0
    for seed in range(200):
        tensor = np.ones((3, 50, 60), dtype=np.float32)
        RandomErasing(EPSILON="0.5", mean=(0.25, 0.5, 0.75)).erase(tensor, np.random.default_rng(seed))
        hole = tensor[0] != 1
        if hole.any():
            erased += 1
            rows, columns = np.flatnonzero(hole.any(axis=1)), np.flatnonzero(hole.any(axis=0))
            box = tensor[:, rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            assert (box == np.array([0.25, 0.5, 0.75], np.float32)[:, None, None]).all() and box[0].size == hole.sum()
            shares.append(hole.mean())
    assert 70 < erased < 130 and 0.015 < min(shares) < 0.06 and 0.3 < max(shares) < 0.42
    noise = np.ones((3, 50, 60), dtype=np.float32)
    RandomErasing(EPSILON=1, mode="pixel").erase(noise, np.random.default_rng(0))
    assert len(np.unique(noise)) > 100


def test_the_order_of_a_list_is_checked_and_its_size() -> None:
    erase = {"RandomErasing": {"EPSILON": 1, "mean": [9.0, 9.0, 9.0]}}
    good = [{"ResizeImage": {"size": [32, 32]}}, {"RandFlipImage": {}}, NORMALIZE, erase]
    tensor = Augmentation(good, "ops", "cv2", (3, 32, 32))(picture(), np.random.default_rng(0))
    assert tensor.shape == (3, 32, 32) and (tensor == 9).any() and (tensor <= 1).any()
    with pytest.raises(InputError, match=r"RandomErasing: expected after the normalisation"):
        Augmentation([erase, NORMALIZE], "ops", "cv2", (3, 32, 32))
    with pytest.raises(InputError, match=r"RandFlipImage: expected before the normalisation"):
        Augmentation([NORMALIZE, {"RandFlipImage": {}}], "ops", "cv2", (3, 32, 32))
    with pytest.raises(InputError, match="EPSILON"):
        Augmentation([NORMALIZE, {"RandomErasing": {"EPSILON": "much"}}], "ops", "cv2", (3, 32, 32))
