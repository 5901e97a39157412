"""What applications do to an image besides the preprocessing's own steps: faults tried by name, alone and in pairs."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from ...runtimes.core.errors import ImageError
from ...runtimes.preprocess.comparison import difference
from ...runtimes.preprocess.images import Pixels, decode_rgb
from ...runtimes.preprocess.ops import FILTERS, Normalize, Preprocess, ResizeExact, ResizeShort
from ...runtimes.preprocess.pipeline import apply_geometry, preprocess_pixels
from .pixel_trace import variations

Tensor = NDArray[np.float32]
# Where a fault acts: on the file, on decoded pixels, on the list of operations, on what resize and crop gave, on the
# tensor. They act in this order.
Place = Literal["bytes", "decoded", "operations", "cropped", "tensor"]
PLACES: tuple[Place, ...] = ("bytes", "decoded", "operations", "cropped", "tensor")
QUALITIES = (75, 95, 90, 85, 80, 50)  # of JPEG, as libraries choose them
GAMMAS = (2.2, 1 / 2.2, 1.8, 1 / 1.8, 2.0, 0.5, 2.4, 1 / 2.4, 1.5, 1 / 1.5)
GAPS = (2.0, 3.0, 1.0, 1.5)
FIRST_SIZES = (224, 256, 512, 128, 320, 640)
Change = Callable[[Any], Any]


@dataclass(frozen=True)
class InputFault:
    """A fault by name. change: bytes -> bytes, uint8 `(h, w, 3)` -> the same, Preprocess -> Preprocess or tensor ->
    tensor, by its place. reducing_gap: of Pillow's resize, in the operations' first one. hides: whether nothing is like
    the sound tensor any more, so that a second fault cannot be seen beside it.
    """

    name: str
    place: Place
    change: Change
    reducing_gap: float | None = None
    hides: bool = False


def jpeg(data: bytes, quality: int) -> bytes:
    """Decoded and encoded again."""
    out = io.BytesIO()
    Image.open(io.BytesIO(data)).convert("RGB").save(out, "JPEG", quality=quality)
    return out.getvalue()


def draft(data: bytes, side: int) -> bytes:
    """As Pillow's `draft` decodes a JPEG: at a half, a quarter or an eighth."""
    image = Image.open(io.BytesIO(data))
    image.draft("RGB", (side, side))
    out = io.BytesIO()
    image.convert("RGB").save(out, "PNG")
    return out.getvalue()


def gray(pixels: Pixels) -> Pixels:
    """Pillow's luma in all three channels."""
    return np.array(Image.fromarray(pixels).convert("L").convert("RGB"))


def gamma(pixels: Pixels, power: float) -> Pixels:
    """By a table of 256 values, rounded."""
    table = np.round(255 * (np.arange(256) / 255) ** power).astype(np.uint8)
    return np.ascontiguousarray(table[pixels])


def flipped(pixels: Pixels, axes: tuple[int, ...]) -> Pixels:
    """Mirrored."""
    return np.ascontiguousarray(np.flip(pixels, axes))


def rotated(pixels: Pixels, turns: int) -> Pixels:
    """By quarters, to the left."""
    return np.ascontiguousarray(np.rot90(pixels, turns))


def interleaved(tensor: Tensor) -> Tensor:
    """`(H, W, 3)` read as if it were `(3, H, W)`."""
    return np.ascontiguousarray(tensor.transpose(1, 2, 0)).reshape(tensor.shape)


def planar(tensor: Tensor) -> Tensor:
    """`(3, H, W)` turned as if it were `(H, W, 3)`."""
    _, height, width = tensor.shape
    turned = tensor.reshape(height, width, 3).transpose(2, 0, 1)
    return np.ascontiguousarray(turned)


def as_half(tensor: Tensor) -> Tensor:
    """Through float16."""
    return tensor.astype(np.float16).astype(np.float32)


def as_bfloat16(tensor: Tensor) -> Tensor:
    """Through bfloat16, cut."""
    return (np.ascontiguousarray(tensor).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)


def swapped(preprocess: Preprocess, fields: tuple[str, ...], order: tuple[int, int, int]) -> Preprocess:
    """With the channels of mean, std or both in another order."""
    old = preprocess.normalize
    update = {name: tuple(getattr(old, name)[index] for index in order) for name in fields}
    normalize = Normalize.model_validate({**old.model_dump(), **update})
    return Preprocess(ops=(*preprocess.ops[:-1], normalize))


