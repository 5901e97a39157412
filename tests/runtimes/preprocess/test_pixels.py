"""Bit for bit: the C++ core's pixels and tensors against Pillow, OpenCV and numpy, on thousands of generated cases."""

from __future__ import annotations

import io
import math
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from pixel_reference import PIL_BACKEND, normalize, resize

from edgerecall.runtimes import _native
from edgerecall.runtimes.core.errors import ImageError, InputError
from edgerecall.runtimes.preprocess.ops import (
    FILTERS,
    CenterCrop,
    Decode,
    Normalize,
    Preprocess,
    ResizeExact,
    ResizeShort,
)
from edgerecall.runtimes.preprocess.pipeline import apply_geometry, preprocess_batch, preprocess_pixels

LIMIT = 10**9
CASES = [(backend, name) for backend in ("pil", "pil12", "cv2") for name in FILTERS[backend]]
EXAMPLES = 250  # for each of the 17 pairs: 4,250 cases


@st.composite
def sides(draw: st.DrawFn) -> tuple[int, int]:
    """Source and target length along one axis: any, equal, or a whole-number ratio apart."""
    length = st.one_of(st.integers(1, 3000), st.integers(1, 600), st.integers(1, 40))
    source = draw(length)
    kind = draw(st.sampled_from(["any", "any", "any", "equal", "ratio"]))
    if kind == "equal":
        return source, source
    if kind == "ratio":
        ratio = draw(st.integers(1, 8))
        return max(source // ratio, 1) * ratio, max(source // ratio, 1)
    return source, draw(length)


@st.composite
def shapes(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int]]:
    """Source and target (height, width), each of at most 400,000 pixels (time, not correctness, is the reason)."""
    (height, new_height), (width, new_width) = draw(sides()), draw(sides())
    while height * width > 400_000 or new_height * new_width > 400_000:
        if height * width > 400_000:
            height, width = (height + 1) // 2, (width + 1) // 2
        else:
            new_height, new_width = (new_height + 1) // 2, (new_width + 1) // 2
    return (height, width), (new_height, new_width)


def picture(shape: tuple[int, int], seed: int) -> NDArray[np.uint8]:
    """Noise, black-and-white noise (overshoot), or a smooth ramp."""
    rng = np.random.default_rng(seed)
    if seed % 3 == 0:
        return rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    if seed % 3 == 1:
        return (rng.integers(0, 2, (*shape, 3)) * 255).astype(np.uint8)
    y, x = np.mgrid[0 : shape[0], 0 : shape[1]]
    return np.stack([y * 3 + x, y + x * 2, y * x], axis=2).astype(np.uint8)


@pytest.mark.parametrize(("backend", "name"), CASES)
def test_resize_and_crop_equal_to_the_bit(backend: Any, name: Any) -> None:
    @settings(max_examples=EXAMPLES, deadline=None)
    @given(shapes(), st.integers(0, 2**16), st.tuples(st.floats(0, 1), st.floats(0, 1)))
    def check(shape: Any, seed: int, share: tuple[float, float]) -> None:
        source, (height, width) = shape
        image = picture(source, seed)
        expected = resize(image, height, width, backend, name)
        op = ResizeExact(backend=backend, filter=name, height=height, width=width)
        assert (apply_geometry(image, op) == expected).all()
        crop = CenterCrop(height=max(int(height * share[0]), 1), width=max(int(width * share[1]), 1), margin="floor")
        top, left = (height - crop.height) // 2, (width - crop.width) // 2
        both = _native.Geometry(f"[{op.model_dump_json()},{crop.model_dump_json()}]").apply(image, LIMIT)
        assert (both == expected[top : top + crop.height, left : left + crop.width]).all()

    check()


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_chains_equal_their_steps(data: st.DataObject) -> None:
    """Any list of resizes and crops, run as one, is what its steps give one after the other."""
    image = picture((data.draw(st.integers(1, 200)), data.draw(st.integers(1, 200))), data.draw(st.integers(0, 99)))
    ops: list[Any] = []
    expected = image
    for _ in range(data.draw(st.integers(1, 4))):
        kind = data.draw(st.sampled_from(["short", "exact", "crop"]))
        backend, name = data.draw(st.sampled_from(CASES))
        if kind == "crop":
            height, width = (data.draw(st.integers(1, expected.shape[i])) for i in (0, 1))
            margin: Literal["round", "floor"] = data.draw(st.sampled_from(["round", "floor"]))
            ops.append(CenterCrop(height=height, width=width, margin=margin))
            half = round if margin == "round" else math.floor
            top, left = half((expected.shape[0] - height) / 2), half((expected.shape[1] - width) / 2)
            expected = expected[top : top + height, left : left + width]
            continue
        if kind == "exact":
            height, width = data.draw(st.integers(1, 150)), data.draw(st.integers(1, 150))
            ops.append(ResizeExact(backend=backend, filter=name, height=height, width=width))
        else:
            size = data.draw(st.integers(1, 150))
            rounding: Literal["round", "truncate"] = data.draw(st.sampled_from(["round", "truncate"]))
            ops.append(ResizeShort(backend=backend, filter=name, size=size, rounding=rounding))
            height, width = short_side(*expected.shape[:2], size, rounding)
        expected = resize(np.ascontiguousarray(expected), height, width, backend, name)
    json = f"[{','.join(op.model_dump_json() for op in ops)}]"
    assert (_native.Geometry(json).apply(image, LIMIT) == expected).all()


