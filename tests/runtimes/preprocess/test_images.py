"""Decoding equals Pillow's, and every broken or odd image is one clear line or the right pixels."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from edgerecall.runtimes import _native
from edgerecall.runtimes.core.errors import ImageError, InputError
from edgerecall.runtimes.preprocess.images import decode_rgb, find_images, load_rgb


def picture(height: int = 37, width: int = 53, seed: int = 0) -> Image.Image:
    """Smooth colours with an edge: what chroma upsampling and the IDCT get wrong first."""
    y, x = np.mgrid[0:height, 0:width]
    base = np.stack([x * 5 % 256, y * 7 % 256, (x + y) * 3 % 256], axis=2)
    base[height // 2 :, width // 2 :] = np.random.default_rng(seed).integers(0, 256, 3)
    return Image.fromarray(base.astype(np.uint8))


def encoded(image: Image.Image, kind: str = "JPEG", **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def pillow(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_any_jpeg_equals_pillow(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 120)), data.draw(st.integers(1, 120))
    mode = data.draw(st.sampled_from(["RGB", "RGB", "RGB", "L", "CMYK", "keep_rgb"]))
    options: dict[str, Any] = {
        "quality": data.draw(st.integers(1, 100)),
        "progressive": data.draw(st.booleans()),
        "restart_marker_blocks": data.draw(st.integers(0, 5)),
    }
    if mode == "RGB":
        options["subsampling"] = data.draw(st.sampled_from([0, 1, 2]))
    if mode == "keep_rgb":
        options["keep_rgb"], mode = True, "RGB"
    blob = encoded(picture(*size, seed=data.draw(st.integers(0, 99))).convert(mode), **options)
    assert (decode_rgb(blob, "ignore", "x") == pillow(blob)).all()


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_any_png_equals_pillow(data: st.DataObject) -> None:
    size = data.draw(st.integers(1, 80)), data.draw(st.integers(1, 80))
    mode = data.draw(st.sampled_from(["RGB", "RGBA", "L", "LA", "P", "P bits", "P alpha", "1", "I;16"]))
    options: dict[str, Any] = {}
    image = picture(*size)
    if mode == "I;16":
        image = Image.fromarray((np.arange(size[0] * size[1]) * 7 % 65536).astype(np.uint16).reshape(size))
    elif mode.startswith("P"):
        image = image.quantize(data.draw(st.integers(2, 16 if mode == "P bits" else 256)))
        options = {"transparency": 0} if mode == "P alpha" else {}
    else:
        image = image.convert(mode)
    blob = encoded(image, "PNG", **options)
    assert (decode_rgb(blob, "ignore", "x") == pillow(blob)).all()


def raw_png(width: int, depth: int, color: int, rows: list[bytes], *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of kinds that Pillow does not write; `rows` packed as the file holds them."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, len(rows), depth, color, 0, 0, 0)
    body = zlib.compress(b"".join(b"\0" + row for row in rows))
    parts = [chunk(b"IHDR", header), *(chunk(*c) for c in chunks), chunk(b"IDAT", body), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize(
    ("depth", "color", "channels"), [(2, 0, 1), (4, 0, 1), (1, 0, 1), (16, 0, 1), (16, 2, 3), (16, 4, 2), (16, 6, 4)]
)
def test_png_depths_that_pillow_only_reads(depth: int, color: int, channels: int) -> None:
    width = 16
    rng = np.random.default_rng(depth + color)
    rows = [rng.bytes(width * channels * depth // 8) for _ in range(5)]
    for blob in (raw_png(width, depth, color, rows), raw_png(width, depth, color, rows, (b"gAMA", b"\0\0\xb1\x8f"))):
        assert (decode_rgb(blob, "ignore", "x") == pillow(blob)).all()


def test_png_palette_shorter_than_its_indices() -> None:
    blob = raw_png(8, 8, 3, [bytes(range(8))] * 2, (b"PLTE", bytes([200, 1, 2, 3, 4, 5])))
    assert (decode_rgb(blob, "ignore", "x") == pillow(blob)).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_the_specs_choice(kind: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(picture(20, 30), kind, exif=exif)
    ignored, applied = decode_rgb(data, "ignore", "x"), decode_rgb(data, "apply", "x")
    opened = Image.open(io.BytesIO(data))
    assert (ignored == np.asarray(opened.convert("RGB"))).all() and ignored.shape == (20, 30, 3)
    assert (applied == np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))).all()


def test_a_tiff_is_upright_as_pillow_reads_it() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(picture(20, 30), "TIFF", exif=exif)
    for rule in ("ignore", "apply"):
        assert (decode_rgb(data, rule, "x") == pillow(data)).all()
    assert pillow(data).shape == (30, 20, 3)


def test_png_orientation_behind_the_pixels() -> None:
    exif = b"II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"
    blob = raw_png(4, 8, 0, [bytes([1, 2, 3, 4]), bytes([5, 6, 7, 8])])
    end = blob[-12:]
    late = (
        blob[:-12] + struct.pack(">I", len(exif)) + b"eXIf" + exif + struct.pack(">I", zlib.crc32(b"eXIf" + exif)) + end
    )
    assert decode_rgb(blob, "apply", "x").shape == (2, 4, 3)
    assert decode_rgb(late, "apply", "x")[:, :, 0].tolist() == [[5, 1], [6, 2], [7, 3], [8, 4]]


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncated(kind: str) -> None:
    data = encoded(picture(200, 300), kind)
    for share in (0.3, 0.6, 0.9):
        with pytest.raises(ImageError, match=r"x: .*(truncated|damaged)"):
            decode_rgb(data[: int(len(data) * share)], "ignore", "x")


def test_files_that_are_no_image(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("I am no picture")
    (tmp_path / "empty.jpg").write_bytes(b"")
    with pytest.raises(ImageError, match=r"text\.jpg: expected a JPEG, PNG"):
        load_rgb(tmp_path / "text.jpg")
    with pytest.raises(ImageError, match=r"empty\.jpg: expected an image, got an empty file"):
        load_rgb(tmp_path / "empty.jpg")
    with pytest.raises(ImageError, match="No such file"):
        load_rgb(tmp_path / "none.jpg")


def test_pixel_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    huge = encoded(Image.new("L", (12000, 9000)), "PNG")
    with pytest.raises(ImageError, match=r"12000 x 9000 is 108 million pixels, more than the limit of 89.48: shrink"):
        decode_rgb(huge, "ignore", "x")
    small = encoded(picture(10, 10))
    monkeypatch.setenv("EDGERECALL_MAX_PIXELS", "99")
    with pytest.raises(ImageError, match="more than the limit"):
        decode_rgb(small, "ignore", "x")
    for wrong in ("many", "²", "0", "-1", "9" * 30):
        monkeypatch.setenv("EDGERECALL_MAX_PIXELS", wrong)
        with pytest.raises(InputError, match="expected a whole number"):
            decode_rgb(small, "ignore", "x")


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_bytes_never_crash(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["JPEG", "PNG", "WEBP", "TIFF"]))
    exif = Image.Exif()
    exif[0x0112], exif[0x010F], exif[0x011A] = 6, "maker", 72.0
    blob = bytearray(encoded(picture(), kind, exif=exif))
    for _ in range(data.draw(st.integers(1, 6))):
        blob[data.draw(st.integers(0, len(blob) - 1))] = data.draw(st.integers(0, 255))
    try:
        assert decode_rgb(bytes(blob), "apply", "x").shape[2] == 3
    except ImageError as error:
        assert str(error).startswith("x: ") and "\n" not in str(error)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400))
def test_any_bytes_never_crash_the_core(blob: bytes) -> None:
    for data in (blob, b"\xff\xd8\xff" + blob, b"\x89PNG\r\n\x1a\n" + blob):
        with pytest.raises(InputError):
            _native.decode(data, True, 10**6)


def test_find_images(tmp_path: Path) -> None:
    for name in ("b.JPG", "a.png", "notes.txt", "sub/c.jpeg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [p.name for p in find_images(tmp_path)] == ["a.png", "b.JPG", "c.jpeg"]
    with pytest.raises(InputError, match="found nothing there"):
        find_images(tmp_path / "none")
    (tmp_path / "void").mkdir()
    with pytest.raises(InputError, match="no images"):
        find_images(tmp_path / "void")