def squashed(preprocess: Preprocess, backend: str, kind: str) -> Preprocess:
    """Resized to the output's size without keeping the aspect, and not cropped."""
    height, width = preprocess.output_shape[1:]
    resize = ResizeExact.model_validate({"height": height, "width": width, "backend": backend, "filter": kind})
    return Preprocess(ops=(preprocess.decode, resize, preprocess.normalize))


def input_faults(preprocess: Preprocess) -> Iterator[InputFault]:
    """All that are known here, for a preprocessing."""
    yield from file_faults(preprocess)
    for place in ("decoded", "cropped"):
        yield from pixel_faults(place)
    for backend, kind in (("pil", "bilinear"), ("cv2", "bilinear"), ("cv2", "area")):
        yield from second_resizes(preprocess, backend, kind)
    height, width = preprocess.output_shape[1:]
    for backend, filters in FILTERS.items():
        for kind in filters if backend != "pil12" else ():
            what = f"squashed to {width} x {height} without keeping the aspect, by {backend} {kind}"
            yield InputFault(what, "operations", partial(squashed, backend=backend, kind=kind))
    for gap in GAPS:
        yield InputFault(f"resized with Pillow's reducing_gap={gap:g}", "operations", lambda same: same, gap)
    yield from channel_faults()
    yield InputFault("HWC instead of CHW", "tensor", interleaved, hides=True)
    yield InputFault("turned from HWC to CHW although it was CHW", "tensor", planar, hides=True)
    yield InputFault("rounded to float16", "tensor", as_half)
    yield InputFault("cut to bfloat16", "tensor", as_bfloat16)
    for other in variations(preprocess):
        (what,) = (difference(a, b) for a, b in zip(preprocess.ops, other.ops, strict=True) if a != b)
        yield InputFault(what, "operations", partial(instead, old=preprocess, new=other))


def instead(given: Preprocess, old: Preprocess, new: Preprocess) -> Preprocess:
    """`given` with the operations that `new` changes in `old`. ImageError where they are not there any more."""
    if len(given.ops) != len(old.ops):
        raise ImageError("other operations")
    return Preprocess(ops=tuple(g if o == n else n for g, o, n in zip(given.ops, old.ops, new.ops, strict=True)))


def file_faults(preprocess: Preprocess) -> Iterator[InputFault]:
    """Of the file."""
    side = preprocess.output_shape[1]
    for quality in QUALITIES:
        yield InputFault(f"encoded again as JPEG of quality {quality}", "bytes", partial(jpeg, quality=quality))
    for size in sorted({side, 2 * side, 256, 512}):
        what = f"decoded at a reduced size (Pillow's draft, {size} x {size})"
        yield InputFault(what, "bytes", partial(draft, side=size))


def pixel_faults(place: Place) -> Iterator[InputFault]:
    """Of colours and directions; where an image was turned can seldom be told, and is not."""
    when = "before the resize" if place == "decoded" else "after the crop"
    yield InputFault(f"gray instead of colour, {when}", place, gray)
    for axes, how in (((1,), "left to right"), ((0,), "upside down")):
        yield InputFault(f"flipped {how}", place, partial(flipped, axes=axes), hides=True)
    for turns, how in ((1, "90 degrees to the left"), (2, "180 degrees"), (3, "90 degrees to the right")):
        yield InputFault(f"rotated by {how}", place, partial(rotated, turns=turns), hides=True)
    for power in GAMMAS:
        yield InputFault(f"gamma {power:.3g}, {when}", place, partial(gamma, power=power))


def second_resizes(preprocess: Preprocess, backend: str, kind: str) -> Iterator[InputFault]:
    """A resize before the preprocessing's own."""
    for size in dict.fromkeys((*FIRST_SIZES, preprocess.output_shape[1])):
        short = ResizeShort.model_validate({"size": size, "backend": backend, "filter": kind, "rounding": "round"})
        exact = ResizeExact.model_validate({"height": size, "width": size, "backend": backend, "filter": kind})
        for op, how in ((short, f"the shorter side to {size}"), (exact, f"to {size} x {size}")):
            yield InputFault(
                f"resized twice, first {how} by {backend} {kind}", "decoded", partial(apply_geometry, op=op)
            )


def channel_faults() -> Iterator[InputFault]:
    """Of mean and std."""
    for first, second, order in ((0, 1, (1, 0, 2)), (0, 2, (2, 1, 0)), (1, 2, (0, 2, 1))):
        for fields in (("mean",), ("std",), ("mean", "std")):
            what = f"{' and '.join(fields)} of {'RGB'[first]} and {'RGB'[second]} swapped"
            yield InputFault(what, "operations", partial(swapped, fields=fields, order=order))