def short_side(height: int, width: int, size: int, rounding: str) -> tuple[int, int]:
    """The reference's two rules, as Paddle and PaddleClas write them."""
    if rounding == "round":
        ratio = float(size) / min(height, width)
        return round(height * ratio), round(width * ratio)
    if width < height:
        return int(size * height / width), size
    return size, int(size * width / height)


@settings(max_examples=300, deadline=None)
@given(
    st.integers(1, 70),
    st.integers(1, 70),
    st.floats(2**-12, 4, width=32),
    st.tuples(*[st.floats(-300, 300, width=32)] * 3),
    st.tuples(*[st.floats(2**-7, 300, width=32)] * 3),
    st.sampled_from(["rgb", "bgr"]),
)
def test_tensor_equals_float32_arithmetic(
    height: int, width: int, scale: float, mean: Any, std: Any, order: Literal["rgb", "bgr"]
) -> None:
    """Asked for: 1 ulp. Held: 0, and float16 is that rounded once."""
    image = picture((height, width), seed=height)
    rule = Normalize(scale=scale, mean=mean, std=std, order=order)
    preprocess = Preprocess(ops=(Decode(), ResizeExact(height=height, width=width), rule))
    expected = normalize(image, scale, mean, std, order)
    whole, half = np.empty((3, height, width), np.float32), np.empty((3, height, width), np.float16)
    preprocess_pixels(image, preprocess, whole)
    preprocess_pixels(image, preprocess, half)
    assert (whole == expected).all()
    with np.errstate(over="ignore"):
        assert (half == expected.astype(np.float16)).all()


def test_pillows_two_orders_of_passes_differ() -> None:
    """A tall photo: Pillow 13 resizes its height first, older ones its width; the spec names which."""
    image = picture((640, 200), 1)
    new, old = (
        apply_geometry(image, ResizeExact(backend=backend, filter="lanczos", height=64, width=190))
        for backend in ("pil", "pil12")
    )
    assert np.abs(new.astype(int) - old).max() > 3
    installed = np.asarray(Image.fromarray(image).resize((190, 64), Image.Resampling.LANCZOS))
    assert ((new if PIL_BACKEND == "pil" else old) == installed).all()


IPP_COUNT = """
import cv2, numpy as np
from edgerecall.runtimes.preprocess.pipeline import apply_geometry
from edgerecall.runtimes.preprocess.ops import FILTERS, ResizeExact
codes = {"nearest": 0, "bilinear": 1, "bicubic": 2, "area": 3, "lanczos": 4}
rng = np.random.default_rng(0)
for case in range(100):
    h, w, H, W = (int(v) for v in rng.integers(1, 200, 4))
    image = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
    for name in FILTERS["cv2"]:
        got = apply_geometry(image, ResizeExact(backend="cv2", filter=name, height=H, width=W))
        gap = np.abs(got.astype(int) - cv2.resize(image, (W, H), interpolation=codes[name])).max()
        assert gap <= (1 if name == "bicubic" else 0), (name, gap)
"""


def test_with_intels_library_only_bicubic_may_differ_and_by_one() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "OPENCV_IPP"}
    subprocess.run([sys.executable, "-c", IPP_COUNT], env=environment, check=True, timeout=120)


def test_rows_with_gaps_and_foreign_arrays() -> None:
    image = picture((50, 60), 0)
    op = ResizeExact(height=20, width=31)
    part = image[5:45, 7:50]
    assert (apply_geometry(part, op) == apply_geometry(np.ascontiguousarray(part), op)).all()
    column, line = image[:, :1], image[:1]
    for thin in (column, np.ascontiguousarray(column[:, ::-1]), line, np.ascontiguousarray(line[::-1])):
        assert (apply_geometry(thin, op) == apply_geometry(thin.copy(), op)).all()
    wrong: list[Any] = [image[:, :, ::-1], image.astype(np.float32), image[:, :, :2], image[:0], np.zeros(3, np.uint8)]
    for array in wrong:
        with pytest.raises((InputError, TypeError, ValueError)):
            apply_geometry(array, op)


