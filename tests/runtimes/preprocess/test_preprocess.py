"""Preprocessing against Paddle's own transforms, Pillow and OpenCV, one rule at a time."""

from __future__ import annotations

import io
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

from edgerecall.runtimes.core.errors import ImageError, InputError
from edgerecall.runtimes.preprocess.comparison import preprocess_difference
from edgerecall.runtimes.preprocess.ops import Decode, Normalize, Preprocess, ResizeExact, ResizeShort
from edgerecall.runtimes.preprocess.pipeline import apply_geometry, preprocess_bytes
from edgerecall.runtimes.preprocess.transform_ops import parse_transform_ops

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
TRAIN_STYLE = [
    {"Resize": {"size": 72}},
    {"CenterCrop": {"size": 64}},
    {"ToTensor": None},
    {"Normalize": {"mean": MEAN, "std": STD}},
]


def png(height: int, width: int, seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def parse(ops: list[Any], backend: Any = "pil") -> Preprocess:
    return parse_transform_ops(ops, "ops", backend, "ignore")


@pytest.mark.train
@pytest.mark.parametrize("size", [(100, 133), (133, 100), (72, 72), (73, 91), (300, 65), (500, 71)])
def test_equals_paddles_transforms(size: tuple[int, int]) -> None:
    """What training saw: Paddle's own Resize, CenterCrop, ToTensor and Normalize on a Pillow image."""
    from paddle.vision import transforms

    steps = [transforms.Resize(72), transforms.CenterCrop(64), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    image = Image.open(io.BytesIO(png(*size))).convert("RGB")
    expected = np.asarray(transforms.Compose(steps)(image))
    got = preprocess_bytes(png(*size), parse(TRAIN_STYLE), "x")
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-6)


def test_deployment_style_equals_opencv() -> None:
    ops = [
        {"ResizeImage": {"resize_short": 72}},
        {"CropImage": {"size": 64}},
        {"NormalizeImage": {"scale": "1.0/255.0", "mean": MEAN, "std": STD, "order": ""}},
        {"ToCHWImage": None},
    ]
    data = png(101, 150)
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    resized = cv2.resize(pixels, (round(150 * 72 / 101), 72), interpolation=cv2.INTER_LINEAR)
    left = (resized.shape[1] - 64) // 2
    crop = resized[4:68, left : left + 64].astype(np.float32)
    expected = (crop * np.float32(1 / 255) - np.float32(MEAN)) / np.float32(STD)
    got = preprocess_bytes(data, parse(ops, "cv2"), "x")
    np.testing.assert_allclose(got, expected.transpose(2, 0, 1), rtol=0, atol=1e-6)


def test_three_resize_rules_differ() -> None:
    """The same 300 x 343 photo: truncated to 292, rounded to 293, squashed to 256."""
    common: dict[str, Any] = {"backend": "pil", "filter": "bilinear"}
    truncate = ResizeShort(size=256, rounding="truncate", **common)
    rounded = ResizeShort(size=256, rounding="round", **common)
    exact = ResizeExact(height=256, width=256, **common)
    image = np.zeros((300, 343, 3), dtype=np.uint8)
    assert apply_geometry(image, truncate).shape == (256, 292, 3)
    assert apply_geometry(image, rounded).shape == (256, 293, 3)
    assert apply_geometry(image, exact).shape == (256, 256, 3)


def test_backends_differ_and_each_is_obeyed() -> None:
    data = png(200, 200)
    results = {}
    for backend in ("pil", "cv2"):
        ops = [{"Resize": {"size": [64, 64]}}, {"ToTensor": None}, {"Normalize": {"mean": [0] * 3, "std": [1] * 3}}]
        results[backend] = preprocess_bytes(data, parse(ops, backend), "x") * 255
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    by_pillow = np.asarray(Image.fromarray(pixels).resize((64, 64), Image.Resampling.BILINEAR))
    by_opencv = cv2.resize(pixels, (64, 64), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(results["pil"], by_pillow.transpose(2, 0, 1), atol=1e-4)
    np.testing.assert_allclose(results["cv2"], by_opencv.transpose(2, 0, 1), atol=1e-4)
    assert np.abs(results["pil"] - results["cv2"]).max() > 20


def test_bgr_order_swaps_planes_and_keeps_their_mean() -> None:
    data = png(64, 64)
    resize = ResizeExact(height=64, width=64)
    mean = (0.1, 0.2, 0.3)
    rgb, bgr = (
        preprocess_bytes(data, Preprocess(ops=(Decode(), resize, Normalize(mean=mean, order=order))), "x")
        for order in ("rgb", "bgr")
    )
    std = np.float32([0.229, 0.224, 0.225])[:, None, None]
    shift = np.float32(mean)[:, None, None]
    np.testing.assert_allclose(bgr * std + shift, (rgb * std + shift)[::-1], atol=1e-6)


def test_one_pixel_and_needle_images() -> None:
    preprocess = parse(TRAIN_STYLE)
    assert preprocess_bytes(png(1, 1), preprocess, "x").shape == (3, 64, 64)
    with pytest.raises(ImageError, match="x: 1 x 30000 would grow to 72 x 2160000: too narrow"):
        preprocess_bytes(png(30000, 1), preprocess, "x")


def test_crop_larger_than_the_image() -> None:
    ops = [{"CropImage": {"size": 64}}, {"NormalizeImage": {"order": "hwc"}}, {"ToCHWImage": None}]
    with pytest.raises(ImageError, match="x: 50 x 40 is smaller than the crop of 64 x 64"):
        preprocess_bytes(png(40, 50), parse(ops), "x")


@pytest.mark.parametrize(
    ("ops", "message"),
    [
        ([], "expected a list of operations"),
        ([{"Resise": {"size": 3}}], "unknown operation; did you mean 'Resize'?"),
        ([{"Resize": {"size": 72, "sizes": 3}}], "unknown option 'sizes'"),
        ([{"Resize": {"size": 72}}, {"Normalize": None}], "expected the last resize or crop to give a fixed size"),
        ([{"Resize": {"size": [64, 64]}}, {"ToTensor": None}], "no Normalize"),
        ([{"Resize": {"size": "big"}}], "expected a size"),
        ([{"Resize": {"size": [8, 8], "interpolation": "area"}}, {"Normalize": None}], "backend pil has no filter"),
        ([{"ToTensor": None}, {"Resize": {"size": [8, 8]}}], "expected before ToTensor"),
        ([{"Resize": {"size": [8, 8]}}, {"Normalize": {"std": [1, 0, 1]}}], "numbers other than 0"),
        ([{"ResizeImage": {"size": 8}}, {"NormalizeImage": {"scale": "x/y"}}], "expected a number, got 'x/y'"),
        ([{"Resize": 3}], "expected options as a mapping"),
        ([{"Resize": {"size": [8, 8]}}, {"Normalize": {"to_rgb": True}}], "to_rgb: expected False"),
        ([{"Resize": {"size": [8, 8]}}, {"Normalize": None}, {"Normalize": None}], "a second normalisation"),
        ([{"Resize": {"size": 99999}}, {"Normalize": None}], "size: Input should be less than or equal to 8192"),
    ],
)
def test_mistakes_in_transform_ops(ops: list[Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(ops)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_what_differs_between_two_lists_is_named() -> None:
    def parsed(size: int = 64, scale: object = 1 / 255, exif: str = "ignore", crop: bool = False) -> Preprocess:
        ops: list[object] = [{"ResizeImage": {"size": size, "backend": "pil"}}, {"CropImage": {"size": 32}}]
        normalize = {"NormalizeImage": {"scale": scale, "mean": [0.5] * 3, "std": [0.5] * 3}}
        return parse_transform_ops([*ops[: 1 + crop], normalize], "ops", "cv2", exif)  # type: ignore[arg-type]

    assert preprocess_difference(parsed(), parsed(scale=0.00392157, exif="apply")) is None
    assert preprocess_difference(parsed(), parsed(scale="1.0/255.0")) is None
    assert str(preprocess_difference(parsed(), parsed(scale=0.0039))).startswith("normalize: scale 0.00392156")
    assert preprocess_difference(parsed(), parsed(size=65)) == "resize: height 64 against 65, width 64 against 65"
    assert preprocess_difference(parsed(), parsed(crop=True)) == "normalize against center_crop"