def reduced(pixels: Pixels, op: Any, gap: float) -> Pixels:
    """Pillow's own resize with a reducing gap; ImageError for an operation that is none of Pillow's resizes."""
    if not isinstance(op, ResizeShort | ResizeExact) or op.backend == "cv2":
        raise ImageError("no resize of Pillow's")
    height, width = apply_geometry(pixels, op).shape[:2]
    kind = Image.Resampling[op.filter.upper()]
    return np.array(Image.fromarray(pixels).resize((width, height), kind, reducing_gap=gap))


class Workshop:
    """An image's way to the tensor with faults in it. The decoded pixels are kept between calls."""

    def __init__(self, data: bytes, preprocess: Preprocess, name: str) -> None:
        self.data, self.preprocess, self.name = data, preprocess, name
        self._decoded: dict[tuple[str, ...], Pixels] = {}

    def decoded(self, faults: tuple[InputFault, ...], preprocess: Preprocess) -> Pixels:
        """The pixels after faults of the file and of decoding."""
        early = tuple(fault for fault in faults if fault.place in ("bytes", "decoded"))
        key = (preprocess.decode.exif, *(fault.name for fault in early))
        if key not in self._decoded:
            data = self.data
            for fault in early:
                data = fault.change(data) if fault.place == "bytes" else data
            pixels = decode_rgb(data, preprocess.decode.exif, self.name)
            for fault in early:
                pixels = fault.change(pixels) if fault.place == "decoded" else pixels
            if len(self._decoded) > 64:
                self._decoded.clear()
            self._decoded[key] = pixels
        return self._decoded[key]

    def make(self, faults: tuple[InputFault, ...]) -> Tensor:
        """The tensor. ImageError where it cannot be made so."""
        try:
            return self._make(tuple(sorted(faults, key=lambda fault: PLACES.index(fault.place))))
        except ImageError:
            raise
        except Exception as error:  # of Pillow's and pydantic's own kinds
            raise ImageError(f"{self.name}: {error}") from error

    def _make(self, faults: tuple[InputFault, ...]) -> Tensor:
        preprocess = self.preprocess
        for fault in faults:
            preprocess = fault.change(preprocess) if fault.place == "operations" else preprocess
        pixels = self.decoded(faults, preprocess)
        gap = next((fault.reducing_gap for fault in faults if fault.reducing_gap), None)
        for index, op in enumerate(preprocess.geometry):
            pixels = reduced(pixels, op, gap) if gap and index == 0 else apply_geometry(pixels, op)
        for fault in faults:
            pixels = fault.change(pixels) if fault.place == "cropped" else pixels
        height, width = preprocess.output_shape[1:]
        if pixels.shape[:2] != (height, width):
            raise ImageError(f"{self.name}: another size")
        # Of the right size already: a resize to it changes nothing, and the core normalises.
        last = Preprocess(ops=(preprocess.decode, ResizeExact(height=height, width=width), preprocess.normalize))
        out = np.empty(preprocess.output_shape, dtype=np.float32)
        preprocess_pixels(np.ascontiguousarray(pixels), last, out)
        for fault in faults:
            out = fault.change(out) if fault.place == "tensor" else out
        return out


@dataclass(frozen=True)
class Cause:
    """Faults that give a tensor, and how far what they give is off by the measure asked for."""

    faults: tuple[InputFault, ...]
    error: float

    @property
    def name(self) -> str:
        """In words."""
        return " and ".join(fault.name for fault in self.faults)


def find_cause(
    workshop: Workshop, faults: list[InputFault], error_of: Callable[[Tensor], float], enough: float, paired: int = 12
) -> Cause | None:
    """The nearest fault, or pair of faults where none alone is near enough; None where no fault can be tried.

    paired: how many of the nearest are tried with every other, besides those that hide others; 0: no pairs at all.
    """
    tried = [cause for fault in faults if (cause := attempt(workshop, (fault,), error_of))]
    tried.sort(key=lambda cause: cause.error)
    if not tried or tried[0].error <= enough:
        return tried[0] if tried else None
    best = tried[0]
    singles = [cause.faults[0] for cause in tried]
    firsts = [fault for index, fault in enumerate(singles) if index < paired or (paired and fault.hides)]
    for index, first in enumerate(firsts):
        for second in singles:
            if second is first or second in firsts[:index]:
                continue
            cause = attempt(workshop, (first, second), error_of)
            if cause is not None and cause.error < best.error:
                best = cause
                if best.error <= enough:
                    return best
    return best


def attempt(workshop: Workshop, faults: tuple[InputFault, ...], error_of: Callable[[Tensor], float]) -> Cause | None:
    """None where they cannot be made."""
    try:
        return Cause(faults, error_of(workshop.make(faults)))
    except ImageError:
        return None