def test_outputs_are_checked() -> None:
    preprocess = Preprocess(ops=(Decode(), ResizeExact(height=4, width=5), Normalize()))
    image = picture((9, 9), 0)
    wrong: list[Any] = [
        np.empty((3, 5, 4), np.float32),
        np.empty((3, 4, 5), np.float64),
        np.empty((3, 4, 10), np.float32)[:, :, ::2],
        np.empty((1, 3, 4, 5), np.float32),
        np.empty((3, 4, 5), ">f4"),
        np.empty(3 * 4 * 5 * 4 + 1, np.uint8)[1:].view(np.float32).reshape(3, 4, 5),
    ]
    for out in wrong:
        with pytest.raises((InputError, TypeError, ValueError)):
            preprocess_pixels(image, preprocess, out)
    with pytest.raises(ValueError, match="out: expected"):
        preprocess_batch([b"x", b"y"], preprocess, np.empty((1, 3, 4, 5), np.float32))
    read_only = np.empty((3, 4, 5), np.float32)
    read_only.flags.writeable = False
    with pytest.raises(ValueError):
        preprocess_pixels(image, preprocess, read_only)


@pytest.mark.parametrize(
    ("json", "message"),
    [
        ("[", "not valid JSON"),
        ("[]", "expected object, got array"),
        ('{"ops":[]}', "expected decode first, one or more"),
        ('{"ops":[{"op":"decode"},{"op":"x"},{"op":"normalize"}]}', "unknown value 'x'"),
        ('{"ops":[{"op":"decode"},{"op":"resize","height":9},{"op":"normalize"}]}', "'width' is missing"),
        ('{"ops":[{"op":"decode"},{"op":"decode"},{"op":"normalize"}]}', "expected decode first"),
    ],
)
def test_the_core_reads_specs_strictly(json: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        _native.Preprocess(json)


def test_the_core_takes_every_key_of_the_spec_and_no_other() -> None:
    spec = Preprocess(
        ops=(
            Decode(exif="apply"),
            ResizeShort(size=9, rounding="round"),
            ResizeExact(height=8, width=8, backend="cv2", filter="area"),
            CenterCrop(height=4, width=4, margin="round"),
            Normalize(order="bgr"),
        )
    )
    _native.Preprocess(spec.model_dump_json())
    with pytest.raises(InputError, match="unknown key 'colour'"):
        _native.Preprocess(spec.model_dump_json().replace('"margin"', '"colour":1,"margin"'))


def test_batch_names_and_refuses() -> None:
    preprocess = Preprocess(ops=(Decode(), ResizeExact(height=4, width=5), Normalize()))
    out = np.empty((2, 3, 4, 5), np.float32)
    first, second = preprocess_batch([b"x", b"y"], preprocess, out, names=["left", "right"])
    assert str(first).startswith("left: expected a JPEG") and str(second).startswith("right: ")
    assert str(preprocess_batch([b"x"], preprocess, out)[0]).startswith("image 0: ")
    with pytest.raises(InputError, match="zero byte"):
        preprocess_batch([Path("a.jpg\0b")], preprocess, out)


def test_batches_from_many_threads_and_a_forked_child() -> None:
    preprocess = Preprocess(ops=(Decode(), ResizeExact(height=40, width=50), Normalize()))
    stream = io.BytesIO()
    Image.fromarray(picture((90, 80), 2)).save(stream, "PNG")
    data = stream.getvalue()

    def run(_: int) -> NDArray[np.float32]:
        out = np.empty((20, 3, 40, 50), np.float32)
        assert preprocess_batch([data] * 20, preprocess, out, threads=3) == [None] * 20
        return out

    expected = run(0)
    with ThreadPoolExecutor(4) as pool:
        assert all((out == expected).all() for out in pool.map(run, range(12)))
    child = os.fork()  # the core's threads do not live in it: new ones are made
    if child == 0:
        os._exit(0 if (run(0) == expected).all() else 1)
    assert os.waitpid(child, 0)[1] == 0


def test_batch_reports_each_image(tmp_path: Any) -> None:
    preprocess = Preprocess(ops=(Decode(), ResizeExact(height=4, width=5), Normalize()))
    for index, suffix in enumerate(["jpg", "png", "bmp", "webp", "tiff"]):
        Image.fromarray(picture((9, 8), 2)).save(tmp_path / f"{index}.{suffix}", lossless=True, quality=100)
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff broken")
    (tmp_path / "text.txt").write_text("hello")
    files = sorted(tmp_path.iterdir())
    out = np.zeros((len(files), 3, 4, 5), np.float32)
    errors = preprocess_batch(files, preprocess, out, threads=3)
    assert [f.name for f, e in zip(files, errors, strict=True) if e is not None] == ["bad.jpg", "text.txt"]
    assert isinstance(errors[5], ImageError) and str(errors[5]).startswith(f"{files[5]}: damaged JPEG")
    assert (out[1] == out[2]).all() and (out[2] == out[4]).all()
